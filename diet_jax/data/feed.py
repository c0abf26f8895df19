"""Feeds training: which rows make batch k of an epoch, and how they get from files to devices.

A stage is a pytree of columns: NumPy arrays or `np.memmap` of one length n, [n] or [n, ..], such as
`Rows`. A batch is the same pytree with [B, ..]. It comes, with the same rows in the same order, by

    for batch in batches(columns, order): ...                        # from files, prefetched
    scan_epoch(step, state, resident(columns), epoch_order(order))   # all on the device
"""

import dataclasses
import importlib
import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diet_jax.types import Array, InputError

Columns = Any  # a pytree of arrays with one row axis in front

_ROUNDS = 6  # with fewer, a stage of a few rows does not get all its orders


class Order(NamedTuple):
    """The random order of one epoch: all of it follows from these numbers, nothing is stored.

    seed, stage, epoch: each triple of them is an order of its own. n: rows of the stage.
    batch: rows of a batch over all hosts; `host` of `n_hosts` gets an equal share of every batch.
    Every row is seen once in an epoch; the last batch is filled up with the epoch's first rows.
    chunk: so many neighbouring rows stay together. 1 is the full shuffle; a stage larger than the
    host's memory wants 64 or more, or each row costs one read of the disk.
    """

    seed: int
    stage: int
    epoch: int
    host: int
    n_hosts: int
    n: int
    batch: int
    chunk: int = 1


