"""Batches are a pure function of seed, stage, epoch and host, and both ways give the same ones."""

import importlib.util
import os
import socket
import subprocess
import sys
import threading
from typing import NamedTuple

import cli
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from diet_jax.data import feed
from diet_jax.data.feed import Order
from diet_jax.types import InputError, Rows

N = 1003
ORDER = Order(seed=5, stage=2, epoch=1, host=0, n_hosts=1, n=N, batch=64)


class Stage(NamedTuple):
    """What a stage may look like: rows, and one array more."""

    rows: Rows
    user: np.ndarray


def stage(n=N, g=2):
    draw = np.random.default_rng(0)
    ids = draw.integers(0, 99, (n, 3), np.int32)
    dense = draw.normal(size=(n, g)).astype(np.float32)
    label, weight = np.arange(n, dtype=np.float32), np.ones(n, np.float32)
    return Stage(Rows(ids, dense, label, weight), np.arange(n, dtype=np.int32))


def epoch(order):
    """All hosts' rows of the epoch, int64 [n_batches * batch]."""
    hosts = [order._replace(host=host) for host in range(order.n_hosts)]
    steps = range(feed.n_batches(order))
    return np.concatenate([feed.batch_rows(host, k) for k in steps for host in hosts])


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in pairs)


def refused(words, call, *args, **kwargs):
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


# ---------------------------------------------------------------------------- order


@settings(max_examples=80)
@given(
    n=st.integers(1, 3000),
    share=st.integers(1, 300),
    n_hosts=st.integers(1, 4),
    chunk=st.sampled_from([1, 1, 2, 7, 64]),
    seed=st.integers(0, 2**64),
)
def test_an_epoch_has_every_row_once_and_wraps(n, share, n_hosts, chunk, seed):
    order = Order(seed, 0, 0, 0, n_hosts, n, share * n_hosts, chunk)
    rows = epoch(order)
    assert np.array_equal(np.sort(rows[:n]), np.arange(n))
    assert np.array_equal(rows, np.resize(rows[:n], len(rows)))
    assert len(rows) - n < order.batch
    # However many hosts there are, the global batch is the same.
    assert np.array_equal(rows, epoch(order._replace(n_hosts=1)))


