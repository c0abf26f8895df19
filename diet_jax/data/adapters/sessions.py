"""Logs of anonymous sessions (YOOCHOOSE, DIGINETICA): clicks, with negatives drawn beside them."""

from collections.abc import Callable
from pathlib import Path

import polars as pl

from diet_jax.data import readers
from diet_jax.data.adapters import files
from diet_jax.data.adapters.negatives import LABEL, with_negatives
from diet_jax.data.source import Field, History, Part, Roles, Source
from diet_jax.types import InputError

_FILES = {
    "yoochoose": "yoochoose-clicks.dat",
    "yoochoose-periods": "clicks.parquet",
    "diginetica": "train-item-views.csv",
}
_CURE = f"set data.path to a folder with one of {', '.join(_FILES.values())}, or to that file"
_HOUR, _WEEKDAY = Field("hour", derived="hour"), Field("weekday", derived="weekday")
_DAY = 86_400_000  # milliseconds
_LICENCES = {
    "yoochoose": "RecSys Challenge 2015, YOOCHOOSE: CC BY-NC-ND 4.0.",
    "diginetica": "CIKM Cup 2016, DIGINETICA: research use only.",
}


def read(
    path: str,
    name: str = "",
    *,
    negatives: int = 1,
    sampling: str = "popularity",
    seed: int = 0,
) -> Source:
    """A session log from its folder or file; each click is followed by its `negatives` rows.

    name: "yoochoose" (yoochoose-clicks.dat), "yoochoose-periods" (clicks.parquet with the columns
    period, order, session, item), "diginetica" (train-item-views.csv), or "" to tell by the file's
    name. negatives, sampling ("popularity" or "uniform"), seed: see `with_negatives`. The session
    is the user, but no field: it never comes back. Raises InputError for a missing file or column.
    """
    if name and name not in _FILES:
        raise InputError(f"data.name is {name!r}; set it to '' or one of {', '.join(_FILES)}")
    wanted = (_FILES[name],) if name else tuple(_FILES.values())
    found = files.find(path, wanted, _CURE)
    kinds = [name] if name else [kind for kind in _FILES if _FILES[kind] in [f.name for f in found]]
    if len(kinds) != 1:
        have = ", ".join(file.name for file in found)
        raise InputError(f"{path}: is {have}; set data.name to one of {', '.join(_FILES)}")
    clicks, columns, derived = _KINDS[kinds[0]](found[0])
    part = with_negatives(
        clicks, "item", "time", columns, negatives=negatives, sampling=sampling, seed=seed
    )
    fields = (Field("item"), *map(Field, columns), Field("item_count", derived="count:item"))
    roles = Roles(LABEL, "time", "session", (*fields, *derived), history=History("item", 20))
    family = kinds[0].split("-")[0]
    return Source(family.upper(), (part,), roles, _LICENCES[family])


# Each gives the clicks with columns session, item, time; the columns that belong to the item; and
# the fields that its times support.
_Kind = tuple[Part, tuple[str, ...], tuple[Field, ...]]


def _yoochoose(file: Path) -> _Kind:
    part = readers.delimited(str(file), ",", ("session", "time", "item", "category"), quote="")
    time = pl.col("time").str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_unit="us", strict=False)
    # 0 says that the category is not known.
    category = pl.col("category").replace("0", None)
    clicks = files.parsed(part, "time", time, "is no time")
    part = files.picked(clicks, (), _CURE, ("session", "item", "time", category))
    return part, ("category",), (_HOUR, _WEEKDAY)


def _periods(file: Path) -> _Kind:
    # Periods are days and order is all that is known within them: a quarter of a second apart, a
    # day has room for the longest.
    period, order = (pl.col(name).cast(pl.Int64, strict=False) for name in ("period", "order"))
    time = (period * _DAY + (order * 250).clip(0, _DAY - 1)).cast(pl.Datetime("ms"))
    needs = ("period", "order", "session", "item")
    part = readers.parquet(str(file), needs)
    return files.picked(part, needs, _CURE, ("session", "item", time.alias("time"))), (), ()


def _diginetica(file: Path) -> _Kind:
    # The date is real; timeframe counts the milliseconds since the session began.
    day = pl.col("eventdate").str.to_datetime("%Y-%m-%d", time_unit="ms", strict=False)
    within = pl.col("timeframe").cast(pl.Int64, strict=False).clip(0, _DAY - 1)
    needs = ("sessionId", "itemId", "timeframe", "eventdate")
    part = files.picked(readers.delimited(str(file), ";"), needs, _CURE)
    part = files.parsed(part, "eventdate", day.alias("day"), "is no time")
    part = files.parsed(part, "timeframe", within.alias("within"), "is no time")
    time = (pl.col("day") + pl.duration(milliseconds="within")).alias("time")
    session, item = pl.col("sessionId").alias("session"), pl.col("itemId").alias("item")
    return files.picked(part, (), _CURE, (session, item, time)), (), (_WEEKDAY,)


_KINDS: dict[str, Callable[[Path], _Kind]] = {
    "yoochoose": _yoochoose,
    "yoochoose-periods": _periods,
    "diginetica": _diginetica,
}
