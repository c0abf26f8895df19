"""A user's own log: from the config's names to rows, and one line for all that cannot be."""

import gzip
import json
import shutil

import numpy as np
import polars as pl
import pytest
from ml_collections import ConfigDict
from small_logs import columns, texts

from configs import default
from diet_jax import data
from diet_jax.data import store, text
from diet_jax.types import InputError

GOOD = {
    "user": ["b", "a", None, "b"],
    "item": [7, 8, 7, None],
    "price": [1.5, -2.0, 0.0, 3.0],
    "click": [1, 0, 0, 1],
    "when": [1_700_000_030, 1_700_000_010, 1_700_000_030, 1_700_000_000],
}


def config(path, cache, **change):
    c = default.get_config()
    known = {
        "source": "table",
        "path": str(path),
        "name": "",
        "cache": str(cache),
        "label": "click",
        "time": "when",
        "dense": ("price",),
        "threshold": -1.0,
        "max_rejected": 0.0,
    }
    c.data.update(known | change)
    c.stages.count = 1
    return c


def read(path, **change):
    return data.load_stream(config(path, path.parent / "cache", **change))


def write(folder, name="log.parquet", **change):
    frame, path = pl.DataFrame(GOOD | change), folder / name
    if name.endswith(".parquet"):
        frame.write_parquet(path)
    elif name.endswith(".arrow"):
        frame.write_ipc(path)
    elif name.endswith(".jsonl"):
        frame.write_ndjson(path)
    elif name.endswith(".gz"):
        path.write_bytes(gzip.compress(frame.write_csv().encode(), mtime=0))
    else:
        frame.write_csv(path)
    return path


@pytest.mark.parametrize(
    "name", ["log.parquet", "log.csv", "log.csv.gz", "my own log.arrow", "log.jsonl"]
)
def test_reads_in_time_order_with_ties_as_in_the_file(tmp_path, name):
    stream = read(write(tmp_path, name))
    assert texts(stream, "user") == ["b", "a", "b", "<missing>"]
    assert texts(stream, "item") == ["<missing>", "8", "7", "7"]
    _, dense, label, weight, user, time = columns(stream)
    assert user[0] == user[2] and len(set(user.tolist())) == 3
    price = np.array([3.0, -2.0, 1.5, 0.0])
    np.testing.assert_allclose(dense[:, 0], (price - price.mean()) / price.std(), rtol=1e-6)
    assert label.tolist() == [1, 0, 1, 0] and weight.tolist() == [1] * 4
    assert time.tolist() == [1_700_000_000, 1_700_000_010, 1_700_000_030, 1_700_000_030]
    assert stream.name == name.split(".")[0]


def test_a_folder_is_one_log(tmp_path):
    folder = tmp_path / "a log"
    folder.mkdir()
    write(folder, "2.csv")
    write(folder, "1.parquet", item=[1, 2, 3, 4])
    stream = read(folder)
    assert texts(stream, "item") == ["4", "<missing>", "2", "8", "1", "3", "7", "7"]
    assert stream.name == "a log"


