"""News, music, reviews and sessions: a few rows in each published layout, read as it is."""

import datetime as dt
import gzip
import json
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diet_jax.data import readers
from diet_jax.data.adapters import amazon, mind, negatives, sessions, yambda
from diet_jax.data.roles import check
from diet_jax.data.source import Block, Part
from diet_jax.types import InputError

YOOCHOOSE = Path(__file__).parents[1].parent / "shared" / "data" / "yoochoose" / "clicks.parquet"


def sliced(part, size):
    def blocks():
        for block in part.blocks():
            for at in range(0, max(len(block.frame), 1), size):
                yield Block(block.frame[at : at + size], block.rows[at : at + size])

    return part._replace(blocks=blocks)


@pytest.fixture(params=[1000, 2, 1])
def blocks_of(request, monkeypatch):
    """All that a test reads comes in blocks of so many rows."""
    for name in ("delimited", "jsonl", "parquet"):
        whole = getattr(readers, name)
        smaller = lambda *args, _whole=whole, **more: sliced(_whole(*args, **more), request.param)  # noqa: E731
        monkeypatch.setattr(readers, name, smaller)
    return request.param


def rows(source):
    """All rows of all parts, with their row numbers; every column that a role names is there."""
    blocks = [block for part in source.parts for block in part.blocks()]
    frame = pl.concat([b.frame.with_columns(b.rows.alias("row")) for b in blocks if len(b.rows)])
    roles = source.roles
    named = [roles.label, roles.time, roles.user, roles.history.field]
    named += [field.name for field in roles.fields if not field.derived]
    named += [feature.name for feature in roles.dense]
    derived = [field.derived.partition("count:")[2] for field in roles.fields]
    assert set(named) | set(filter(None, derived)) <= set(frame.columns)
    return frame


def rejected(source):
    rejects = [r for part in source.parts for block in part.blocks() for r in block.rejects]
    return [(r.row, r.column, r.value, r.reason) for r in rejects]


def shown(frame, *names):
    return frame.select(names).rows()


def refused(words, read, *args, **more):
    with pytest.raises(InputError) as caught:
        rows(read(*args, **more))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


# MIND


def write_mind(folder, behaviors, news):
    folder.mkdir(parents=True)
    (folder / "behaviors.tsv").write_text("".join("\t".join(row) + "\n" for row in behaviors))
    (folder / "news.tsv").write_text("".join("\t".join(row) + "\n" for row in news))
    return folder


NEWS = [
    ("N1", "sports", "soccer", '"Goal!" he said', "", "https://a", "[]", "[]"),
    ("N2", "news", "newsus", 'A 5" screen', "text", "https://b", '[{"Label": "x"}]', "[]"),
]
TRAIN = [
    ("1", "U7", "11/15/2019 9:55:12 AM", "N8 N9 " + " ".join(["N1"] * 9), "N1-0 N2-1 N-9-0"),
    ("2", "U8", "11/9/2019 12:05:58 AM", "", "N2-0 N1-1"),
]
DEV = [("1", "U9", "11/15/2019 8:00:00 PM", "N1", "N2-1")]


