"""Every spelling of time and value that we take, and each that we refuse, with its reason."""

import datetime as dt
from decimal import Decimal

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_logs import ROLES, columns, load, part, source, texts

from diet_jax.data.clean import CURES, clean
from diet_jax.data.source import Block, Dense, Field, Reject, map_frames
from diet_jax.types import InputError

NAN, INF = float("nan"), float("inf")
NOON = dt.datetime(2024, 5, 31, 12, 0, 1)
SECONDS = int(NOON.replace(tzinfo=dt.UTC).timestamp())
LOG = {"user": [1, 2, 3, 4], "item": [7, 8, 7, 9], "label": [0, 1, 0, 1], "time": [1, 2, 3, 4]}
ROLES = ROLES._replace(dense=(Dense("price"),), weight="weight")
LOG |= {"price": [1.5, -2.0, 0.0, 3.0], "weight": [1.0, 0.5, 2, 1]}


def checked(change, roles=ROLES, **more):
    """The usable rows and the rejects of one block."""
    found = list(clean((part(LOG | change),), roles, **more))
    ((_, _, rows, rejects),) = found
    return rows, rejects


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize(
    "time",
    [
        SECONDS,
        SECONDS * 1000,
        SECONDS * 1_000_000,
        float(SECONDS),
        NOON,
        NOON.replace(tzinfo=dt.UTC),
        "2024-05-31 12:00:01",
        "2024-05-31T12:00:01Z",
        "2024-05-31T12:00:01z",
        "2024-05-31T14:00:01+02:00",
        "2024-05-31 07:00:01-05",
        " 2024-05-31 12:00:01.000",
        f" {SECONDS} ",
    ],
)
def test_spellings_of_time(time, text):
    column = pl.Series([time] * 4)
    rows, rejects = checked({"time": column.cast(pl.String) if text else column})
    assert rows.time.tolist() == [SECONDS * 1_000_000] * 4 and not rejects


@pytest.mark.parametrize("day", [dt.date(2024, 5, 31), "2024-05-31"])
def test_dates_are_midnight_utc(day):
    midnight = (SECONDS - 12 * 3600 - 1) * 1_000_000
    assert checked({"time": [day] * 4})[0].time.tolist() == [midnight] * 4


def test_other_times():
    zoned = pl.Series([NOON] * 4, dtype=pl.Datetime("ns")).dt.replace_time_zone("Asia/Tokyo")
    assert set(checked({"time": zoned})[0].time) == {(SECONDS - 9 * 3600) * 1_000_000}
    # Whichever comes first.
    with_zone = ["2024-05-31 12:00:01+00", *["2024-05-31 12:00:01"] * 2, "2024-05-31 12:00:01z"]
    assert checked({"time": with_zone})[0].time.tolist() == [SECONDS * 1_000_000] * 4
    apart = ["12:00:01 UTC", "12:00:01.0 GMT", "12:00:01 +0000", "14:00:01 +02"]
    apart = [f"2024-05-31 {text}" for text in apart]
    assert checked({"time": apart})[0].time.tolist() == [SECONDS * 1_000_000] * 4
    mixed = ["2024-05-31", "2024-05-31 12:00:01", "2024-05-31T12:00:01.5Z", "2024-05-31T12:00"]
    assert checked({"time": mixed})[0].time.tolist() == [
        (SECONDS - 12 * 3600 - 1) * 1_000_000,
        SECONDS * 1_000_000,
        SECONDS * 1_000_000 + 500_000,
        (SECONDS - 1) * 1_000_000,
    ]
    assert checked({"time": [0, SECONDS, 0, SECONDS]})[0].time[0] == 0
    assert checked({"time": [0, 0, 0, SECONDS * 1000]})[1][0].row == 4  # most are seconds


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        (2**31 - 1, pl.Date()),
        (2**63 - 1, pl.Datetime("ms", "UTC")),
        (2**63 - 1, pl.Datetime("us")),
        (-(2**63), pl.Datetime("us")),
    ],
)
def test_times_beyond_the_calendar_are_none(last, kind):
    physical = pl.Int32 if kind == pl.Date else pl.Int64
    column = pl.Series([1, 2, 3, last], dtype=physical).cast(kind)
    rows, (reject,) = checked({"time": column})
    assert (reject.row, reject.value, reject.reason) == (4, str(last), "is no time")
    assert len(rows.time) == 3


@pytest.mark.parametrize(
    "time",
    [
        [20240531, 20240601, 20240601, None],
        ["20240531", "20240601", "soon", "20240602"],
        [2024053118.0, 2024053119.0, NAN, 2024053119.0],
        [20240531180000, 20240531180001, 20240531235959, 20240531180000],
        [20240531] * 4,  # as in a file of one day
    ],
)
def test_dates_in_digits_are_not_taken_for_seconds(time):
    with pytest.raises(InputError, match="log, column 'time': holds dates like 2024.*2024-05-31"):
        checked({"time": time})


