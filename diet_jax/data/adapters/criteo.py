"""Criteo's display ads as downloaded: the Kaggle challenge (train.txt) and the 1 TB click logs.

Both are text with tabs and no header: a label, 13 integers (I1-I13), 26 hashed categories (C1-C26),
an empty cell where a value is missing. Rows are in order of time but carry none, so it is made:

    kaggle  7 days of 45,840,617 rows: a row's share of that count, spread evenly over the 7 days.
    1tb     a file a day: day number * 86,400 s + one second for each 2,400 rows of the file, at
            most 86,399 (the longest published day, 204,846,845 rows, just fits).

Both start at 1970-01-01 00:00 UTC, need no count of the rows in advance, and keep the rows of one
second in file order. Only days and order are real: hour and weekday would be made up, so there are
none. There is no user either: all rows have the user "all", which makes GAUC equal to AUC.
"""

import os
import re
from collections.abc import Iterator

import polars as pl

from diet_jax.data.readers import delimited
from diet_jax.data.source import Block, Dense, Field, Part, Roles, Source
from diet_jax.types import InputError

_INTEGERS = tuple(f"I{i}" for i in range(1, 14))
_CATEGORIES = tuple(f"C{i}" for i in range(1, 27))
_DAY = 86_400
# (first second, rows, seconds that so many rows take, seconds of a file)
_KAGGLE = (0, 45_840_617, 7 * _DAY, 7 * _DAY)
_NAMES = {"kaggle": "Criteo Display Ads", "1tb": "Criteo 1TB"}
_GET = {
    "kaggle": "unpack dac.tar.gz of Criteo's 'Kaggle Display Advertising Challenge Dataset' there",
    "1tb": "get it from Criteo's 'Download Terabyte Click Logs' page, or set the option days to "
    "the number of first days that you have",
}


def read(path: str, name: str = "", days: int = 24, hashed: int = -1) -> Source:
    """The log in the folder `path`, or in one of its files; every file may be packed (.gz).

    name: "kaggle", "1tb", or "" for what is found (train.txt first). days: of "1tb", the first so
    many days are read and must be there. hashed: rows that the values of each category share, 0 for
    a vocabulary, -1 for 0 with "kaggle" and 2**20 with "1tb", whose values are too many to list.
    Raises InputError for another name or a missing file.
    """
    if name not in ("", *_NAMES):
        raise InputError(f"Criteo has no variant {name!r}; choose kaggle or 1tb, or leave it empty")
    name, files = _choose(path, name, days)
    parts = tuple(_part(file, _pace(stem, name)) for stem, file in files.items())
    rows = hashed if hashed >= 0 else {"kaggle": 0, "1tb": 2**20}[name]
    roles = Roles(
        label="label",
        time="time",
        user="user",
        fields=tuple(Field(c, hashed=rows) for c in _CATEGORIES),
        dense=tuple(Dense(i, scale="log", missing=0.0) for i in _INTEGERS),
    )
    return Source(_NAMES[name], parts, roles, "Criteo's terms of the dataset's page apply.")


def _choose(path: str, name: str, days: int) -> tuple[str, dict[str, str]]:
    """The variant, and its files in order of time by their names without .gz."""
    if os.path.isfile(path):
        stem = os.path.basename(path).removesuffix(".gz")
        is_day = re.fullmatch(r"day_\d+", stem)
        if name == "1tb" and not is_day:
            raise InputError(f"{path}: is no day_0 .. day_23 (Criteo, variant 1tb); {_GET[name]}")
        return name or ("1tb" if is_day else "kaggle"), {stem: path}
    stems = {"kaggle": ["train.txt"], "1tb": [f"day_{day}" for day in range(max(days, 1))]}
    both = [
        (stem, os.path.join(path, stem + end))
        for end in (".gz", "")
        for stem in sum(stems.values(), [])
    ]
    found = {stem: file for stem, file in both if os.path.isfile(file)}
    if not name and not found:
        raise InputError(f"{path}: no train.txt and no day_0 there (Criteo); {_GET['kaggle']}")
    name = name or ("kaggle" if "train.txt" in found else "1tb")
    missing = [stem for stem in stems[name] if stem not in found]
    if missing:
        raise InputError(f"{path}: no {', '.join(missing)} (Criteo, variant {name}); {_GET[name]}")
    return name, {stem: found[stem] for stem in stems[name]}


def _pace(stem: str, name: str) -> tuple[int, int, int, int]:
    if name == "kaggle":
        return _KAGGLE
    return int(stem.removeprefix("day_")) * _DAY, 2_400, 1, _DAY


def _part(file: str, pace: tuple[int, int, int, int]) -> Part:
    start, rows, seconds, length = pace
    part = delimited(file, "\t", ("label", *_INTEGERS, *_CATEGORIES), quote="")

    def blocks() -> Iterator[Block]:
        for block in part.blocks():
            passed = ((block.rows - 1) * seconds // rows).clip(upper_bound=length - 1)
            frame = block.frame.with_columns((passed + start).alias("time"), user=pl.lit("all"))
            yield block._replace(frame=frame)

    return part._replace(blocks=blocks)