def test_mind(tmp_path, blocks_of):
    write_mind(tmp_path / "MINDsmall_train", TRAIN, NEWS)
    write_mind(tmp_path / "MINDsmall_dev", DEV, NEWS[1:])
    write_mind(tmp_path / "MINDlarge_test", [("1", "U1", "11/20/2019 1:00:00 AM", "", "N1 N2")], [])
    source = mind.read(str(tmp_path))
    assert [len(part.files) for part in source.parts] == [2, 2]
    frame = rows(source)
    assert shown(frame, "row", "user", "news", "label", "category", "subcategory") == [
        (1, "U9", "N2", 1, "news", "newsus"),
        (1, "U7", "N1", 0, "sports", "soccer"),
        (1, "U7", "N2", 1, "news", "newsus"),
        (1, "U7", "N-9", 0, None, None),
        (2, "U8", "N2", 0, "news", "newsus"),
        (2, "U8", "N1", 1, "sports", "soccer"),
    ]
    assert frame["time"].unique(maintain_order=True).to_list() == [
        dt.datetime(2019, 11, 15, 20),
        dt.datetime(2019, 11, 15, 9, 55, 12),
        dt.datetime(2019, 11, 9, 0, 5, 58),
    ]
    assert frame["clicked"].unique(maintain_order=True).to_list() == [
        "N1",
        " ".join(["N9"] + ["N1"] * 9),
        None,
    ]
    only = mind.read(str(tmp_path), "dev")
    assert rows(only)["user"].to_list() == ["U9"]
    assert rows(mind.read(str(tmp_path / "MINDsmall_dev" / "behaviors.tsv"))).equals(rows(only))


def test_mind_that_cannot_be_read(tmp_path):
    refused(("has no behaviors.tsv", str(tmp_path)), mind.read, str(tmp_path))
    refused(("does not exist",), mind.read, str(tmp_path / "none"))
    small = write_mind(tmp_path / "MINDsmall_train", TRAIN, NEWS)
    write_mind(tmp_path / "MINDlarge_train", TRAIN, NEWS)
    refused(("MINDlarge_train, MINDsmall_train", "data.name"), mind.read, str(tmp_path))
    refused(("'dev'",), mind.read, str(tmp_path), "dev")
    (small / "news.tsv").write_text("N1\tsports\n")
    refused(("news.tsv, row 1", "number of columns"), mind.read, str(tmp_path), "small")
    (small / "news.tsv").unlink()
    refused((str(small), "has no news.tsv"), mind.read, str(tmp_path), "small")


def test_mind_times_and_impressions_that_are_none(tmp_path):
    bad = [("1", "U1", "2019-11-15", "", "N1-1"), ("2", "U2", "11/15/2019 8:00:00 PM", "", "")]
    source = mind.read(str(write_mind(tmp_path / "x", [*bad, ("3", "U3", "", "", "N1-1")], NEWS)))
    assert rejected(source) == [(1, "time", "2019-11-15", "is no time")]
    assert shown(rows(source), "row", "time", "news", "label") == [
        (2, dt.datetime(2019, 11, 15, 20), None, None),
        (3, None, "N1", 1),
    ]


# Yambda

EVENT = {"uid": [100, 100, 200], "timestamp": [39420, 40000, 26_000_000], "item_id": [8, 9, 8]}
TYPES = {"uid": pl.UInt32, "timestamp": pl.UInt32, "item_id": pl.UInt32, "is_organic": pl.UInt8}
LISTEN = {"played_ratio_pct": [49, 50, 117], "track_length_seconds": [190, 250, 0]}
LISTEN_TYPES = {"played_ratio_pct": pl.UInt16, "track_length_seconds": pl.UInt32}


def write_yambda(folder):
    events = pl.DataFrame(EVENT | {"is_organic": [0, 1, 1]}, schema=TYPES)
    events.with_columns(pl.DataFrame(LISTEN, schema=LISTEN_TYPES)).write_parquet(
        folder / "listens.parquet"
    )
    events.head(2).write_parquet(folder / "likes.parquet")
    events.tail(1).write_parquet(folder / "dislikes.parquet")
    kinds = ["listen", "listen", "like", "dislike", "unlike", "undislike"]
    multi = pl.concat([events, events]).with_columns(
        pl.Series("played_ratio_pct", [49, 50, None, None, None, None], pl.UInt16),
        pl.Series("track_length_seconds", [190, 250, None, None, None, None], pl.UInt32),
        pl.Series("event_type", kinds, pl.Enum([*kinds[1:]])),
    )
    multi.write_parquet(folder / "multi_event.parquet")


