"""A log with several labels is one row for each label that a row has, in order of time."""

import numpy as np
import polars as pl
import pytest
import small_logs
import toy
from hypothesis import given, settings
from hypothesis import strategies as st
from small_logs import ROLES, columns, load, source, texts
from test_data_features import brute_histories

from diet_jax.data import records
from diet_jax.data.clean import clean
from diet_jax.data.source import Field, History, with_tasks
from diet_jax.job import prepare
from diet_jax.run import distill, judge
from diet_jax.types import InputError

FIELDS = (*ROLES.fields, Field("seen", derived="count:item"))
TWO = with_tasks(ROLES._replace(label="click", fields=FIELDS, history=History("item", 3)), ("buy",))


def random_log(rng, n):
    """In order of time, with ties; a label is missing in a third of the rows."""
    log = pl.DataFrame(small_logs.random_log(rng, n)).drop("label")
    some = [rng.choice([0, 1, None], n).tolist() for _ in TWO.labels]
    for one in some:
        one[:2], one[-2:] = (0, 1), (1, 0)
    return log.with_columns(
        pl.Series(name, one, pl.Int64) for name, one in zip(TWO.labels, some, strict=True)
    )


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_rows_are_those_of_a_plain_loop(tmp_path_factory, seed):
    """In the order of time, then of the file, then of the labels; the past knows each row once."""
    rng, tmp = np.random.default_rng(seed), tmp_path_factory.mktemp("log")
    mixed = random_log(rng, 40)[rng.permutation(40)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "CHUNK", 7)
        stream = load(source(mixed, roles=TWO, size=9), tmp, stages=1, max_rejected=0.5)
    rows = mixed.with_row_index().sort("time", maintain_order=True).to_dicts()
    wanted = [(row, name) for row in rows for name in TWO.labels if row[name] is not None]
    ids, _, label, weight, _, time = columns(stream)
    assert stream.schema.tasks == {"click": 3, "buy": 4} and "task" in stream.schema.fields
    assert texts(stream, "task") == [[name] for _, name in wanted]
    for name, column in stream.schema.tasks.items():
        assert (ids[:, column] >= 0).tolist() == [name == mine for _, mine in wanted]
    assert label.tolist() == [row[name] for row, name in wanted]
    assert time.tolist() == [row["time"] for row, _ in wanted]
    assert texts(stream, "user") == [str(row["user"]) for row, _ in wanted]
    assert texts(stream, "item") == [str(row["item"]) for row, _ in wanted]
    assert weight.tolist() == [1] * len(wanted)
    liked = [row["click"] == 1 for row in rows]
    past = brute_histories(
        *(np.array([r[k] for r in rows]) for k in ("user", "item", "time")), liked, 3
    )
    unlabelled = len(rows) - len({row["index"] for row, _ in wanted})
    assert sum(stream.rejected.values()) == unlabelled
    by_index = {
        row["index"]: [str(i) for i in p if i >= 0] for row, p in zip(rows, past, strict=True)
    }
    assert texts(stream, "history") == [by_index[row["index"]] for row, _ in wanted]
    before = [
        sum(other["item"] == row["item"] for other, mine in wanted[:n] if mine == name)
        for n, (row, name) in enumerate(wanted)
    ]
    assert texts(stream, "seen") == [str((c + 1).bit_length() - 1) for c in before]


def test_a_bad_cell_is_refused_of_its_own_label_and_a_bad_row_of_all():
    log = {"user": [1, 2, 3], "item": [1, 2, 3], "time": [1, "soon", 3]}
    log |= {"click": ["2", "1", ""], "buy": ["0", "1", "1"]}
    ((_, _, rows, rejects),) = clean(source(log, roles=TWO).parts, TWO)
    assert rows.label.tolist() == [0, 1] and rows.task.tolist() == [1, 1]
    assert rows.fields["user"].to_list() == [1, 3]
    assert [(r.row, r.column, r.reason) for r in rejects] == [
        (1, "click", "is neither 0 nor 1"),
        (2, "time", "is no time"),
        (2, "time", "is no time"),
    ]


@pytest.mark.parametrize("empty", TWO.labels)
def test_a_label_that_no_row_has_is_an_error(tmp_path, empty):
    log = {"user": [1, 2], "item": [1, 2], "time": [1, 2], "click": ["1", "0"], "buy": ["1", "0"]}
    good, bad = pl.DataFrame(log), pl.DataFrame(log | {empty: ["", ""]})
    with pytest.raises(InputError, match=f"log.: no row has the label '{empty}'; fill in that"):
        load(source(bad, bad.clear(), roles=TWO), tmp_path, 1)
    for frames in ((bad, good), (good.clear(), good, bad)):
        assert len(columns(load(source(*frames, roles=TWO), tmp_path, 1))[0]) == 6


def test_ratings_have_one_threshold(tmp_path):
    log = {"user": [1, 2], "item": [1, 2], "time": [1, 2], "click": [4, 5], "buy": [5, None]}
    stream = load(source(log, roles=TWO._replace(threshold=4.5)), tmp_path, stages=1)
    assert columns(stream)[2].tolist() == [0, 1, 1]


def test_a_whole_stage_of_two_labels(tmp_path):
    """MMoE distils, and PLE is judged."""
    columns, rng = toy.log(stages=3), np.random.default_rng(1)
    columns["buy"] = np.where(columns["label"] == 1, rng.integers(0, 2, len(columns["label"])), 0)
    pl.DataFrame(columns).write_parquet(tmp_path / "log.parquet")
    change = {
        "data.more_labels": ("buy",),
        "stages.count": 3,
        "inner.archs": ("MMoE:n_experts=2,tower=(3,)",),
        "eval.archs": ("PLE:n_levels=1,tower=(3,)",),
        "eval.hidden": (4,),
    }
    job = prepare(toy.config(str(tmp_path / "log.parquet"), **change))
    assert sum(len(stage.user) for stage in job.stream.stages) == 2 * len(columns["label"])
    state, facts = distill(job, job.first, 1, lambda step, loss: None)
    used = state.memory.ids[state.memory.valid]
    on = used[:, list(job.stream.schema.tasks.values())] >= 0
    assert facts["slots"] == len(used) == 12 and (on.sum(1) == 1).all()
    assert on.any(0).all()  # influence finds rows of both
    evals = judge(job, state, 1, ("memory",))
    assert len(evals) == 2
    for record in evals:
        mine = [record["auc:label"], record["auc:buy"]]
        assert record["auc"] == pytest.approx(np.mean(mine)) and all(0 <= a <= 1 for a in mine)
        assert np.isfinite(record["logloss"]) and 0 <= record["auc_current"] <= 1