def test_a_folder_a_day_says_when_and_where(tmp_path):
    """Written by Hive, Spark or Polars: the columns that folders are named by are in no file."""
    log = tmp_path / "log"
    for name, site in (("1.csv", "a"), ("2.jsonl", "b"), ("3.parquet", "b")):
        folder = log / f"when=2024-01-0{name[0]}" / f"site={site}"
        folder.mkdir(parents=True)
        pl.read_csv(write(tmp_path, "one.csv")).drop("when").write_csv(tmp_path / "one.csv")
        frame = pl.read_csv(tmp_path / "one.csv")
        kinds = {"csv": frame.write_csv, "jsonl": frame.write_ndjson}
        kinds.get(name[2:], frame.write_parquet)(folder / name)
    found = read(log, categorical=("user", "site"))
    assert texts(found, "site") == ["a"] * 4 + ["b"] * 8
    days = np.unique(found.stages[0].time).tolist()
    assert days == [1_704_067_200 + 86_400 * k for k in range(3)]
    (log / "when=2024-01-03").rename(log / "when=2024-01-04")
    assert read(log, categorical=("user", "site")).key != found.key
    part = read(log / "when=2024-01-0[12]", categorical=("user",))
    assert len(part.rows.label) == 8
    with pytest.raises(InputError, match="no column 'when'"):
        read(log / "when=2024-01-01")
    # Whose column it is, the folder's or the file's, is told apart; where the folder lies is not.
    both = tmp_path / "both" / "site=x"
    both.mkdir(parents=True)
    write(both, "log.csv", site=["p", "q", "r", "s"])
    of_folder, of_file = (read(p, categorical=("site",), name="n") for p in (both.parent, both))
    assert (texts(of_folder, "site")[0], texts(of_file, "site")[0]) == ("x", "s")
    shutil.copytree(both, tmp_path / "k=v" / "moved")
    assert read(tmp_path / "k=v" / "moved", categorical=("site",), name="n").key == of_file.key


def test_all_that_the_config_can_say(tmp_path):
    path = write(
        tmp_path,
        tags=[["x", "y"], [], ["y"], ["z"]],
        page=["p", "q", "p", "r"],
        weight=[1, 2, 3, 4],
        level=[None, 1.0, 2.0, 3.0],
        click=[1, 1, 0, 1],
    )
    stream = read(
        path,
        multi={"tags": 2},
        hashed={"page": 1},
        categorical=("user", "item", "page"),
        derived=("hour", "count:item"),
        dense=("price", "level"),
        scale={"price": "none"},
        missing={"level": 0.5},
        weight="weight",
        history="item",
        history_length=2,
    )
    assert " ".join(stream.schema.fields) == "user item page tags hour count_item history"
    assert stream.schema.pool == (0, 1, 2, 3, 3, 4, 5, 6, 6)
    assert stream.schema.vocab == (0, 1, 2, 3, 3, 4, 5, 1, 1)
    assert texts(stream, "tags") == [["z"], [], ["x", "y"], ["y"]]
    assert texts(stream, "page") == ["#0"] * 4
    assert texts(stream, "hour") == ["22"] * 4
    assert texts(stream, "history") == [[], [], ["<missing>"], []]
    assert texts(stream, "count_item") == ["0", "0", "0", "1"]
    assert columns(stream)[1][:, 0].tolist() == [3.0, -2.0, 1.5, 0.0]
    assert columns(stream)[3].tolist() == [4, 2, 1, 3]


@pytest.mark.parametrize("name", ["log.parquet", "log.csv"])
def test_a_bad_row_is_named_with_its_cure(tmp_path, name):
    path = write(tmp_path, name, click=[1, 0, 2, None])
    words = (str(path), ", row 3, column 'click'", "'2' is neither 0 nor 1", "data.threshold")
    words += ("2 of 4 rows are rejected", "is neither 0 nor 1: 1", "the value is missing: 1")
    refused(path, {"max_rejected": 0.4}, (*words, "data.max_rejected = 0.4", "rejected.csv"))
    assert len(columns(read(path, max_rejected=0.5))[2]) == 2