def test_yambda(tmp_path, blocks_of):
    write_yambda(tmp_path)
    source = yambda.read(str(tmp_path))
    assert shown(rows(source), "row", "uid", "item_id", "timestamp", "is_organic", "label") == [
        (1, 100, 8, 39420, 0, 0),
        (2, 100, 9, 40000, 1, 1),
        (3, 200, 8, 26_000_000, 1, 1),
    ]
    assert [feature.name for feature in source.roles.dense] == ["track_length_seconds"]
    assert rows(yambda.read(str(tmp_path), threshold=100.0))["label"].to_list() == [0, 0, 1]
    likes = rows(yambda.read(str(tmp_path / "dislikes.parquet")))
    assert shown(likes, "uid", "label") == [(100, 1), (100, 1), (200, 0)]
    multi = yambda.read(str(tmp_path), "multi_event")
    assert shown(rows(multi), "row", "label") == [(1, 0), (2, 1), (3, 1), (4, 0)]
    assert multi.roles.dense == ()
    assert {field.name for field in multi.roles.fields} == {"uid", "item_id", "is_organic"}


def test_yambda_that_cannot_be_read(tmp_path):
    refused(("has no listens.parquet",), yambda.read, str(tmp_path))
    write_yambda(tmp_path)
    refused(("'plays'", "multi_event"), yambda.read, str(tmp_path), "plays")
    events = pl.read_parquet(tmp_path / "likes.parquet")
    (tmp_path / "dislikes.parquet").unlink()
    refused(("has no dislikes.parquet",), yambda.read, str(tmp_path), "likes")
    events.write_parquet(tmp_path / "listens.parquet")
    refused(("no column 'played_ratio_pct'", "uid, timestamp"), yambda.read, str(tmp_path))
    events.group_by("uid").agg(pl.all()).with_columns(
        played_ratio_pct=[50], track_length_seconds=[1]
    ).write_parquet(tmp_path / "listens.parquet")
    refused(("sequential",), yambda.read, str(tmp_path))
    other = events.write_parquet(tmp_path / "other.parquet") or str(tmp_path / "other.parquet")
    refused(("is none of listens.parquet",), yambda.read, other)


# Amazon Reviews 2023

REVIEWS = [
    {
        "rating": 5.0,
        "title": 'Such a "lovely" scent',
        "text": "Nice.<br />\nReally",
        "images": [{"small_image_url": "https://a", "attachment_type": "IMAGE"}],
        "asin": "B00YQ6X8EO",
        "parent_asin": "B0BXYZ",
        "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ",
        "timestamp": 1588687728923,
        "helpful_vote": 0,
        "verified_purchase": True,
    },
    {
        "rating": 3.0,
        "title": "ok",
        "text": "",
        "images": [],
        "asin": "0439",
        "parent_asin": "0439",
        "user_id": "AE7",
        "timestamp": 867632000000,
        "helpful_vote": 7,
        "verified_purchase": False,
    },
]
ITEMS = [
    {
        "main_category": "All Beauty",
        "title": "Spray",
        "average_rating": 4.8,
        "rating_number": 10,
        "features": [],
        "description": [],
        "price": "from 1,299.50",
        "images": [{"thumb": "https://t", "variant": "MAIN"}],
        "videos": [],
        "store": "Howard Products",
        "categories": ["Beauty", "Hair"],
        "details": {"Package Dimensions": "7.1 x 5.5 inches"},
        "parent_asin": "B0BXYZ",
        "bought_together": None,
    },
    {
        "main_category": None,
        "price": 14.99,
        "store": None,
        "categories": [],
        "details": {},
        "parent_asin": "C",
    },
]


def write_reviews(folder, name="All_Beauty", packed=True):
    for stem, objects in ((name, REVIEWS), (f"meta_{name}", ITEMS)):
        text = "".join(json.dumps(each) + "\n" for each in objects).encode()
        path = folder / (f"{stem}.jsonl" + ".gz" * packed)
        path.write_bytes(gzip.compress(text, mtime=0) if packed else text)


