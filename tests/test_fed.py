"""Rows that are fed from files train what rows on the devices train, in the same order."""

import re
from functools import partial
from pathlib import Path

import jax
import numpy as np
import polars as pl
import pytest
import toy
from hypothesis import given
from hypothesis import strategies as st

from diet_jax import fed, run, trial, trials
from diet_jax.fed import Log
from diet_jax.job import prepare
from diet_jax.models import make_model
from diet_jax.optim import Optimizer
from diet_jax.sharding import ONE_DEVICE
from diet_jax.teacher import make_teacher
from diet_jax.train import Examples
from diet_jax.trial import Recipe, make_trials

SAME = {"rtol": 1e-5, "atol": 1e-6}  # the rows' way into a step may change how it rounds
MODEL = make_model("FM", dim=2, hidden=(), init_scale=0.3)
STEPS, BATCH, CHUNK = 7, 4, 3


@given(st.integers(1, 9), st.integers(1, 8), st.integers(1, 5), st.integers(1, 9))
def test_passes_are_whole_permutations_however_they_are_cut(n, steps, batch, chunk):
    ours, theirs = np.random.default_rng(0), np.random.default_rng(0)
    found = list(fed.passes(ours, n, steps, batch, chunk))
    assert {order.shape for order in found} == {(chunk, batch)}
    drawn = [theirs.permutation(n) for _ in range(-(-steps * batch // n))]
    flat, want = np.concatenate(found).ravel(), np.concatenate(drawn)[: steps * batch]
    assert flat[: len(want)].tolist() == want.tolist() and not flat[len(want) :].any()
    assert ours.random() == theirs.random()  # who draws next draws the same


def test_spans_of_a_log_are_its_rows_and_neighbours_are_not_copied():
    rows = toy.rows(np.random.default_rng(0), 20)
    apart = Log(rows, (range(2, 5), range(9, 10), range(12, 20)))
    where = [2, 3, 4, 9, *range(12, 20)]
    at = np.arange(12).reshape(2, 6)
    assert fed.numbers(apart, at).ravel().tolist() == where
    assert np.array_equal(fed.read(apart).ids, rows.ids[where])
    together = fed.read(Log(rows, (range(2, 5), range(5, 9))))
    assert np.shares_memory(together.ids, rows.ids) and len(together.label) == 7


def test_what_fits_is_not_fed_and_what_is_fed_fits():
    rows = toy.rows(np.random.default_rng(0), 20)
    a_row, order = 24, 4 * 2 * 3  # ids, a dense feature, label and weight; epochs and seeds
    assert fed.row_bytes(rows) == a_row

    def steps(budget):
        return fed.chunk_steps(rows, 1000, epochs=2, batch=10, seeds=3, budget=budget)

    assert steps(1000 * (a_row + order)) == 0
    chunk = steps(1000 * (a_row + order) - 1)
    assert chunk > 1 and 3 * chunk * 10 * 3 * a_row < 1000 * (a_row + order)
    assert steps(0) == 1


@pytest.mark.parametrize("optimizer", ["adam", "lazy_adam"])
def test_trials_are_the_same(optimizer, monkeypatch):
    rng, seeds = np.random.default_rng(0), 2
    rows, keys = toy.rows(rng, 50), jax.random.split(jax.random.key(1), seeds)
    made = make_trials(MODEL, Recipe(Optimizer(optimizer), BATCH), True)
    table = np.arange(toy.VOCAB, dtype=np.int32)
    args = (keys, np.float32(0.1), np.float32(0.01), table)
    traced = []
    for at in (trial.train, trial.touched):
        fit = at.fit
        monkeypatch.setattr(at, "fit", lambda *a, fit=fit: (traced.append(1), fit(*a))[1])
    for n in (30, 50):  # the log grows
        log = Log(rows, (range(n),))
        rngs = [[np.random.default_rng(seed) for seed in range(seeds)] for _ in range(2)]
        orders = fed.orders(log, rngs[0], STEPS, BATCH, CHUNK)
        found = made.fit_fed(*args, rows, orders, np.int32(STEPS))
        order = np.stack([fed.epochs(rng, n, STEPS, BATCH) for rng in rngs[1]])
        want = made.fit(*args, table[:0], Examples(*rows), order, np.int32(STEPS))
        jax.tree.map(partial(np.testing.assert_allclose, **SAME), found, want)
    assert len(traced) == 2  # one each, for all stages


def test_the_teacher_is_the_same(monkeypatch):
    monkeypatch.setattr("diet_jax.teacher.PREDICT_BLOCK", 8)
    rng = np.random.default_rng(0)
    rows, outcome = toy.rows(rng, 50), []
    for chunk in (0, CHUNK):
        teacher = make_teacher(MODEL, 0.05, BATCH, toy.VOCAB, 3, 1, 50, ONE_DEVICE, chunk)
        start = teacher.init(jax.random.key(0))
        params = teacher.advance(start, rows, 2.0, np.random.default_rng(3))
        outcome.append((params, teacher.predict(params, rows.ids, rows.dense)))
    jax.tree.map(partial(np.testing.assert_allclose, **SAME), *outcome)
    assert outcome[1][1].shape == (50,)


def advised(file: Path) -> list[bool]:
    """Whether random reading was advised, of every mapping of a file in this process."""
    found, inside = [], False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if not re.match("[A-Z]", line):  # the head of a mapping
            inside = line.endswith(str(file))
        elif inside and line.startswith("VmFlags:"):
            found.append(" rr" in line)
    return found


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux tells")
def test_files_are_read_row_by_row_only_while_rows_are_fed(tmp_path):
    rows, mapped = toy.rows(np.random.default_rng(0), 5000), []
    for name, column in rows._asdict().items():
        column.tofile(tmp_path / name)
        mapped.append(np.memmap(tmp_path / name, column.dtype, "r", shape=column.shape))
    weight = np.broadcast_to(np.float32(1), 5000)  # as a log without weights has it
    part = rows._make(c[10:4000] for c in (*mapped[:3], weight))
    orders = iter(np.arange(24, dtype=np.int32).reshape(2, 3, 4))
    chunks = fed.chunks(part, orders, 5, ONE_DEVICE, (None, "data"))
    assert advised(tmp_path / "ids") == [False]
    taken = []
    for chunk, some in chunks:
        assert advised(tmp_path / "ids") == advised(tmp_path / "label") == [True]
        taken.append((chunk.ids.shape, int(some)))
    assert taken == [((3, 4, 3), 3), ((3, 4, 3), 2)]
    assert np.array_equal(chunk.ids.reshape(12, 3), rows.ids[22:34])
    assert advised(tmp_path / "ids") == advised(tmp_path / "label") == [False]


@pytest.mark.parametrize("on", ["next", "validation"])
def test_an_evaluation_is_the_same_whatever_fits_the_devices(tmp_path, monkeypatch, on):
    """All its methods, on the columns of a prepared log, of which validation leaves rows out."""
    monkeypatch.setattr(trials, "PREDICT_BLOCK", 8)
    pl.DataFrame(toy.log()).write_csv(tmp_path / "log.csv")
    outcome = []
    for mebibytes in (1, 0):
        change = {"resident_mebibytes": mebibytes, "eval.on": on, "eval.validation_share": 0.2}
        job = prepare(toy.config(str(tmp_path / "log.csv"), **change))
        assert job.evaluation.chunk == 1 - mebibytes
        train = [step.train for step in job.steps[:2]]
        memory = [toy.examples(np.random.default_rng(seed), 12) for seed in (0, 1)]
        subsets, test = {"memory": memory}, run.make_test(job, 2)
        log = run.so_far(job, train)
        found = trials.evaluate_stage(job.evaluation, 2, subsets, 10, log, test)
        outcome.append([r for each in found for r in each])
    assert {r["method"] for r in outcome[0]} == {"full", "memory"}
    for want, got in zip(*outcome, strict=True):
        for key in want:
            assert key.startswith("seconds") or got[key] == pytest.approx(want[key], abs=1e-5), key
        assert want["method"] == "full" or got["auc"] == want["auc"]