def refused(path, change, words):
    with pytest.raises(InputError) as caught:
        read(path, **change)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"time": ""}, ("data.time is empty",)),
        ({"categorical": ()}, ("data.categorical is empty",)),
        ({"categorical": ("item", "click")}, ("data.label 'click'", "feature")),
        ({"dense": ("price", "price")}, ("'price'", "twice")),
        ({"dense": ("price", "item")}, ("'item'", "twice")),
        ({"dense": ("history",), "history": "item"}, ("'history'", "twice")),
        ({"derived": ("hour", "hour")}, ("'hour'", "twice")),
        ({"derived": ("minute",)}, ("data.derived 'minute'", "hour, weekday, day or count:")),
        ({"derived": ("count:colour",)}, ("'count:colour'", "count one of user, item")),
        ({"derived": ("hour", "count:hour")}, ("'count:hour'", "count one of user, item")),
        ({"multi": {"item": 2}, "derived": ("count:item",)}, ("count one of user",)),
        ({"multi": {"item": 1}}, ("data.multi of 'item' is 1", "2 or more")),
        ({"multi": {"item": 2**31}}, ("'item' has the width 2147483648", "1 .. 65536")),
        ({"derived": (5,)}, ("data.derived has 5", "as text")),
        ({"more_labels": (5,)}, ("data.more_labels has 5", "as text")),
        ({"categorical": (5, "item")}, ("data.categorical has 5", "as text")),
        ({"history": "item", "history_length": 2**31}, ("data.history_length is 2147483648",)),
        ({"multi": {"item": 2.5}}, ("data.multi of 'item' is 2.5", "2 or more")),
        ({"hashed": {"item": "100"}}, ("data.hashed of 'item' is '100'", "set it to")),
        ({"hashed": {"item": 100.5}}, ("data.hashed of 'item' is 100.5", "set it to")),
        ({"missing": {"price": "0"}}, ("data.missing of 'price' is '0'", "finite number")),
        ({"hashed": {"item": -1}}, ("data.hashed of 'item' is -1",)),
        ({"hashed": {"itme": 9}}, ("data.hashed names 'itme'", "item, user")),
        ({"scale": {"cost": "log"}}, ("data.scale names 'cost'", "price")),
        ({"scale": {"price": "cubic"}}, ("'price' is 'cubic'", "quantile")),
        ({"missing": {"cost": 0.0}}, ("data.missing names 'cost'", "price")),
        ({"missing": {"price": float("nan")}}, ("data.missing of 'price' is nan",)),
        ({"history": "colour"}, ("data.history is 'colour'", "one of user, item")),
        ({"history": "item", "history_length": 0}, ("data.history_length is 0",)),
        ({"min_count": 0}, ("data.min_count is 0",)),
        ({"max_rejected": 2.0}, ("data.max_rejected is 2.0",)),
        ({"threshold": float("nan")}, ("data.threshold is nan",)),
        ({"more_labels": ("click",)}, ("data.more_labels: 'click'", "other columns")),
        ({"more_labels": ("a", "a")}, ("data.more_labels: 'a'", "other columns")),
        ({"more_labels": ("",)}, ("data.more_labels: ''",)),
        ({"more_labels": ("item",)}, ("data.more_labels 'item' is also a feature",)),
        ({"more_labels": ("buy",)}, ("log.csv: no column 'buy'",)),
        ({"more_labels": ("buy",), "dense": ("task",)}, ("'task'", "rename it")),
        ({"derived": ("task",)}, ("data.derived 'task'", "hour, weekday, day")),
        ({"label": "like"}, ("log.csv: no column 'like'", "it has: user, item")),
    ],
)
def test_names_and_numbers_that_cannot_be(tmp_path, change, words):
    refused(write(tmp_path, "log.csv"), change, words)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("log.csv", None, ("does not exist",)),
        ("log.csv", b"", ("empty",)),
        ("log.csv", b"\n\n", ("empty",)),
        ("log.csv", b"user,item,price,click,when\n", ("no rows",)),
        ("log.csv", b"user,item,price,click,when\n1,2\n", ("row 1: another number of columns",)),
        ("log.csv", b"user,item,price,click,when\n\xe9,2,3,1,5\n", ("row 1: not UTF-8",)),
        ("log.csv.gz", b"not packed", ("cannot be read",)),
        ("log.parquet", b"PAR1 and no more", ("cannot be read",)),
        ("log.jsonl", b"[1]\n{\n", ("row 1: not an object", "2 of 2 rows", "not JSON: 1")),
        ("log.xlsx", b"x", ("ending", ".parquet")),
    ],
)
def test_files_that_cannot_serve(tmp_path, name, content, words):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    refused(path, {}, (str(path), *words))