@pytest.mark.parametrize("packed", [True, False])
def test_amazon_reviews_with_items(tmp_path, blocks_of, packed):
    write_reviews(tmp_path, packed=packed)
    source = amazon.read(str(tmp_path))
    frame = rows(source)
    assert shown(frame, "user_id", "parent_asin", "rating", "timestamp", "verified_purchase") == [
        ("AGKHLEW2SOWHNMFQIJGBECAF7INQ", "B0BXYZ", 5.0, 1588687728923, True),
        ("AE7", "0439", 3.0, 867632000000, False),
    ]
    assert shown(frame, "store", "main_category", "price") == [
        ("Howard Products", "All Beauty", 1299.5),
        (None, None, None),
    ]
    assert frame["categories"].to_list() == [["Beauty", "Hair"], None]
    assert source.roles.threshold == 4.0
    assert len(source.parts[0].files) == 2
    # What was counted after the ratings must not become a feature.
    assert not {"helpful_vote", "average_rating", "rating_number"} & set(frame.columns)


def test_amazon_reviews_without_items(tmp_path):
    write_reviews(tmp_path)
    (tmp_path / "meta_All_Beauty.jsonl.gz").unlink()
    source = amazon.read(str(tmp_path / "All_Beauty.jsonl.gz"), threshold=3.0)
    assert (source.roles.dense, source.roles.threshold) == ((), 3.0)
    assert "store" not in rows(source).columns


def test_amazon_items_with_numbers_for_names(tmp_path):
    write_reviews(tmp_path, packed=False)
    path = tmp_path / "All_Beauty.jsonl"
    path.write_text(path.read_text().replace('"B0BXYZ"', "7").replace('"0439"', "8"))
    meta = tmp_path / "meta_All_Beauty.jsonl"
    meta.write_text(meta.read_text().replace('"B0BXYZ"', '"7"'))
    assert rows(amazon.read(str(tmp_path)))["store"].to_list() == ["Howard Products", None]


def test_amazon_items_of_which_none_has_a_key(tmp_path):
    write_reviews(tmp_path, packed=False)
    meta = tmp_path / "meta_All_Beauty.jsonl"
    meta.write_text(meta.read_text().replace('"store"', '"shop"', 1))
    assert rows(amazon.read(str(tmp_path)))["store"].to_list() == [None, None]
    meta.write_text(meta.read_text().replace('"store"', '"shop"'))
    refused((str(meta), "no row has 'store'", "data.path"), amazon.read, str(tmp_path))


HEADER = "user_id,parent_asin,rating,timestamp"


def test_amazon_benchmark_with_and_without_history(tmp_path, blocks_of):
    (tmp_path / "Gift_Cards.csv").write_text(f"{HEADER}\nU1,A,5.0,1547589356557\n")
    alone = rows(amazon.read(str(tmp_path)))
    assert shown(alone, "row", "user_id", "parent_asin", "rating", "timestamp") == [
        (1, "U1", "A", "5.0", "1547589356557")
    ]
    for split, row in (("train", "U1,A,5.0,1,"), ("valid", "U1,B,3.0,2,A"), ("test", "U2,C,4,3,")):
        (tmp_path / f"Gift_Cards.{split}.csv").write_text(f"{HEADER},history\n{row}\n")
    source = amazon.read(str(tmp_path), "Gift_Cards")
    assert sorted(rows(source)["parent_asin"]) == ["A", "B", "C"]
    assert "history" not in rows(source).columns
    assert "verified_purchase" not in [field.name for field in source.roles.fields]