def n_batches(order: Order) -> int:
    """The number of batches in the epoch; raises InputError if `order` can be no order."""
    at_least = Order(0, 0, 0, host=0, n_hosts=order.host + 1, n=1, batch=1, chunk=1)
    for name, value, least in zip(Order._fields, order, at_least, strict=True):
        if value < least:
            raise InputError(f"{order}: {name} is {value}; give {least} or more")
    if order.batch % order.n_hosts:
        raise InputError(f"{order}: hosts get unequal shares; make batch a multiple of n_hosts")
    return -(-order.n // order.batch)


def batch_rows(order: Order, k: int) -> np.ndarray:
    """Rows int64 [batch / n_hosts] of this host in batch `k`, in time and memory O(batch).

    The shares of hosts 0, 1, .. one after another are the batch that a single host would get.
    """
    if not 0 <= k < n_batches(order):
        raise IndexError(f"batch {k} of {n_batches(order)}")
    share = order.batch // order.n_hosts
    at = (k * order.batch + order.host * share + np.arange(share, dtype=np.int64)) % order.n
    permute = partial(_permute, side=_side(order), chunk=order.chunk, keys=_keys(order))
    rows = permute(at)
    while len(outside := np.flatnonzero(rows >= order.n)):
        rows[outside] = permute(rows[outside])
    return rows


def epoch_order(order: Order) -> Array:
    """All of `batch_rows` at once, computed on the device: int32 [n_batches, batch / n_hosts].

    Where one program drives the devices of many hosts, give an order of one host.
    Raises InputError if the stage has too many rows for int32.
    """
    if max(n_batches(order) * order.batch, _side(order) ** 2 * order.chunk) >= 1 << 31:
        raise InputError(f"{order}: more rows than int32 can number; feed them with batches()")
    same = order._replace(seed=0, stage=0, epoch=0)  # one compilation serves them all
    return _epoch_order(same, jnp.asarray(_keys(order)))


@partial(jax.jit, static_argnums=0)
def _epoch_order(order: Order, keys: Array) -> Array:
    share = order.batch // order.n_hosts
    first = jnp.arange(n_batches(order), dtype=jnp.uint32) * order.batch + order.host * share
    at = (first[:, None] + jnp.arange(share, dtype=jnp.uint32)[None]) % order.n
    permute = partial(_permute, side=_side(order), chunk=order.chunk, keys=keys)
    rows = jax.lax.while_loop(
        lambda rows: (rows >= order.n).any(),
        lambda rows: jnp.where(rows >= order.n, permute(rows), rows),
        permute(at),
    )
    return rows.astype(jnp.int32)


def _side(order: Order) -> int:
    """The side of the least square that holds all chunks."""
    return math.isqrt(-(-order.n // order.chunk) - 1) + 1


def _keys(order: Order) -> np.ndarray:
    seeds = np.random.SeedSequence(order.seed, spawn_key=(order.stage, order.epoch))
    return seeds.generate_state(_ROUNDS, np.uint32)


def _permute(at: Array, side: int, chunk: int, keys: Array) -> Array:
    """A keyed bijection of [0, side * side * chunk): a Feistel network on the chunks' numbers.

    Applied again to what fell outside [0, n), it is a bijection of [0, n) (cycle walking).
    In 32 bits, so that NumPy and JAX, which has no 64, compute the same.
    """
    group = at // chunk
    left, right = (group // side).astype(np.uint32), _mod(group, side).astype(np.uint32)
    for i in range(_ROUNDS):
        left, right = right, _mod(left + (_hash(right ^ keys[i]) >> 1), side)
    return (left.astype(at.dtype) * side + right.astype(at.dtype)) * chunk + _mod(at, chunk)


def _mod(x: Array, m: int) -> Array:
    return x - x // m * m  # NumPy's division is many times as fast as its remainder


def _hash(x: Array) -> Array:
    """A bijection of uint32 in which each bit of `x` moves every bit: two multiply-xorshifts."""
    x = (x ^ (x >> 16)) * np.uint32(0x21F0AAAD)
    x = (x ^ (x >> 15)) * np.uint32(0xD35A2D97)
    return x ^ (x >> 15)


def batches(
    columns: Columns, order: Order, start: int = 0, sharding: Any = None, depth=2, threads=1
) -> Iterator[Columns]:
    """This host's share of the epoch's batches, from batch `start` on, each leaf [share, ..].

    sharding: None for NumPy arrays; else where the batch lies. With `n_hosts` > 1 each host gives
    its share of one global array [batch, ..]. depth: batches made ahead by `threads` threads (0:
    none, in the caller's thread). What a thread raises is raised here; the threads end with the
    iterator, also when it is closed early or dropped.
    Raises InputError if a column has not n rows, or a type that the device would cut.
    """
    _check(columns, order.n, on_device=sharding is not None)
    steps = n_batches(order)
    if not 0 <= start <= steps:
        raise InputError(f"{order}: has {steps} batches; start at 0 .. {steps}, not at {start}")

    def make(k: int) -> Columns:
        return _place(_gather(columns, batch_rows(order, k)), order, sharding)

    numbers = iter(range(start, steps))
    return ahead(make, numbers, depth, threads) if depth else map(make, numbers)


def _gather(columns: Columns, rows: np.ndarray) -> Columns:
    # `take` is three times as fast as a[rows]; sorting the rows first costs more than it gains.
    return jax.tree.map(lambda a: np.asarray(a).take(rows, axis=0), columns)


def _place(batch: Columns, order: Order, sharding: Any) -> Columns:
    if sharding is None:
        return batch
    if order.n_hosts == 1:
        return jax.device_put(batch, sharding)
    share = partial(jax.make_array_from_process_local_data, sharding)
    # With its shape named, a sharding under which hosts would disagree is an error.
    return jax.tree.map(lambda a: share(a, (order.batch, *a.shape[1:])), batch)


def ahead(make: Callable, numbers: Iterator, depth: int, threads: int) -> Iterator:
    """make(number) for each of `numbers`, in order, `depth` of them made ahead by threads."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="feed")
    try:
        waiting = deque(pool.submit(make, k) for k in islice(numbers, depth))
        while waiting:
            made = waiting.popleft().result()
            waiting.extend(pool.submit(make, k) for k in islice(numbers, 1))
            yield made
    finally:
        pool.shutdown(cancel_futures=True)


def _check(columns: Columns, n: int, on_device: bool) -> None:
    for path, column in jax.tree_util.tree_leaves_with_path(columns):
        name = f"column {jax.tree_util.keystr(path)}"
        if column.shape[:1] != (n,):
            raise InputError(f"{name}: has shape {column.shape}, not {n} rows; prepare it again")
        if on_device and column.dtype.itemsize > 4:
            raise InputError(f"{name}: a device would cut {column.dtype} to 32 bits; leave it out")


def resident(columns: Columns, sharding: Any = None) -> Columns:
    """The stage's columns, put on the device once (or as `sharding` says).

    Raises InputError if columns differ in length, or have a type that the device would cut.
    """
    _check(columns, len(jax.tree.leaves(columns)[0]), on_device=True)
    return jax.device_put(jax.tree.map(np.asarray, columns), sharding)


def scan_epoch(step: Callable, state: Any, columns: Columns, rows: Array) -> tuple[Any, Any]:
    """`lax.scan` of `step(state, batch) -> (state, out)` over the batches that `rows` numbers.

    columns: from `resident`. rows: int32 [steps, B], of `epoch_order`, or a part of it to resume.
    Returns the last state and the outs, leaves [steps, ..]. Call it inside jit.
    """

    def body(state, rows):
        return step(state, jax.tree.map(lambda a: a[rows], columns))

    return jax.lax.scan(body, state, rows)


@dataclasses.dataclass(frozen=True)  # a NamedTuple has items of its own
class BatchSource:
    """Grain's RandomAccessDataSource: item k is batch k of `epochs` epochs, from the order's on.

    Its repr is the order: by that Grain tells on resuming whether the source is the same.
    """

    columns: Columns = dataclasses.field(repr=False)
    order: Order
    epochs: int = 1

    def __len__(self) -> int:
        return self.epochs * n_batches(self.order)

    def __getitem__(self, k: Any) -> Columns:
        if not 0 <= k < len(self):
            raise IndexError(f"batch {k} of {len(self)}")
        epoch, k = divmod(int(k), n_batches(self.order))
        order = self.order._replace(epoch=self.order.epoch + epoch)
        return _gather(self.columns, batch_rows(order, k))


def grain_source(columns: Columns, order: Order, epochs: int = 1) -> Any:
    """A `grain.MapDataset` of this host's share of each batch, to map and mix with others.

    The order shuffles, shards and batches already. Read it with few threads and a short buffer,
    `.to_iter_dataset(grain.ReadOptions(1, 2))`; processes would each get a copy of the columns.
    Raises InputError if Grain is not installed, or a column has not n rows.
    """
    _check(columns, order.n, on_device=False)
    try:
        grain = importlib.import_module("grain")
    except ImportError as error:
        raise InputError("Grain is not installed; run: pip install grain") from error
    return grain.MapDataset.source(BatchSource(columns, order, epochs))