def test_empty_path_and_parquet_without_rows(tmp_path):
    with pytest.raises(InputError, match="data.path is empty"):
        data.load_stream(config("", tmp_path))
    pl.DataFrame(GOOD).clear().write_parquet(tmp_path / "log.parquet")
    refused(tmp_path / "log.parquet", {}, ("no rows", str(tmp_path)))


def test_where_logs_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("DIET_JAX_CACHE", str(tmp_path / "a"))
    assert data.cache_folder("") == tmp_path / "a"
    assert data.cache_folder("b").name == "b"
    monkeypatch.setenv("DIET_JAX_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data.cache_folder("") == tmp_path / "diet_jax"
    one = config(write(tmp_path), tmp_path / "c")
    folder = data.prepare_log(one)
    one.outer.steps += 1  # not of the data
    assert data.prepare_log(one) == folder and folder.parent == tmp_path / "c"
    assert store.read(folder).name == "log"


def test_keys_that_no_one_reads_are_refused(tmp_path):
    one = config(write(tmp_path), tmp_path / "c")
    assert {block: set(one[block]) for block in data.KEYS} == {
        b: set(k) for b, k in data.KEYS.items()
    }
    for change, words in (
        ("data.histroy", "data.histroy is no key of the config; did you mean history?"),
        ("stages.length", "stages.length is no key of the config; it has count, fractions"),
    ):
        block, key = change.split(".")
        wrong = ConfigDict(one.to_dict())  # of one that was not made of ours, which refuse it
        wrong[block][key] = "item"
        with pytest.raises(InputError, match=words):
            data.prepare_log(wrong)


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


ROWS = pl.DataFrame(GOOD).to_dicts()


def test_a_key_that_some_rows_never_show_is_null_there(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "_CHUNK", 100)  # a row or two at once
    path = jsonl(tmp_path / "log.jsonl", [*ROWS[:3], ROWS[3] | {"coupon": "x"}])
    names = ("user", "coupon")
    assert texts(read(path, categorical=names), "coupon") == ["x", *["<missing>"] * 3]
    folder = tmp_path / "two"
    folder.mkdir()
    jsonl(folder / "a.jsonl", ROWS)
    jsonl(folder / "b.jsonl", [row | {"coupon": "x"} for row in ROWS])
    assert sorted(texts(read(folder, categorical=names), "coupon")) == ["<missing>"] * 4 + ["x"] * 4


@pytest.mark.parametrize("role", [{"categorical": ("user", "coupon")}, {"label": "coupon"}])
def test_a_key_that_no_row_shows_is_no_column(tmp_path, monkeypatch, role):
    monkeypatch.setattr(text, "_CHUNK", 100)
    path = jsonl(tmp_path / "log.jsonl", ROWS)
    words = ("log.jsonl: no column 'coupon'; it has: user, item, price", "data.label")
    refused(path, role, words)
    good = path.read_text()
    for bad in ("garbage\n", "{}\n", "[1]\n"):  # shows no key, and so not that one
        for lines in (good + bad * 40, bad * 40 + good):
            path.write_text(lines)
            refused(path, role | {"max_rejected": 1.0}, words)


def test_what_no_role_uses_may_be_anything(tmp_path):
    odd = [{"deep": {"x": [1]}}, {"deep": 2}, {"deep": None}, {}]
    path = jsonl(tmp_path / "a.jsonl", [row | more for row, more in zip(ROWS, odd, strict=True)])
    assert texts(read(path), "user") == ["b", "a", "b", "<missing>"]
    path = write(tmp_path, "b.csv")
    path.write_text(path.read_text().replace("\n", ",,é\n").replace("when,,é", "when,,when ,", 1))
    refused(path, {}, ("names 'when' twice",))
    path.write_text(path.read_text().replace("when,,when ,", "when,,,", 1).replace(",,é", ",,,é"))
    assert texts(read(path), "user") == ["b", "a", "b", "<missing>"]