def test_amazon_that_cannot_be_read(tmp_path):
    refused(("has no *.jsonl",), amazon.read, str(tmp_path))
    write_reviews(tmp_path)
    write_reviews(tmp_path, "Books")
    refused(("All_Beauty, Books", "data.name"), amazon.read, str(tmp_path))
    refused(("Toys",), amazon.read, str(tmp_path), "Toys")
    (tmp_path / "x.csv").write_text("user_id,rating\nU,5\n")
    refused(("no column 'parent_asin'",), amazon.read, str(tmp_path / "x.csv"))
    with pytest.raises(InputError, match="data.threshold is 'x'; give a number"):
        check(amazon.read(str(tmp_path / "x.csv"), threshold="x").roles)
    (tmp_path / "meta_Books.jsonl.gz").write_bytes(gzip.compress(b"{}\nno json\n", mtime=0))
    refused(("meta_Books.jsonl.gz, row 2", "not JSON"), amazon.read, str(tmp_path), "Books")


# Sessions

CLICKS = """1,2014-04-07T10:51:09.277Z,214536502,0
1,2014-04-07T10:54:09.868Z,214536500,S
2,2014-04-07T10:57:00.306Z,214536502,7
2,2014-04-07T10:58:00Z,214577561,2089046
3,not a time,214577561,7
3,2014-04-01T00:00:00.001Z,214757390,3
"""


def test_yoochoose(tmp_path, blocks_of):
    (tmp_path / "yoochoose-clicks.dat").write_text(CLICKS)
    (tmp_path / "yoochoose-buys.dat").write_text("1,2014-04-07T10:51:09.277Z,214536502,12462,1\n")
    source = sessions.read(str(tmp_path), negatives=2)
    frame = rows(source)
    clicks = frame.filter(pl.col("label") == 1)
    assert clicks["row"].to_list() == [1, 2, 3, 4, 6]
    assert rejected(source) == [(5, "time", "not a time", "is no time")]
    assert clicks["session"].to_list() == ["1", "1", "2", "2", "3"]
    assert clicks["time"][0] == dt.datetime(2014, 4, 7, 10, 51, 9, 277000)
    assert clicks["time"][3] == dt.datetime(2014, 4, 7, 10, 58)
    # The category is that of the item's first click, where 0 says that it is not known.
    assert clicks["category"].to_list()[:4] == [None, "S", None, "2089046"]
    # Nothing came before the first click; the last row lies before all others in time.
    assert frame.group_by("row", maintain_order=True).len()["len"].to_list() == [1, 3, 3, 3, 1]
    drawn = frame.filter(pl.col("label") == 0)
    assert (
        shown(drawn.filter(pl.col("row") == 2), "item", "category", "session")
        == [("214536502", None, "1")] * 2
    )
    assert set(drawn.filter(pl.col("row") == 4)["item"]) <= {"214536502", "214536500"}
    assert {field.derived for field in source.roles.fields} >= {"hour", "weekday"}


def test_diginetica(tmp_path, blocks_of):
    (tmp_path / "train-item-views.csv").write_text(
        "sessionId;userId;itemId;timeframe;eventdate\n"
        "1;NA;81766;526309;2016-05-09\n1;NA;31331;1031018;2016-05-09\n"
        "2;123;31331;999999999;2016-05-10\n2;123;31331;5;10.05.2016\n"
        "2;123;31331;soon;2016-05-10\n"
    )
    source = sessions.read(str(tmp_path / "train-item-views.csv"))
    frame = rows(source)
    assert rejected(source) == [
        (4, "eventdate", "10.05.2016", "is no time"),
        (5, "timeframe", "soon", "is no time"),
    ]
    assert shown(frame, "session", "item", "label") == [
        ("1", "81766", 1),
        ("1", "31331", 1),
        ("1", "81766", 0),
        ("2", "31331", 1),
        ("2", "81766", 0),
    ]
    assert frame["time"].unique(maintain_order=True).to_list() == [
        dt.datetime(2016, 5, 9, 0, 8, 46, 309000),
        dt.datetime(2016, 5, 9, 0, 17, 11, 18000),
        dt.datetime(2016, 5, 10, 23, 59, 59, 999000),
    ]
    derived = {field.derived for field in source.roles.fields}
    assert "weekday" in derived and "hour" not in derived