def test_numbers_that_only_look_like_dates_are_times():
    for time in ([20240531, 20240631, 20241301, 20240601], [20240531.5, 1, 2, 3]):
        assert not checked({"time": time})[1]


@given(
    st.lists(st.integers(10**8, 4 * 10**9), min_size=4, max_size=4),
    st.sampled_from([1, 1000, 10**6]),
)
def test_units_of_time_are_told_apart(seconds, factor):
    rows, rejects = checked({"time": [s * factor for s in seconds]})
    assert rows.time.tolist() == [s * 10**6 for s in seconds] and not rejects


def test_all_blocks_have_the_unit_of_the_first_that_has_times():
    milli = np.arange(4) + SECONDS * 1000
    parts = [part(LOG | {"time": time}) for time in ([None] * 4, milli, [SECONDS] * 4, [NOON] * 4)]
    found = list(clean(tuple(parts), ROLES))
    assert [unit for _, unit, _, _ in found] == ["", *["milliseconds"] * 3]
    assert [len(rows.time) for _, _, rows, _ in found] == [0, 4, 0, 4]
    assert {r.reason for *_, rejects in found[2:] for r in rejects} == {
        "is not in milliseconds like the rest"
    }
    (resumed,) = clean(tuple(parts), ROLES, (3, 0), "milliseconds")
    assert resumed[0] == (3, 1)


BAD = [
    ({"label": [1, 0, 2, 1]}, 3, "label", "is neither 0 nor 1"),
    ({"label": [1, None, 0, 1]}, 2, "label", "the value is missing"),
    ({"label": ["1", "no", "0", "1"]}, 2, "label", "is neither 0 nor 1"),
    ({"label": [True, False, None, True]}, 3, "label", "the value is missing"),
    ({"time": [1, 2, None, 3]}, 3, "time", "the value is missing"),
    ({"time": [1.0, NAN, 2.0, 3.0]}, 2, "time", "is no time"),
    ({"time": ["1", "2", "soon", "3"]}, 3, "time", "is no time"),
    ({"time": ["2024-05-31", "31/05/2024", *["2024-05-31"] * 2]}, 2, "time", "is no time"),
    ({"time": ["2024-05-31", "2024-02-30", *["2024-05-31"] * 2]}, 2, "time", "is no time"),
    ({"time": [SECONDS * 1000] * 3 + [SECONDS]}, 4, "time", "is not in milliseconds like the rest"),
    ({"time": [SECONDS, SECONDS * 10**6, 1, 2]}, 2, "time", "is not in seconds like the rest"),
    ({"time": [1e300, 1.0, 2.0, 3.0]}, 1, "time", "is no time"),
    ({"time": [SECONDS * 10**9, 1, 2, 3]}, 1, "time", "is no time"),
    ({"time": [5, -5, 5, 5]}, 2, "time", "lies before 1970"),
    ({"time": ["2024-05-31", "1969-12-31", *["2024-05-31"] * 2]}, 2, "time", "lies before 1970"),
    ({"price": [1.0, 2.0, NAN, 3.0]}, 3, "price", "is not a finite float32 number"),
    ({"price": [1.0, None, 2.0, 3.0]}, 2, "price", "the value is missing"),
    ({"price": [1.0, 2.0, 3.0, -INF]}, 4, "price", "is not a finite float32 number"),
    ({"price": [1e300, 2.0, 3.0, 4.0]}, 1, "price", "is not a finite float32 number"),
    ({"price": ["1", "2", "-", "3"]}, 3, "price", "is not a finite float32 number"),
    ({"weight": [1, 0, 1, 1]}, 2, "weight", "is not a positive weight"),
    ({"weight": [1, INF, 1, 1]}, 2, "weight", "is not a positive weight"),
    ({"weight": ["1", "", "1", "1"]}, 2, "weight", "the value is missing"),
]


@pytest.mark.parametrize(("change", "row", "column", "reason"), BAD)
def test_a_bad_value_rejects_its_row(change, row, column, reason):
    rows, (reject,) = checked(change)
    assert (reject.where, reject.row, reject.column, reject.reason) == ("log", row, column, reason)
    assert reason in CURES
    assert rows.user.to_list() == [user for user in LOG["user"] if user != row]
    shapes = [len(x) for x in (rows.time, rows.label, rows.weight, rows.dense, rows.fields["item"])]
    assert shapes == [3] * 5 and np.isfinite(rows.dense).all()


