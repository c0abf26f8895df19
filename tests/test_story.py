"""A run hands every stage what it should: its rows and epochs, the teacher so far, who judges."""

import inspect
import itertools

import jax
import numpy as np
import polars as pl
import pytest
import toy

from diet_jax import memory as mem
from diet_jax import run
from diet_jax.distill import distill_stage
from diet_jax.job import prepare, steps_of
from diet_jax.metrics import auc
from diet_jax.select import SELECTORS
from diet_jax.types import Rows, Schema, Stage, Stream

STAGES, SIZE, RATE = 4, toy.ROWS_A_STAGE, 0.1
TWINS = {"inner.archs": ("MLP",), "inner.hidden": (64, 32)}  # of the teacher


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A log of ever new users at first; later stages end with some of these, who are in none of
    their other rows. Items of the last stage are new, as places of the second are."""
    columns = toy.log(stages=STAGES)
    n = np.arange(SIZE * STAGES)
    columns["user"] = np.where((n < SIZE) | (n % SIZE >= 54), n % SIZE, n % 3)
    columns["item"][-SIZE:] += 1000
    columns["place"][SIZE:] += 1000
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    pl.DataFrame(columns).write_parquet(path)
    return str(path)


def told(monkeypatch, path, **change):
    """The job, the states before and after each stage, what the teacher was told of each (its
    table's change so far, rows, epochs), and what `distill_stage` was: both are stubs here.

    The teacher's table grows by 1 a stage, and its answers are that plus a hundredth of the ids.
    """
    job = prepare(toy.config(path, **{"memory.rate": RATE} | change))
    blank, taught, stages = job.first.teacher["table"], [], []

    def so_far(params):
        return round(float((params["table"] - blank).mean()), 3)

    def advance(params, rows, epochs, rng):
        taught.append((so_far(params), rows, epochs))
        return jax.tree.map(lambda a: a + 1, params)

    def predict(params, ids, dense):
        return (so_far(params) + ids.sum(1) / 100).astype(np.float32)

    def stage(*args, **kwargs):
        given = inspect.signature(distill_stage).bind(*args, **kwargs)
        given.apply_defaults()
        a = given.arguments
        stages.append(a)
        n, rows = a["n_new"], a["fresh"].rows
        new = rows.ids[:n], rows.dense[:n], np.ones(n), 0, a["number"], a["fresh"].source[:n]
        return mem.append(a["memory"], *new), {}

    monkeypatch.setattr(run, "distill_stage", stage)
    job = job._replace(teacher=job.teacher._replace(advance=advance, predict=predict))
    states = [job.first]
    for number in range(1, STAGES):
        state, facts = run.distill(job, states[-1], number, lambda step, loss: None)
        assert facts["slots"] == round(RATE * SIZE) * number
        states.append(state)
    return job, states, taught, stages


def test_a_teacher_goes_on_from_stage_to_stage(monkeypatch, path):
    change = {"teacher.first_epochs": 7.0, "teacher.epochs": 3.0}
    job, states, taught, stages = told(monkeypatch, path, **change)
    assert [(before, epochs) for before, _, epochs in taught] == [(0, 7.0), (1, 3.0), (2, 3.0)]
    for number, ((_, rows, _), stage) in enumerate(zip(taught, stages, strict=True), 1):
        own = job.steps[number - 1].train
        fresh = stage["fresh"]
        for a, b, c in zip(own.rows, rows, fresh.rows, strict=True):
            assert np.array_equal(a, b) and np.array_equal(a, c)
        assert np.array_equal(fresh.source, own.source)
        # It answers once it has seen the stage, and goes into the next one so.
        for ids, answer in (
            (own.rows.ids, fresh.teacher_logit),
            (fresh.ahead_ids, fresh.ahead_logit),
        ):
            np.testing.assert_allclose(answer, number + ids.sum(1) / 100, atol=1e-3)
        grown = states[number].teacher["table"] - job.first.teacher["table"]
        np.testing.assert_allclose(grown, number, atol=1e-5)


def test_values_that_an_earlier_stage_has_shown_are_not_hidden(monkeypatch, path):
    job, _, _, stages = told(monkeypatch, path)
    for number, stage in enumerate(stages, 1):
        ids = job.steps[number - 1].train.rows.ids
        hidden = np.where(np.arange(3) == 0, 0, ids) if number == 1 else ids
        assert np.array_equal(stage["fresh"].ahead_ids, hidden), number


@pytest.mark.parametrize("start", ["fresh", "teacher", "mixed"])
def test_a_stage_goes_on_from_the_memory_and_the_teacher_of_the_one_before(
    monkeypatch, path, start
):
    change = {"inner.start": start, "outer.steps": 50, "outer.first_factor": 2.0}
    job, states, _, stages = told(monkeypatch, path, **change, **TWINS)
    assert [a["n_steps"] for a in stages] == [100, 50, 50]
    for number, a in enumerate(stages, 1):
        before = states[number - 1]
        assert a["memory"] is before.memory
        assert a["start"] is (None if start == "fresh" else before.teacher)
        assert (a["number"], a["n_new"], a["n_evict"], a["rows"]) == (number, 6, 0, None)
        assert a["engine"] is job.engine


@pytest.mark.parametrize("on", ["next", "validation"])
def test_who_judges_meets_values_that_are_not_known_yet_as_unknown_ones(path, on):
    job = prepare(toy.config(path, **{"eval.on": on, "eval.validation_share": 0.2}))
    number = STAGES - 1
    (train, judge, _), test = job.steps[number - 1], run.make_test(job, number)
    own = test.part == 0
    assert own.sum() == len(judge.user) == (SIZE if on == "next" else SIZE // 5)
    ids = test.ids[own]
    assert np.all(judge.rows.ids[:, 1] >= train.vocab_size) == (on == "next")
    assert np.all(ids[:, 1] == 1) == (on == "next")  # the unknown item
    met = np.concatenate([step.train.rows.ids for step in job.steps[:number]])
    for column in range(3):  # user, item, place: each value that no row so far has
        new = ~np.isin(judge.rows.ids[:, column], met[:, column])
        assert np.array_equal(ids[:, column], np.where(new, column, judge.rows.ids[:, column]))
    if on == "validation":  # of users that its tail alone shows the table has rows
        assert 0 < np.sum(ids[:, 0] == 0) < len(ids)
    for name, column in (("dense", judge.rows.dense), ("label", judge.rows.label)):
        assert np.array_equal(getattr(test, name)[own], column), name
    assert np.array_equal(test.user[own], judge.user)
    answers = job.teacher.predict(job.first.teacher, ids, judge.rows.dense)
    assert run.teacher_auc(job, job.first, number) == auc(judge.rows.label, answers)
    # Of the past as many rows as there are; with validation those that nothing is trained on.
    assert set(test.part) == ({0, 1, 2, 3} if on == "next" else {0, 1, 2})
    for past in set(test.part) - {0}:
        stage = getattr(job.steps[past - 1], "train" if on == "next" else "test")
        same = test.ids[test.part == past] == stage.rows.ids
        assert np.all(same[:, 1:]) and np.all(same) == (on == "next")
        assert np.array_equal(test.label[test.part == past], stage.rows.label)


def test_several_teachers_answer_with_the_mean_of_their_logits(path):
    first, second = (prepare(toy.config(path, **{"teacher.arch": a})) for a in ("FM", "LR"))
    job = prepare(toy.config(path, **{"teacher.arch": "FM", "teacher.more": ("LR",)}))
    look, by_itself = (run.begin(j, j.first, 1).look for j in (job, first))
    rows = look.stage.rows
    answers = [
        j.teacher.predict(params, rows.ids, rows.dense)
        for j, params in ((first, by_itself.params), (second, look.params["more"][0]))
    ]
    assert np.array_equal(look.stage.teacher_logit, np.mean(answers, axis=0))
    assert not np.array_equal(*answers)
    for name in ("grand", "herding"):  # by gradients and by embeddings of the first
        chosen = (SELECTORS[name](each, 5, np.random.default_rng(0)) for each in (look, by_itself))
        assert np.array_equal(*chosen)


def by_hand(sizes: list[int]) -> Stream:
    """A stream of such stages, all of whose columns tell the row."""
    n = sum(sizes)
    at = np.arange(n)
    rows = Rows(at[:, None], at[:, None] / n, at % 2, 1 + at)
    ends = np.cumsum(sizes).tolist()
    spans = [range(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    stages = tuple(
        Stage(Rows(*(a[s.start : s.stop] for a in rows)), at[s] + 7, at[s] + 9, s, s.stop)
        for s in spans
    )
    return Stream(Schema(("user",), ("x",), (0,), (0,)), rows, stages, [""] * n, at, (), "", "")


def test_the_tail_of_a_stage_validates_it_and_is_used_for_no_other_end():
    stream = by_hand([50, 41, 30])
    steps = steps_of(stream, "validation", 0.2)
    assert [len(step.train.user) for step in steps] == [40, 33]
    assert [len(step.test.user) for step in steps] == [10, 8]
    for step, stage in zip(steps, stream.stages, strict=False):
        assert [*step.train.source, *step.test.source] == list(stage.source)
        for part in step[:2]:
            at = np.array(part.source)
            for column, whole in zip(part.rows, stream.rows, strict=True):
                assert np.array_equal(column, whole[at])
            assert np.array_equal(part.user, at + 7) and np.array_equal(part.time, at + 9)
    after = steps_of(stream, "next", 0.2)
    assert [step[:2] for step in after] == [*itertools.pairwise(stream.stages)]
    assert not any(len(step.unmet) for step in after)