def test_session_logs_that_cannot_be_read(tmp_path):
    refused(("has no yoochoose-clicks.dat",), sessions.read, str(tmp_path))
    (tmp_path / "yoochoose-clicks.dat").write_text(CLICKS)
    (tmp_path / "train-item-views.csv").write_text("session_id;user_id\n1;2\n")
    refused(("data.name",), sessions.read, str(tmp_path))
    refused(("'tmall'",), sessions.read, str(tmp_path), "tmall")
    refused(("no column 'sessionId'",), sessions.read, str(tmp_path), "diginetica")
    pl.DataFrame({"period": [1], "item": [2]}).write_parquet(tmp_path / "clicks.parquet")
    words = ("clicks.parquet: no column 'order'; it has: period, item", "data.path")
    refused(words, sessions.read, str(tmp_path), "yoochoose-periods")
    refused(("'best'",), sessions.read, str(tmp_path), "yoochoose", sampling="best")
    refused(("negatives is -1",), sessions.read, str(tmp_path), "yoochoose", negatives=-1)
    refused(("negatives is 1.5",), sessions.read, str(tmp_path), "yoochoose", negatives=1.5)
    refused(("seed is 'a'",), sessions.read, str(tmp_path), "yoochoose", seed="a")


@pytest.mark.skipif(not YOOCHOOSE.is_file(), reason=f"{YOOCHOOSE} is not there")
@pytest.mark.parametrize("sampling", ["popularity", "uniform"])
def test_the_packaged_yoochoose(sampling):
    source = sessions.read(str(YOOCHOOSE), sampling=sampling)
    blocks = list(islice(source.parts[0].blocks(), 3))
    frame = pl.concat([b.frame.with_columns(b.rows.alias("row")) for b in blocks])
    assert len(frame) > 100_000
    assert frame["time"].is_sorted()
    assert frame["time"][0] == dt.datetime(1970, 1, 1)
    check_negatives(frame, 1)
    late = frame.filter(pl.col("row") > 50_000)
    assert late["label"].mean() == 0.5
    share = late.group_by("label").agg((pl.col("item") <= 100).mean()).sort("label")["item"]
    assert abs(share[0] - share[1]) < 0.02 if sampling == "popularity" else share[0] < share[1] / 2


# The sampler


def log(items, times=None, n_sessions=3):
    frame = pl.DataFrame(
        {
            "session": np.arange(len(items)) % n_sessions,
            "item": pl.Series(items, dtype=pl.Int64),
            "color": [f"{item}@{row}" for row, item in enumerate(items)],
            "time": pl.Series(range(len(items)) if times is None else times, dtype=pl.Int64),
        }
    ).with_columns(pl.col("time").cast(pl.Datetime("ms")))
    numbers = pl.Series(range(1, len(items) + 1), dtype=pl.Int64)
    return Part("log", (), lambda: iter([Block(frame, numbers)]))


def drawn(part, size=1 << 20, **options):
    part = negatives.with_negatives(sliced(part, size), "item", "time", ("color",), **options)
    return pl.concat([b.frame.with_columns(b.rows.alias("row")) for b in part.blocks()])


def check_negatives(frame, count):
    """Negatives follow their click, of another item of an earlier row and of no later time."""
    label = frame["label"].to_numpy()
    assert label[0] == 1
    clicks = frame.filter(pl.col("label") == 1)
    assert clicks["row"].is_unique().all()
    assert frame["row"].is_sorted()
    below = frame.filter(pl.col("label") == 0).join(
        clicks, on="row", suffix="_click", maintain_order="left"
    )
    assert (below.group_by("row").len()["len"] <= count).all()
    for column in ("session", "time"):
        assert below[column].equals(below[f"{column}_click"], check_names=False)
    assert (below["item"] != below["item_click"]).all()
    first = clicks.group_by("item").agg(pl.col("row").min().alias("since"))
    assert (below.join(first, on="item")["since"] < below.join(first, on="item")["row"]).all()