@pytest.mark.parametrize("time", [["soon"] * 4, [None] * 4, [1e300] * 4])
def test_no_time_at_all(time):
    rows, rejects = checked({"time": time})
    assert len(rows.time) == 0 and [r.row for r in rejects] == [1, 2, 3, 4]


def test_a_row_is_rejected_once_and_rejects_come_in_the_order_of_the_file():
    split = Reject("log", 3, "", "a,b", "another number of columns")
    bad = pl.DataFrame(LOG | {"time": [None, 2, 3, 4], "label": [7, 7, 7, 0]}).with_row_index()
    block = Block(bad.filter(pl.col("index") != 2), pl.Series([1, 2, 4]), (split,))
    one = part(LOG)._replace(blocks=lambda: iter([block]))
    ((_, _, rows, rejects),) = clean((one,), ROLES)
    assert [(r.row, r.column) for r in rejects] == [(1, "time"), (2, "label"), (3, "")]
    assert rows.user.to_list() == [4]


def test_a_part_with_nothing_but_rejects_and_one_without_rows():
    split = Reject("bad", 1, "", "{", "not JSON")
    block = Block(pl.DataFrame(), pl.Series([], dtype=pl.Int64), (split,))
    roles = ROLES._replace(
        fields=(Field("item"), Field("tags", 3)), dense=(Dense("price", missing=0.0),)
    )
    empty = pl.DataFrame(LOG | {"tags": [["a"], [], ["b", "c"], None]}).clear()
    found = list(clean((part(LOG)._replace(blocks=lambda: iter([block])), part(empty)), roles))
    assert [len(rows.time) for _, _, rows, _ in found] == [0, 0]
    assert found[0][3] == [split]


def test_a_missing_number_may_have_a_stand_in():
    roles = ROLES._replace(dense=(Dense("price", missing=-1.0),))
    for price in (["1", "", None, "nan"], [1.0, None, None, NAN]):
        rows, rejects = checked({"price": price}, roles)
        assert rows.dense.tolist() == [[1.0], [-1.0], [-1.0], [-1.0]] and not rejects
    assert [r.row for r in checked({"price": ["1", "x", "", "inf"]}, roles)[1]] == [2, 4]


def test_ratings_need_a_threshold():
    ratings = {"label": ["5", "3.5", " 4", "4.0"]}
    rows, _ = checked(ratings, ROLES._replace(threshold=4.0))
    assert rows.label.tolist() == [1, 0, 1, 1] and rows.label.dtype == np.float32
    rows, (reject,) = checked({"label": [5.0, 4.0, NAN, 1.0]}, ROLES._replace(threshold=4.0))
    assert reject.reason == "is not a rating" and rows.label.tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("item", "known"),
    [
        (["01", "1", "", None], ["01", "1", "<missing>", "<missing>"]),
        ([NAN, 2.5, None, 1e300], ["<missing>", "2.5", "<missing>", "1e+300"]),
        ([-(2**63), 2**63 - 1, 0, 5_000_000], ["-9223372036854775808", "9223372036854775807"]),
        (pl.Series([2**64 - 1, 0, 1, 2], dtype=pl.UInt64), ["18446744073709551615", "0"]),
        ([1, None, 2, 3], ["1", "<missing>"]),
        ([True, False, None, True], ["true", "false", "<missing>"]),
        ([None] * 4, ["<missing>"] * 4),
        ([dt.date(2024, 5, 31)] * 4, ["2024-05-31"]),
        ([7.0, 7.5, None, 7.0], ["7", "7.5", "<missing>", "7"]),
        ([1e17, 1e15, -0.0, 1e19], ["100000000000000000", "1000000000000000", "0", "1e+19"]),
        ([Decimal("7.00"), None, Decimal("7.50"), Decimal("70")], ["7", "<missing>", "7.5", "70"]),
        (pl.Series([70, 0, 1, 2], dtype=pl.Decimal(5, 0)), ["70", "0"]),
        (pl.Series([2**63, 0, 2**64, 1], dtype=pl.Int128), ["9223372036854775808", "0"]),
        (pl.Series([2**31 - 1, 0, 1, 2], dtype=pl.Int32).cast(pl.Date), ["2147483647"]),
    ],
)
def test_categories_are_their_text(tmp_path, item, known):
    log = LOG | {"item": item}
    assert texts(load(source(log, roles=ROLES), tmp_path, 1), "item")[: len(known)] == known


