"""Amazon Reviews 2023: the ratings of a category, raw or as cut for benchmarks, with its items."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import polars as pl

from diet_jax.data import readers
from diet_jax.data.adapters import files
from diet_jax.data.source import Dense, Field, History, Part, Roles, Source, map_frames
from diet_jax.types import InputError

_CURE = "set data.path to a folder with CATEGORY.jsonl.gz or a benchmark's CSVs, or to one of these"
_ENDINGS = ("jsonl", "jsonl.gz", "csv", "csv.gz")
_RATING = ("user_id", "parent_asin", "rating", "timestamp")
_META = {
    "parent_asin": pl.String(),
    "store": pl.String(),
    "main_category": pl.String(),
    "categories": pl.List(pl.String()),
    "price": pl.String(),
}


def read(path: str, name: str = "", *, threshold: float = 4.0) -> Source:
    """A category's ratings from raw JSON lines or from CSVs: CATEGORY.csv, CATEGORY.train.csv.

    name: the category ("All_Beauty"), or "" where there is only one. Train, valid and test CSVs of
    a folder are read together, CATEGORY.csv where there are none. With
    meta_CATEGORY.jsonl(.gz) in the folder, a rating gets its item's store, categories and price.
    Votes and mean ratings were counted in 2023, after most ratings: they are no features. Nor is
    the column 'history', since the stream gives it. Raises InputError for a missing file or column.
    """
    found = files.find(path, tuple(f"*.{ending}" for ending in _ENDINGS), _CURE)
    logs = [f for f in found if not f.name.startswith("meta_") and name in ("", _category(f))]
    categories = sorted({_category(file) for file in logs})
    if len(categories) != 1:
        have = ", ".join(categories) or f"no ratings of {name or 'a category'}"
        raise InputError(f"{path}: has {have}; set data.name to a category that is there")
    raw = [file for file in logs if ".jsonl" in file.name]
    cut = [file for file in logs if file.name.removesuffix(".gz").count(".") > 1]
    chosen = raw[:1] or cut or logs
    names = [f"meta_{categories[0]}.{ending}" for ending in _ENDINGS[:2]]
    metas = [chosen[0].with_name(meta) for meta in names if chosen[0].with_name(meta).is_file()]
    of_item = (Field("store"), Field("main_category"), Field("categories", width=4))
    roles = Roles(
        label="rating",
        time="timestamp",
        user="user_id",
        fields=(
            Field("user_id"),
            Field("parent_asin"),
            *((Field("verified_purchase"),) if raw else ()),
            *(of_item if metas else ()),
            Field("hour", derived="hour"),
            Field("weekday", derived="weekday"),
            Field("item_count", derived="count:parent_asin"),
        ),
        dense=(Dense("price", "log", missing=0.0),) if metas else (),
        threshold=threshold,
        history=History("parent_asin", 20),
    )
    items = cache(partial(_items, metas[0])) if metas else None
    parts = tuple(
        part._replace(files=(*part.files, *map(str, metas[:1])))
        for part in (_part(file, items) for file in chosen)
    )
    return Source(f"Amazon Reviews 2023 {categories[0]}", parts, roles)


def _category(file: Path) -> str:
    return file.name.split(".")[0]


def _part(file: Path, items: Callable[[], pl.DataFrame] | None) -> Part:
    if ".jsonl" in file.name:
        columns = (*_RATING, "verified_purchase")
        part = readers.jsonl(str(file), columns)
    else:
        columns, part = _RATING, readers.delimited(str(file))

    def change(frame: pl.DataFrame) -> pl.DataFrame:
        files.require(frame, columns, part.where, _CURE)
        frame = frame.select(columns).with_columns(pl.col("parent_asin").cast(pl.String))
        if not items:
            return frame
        # The items are many more than a block's: hash the block's.
        few = items().join(frame, on="parent_asin", how="semi")
        return frame.join(few, on="parent_asin", how="left", maintain_order="left")

    return map_frames(part, change)


def _items(meta: Path) -> pl.DataFrame:
    """One row an item; a price as 'from 1,299.00' is its first number."""
    price = pl.col("price").str.replace_all(",", "").str.extract(r"(\d+(?:\.\d+)?)")

    def change(frame: pl.DataFrame) -> pl.DataFrame:
        typed = [pl.col(name).cast(kind, strict=False) for name, kind in _META.items()]
        return frame.select(typed).with_columns(price.cast(pl.Float64))

    items = files.whole(
        map_frames(readers.jsonl(str(meta), tuple(_META), {"categories": ""}), change), _CURE
    )
    return items.unique("parent_asin", keep="first")
