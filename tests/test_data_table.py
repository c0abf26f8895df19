"""A user's own log: every spelling of time and value that we take, and each that we refuse."""

import datetime as dt
import gzip

import numpy as np
import polars as pl
import pytest

from diet_jax.data import table
from diet_jax.types import InputError

GOOD = {
    "user": ["b", "a", None, "b"],
    "item": [7, 8, 7, None],
    "price": [1.5, -2.0, 0.0, 3.0],
    "click": [1, 0, 0, 1],
    "when": [1_700_000_030, 1_700_000_010, 1_700_000_030, 1_700_000_000],
}


def read(path, **change):
    known = {
        "label": "click",
        "time": "when",
        "user": "user",
        "categorical": ("user", "item"),
        "dense": ("price",),
        "threshold": -1.0,
        "name": "",
    }
    return table.read(str(path), **(known | change))


def write(folder, name="log.parquet", **change):
    frame = pl.DataFrame(GOOD | change)
    if name.endswith(".parquet"):
        frame.write_parquet(folder / name)
    elif name.endswith(".gz"):
        (folder / name).write_bytes(gzip.compress(frame.write_csv().encode(), mtime=0))
    else:
        frame.write_csv(folder / name)
    return folder / name


@pytest.mark.parametrize("name", ["log.parquet", "log.csv", "log.csv.gz"])
def test_reads_in_time_order_with_ties_as_in_the_file(tmp_path, name):
    log = read(write(tmp_path, name))
    assert log.fields["user"].to_list() == ["b", "a", "b", "<missing>"]
    assert log.fields["item"].to_list() == ["<missing>", "8", "7", "7"]
    assert log.user.to_list() == ["b", "a", "b", "<missing>"]
    assert log.dense.tolist() == [[3.0], [-2.0], [1.5], [0.0]]
    assert log.dense.dtype == np.float32
    assert log.label.tolist() == [1, 0, 1, 0]
    assert log.time.tolist() == [1_700_000_000, 1_700_000_010, 1_700_000_030, 1_700_000_030]
    assert log.name == "log"


NOON = dt.datetime(2024, 5, 31, 12, 0, 1)
SECONDS = int(NOON.replace(tzinfo=dt.UTC).timestamp())


@pytest.mark.parametrize("name", ["log.parquet", "log.csv"])
@pytest.mark.parametrize(
    ("later", "earlier"),
    [
        (SECONDS, SECONDS - 1),
        (SECONDS * 1000 + 2, SECONDS * 1000 + 1),
        (float(SECONDS), SECONDS - 0.5),
        (NOON, NOON - dt.timedelta(milliseconds=1)),
        ("2024-05-31 12:00:01", "2024-05-31 12:00:00"),
        ("2024-05-31T12:00:01Z", "2024-05-31T12:00:00Z"),
        ("2024-05-31T14:00:01+02:00", "2024-05-31T14:00:00+02:00"),
        (" 2024-05-31 12:00:01.500", "2024-05-31 12:00:01.250"),
        (str(SECONDS), str(SECONDS - 1)),
    ],
)
def test_spellings_of_time(tmp_path, name, later, earlier):
    log = read(write(tmp_path, name, when=[later, later, later, earlier]))
    assert log.time.dtype == np.int64
    assert log.time.tolist()[1:] == [SECONDS] * 3
    assert log.time[0] in (SECONDS - 1, SECONDS)
    assert log.fields["item"].to_list() == ["<missing>", "7", "8", "7"]


@pytest.mark.parametrize("name", ["log.parquet", "log.csv"])
@pytest.mark.parametrize("day", [dt.date(2024, 5, 31), "2024-05-31"])
def test_dates_are_midnight_utc(tmp_path, name, day):
    log = read(write(tmp_path, name, when=[day] * 4))
    assert set(log.time.tolist()) == {SECONDS - 12 * 3600 - 1}


def test_zoned_datetime_is_utc(tmp_path):
    when = pl.Series([NOON] * 4).dt.replace_time_zone("Asia/Tokyo")
    assert set(read(write(tmp_path, when=when)).time.tolist()) == {SECONDS - 9 * 3600}


def test_threshold_makes_labels_of_ratings(tmp_path):
    path = write(tmp_path, "log.csv", click=["5", "3.5", " 4", "4.0"])
    assert read(path, threshold=4.0).label.tolist() == [1, 0, 1, 1]


def test_text_keeps_its_zeros_and_nan_is_missing(tmp_path):
    path = write(tmp_path, "log.csv", item=["01", "1", "", "01"])
    assert read(path).fields["item"].to_list() == ["01", "1", "01", "<missing>"]
    path = write(tmp_path, item=[float("nan"), 2.5, None, 1.0])
    assert read(path).fields["item"].to_list() == ["1.0", "2.5", "<missing>", "<missing>"]


def test_without_dense_columns_and_with_trailing_blank_lines(tmp_path):
    path = write(tmp_path, "log.csv")
    path.write_text(path.read_text() + "\n\n")
    assert read(path, dense=()).dense.shape == (4, 0)


