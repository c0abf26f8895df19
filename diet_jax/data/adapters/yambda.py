"""Yambda (Yandex Music): listens, likes and dislikes in the flat Parquet layout."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from diet_jax.data import readers
from diet_jax.data.adapters import files
from diet_jax.data.source import Block, Dense, Field, History, Part, Roles, Source
from diet_jax.types import InputError

_CURE = "set data.path to a folder flat/50m, flat/500m or flat/5b of Yambda, or to a file of it"
_FILES = {"listens": ("listens",), "multi_event": ("multi_event",), "likes": ("likes", "dislikes")}
_EVENT = ("uid", "timestamp", "item_id", "is_organic")
_LISTEN = (*_EVENT, "played_ratio_pct", "track_length_seconds")
_COLUMNS = {"listens": _LISTEN, "multi_event": (*_LISTEN, "event_type"), "likes": _EVENT}


def read(path: str, name: str = "", *, threshold: float = 50.0) -> Source:
    """Yambda from a folder such as flat/50m, or from one of its Parquet files.

    name: "listens" (positive where `threshold` percent of the track were played or more), "likes"
    (likes against dislikes), "multi_event" (listens, likes and dislikes; those that withdraw a like
    or dislike are no rows), or "" for the first of these that is there. Times are seconds, to 5 s,
    since a moment that is not told: hours and weekdays are not derived. Raises InputError for a
    missing file or column.
    """
    if name and name not in _FILES:
        raise InputError(f"data.name is {name!r}; set it to '' or one of {', '.join(_FILES)}")
    wanted = tuple(f"{stem}.parquet" for stems in _FILES.values() for stem in stems)
    found = {file.stem: file for file in files.find(path, wanted, _CURE)}
    kind = name or next((kind for kind in _FILES if set(_FILES[kind]) & set(found)), "")
    if not kind:
        raise InputError(f"{path}: is none of {', '.join(wanted)}; {_CURE}")
    some = next(iter(found.values()))
    chosen = [found.get(s) or files.beside(some, f"{s}.parquet", _CURE) for s in _FILES[kind]]
    # A like has no length, which would so give away the events that are likes.
    length = (Dense("track_length_seconds", "log", missing=0.0),) if kind == "listens" else ()
    roles = Roles(
        label="label",
        time="timestamp",
        user="uid",
        fields=(Field("uid"), Field("item_id"), Field("is_organic")),
        dense=length,
        history=History("item_id", 20),
    )
    parts = tuple(_part(file, kind, threshold) for file in chosen)
    return Source(f"Yambda {kind}", parts, roles, "Yambda: Apache License 2.0.")


def _part(file: Path, kind: str, threshold: float) -> Part:
    part = readers.parquet(str(file), _COLUMNS[kind])
    event = pl.col("event_type").cast(pl.String)
    played = (pl.col("played_ratio_pct") >= threshold).cast(pl.Int8)
    labels = {
        "listens": played,
        "likes": pl.lit(int(file.stem == "likes"), pl.Int8),
        "multi_event": pl.when(event == "listen")
        .then(played)
        .when(event.is_in(["like", "dislike"]))
        .then((event == "like").cast(pl.Int8)),
    }

    def blocks() -> Iterator[Block]:
        for block in part.blocks():
            frame = block.frame
            files.require(frame, _COLUMNS[kind], str(file), _CURE)
            if isinstance(frame["item_id"].dtype, pl.List):
                raise InputError(f"{file}: has a user a row (the sequential layout); {_CURE}")
            frame = frame.select(
                *_COLUMNS[kind], labels[kind].alias("label"), block.rows.alias("row")
            )
            if kind == "multi_event":
                frame = frame.filter(~event.is_in(["unlike", "undislike"]).fill_null(False))
            yield Block(frame.drop("row"), frame["row"], block.rejects)

    return part._replace(blocks=blocks)
