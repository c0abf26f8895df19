"""Stages know their past only: borders and vocabulary."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_logs import ROLES, columns, load, random_log, source, texts

from diet_jax.data import stages
from diet_jax.data.codes import Codes
from diet_jax.data.source import Field, History
from diet_jax.data.stages import Cuts
from diet_jax.data.vocabulary import as_known
from diet_jax.types import InputError

SECOND, HOUR = 1_000_000, 3_600_000_000


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
    assert stages.cut(np.array(time), Cuts(count, fractions), "f").tolist() == borders


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.integers(1, 6))
def test_no_time_straddles_a_border(times, count):
    time = np.sort(np.array(times))
    try:
        borders = stages.cut(time, Cuts(count), "f")
    except InputError:
        return
    assert (borders[0], borders[-1]) == (0, len(time))
    assert (np.diff(borders) > 0).all()
    inner = borders[1:-1]
    assert (time[inner - 1] < time[inner]).all()


@given(
    st.lists(st.integers(0, 60 * 24 * HOUR), min_size=1, max_size=40),
    st.sampled_from(["hour", "day", "week"]),
)
def test_intervals_begin_on_the_clock(times, interval):
    time = np.sort(np.array(times))
    borders = stages.cut(time, Cuts(3, interval=interval), "f")
    clock = pl.Series(time).cast(pl.Datetime("us")).dt.truncate({"hour": "1h"}.get(interval, "1d"))
    if interval == "week":  # from Monday
        clock = clock.dt.offset_by("0d").dt.truncate("1w")
    changes = np.flatnonzero(np.diff(clock.dt.epoch("us").to_numpy())) + 1
    assert borders.tolist() == [0, *changes, len(time)]


@pytest.mark.parametrize(
    ("time", "cuts", "words"),
    [
        ([1, 2], Cuts(3), ("2 rows", "3 stages", "stages.count", "log.csv")),
        ([1, 1, 1, 1, 2, 3], Cuts(3), ("stage 2 of 3", "empty", "1970-01-01 00:00:01")),
        ([1, 2, 2, 2], Cuts(2, (0.9, 0.1)), ("stage 2 of 2", "empty")),
        (range(9), Cuts(2, (0.01, 0.99)), ("stage 1 of 2", "empty")),
        (range(9), Cuts(2, (0.5, 0.4)), ("sums to 0.9", "stages.fractions")),
        (range(9), Cuts(2, (1.5, -0.5)), ("positive", "stages.fractions")),
        (range(9), Cuts(0), ("stages.count is 0",)),
        (range(9), Cuts(2, interval="month"), ("stages.interval is 'month'", "hour, day, week")),
    ],
)
def test_cuts_that_cannot_be(time, cuts, words):
    with pytest.raises(InputError) as caught:
        stages.check(cuts)
        stages.cut(np.array(time) * SECOND, cuts, "log.csv")
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_a_stage_with_one_class_is_named_with_its_time(tmp_path):
    log = {"user": [1] * 6, "item": [1] * 6, "time": range(6), "label": [0, 1, 1, 1, 0, 1]}
    with pytest.raises(InputError) as caught:
        load(source(log), tmp_path, 3)
    message = str(caught.value)
    for word in ("log0", "stage 2 of 3", "1970-01-01 00:00:02", "00:00:03", "only label 1"):
        assert word in message
    assert "\n" not in message


def test_rows_of_the_table_follow_first_appearance_and_min_count(tmp_path):
    log = {"user": list("pqqrps"), "item": list("xxyxyx")}
    log |= {"time": range(6), "label": [0, 1] * 3}
    stream = load(source(log), tmp_path, 3)
    assert list(stream.values) == ["<unknown>"] * 2 + ["p", "x", "q", "y", "r", "s"]
    assert stream.row_field.tolist() == [0, 1, 0, 1, 0, 1, 0, 0]
    assert [stage.vocab_size for stage in stream.stages] == [5, 7, 8]
    assert stream.stages[1].rows.ids.tolist() == [[4, 5], [6, 3]]

    stream = load(source(log), tmp_path, 3, 2)
    assert list(stream.values) == ["<unknown>"] * 2 + ["x", "q", "p", "y"]
    assert [stage.vocab_size for stage in stream.stages] == [3, 4, 6]
    ids = [stage.rows.ids.tolist() for stage in stream.stages]
    assert ids == [[[0, 2], [0, 2]], [[3, 1], [0, 2]], [[4, 5], [0, 2]]]


RICH = ROLES._replace(
    fields=(
        Field("item"),
        Field("tags", width=2),
        Field("page", hashed=3),
        Field("seen", derived="count:item"),
    ),
    history=History("item", 2),
)


@settings(max_examples=12)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_a_stage_depends_on_nothing_later(tmp_path_factory, seed, min_count):
    """Wherever the later rows stand in the file, and whatever is in them."""
    rng, tmp = np.random.default_rng(seed), tmp_path_factory.mktemp("log")
    log = random_log(rng, 40, items=8, times=40)
    log["label"] = np.arange(40) % 2
    log["tags"] = [rng.integers(0, 9, rng.integers(0, 4)).tolist() for _ in range(40)]
    log["page"] = rng.choice(list("abcdef"), 40)
    log = pl.DataFrame(log)
    cut = stages.cut(log["time"].to_numpy(), Cuts(4), "")
    whole = load(source(log, roles=RICH), tmp, 4, min_count)
    n = int(cut[3])
    shares = tuple(np.diff(cut[:4]) / n)
    strange = log[n:].with_columns(item=pl.lit(-1, pl.Int64), page=pl.lit("new"))
    for other in (
        load(source(log[:n], roles=RICH), tmp, Cuts(0, shares), min_count),
        load(source(log[n:][::-1], log[:n], roles=RICH), tmp, 4, min_count),
        load(source(strange, log[:n], roles=RICH), tmp, 4, min_count),
    ):
        for a, b in zip(whole.stages[:3], other.stages[:3], strict=True):
            assert a.rows.ids.tolist() == b.rows.ids.tolist()
            assert a.vocab_size == b.vocab_size
        known = whole.stages[2].vocab_size
        assert list(whole.values[:known]) == list(other.values[:known])
        assert whole.row_field[:known].tolist() == other.row_field[:known].tolist()


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 3))
def test_a_value_is_unknown_until_it_is_admitted(tmp_path_factory, seed, min_count, n_stages):
    rng, tmp = np.random.default_rng(seed), tmp_path_factory.mktemp("log")
    log = random_log(rng, 30, items=8, times=30)
    log["label"] = np.arange(30) % 2
    stream = load(source(log), tmp, n_stages, min_count)
    ends = np.cumsum([len(stage.time) for stage in stream.stages])
    for field in ("user", "item"):
        upto = [(log[field][: ends[ends > n][0]] == log[field][n]).sum() for n in range(30)]
        expected = [
            str(value) if count >= min_count else "<unknown>"
            for value, count in zip(log[field], upto, strict=True)
        ]
        assert texts(stream, field) == expected
    ids = columns(stream)[0]
    assert (stream.row_field[ids] == [0, 1]).all()
    assert all(s.rows.ids.max() < s.vocab_size for s in stream.stages)


def test_later_ids_are_unknown_to_an_earlier_stage():
    ids = np.array([[2, 3], [9, 3], [2, 8]], np.int32)
    known = as_known(ids, np.arange(10) < 8, (0, 1))
    assert (known.tolist(), known.dtype) == ([[2, 3], [0, 3], [2, 1]], np.int32)
    assert as_known(ids, np.arange(10) < 3, (1, 0)).tolist() == [[2, 0], [1, 0], [2, 0]]


NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 9) | st.integers(2**22 - 2, 2**22 + 2)


@given(st.lists(st.lists(NUMBERS, max_size=8), max_size=6), st.lists(st.booleans(), min_size=6))
def test_codes_are_numbered_by_arrival(blocks, as_text):
    """7 and "7" are one value, whatever its size and wherever a block ends."""
    coder, again = Codes(), Codes()
    known, found = {}, []
    for block, text in zip(blocks, as_text, strict=False):
        column = pl.Series(block, dtype=pl.Int64)
        found = coder.encode(column.cast(pl.String) if text else column)
        expected = [known.setdefault(str(value), len(known)) for value in block]
        assert found.tolist() == expected
    assert coder.values().to_list() == list(known) and len(coder) == len(known)
    again.restore(coder.values())
    assert again.encode(coder.values()).tolist() == list(range(len(known)))
    assert coder.values(2).to_list() == list(known)[2:]


def test_hashed_values_share_rows_for_ever():
    coder = Codes(hashed=4)
    found = coder.encode(pl.Series(["a", "b", "c", "a", "d", "e"]))
    assert found[0] == found[3] and len(coder) <= 4
    # The published CRC-32 of "a" is e8b7be43.
    assert coder.values()[0] == f"#{0xE8B7BE43 % 4}"
    assert (Codes(hashed=4).encode(pl.Series([7, 12])) == [0, 1]).all()


def test_two_columns_do_not_share_their_codes():
    one, other = Codes(), Codes()
    assert one.encode(pl.Series(["a", "b"])).tolist() == [0, 1]
    assert other.encode(pl.Series(["b"])).tolist() == [0]
    unsigned = pl.Series([2**64 - 1, 0], dtype=pl.UInt64)
    assert other.encode(unsigned).tolist() == [1, 2]
    assert other.values().to_list() == ["b", str(2**64 - 1), "0"]