@pytest.mark.parametrize(
    ("tags", "separator"),
    [
        ([["a"], [], ["b", None, "c", "d", "e"], None], "|"),
        (["a", "", "b||c|d|e", None], "|"),
        (["a ", " ", "b, ,c, d,e", None], ","),
        (pl.Series([["a", ""], [], ["b", "c", "d"], None]).cast(pl.List(pl.Categorical)), ""),
    ],
)
def test_several_values_of_a_field(tmp_path, tags, separator):
    roles = ROLES._replace(fields=(Field("tags", 3, separator), Field("item")))
    stream = load(source(LOG | {"tags": tags}, roles=roles), tmp_path, 1)
    assert texts(stream, "tags") == [["a"], [], ["b", "c", "d"], []]
    assert stream.schema.pool == stream.schema.vocab == (0, 0, 0, 1)


def test_several_numbers_of_a_field(tmp_path):
    roles = ROLES._replace(fields=(Field("item"), Field("tags", 2)))
    array = pl.Series([[9, 3], [3, 9], [1, 1], [0, 9]], dtype=pl.Array(pl.Int64, 2))
    stream = load(source(LOG | {"tags": array}, roles=roles), tmp_path, 1)
    assert texts(stream, "tags") == [["9", "3"], ["3", "9"], ["1", "1"], ["0", "9"]]
    assert list(stream.values[2:5]) == ["7", "9", "3"]  # as the first row shows them
    for tags in ([[1.5, NAN]], [["1.5"]]):
        log = LOG | {"tags": tags * 4}
        assert texts(load(source(log, roles=roles), tmp_path, 1), "tags") == [["1.5"]] * 4
    whole = ROLES._replace(fields=(Field("tags", 2),))
    log = LOG | {"tags": ["a|b", "", "c", None]}
    assert texts(load(source(log, roles=whole), tmp_path, 1), "tags") == [["a|b"], [], ["c"], []]


def test_a_number_is_the_same_value_whatever_its_type(tmp_path):
    roles = ROLES._replace(fields=(Field("item"), Field("tags", 2)))
    whole, real = [[9, 3]] * 4, [[9.0, 3.0]] * 4
    one = source(
        LOG | {"tags": whole}, LOG | {"item": [7.0, 8, None, 9], "tags": real}, roles=roles
    )
    stream = load(one, tmp_path, 1)
    assert sorted(set(texts(stream, "item"))) == ["7", "8", "9", "<missing>"]
    assert texts(stream, "tags") == [["9", "3"]] * 8


def test_hashed_fields_and_users(tmp_path):
    roles = ROLES._replace(fields=(Field("user", hashed=1), Field("item", 2, "|", hashed=2)))
    stream = load(source(LOG | {"item": ["a|b", "c", "d", "a"]}, roles=roles), tmp_path, 1)
    assert set(stream.values) <= {"<unknown>", "#0", "#1"}
    users = columns(stream)[4]
    assert users.tolist() == [0, 1, 2, 3]


def test_weights_reach_the_rows(tmp_path):
    assert columns(load(source(LOG, roles=ROLES), tmp_path, 1))[3].tolist() == [1.0, 0.5, 2.0, 1.0]
    plain = ROLES._replace(weight="")
    weight = columns(load(source(LOG, roles=plain), tmp_path, 1))[3]
    assert weight.tolist() == [1.0] * 4 and weight.dtype == np.float32


def test_what_a_change_of_frames_cannot_do_is_one_line():
    one = map_frames(part(LOG), lambda frame: frame.select("user", pl.col("item").str.to_date()))
    with pytest.raises(InputError, match="^log: cannot be read [^\n]*$"):
        list(clean((one,), ROLES))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fields": (Field("tags"),)}, ("column 'tags'", "not single values", "data.multi")),
        ({"fields": (Field("item", 2),)}, ("column 'item'", "not several values", "separator")),
        ({"fields": (Field("pairs", 2),)}, ("column 'pairs'", "not several values")),
        ({"dense": (Dense("tags"),)}, ("column 'tags'", "not numbers")),
        ({"label": "tags"}, ("column 'tags'", "not numbers")),
        ({"time": "tags"}, ("column 'tags'", "not numbers")),
        ({"time": "clock"}, ("column 'clock'", "not numbers")),
        ({"user": "long"}, ("column 'long'", "not single values")),
        ({"label": "like"}, ("no column 'like'", "it has: user, item, label, time, price")),
        ({"weight": "cost"}, ("no column 'cost'", "it has:")),
    ],
)
def test_columns_that_cannot_serve(change, words):
    more = {"tags": [["a"]] * 4, "pairs": [[{"a": 1}]] * 4, "clock": [dt.time(1)] * 4}
    more["long"] = [dt.timedelta(1)] * 4
    with pytest.raises(InputError) as caught:
        checked(more, ROLES._replace(**change))
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in ("log", *words)), message