ITEMS_SEEN = st.lists(st.integers(0, 6), min_size=1, max_size=80)


@given(ITEMS_SEEN, st.sampled_from(["popularity", "uniform"]), st.integers(1, 3), st.data())
def test_negatives_are_of_the_past_whatever_the_blocks(items, sampling, count, data):
    chunk = negatives.CHUNK
    negatives.CHUNK = 16  # so that even these few clicks fill some
    try:
        options = {"sampling": sampling, "negatives": count, "seed": data.draw(st.integers(0, 9))}
        frame = drawn(log(items), **options)
        check_negatives(frame, count)
        size = data.draw(st.integers(1, 40))
        assert drawn(log(items), size, **options).equals(frame)
    finally:
        negatives.CHUNK = chunk
    # From the second item on, there is always another one.
    second = next((row for row, item in enumerate(items) if item != items[0]), len(items))
    assert len(frame) == len(items) + count * (len(items) - second)
    firsts = {item: f"{item}@{items.index(item)}" for item in items}
    assert frame["color"].to_list() == [firsts[item] for item in frame["item"]]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=60))
def test_negatives_of_a_log_out_of_order_lie_in_the_past_of_time(pairs):
    items, times = zip(*pairs, strict=True)
    frame = drawn(log(items, times), negatives=2)
    check_negatives(frame, 2)
    first = frame.filter(pl.col("label") == 1)
    for row, item, time in shown(frame.filter(pl.col("label") == 0), "row", "item", "time"):
        earlier = first.filter((pl.col("row") < row) & (pl.col("item") == item))
        assert earlier["time"].min() <= time


def test_popularity_follows_the_clicks_and_uniform_the_items():
    rng = np.random.default_rng(0)
    items = rng.choice(4, size=60_000, p=[0.6, 0.25, 0.1, 0.05])
    clicked = 3  # of whose rows the negatives are the other three
    shares = {}
    for sampling in ("popularity", "uniform"):
        frame = drawn(log(items), sampling=sampling)
        rows_of = frame.filter((pl.col("label") == 1) & (pl.col("item") == clicked))["row"]
        negative = frame.filter((pl.col("label") == 0) & pl.col("row").is_in(rows_of.implode()))
        shares[sampling] = np.bincount(negative["item"], minlength=4) / len(negative)
    np.testing.assert_allclose(shares["popularity"], np.array([60, 25, 10, 0]) / 95, atol=0.03)
    np.testing.assert_allclose(shares["uniform"], [1 / 3, 1 / 3, 1 / 3, 0], atol=0.03)


def test_an_item_that_holds_nearly_all_clicks_still_gets_negatives():
    frame = drawn(log([5, 7] + [7] * 30_000), negatives=1)
    assert frame.filter(pl.col("label") == 0)["item"].to_list() == [5] * 30_001


def test_draws_change_with_the_seed_and_with_the_row():
    items = list(range(50)) * 4
    one, two = (drawn(log(items), negatives=3, seed=seed) for seed in (0, 1))
    assert one["row"].equals(two["row"])
    assert not one["item"].equals(two["item"])
    last = one.filter((pl.col("label") == 0) & (pl.col("row") > 100))
    assert last["item"].n_unique() > 40
    assert drawn(log(items), negatives=0)["label"].to_list() == [1] * 200


def test_rows_without_item_or_time_get_no_negatives():
    frame = drawn(log([1, 2, None, 3, 2], [0, 1, 2, None, 4]), negatives=1)
    assert shown(frame, "row", "label") == [(1, 1), (2, 1), (2, 0), (3, 1), (4, 1), (5, 1), (5, 0)]
    assert set(frame.filter(pl.col("label") == 0)["item"]) == {1}