@pytest.mark.parametrize("n", [10**9 + 7, 5 * 10**9, 10**13])
def test_a_stage_of_any_size_is_computed_batch_by_batch(n):
    order = Order(1, 0, 0, 0, 1, n, 4096)
    last = feed.n_batches(order) - 1
    rows = np.concatenate([feed.batch_rows(order, k) for k in (0, 1, last // 2, last - 1)])
    assert len(np.unique(rows)) == len(rows)
    assert rows.min() >= 0 and rows.max() < n
    assert np.abs(np.quantile(rows / n, [0.25, 0.5, 0.75]) - [0.25, 0.5, 0.75]).max() < 0.02
    tail = feed.batch_rows(order, last)
    assert np.array_equal(tail[(n - 1) % 4096 + 1 :], rows[: -n % 4096])


def test_the_order_stays_what_it_was():
    assert feed.batch_rows(Order(0, 0, 0, 0, 1, 10, 10), 0).tolist() == [
        7,
        5,
        6,
        2,
        8,
        0,
        4,
        1,
        3,
        9,
    ]
    assert feed.batch_rows(ORDER, 3)[:6].tolist() == [751, 967, 622, 668, 308, 841]
    assert feed.batch_rows(Order(7, 3, 2, 1, 4, 10**9, 4096), 99)[:3].tolist() == [
        105379104,
        978142581,
        54365162,
    ]


@pytest.mark.parametrize(
    "change", [{"seed": 6}, {"stage": 3}, {"epoch": 2}, {"seed": 1, "stage": 2, "epoch": 5}]
)
def test_seed_stage_and_epoch_each_give_another_order(change):
    a, b = epoch(ORDER)[:N], epoch(ORDER._replace(**change))[:N]
    assert (a == b).sum() < 10  # one agreement is expected by chance
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.1


def excess(counts):
    """By how many standard deviations the chi-square of equal shares is too large."""
    mean = counts.mean()
    free = counts.size - 1
    return (((counts - mean) ** 2 / mean).sum() - free) / np.sqrt(2 * free)


@pytest.mark.parametrize("n", [4, 17, 100])
def test_every_row_comes_equally_often_at_every_place(n):
    counts = np.zeros((n, n))
    for seed in range(1500):
        rows = epoch(Order(seed, 0, 0, 0, 1, n, n))
        counts[np.arange(n), rows] += 1
    assert abs(excess(counts)) < 4


def test_neighbours_in_the_order_are_unrelated_rows():
    n = 100_003
    rows = epoch(Order(3, 1, 4, 0, 1, n, n))
    pairs, *_ = np.histogram2d(rows[:-1], rows[1:], bins=20)
    steps = np.bincount(np.diff(rows) % n * 50 // n, minlength=50)
    assert abs(excess(pairs)) < 4
    assert abs(excess(steps)) < 4


def test_chunks_stay_together_and_are_shuffled():
    order = Order(1, 0, 0, 0, 1, 6400, 640, chunk=32)
    for k in range(feed.n_batches(order)):
        groups = feed.batch_rows(order, k).reshape(-1, 32)
        assert np.all(np.diff(groups) == 1)
        assert np.abs(np.diff(groups[:, 0])).mean() > 1000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n": 0}, ("n is 0", "1 or more")),
        ({"batch": 0}, ("batch is 0",)),
        ({"chunk": 0}, ("chunk is 0",)),
        ({"seed": -1}, ("seed is -1", "0 or more")),
        ({"host": -1}, ("host is -1",)),
        ({"host": 2, "n_hosts": 2}, ("n_hosts is 2", "3 or more")),
        ({"n_hosts": 3}, ("batch", "multiple of n_hosts")),
    ],
)
def test_what_is_no_order_is_refused(change, words):
    refused(words, feed.n_batches, ORDER._replace(**change))


def test_batches_that_do_not_exist():
    for k in (-1, feed.n_batches(ORDER)):
        with pytest.raises(IndexError):
            feed.batch_rows(ORDER, k)


# ---------------------------------------------------------------------------- from files


def on_disk(folder, columns):
    """The same columns as memory-mapped files."""

    def mapped(path, a):
        name = folder / jax.tree_util.keystr(path).strip(".")
        a.tofile(name)
        return np.memmap(name, a.dtype, "r", shape=a.shape)

    return jax.tree_util.tree_map_with_path(mapped, columns)


@pytest.mark.parametrize(("depth", "threads"), [(0, 1), (1, 1), (2, 1), (5, 3), (99, 2)])
def test_batches_are_the_rows_in_order(tmp_path, depth, threads):
    columns = stage()
    got = list(feed.batches(on_disk(tmp_path, columns), ORDER, depth=depth, threads=threads))
    assert len(got) == 16
    for k, batch in enumerate(got):
        rows = feed.batch_rows(ORDER, k)
        assert same(batch, jax.tree.map(lambda a, rows=rows: a[rows], columns))
        assert all(type(a) is np.ndarray for a in jax.tree.leaves(batch))


def test_resumes_in_the_middle():
    whole = list(feed.batches(stage(), ORDER))
    for start in (0, 1, 15, 16):
        rest = list(feed.batches(stage(), ORDER, start))
        assert len(rest) == 16 - start
        assert all(same(a, b) for a, b in zip(rest, whole[start:], strict=True))
    for start in (-1, 17):
        refused(("16 batches", f"not at {start}"), feed.batches, stage(), ORDER, start)


def test_without_dense_features_and_with_fewer_rows_than_a_batch():
    (batch,) = feed.batches(stage(5, g=0), ORDER._replace(n=5))
    assert batch.rows.dense.shape == (64, 0)
    assert set(batch.user.tolist()) == set(range(5))


def test_columns_must_fit():
    columns = stage()._replace(user=np.arange(9))
    refused((".user", "(9,)", "not 1003 rows"), feed.batches, columns, ORDER)


def feeders():
    return [t for t in threading.enumerate() if t.name.startswith("feed")]


class Watched:
    """A column that counts how often it was read, and may fail at one of the reads."""

    shape, dtype = (N,), np.dtype(np.float32)

    def __init__(self, fails_at=0):
        self.reads, self.fails_at = 0, fails_at

    def __array__(self, dtype=None, copy=None):
        self.reads += 1
        if self.reads == self.fails_at:
            raise OSError("the disk is gone")
        return np.zeros(N, np.float32)


def test_runs_ahead_by_depth_and_no_further():
    column = Watched()
    iterator = feed.batches(column, ORDER, depth=3)
    assert column.reads == 0
    next(iterator)
    for _ in range(100):
        if column.reads >= 4:
            break
        threading.Event().wait(0.02)
    threading.Event().wait(0.05)
    assert column.reads == 4
    iterator.close()
    assert column.reads == 4


@pytest.mark.parametrize("depth", [0, 2])
def test_what_fails_in_the_thread_is_raised_in_turn(depth):
    iterator = feed.batches(Watched(fails_at=3), ORDER, depth=depth)
    next(iterator), next(iterator)
    with pytest.raises(OSError, match="the disk is gone"):
        next(iterator)
    assert not feeders()


def test_no_thread_outlives_its_consumer():
    assert not feeders()
    iterator = feed.batches(stage(), ORDER, threads=2)
    next(iterator)
    assert feeders()
    iterator.close()
    assert not feeders()
    for _ in feed.batches(stage(), ORDER):
        break  # the only reference is dropped here
    assert not feeders()
    list(feed.batches(stage(), ORDER))
    assert not feeders()
    with pytest.raises(KeyboardInterrupt):
        for _ in feed.batches(stage(), ORDER):
            raise KeyboardInterrupt
    assert not feeders()


# ---------------------------------------------------------------------------- on devices


def rows_axis():
    mesh = jax.make_mesh((jax.device_count(),), ("data",), (AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec("data"))


def test_puts_batches_where_the_sharding_says():
    sharding = rows_axis()
    put = list(feed.batches(stage(), ORDER, sharding=sharding))
    assert all(leaf.sharding == sharding for leaf in jax.tree.leaves(put))
    assert all(same(a, b) for a, b in zip(put, feed.batches(stage(), ORDER), strict=True))


def test_numbers_that_a_device_would_cut_are_refused():
    columns = stage()._replace(user=np.arange(N) + 2**40)
    refused((".user", "int64", "leave it out"), feed.resident, columns)
    refused((".user", "int64"), feed.batches, columns, ORDER, sharding=rows_axis())
    assert next(feed.batches(columns, ORDER)).user.min() >= 2**40


@pytest.mark.parametrize(
    "order",
    [
        ORDER,
        ORDER._replace(chunk=8, batch=50),
        ORDER._replace(n=7),
        ORDER._replace(n=1, batch=1),
        ORDER._replace(n_hosts=4, host=3),
        ORDER._replace(n=1_000_000, batch=4096),
    ],
)
def test_the_device_computes_the_same_order(order):
    rows = feed.epoch_order(order)
    assert rows.dtype == np.int32
    host = np.stack([feed.batch_rows(order, k) for k in range(feed.n_batches(order))])
    assert np.array_equal(rows, host)


def test_one_compilation_orders_all_epochs():
    feed.epoch_order(ORDER)
    compiled = feed._epoch_order._cache_size()
    for number in range(3):
        feed.epoch_order(ORDER._replace(seed=number, stage=number, epoch=number))
    assert feed._epoch_order._cache_size() == compiled


def test_too_many_rows_for_int32():
    refused(("int32", "batches()"), feed.epoch_order, ORDER._replace(n=2**31))


def test_an_epoch_on_the_device_is_the_epoch_from_files(tmp_path):
    columns = on_disk(tmp_path, stage())

    @jax.jit
    def run(columns, rows):
        def step(seen, batch):
            return seen + batch.rows.label.sum(), batch

        return feed.scan_epoch(step, np.float32(0), columns, rows)

    seen, batches = run(feed.resident(columns), feed.epoch_order(ORDER))
    host = list(feed.batches(columns, ORDER))
    assert same(jax.tree.map(np.asarray, batches), jax.tree.map(lambda *a: np.stack(a), *host))
    assert seen == sum(batch.rows.label.sum() for batch in host)


def test_two_hosts_fill_one_global_batch():
    """Two processes, each with its share: no order travels between them."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    env = os.environ | {"PYTHONPATH": cli.PATHS, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    command = [sys.executable, __file__, address]
    hosts = [subprocess.Popen([*command, str(host)], env=env) for host in (0, 1)]
    try:
        assert [host.wait(60) for host in hosts] == [0, 0]
    finally:
        for host in hosts:
            host.kill()


def as_host(address, host):
    jax.distributed.initialize(address, 2, host)
    order = ORDER._replace(host=host, n_hosts=2)
    sharding = rows_axis()
    for k, batch in enumerate(feed.batches(stage(), order, sharding=sharding)):
        assert batch.rows.ids.shape == (64, 3)
        whole = feed.batch_rows(ORDER, k)
        for shard in batch.user.addressable_shards:
            assert np.array_equal(shard.data, whole[shard.index])
        assert shard.data.shape == (32,)
    everywhere = NamedSharding(sharding.mesh, PartitionSpec())
    with pytest.raises(ValueError):
        next(feed.batches(stage(), order, sharding=everywhere))


# ---------------------------------------------------------------------------- for Grain


def test_a_source_is_a_sequence_of_batches_over_epochs():
    source = feed.BatchSource(stage(), ORDER, epochs=2)
    assert len(source) == 32
    later = ORDER._replace(epoch=ORDER.epoch + 1)
    want = [*feed.batches(stage(), ORDER), *feed.batches(stage(), later)]
    assert all(same(a, b) for a, b in zip(source, want, strict=True))
    assert same(source[np.int64(20)], want[20])
    for k in (-1, 32):
        with pytest.raises(IndexError):
            source[k]
    assert repr(ORDER) in repr(source) and len(repr(source)) < 200


def test_without_grain_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    refused(("pip install grain",), feed.grain_source, stage(), ORDER)


@pytest.mark.skipif(not importlib.util.find_spec("grain"), reason="Grain is not installed")
def test_grain_reads_batches_and_resumes():
    import grain  # pyright: ignore[reportMissingImports]

    data = feed.grain_source(stage(), ORDER).map(lambda batch: batch.user)
    want = [batch.user for batch in feed.batches(stage(), ORDER)]
    iterator = iter(data.to_iter_dataset(grain.ReadOptions(1, 2)))
    got = [next(iterator) for _ in range(5)]
    again = iter(data.to_iter_dataset(grain.ReadOptions(1, 2)))
    again.set_state(iterator.get_state())
    assert same(got + list(again), want)


if __name__ == "__main__":
    as_host(sys.argv[1], int(sys.argv[2]))
