"""MovieLens in every form it is found in, made into the same ten fields."""

from pathlib import Path

import numpy as np
import polars as pl

from diet_jax.data import columns, movielens_files, movielens_tfds
from diet_jax.data.log import MISSING, Log
from diet_jax.types import InputError

NAMES = ("latest-small", "100k", "1m")
_BUNDLED = Path(__file__).parent / "bundled" / "ml-latest-small.zip"
_DEMOGRAPHIC = tuple("user item age gender occupation zip year genre genre2 hour".split())
_PLAIN = tuple("user item year genre genre2 genres hour weekday user_count item_count".split())
_GENRE_NAMES = {"Children's": "Children", "unknown": "Unknown", "": None}


def read(name: str, path: str, threshold: float, tfds_dir: str) -> Log:
    """Reads MovieLens `name` from `path`, or from the package ('latest-small') or tfds if ''.

    path: a zip or folder of GroupLens, or a folder of RecBole atomic files. threshold: a rating at
    or above it is a positive. tfds_dir: the data_dir of tensorflow-datasets, '' for its default.
    Raises InputError for anything that is missing or cannot be read.
    """
    if name not in NAMES:
        raise InputError(f"data.name is {name!r}; set it to one of {', '.join(NAMES)}")
    if path or name == "latest-small":
        raw, where = movielens_files.read(name, Path(path) if path else _BUNDLED)
    else:
        raw, where = movielens_tfds.read(name, tfds_dir)
    label = columns.label(raw["rating"], threshold, where)
    moment = columns.moment(raw["timestamp"], where).to_numpy()
    order = np.argsort(moment, kind="stable")
    time = moment[order] // 1_000_000
    fields = _fields(raw[order], time, _PLAIN if name == "latest-small" else _DEMOGRAPHIC)
    return Log(
        fields=fields,
        dense=np.zeros((len(time), 0), np.float32),
        dense_names=(),
        label=label[order],
        user=fields["user"],
        time=time,
        name=f"MovieLens {name}",
        where=where,
    )


def _fields(raw: pl.DataFrame, time: np.ndarray, names: tuple[str, ...]) -> pl.DataFrame:
    """raw: rows in time order with user, item, year, genres ('A|B') and perhaps demography."""
    genre = pl.col("genres").str.split("|").list.eval(pl.element().replace(_GENRE_NAMES))
    clock = pl.from_epoch(pl.col("seconds"), time_unit="s")
    made = {
        "year": pl.col("year").str.extract(r"^(\d{4})$"),
        "genre": genre.list.get(0, null_on_oob=True),
        "genre2": genre.list.get(1, null_on_oob=True),
        "genres": genre.list.join("|"),
        "hour": clock.dt.hour(),
        "weekday": clock.dt.strftime("%a"),
        "age": pl.col("age").cast(pl.Float64, strict=False).floor().cast(pl.Int32) // 5,
        "zip": pl.col("zip").str.head(2),
        "user_count": _seen_before("user"),
        "item_count": _seen_before("item"),
    }
    chosen = [made.get(name, pl.col(name)).cast(pl.String).alias(name) for name in names]
    return (
        raw.with_columns(seconds=pl.Series(time)).select(chosen).select(pl.all().fill_null(MISSING))
    )


def _seen_before(key: str) -> pl.Expr:
    """floor(log2(1 + c)), c: how many rows before this one have the same value of `key`."""
    nth = pl.int_range(1, pl.len() + 1, dtype=pl.Int64).over(key)
    # Counted in integers: a logarithm in floats misses some powers of two.
    powers = [pl.lit(2**bit) <= nth for bit in range(1, 40)]
    return pl.sum_horizontal(powers)
