"""Stages know their past only: borders, vocabulary and statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diet_jax.data import encode, stages
from diet_jax.data.log import Log
from diet_jax.types import InputError


def make_log(time, label=None, a=None, b=None, dense=None):
    n = len(time)
    a = a or [str(i) for i in range(n)]
    return Log(
        fields=pl.DataFrame({"a": a, "b": b or ["x"] * n}, schema={"a": pl.String, "b": pl.String}),
        dense=np.asarray(dense if dense is not None else np.zeros((n, 0)), np.float32),
        dense_names=("g",) if dense is not None else (),
        label=np.asarray(label or [i % 2 for i in range(n)], np.float32),
        user=pl.Series(a, dtype=pl.String),
        time=np.asarray(time, np.int64),
        name="toy",
        where="toy.csv",
    )


@pytest.mark.parametrize(
    ("time", "count", "fractions", "borders"),
    [
        (range(8), 4, (), [0, 2, 4, 6, 8]),
        (range(7), 3, (), [0, 2, 4, 7]),
        (range(10), 99, (0.9, 0.1), [0, 9, 10]),
        (range(10), 2, (0.7, 0.1, 0.2), [0, 7, 8, 10]),
        ([0, 1, 1, 1, 2, 3], 2, (), [0, 4, 6]),
        ([0, 0, 1, 1, 2, 2], 2, (), [0, 4, 6]),
        ([5, 5, 5, 5], 1, (), [0, 4]),
    ],
)
def test_borders_keep_ties_in_the_earlier_stage(time, count, fractions, borders):
    assert stages.cut(np.array(time), count, fractions, "f").tolist() == borders


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.integers(1, 6))
def test_no_time_straddles_a_border(times, count):
    time = np.sort(np.array(times))
    try:
        borders = stages.cut(time, count, (), "f")
    except InputError:
        return
    assert (borders[0], borders[-1]) == (0, len(time))
    assert (np.diff(borders) > 0).all()
    inner = borders[1:-1]
    assert (time[inner - 1] < time[inner]).all()


@pytest.mark.parametrize(
    ("time", "count", "fractions", "words"),
    [
        ([1, 2], 3, (), ("2 rows", "3 stages", "stages.count")),
        ([1, 1, 1, 1, 2, 3], 3, (), ("stage 2 of 3", "empty", "1970-01-01 00:00:01")),
        ([1, 2, 2, 2], 2, (0.9, 0.1), ("stage 2 of 2", "empty")),
        (range(9), 2, (0.01, 0.99), ("stage 1 of 2", "empty")),
        (range(9), 2, (0.5, 0.4), ("sums to 0.9", "stages.fractions")),
        (range(9), 2, (1.5, -0.5), ("positive", "stages.fractions")),
        (range(9), 0, (), ("stages.count is 0",)),
    ],
)
def test_cuts_that_cannot_be(time, count, fractions, words):
    with pytest.raises(InputError) as caught:
        stages.cut(np.array(time), count, fractions, "log.csv")
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_a_stage_with_one_class_is_named_with_its_time():
    with pytest.raises(InputError) as caught:
        stages.build(make_log(range(6), [0, 1, 1, 1, 0, 1]), 3, (), 1)
    message = str(caught.value)
    for word in ("toy.csv", "stage 2 of 3", "1970-01-01 00:00:02", "00:00:03", "only label 1"):
        assert word in message
    assert "\n" not in message


def test_rows_of_the_table_follow_first_appearance_and_min_count():
    log = make_log(range(6), a=["p", "q", "q", "r", "p", "s"], b=["x", "x", "y", "x", "y", "x"])
    stream = stages.build(log, 3, (), 1)
    assert stream.values == ("<unknown>",) * 2 + ("p", "x", "q", "y", "r", "s")
    assert stream.row_field.tolist() == [0, 1, 0, 1, 0, 1, 0, 0]
    assert [stage.vocab_size for stage in stream.stages] == [5, 7, 8]
    assert stream.stages[1].rows.ids.tolist() == [[4, 5], [6, 3]]

    stream = stages.build(log, 3, (), 2)
    assert stream.values == ("<unknown>",) * 2 + ("x", "q", "p", "y")
    assert [stage.vocab_size for stage in stream.stages] == [3, 4, 6]
    ids = [stage.rows.ids.tolist() for stage in stream.stages]
    assert ids == [[[0, 2], [0, 2]], [[3, 1], [0, 2]], [[4, 5], [0, 2]]]


VALUES = st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("xyz"))


@st.composite
def logs(draw):
    sizes = draw(st.lists(st.integers(1, 8), min_size=2, max_size=5))
    rows = draw(st.lists(VALUES, min_size=sum(sizes), max_size=sum(sizes)))
    return sizes, rows, draw(st.integers(1, 3)), draw(st.randoms())


def encode_rows(sizes, rows, min_count):
    fields = pl.DataFrame({"a": [a for a, _ in rows], "b": [b for _, b in rows]})
    stage = np.repeat(np.arange(len(sizes)), sizes)
    return encode.encode(fields, stage, len(sizes), min_count)


@given(logs())
def test_vocabulary_is_append_only(log):
    sizes, rows, min_count, random = log
    whole = encode_rows(sizes, rows, min_count)
    n = sum(sizes[:-1])
    future = rows[n:]
    random.shuffle(future)
    for other in (
        encode_rows(sizes[:-1], rows[:n], min_count),
        encode_rows(sizes, rows[:n] + future, min_count),
        encode_rows(sizes, rows[:n] + [("new", "new")] * len(future), min_count),
    ):
        known = whole.vocab_sizes[-2]
        assert other.vocab_sizes[: len(sizes) - 1] == whole.vocab_sizes[:-1]
        assert other.values[:known] == whole.values[:known]
        assert other.row_field[:known].tolist() == whole.row_field[:known].tolist()
        assert other.ids[:n].tolist() == whole.ids[:n].tolist()


@given(logs())
def test_encoding_agrees_with_a_plain_loop(log):
    sizes, rows, min_count, _ = log
    encoded = encode_rows(sizes, rows, min_count)
    stage = np.repeat(np.arange(len(sizes)), sizes)
    for n, row in enumerate(rows):
        for f, value in enumerate(row):
            upto = sum(r[f] == value for r, s in zip(rows, stage, strict=True) if s <= stage[n])
            row_id = encoded.ids[n, f]
            assert encoded.row_field[row_id] == f
            assert encoded.values[row_id] == (value if upto >= min_count else "<unknown>")
            assert row_id < encoded.vocab_sizes[stage[n]]


def test_later_ids_are_unknown_to_an_earlier_stage():
    ids = np.array([[2, 3], [9, 3], [2, 8]], np.int32)
    expected = [[2, 3], [0, 3], [2, 1]]
    known = encode.as_known(ids, 8)
    assert (known.tolist(), known.dtype) == (expected, np.int32)
    on_device = jax.jit(encode.as_known)(jnp.asarray(ids), 8)
    assert (on_device.tolist(), on_device.dtype) == (expected, jnp.int32)


def test_statistics_are_those_of_the_first_stage():
    dense = np.array([[1.0], [3.0], [100.0], [-7.0]])
    stream = stages.build(make_log(range(4), dense=dense), 2, (), 1)
    assert stream.dense_stats.tolist() == [[2.0, 1.0]]
    assert stream.stages[0].rows.dense.tolist() == [[-1.0], [1.0]]
    assert stream.stages[1].rows.dense.tolist() == [[98.0], [-9.0]]


def test_a_constant_feature_is_only_centred():
    dense = np.array([[0.1], [0.1], [0.1], [1.1]])
    stream = stages.build(make_log(range(4), dense=dense), 2, (), 1)
    assert stream.dense_stats[0, 1] == 1.0
    np.testing.assert_allclose(stream.stages[1].rows.dense, [[0.0], [1.0]], atol=1e-6)


def test_users_are_numbered_as_they_come():
    stream = stages.build(make_log(range(4), a=["v", "u", "u", "w"]), 2, (), 1)
    assert [stage.user.tolist() for stage in stream.stages] == [[0, 1], [1, 2]]
