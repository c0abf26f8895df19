"""Microsoft News (MIND): impressions of news, of which each is clicked or not."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from diet_jax.data import readers
from diet_jax.data.adapters import files
from diet_jax.data.source import Block, Field, History, Part, Roles, Source
from diet_jax.types import InputError

_BEHAVIORS = ("impression", "user", "time", "history", "impressions")
_NEWS = tuple(
    "news category subcategory title abstract url title_entities abstract_entities".split()
)
_CURE = (
    "set data.path to a folder of MIND as unpacked: behaviors.tsv and news.tsv, or folders of it"
)
_CLICKED = 10
# Read together: an impression shows 37 news on average.
_IMPRESSIONS = 8192

ROLES = Roles(
    label="label",
    time="time",
    user="user",
    fields=(
        Field("user"),
        Field("news"),
        Field("category"),
        Field("subcategory"),
        Field("clicked", width=_CLICKED, separator=" "),
        Field("hour", derived="hour"),
        Field("weekday", derived="weekday"),
        Field("news_count", derived="count:news"),
    ),
    history=History("news", 20),
)


def read(path: str, name: str = "") -> Source:
    """MIND from a folder with behaviors.tsv and news.tsv, or from one with such folders in it.

    name: a piece of the names of the folders to take ("train", "small"); "" takes all but the test
    split, which has no labels. A row is one news of an impression, in the order of the file.
    'clicked': the user's last 10 clicks before the log begins, as the file gives them.
    Raises InputError for missing files, or if folders hold the same split in two sizes.
    """
    root = Path(path)
    found = files.find(path, ("behaviors.tsv", "*/behaviors.tsv"), _CURE)
    below = [f for f in found if name in f.parent.name and _split(f) != "test"]
    chosen = [file for file in found if root in (file, file.parent)] or below
    if not chosen:
        raise InputError(f"{path}: no folder with labels is called {name!r}; {_CURE}")
    if len({_split(file) for file in chosen}) < len(chosen):
        have = ", ".join(file.parent.name for file in chosen)
        raise InputError(f"{path}: holds {have}; set data.name to the one to read, as 'small'")
    parts = tuple(_part(file) for file in chosen)
    return Source("MIND", parts, ROLES, "Microsoft Research licence terms: research use only.")


def _split(behaviors: Path) -> str:
    """The folder MINDsmall_train holds the split "train"."""
    return behaviors.parent.name.rsplit("_", 1)[-1]


def _part(behaviors: Path) -> Part:
    news = files.beside(behaviors, "news.tsv", _CURE)
    log = readers.delimited(str(behaviors), "\t", _BEHAVIORS, quote="")
    time = pl.col("time").str.to_datetime("%m/%d/%Y %I:%M:%S %p", time_unit="us", strict=False)
    log = files.parsed(log, "time", time, "is no time")
    side = readers.delimited(str(news), "\t", _NEWS, quote="")

    def blocks() -> Iterator[Block]:
        known = files.whole(side, _CURE).select(_NEWS[:3]).unique("news", keep="first")
        for block in log.blocks():
            rejects = block.rejects
            for start in range(0, max(len(block.frame), 1), _IMPRESSIONS):
                piece = block.frame.slice(start, _IMPRESSIONS)
                yield _explode(piece, block.rows.slice(start, _IMPRESSIONS), known, rejects)
                rejects = ()

    return log._replace(files=(*log.files, *side.files), blocks=blocks)


def _explode(impressions: pl.DataFrame, rows: pl.Series, news: pl.DataFrame, rejects) -> Block:
    """One row for each 'N123-1' (clicked) or 'N456-0' that the impressions list."""
    shown = pl.col("impressions").str.extract_groups("^(.*)-(.*)$")
    frame = (
        impressions.select(
            "user",
            "time",
            pl.col("history").str.split(" ").list.tail(_CLICKED).list.join(" ").alias("clicked"),
            pl.col("impressions").str.split(" "),
            rows.alias("row"),
        )
        .explode("impressions")
        .with_columns(
            shown.struct[0].alias("news"),
            shown.struct[1].cast(pl.Int8, strict=False).alias("label"),
        )
        .join(news, on="news", how="left", maintain_order="left")
    )
    return Block(frame.drop("row", "impressions"), frame["row"], rejects)