NAN, INF = float("nan"), float("inf")
BAD_VALUES = [
    ({"click": [1, 0, 2, 1]}, {}, (", row 3, column 'click'", "2", "neither 0 nor 1", "threshold")),
    ({"click": [1, None, 0, 1]}, {}, (", row 2, column 'click'", "missing")),
    ({"click": ["1", "no", "0", "1"]}, {}, (", row 2, column 'click'", "'no'")),
    ({"click": ["5", "4", "?", "1"]}, {"threshold": 4.0}, (", row 3, column 'click'", "'?'")),
    ({"click": [5.0, 4.0, NAN, 1.0]}, {"threshold": 4.0}, (", row 3, column 'click'", "rating")),
    ({"when": [1, 2, None, 3]}, {}, (", row 3, column 'when'", "missing")),
    ({"when": [1.0, NAN, 2.0, 3.0]}, {}, (", row 2, column 'when'", "no time")),
    ({"when": ["1", "2", "soon", "3"]}, {}, (", row 3, column 'when'", "'soon'", "no time")),
    ({"when": ["soon"] * 4}, {}, (", row 1, column 'when'", "'soon'", "ISO")),
    ({"when": ["2024-05-31", "31/05/2024"] * 2}, {}, (", row 2, column 'when'", "ISO")),
    ({"when": ["2024-05-31", "2024-02-30"] * 2}, {}, (", row 2, column 'when'", "ISO")),
    ({"when": [1_700_000_000_000] * 3 + [1_700_000_000]}, {}, (", row 4, column 'when'", "mixes")),
    ({"when": [1e300, 1.0, 2.0, 3.0]}, {}, (", row 1, column 'when'", "no time")),
    ({"price": [1.0, 2.0, NAN, 3.0]}, {}, (", row 3, column 'price'", "finite")),
    ({"price": [1.0, None, 2.0, 3.0]}, {}, (", row 2, column 'price'", "missing")),
    ({"price": [1.0, 2.0, 3.0, -INF]}, {}, (", row 4, column 'price'", "finite")),
    ({"price": [1e300, 2.0, 3.0, 4.0]}, {}, (", row 1, column 'price'", "float32")),
    ({"price": ["1", "2", "-", "3"]}, {}, (", row 3, column 'price'", "'-'")),
    ({"price": ["1", "2", "x\ny" * 99, "3"]}, {}, (", row 3, column 'price'", "...")),
    ({}, {"label": "like"}, (": no column 'like'", "user, item, price, click, when")),
    ({}, {"dense": ("cost",)}, (": no column 'cost'", "it has:")),
]  # fmt: skip


@pytest.mark.parametrize("name", ["log.parquet", "log.csv"])
@pytest.mark.parametrize(("columns", "config", "words"), BAD_VALUES)
def test_bad_values_name_row_and_column(tmp_path, name, columns, config, words):
    path = write(tmp_path, name, **columns)
    refused(path, config, (str(path), *words))


def refused(path, config, words):
    with pytest.raises(InputError) as caught:
        read(path, **config)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"time": ""}, ("data.time is empty",)),
        ({"categorical": ()}, ("data.categorical is empty",)),
        ({"categorical": ("item", "click")}, ("data.label 'click'", "feature")),
        ({"dense": ("price", "price")}, ("'price'", "twice")),
        ({"dense": ("tags",)}, ("column 'tags'", "not numbers")),
        ({"categorical": ("tags",)}, ("column 'tags'", "not single values")),
        ({"label": "tags"}, ("column 'tags'", "not numbers")),
        ({"time": "tags"}, ("column 'tags'", "not numbers")),
    ],
)
def test_columns_that_cannot_serve(tmp_path, config, words):
    refused(write(tmp_path, tags=[[1], [2], [3], [4]]), config, words)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("log.csv", None, ("does not exist", "data.path")),
        ("", None, ("is a folder", "data.path")),
        ("log.csv", b"", ("empty",)),
        ("log.csv", b"\n\n", ("empty",)),
        ("log.csv", b"user,item,price,click,when\n", ("no rows",)),
        ("log.csv", b"a,b\n1,2\n3,4,5\n", ("row 2 has 3 columns, not 2",)),
        ("log.csv", b"a,b\n\xe9,2\n", ("UTF-8",)),
        ("log.csv.gz", b"not packed", ("cannot be read",)),
        ("log.csv.gz", gzip.compress(b"a,b\n1,2\n", mtime=0)[:-9], ("cannot be read",)),
        ("log.parquet", b"", ("empty",)),
        ("log.parquet", b"PAR1 and no more", ("cannot be read as Parquet",)),
        ("log.xlsx", b"x", ("unknown kind", ".parquet")),
    ],
)
def test_files_that_cannot_serve(tmp_path, name, content, words):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    refused(path, {}, (str(path), *words))


def test_empty_path_and_parquet_without_rows(tmp_path):
    refused("", {}, ("data.path is empty",))
    pl.DataFrame(GOOD).clear().write_parquet(tmp_path / "log.parquet")
    refused(tmp_path / "log.parquet", {}, ("no rows",))
