"""Reads a user's own log, so that bringing one takes column names and nothing else."""

from pathlib import Path

import numpy as np
import polars as pl

from diet_jax.data import columns
from diet_jax.data.log import Log
from diet_jax.types import InputError


def read(
    path: str,
    *,
    label: str,
    time: str,
    user: str,
    categorical: tuple[str, ...],
    dense: tuple[str, ...],
    threshold: float,
    name: str,
) -> Log:
    """Reads .parquet, .csv or .csv.gz; rows of one time keep the order of the file.

    threshold: a rating at or above it is a positive; below 0: `label` is 0/1 already.
    Raises InputError for a file, column or value that cannot be used.
    """
    _check_names(label, time, user, categorical, dense)
    frame = _read_file(path)
    cure = "set data.label, time, user, categorical and dense to its columns"
    columns.require_columns(frame, (label, time, user, *categorical, *dense), path, cure)

    moment = columns.moment(frame[time], path).to_numpy()
    order = np.argsort(moment, kind="stable")
    numbers = [columns.dense(frame[column], path) for column in dense]
    empty = np.zeros((len(frame), 0), np.float32)
    return Log(
        fields=pl.DataFrame([columns.category(frame[c], path) for c in categorical])[order],
        dense=(np.stack(numbers, axis=1) if dense else empty)[order],
        dense_names=dense,
        label=columns.label(frame[label], threshold, path)[order],
        user=columns.category(frame[user], path)[order],
        time=moment[order] // 1_000_000,
        name=name or Path(path).name.split(".")[0],
        where=path,
    )


def _check_names(label, time, user, categorical, dense) -> None:
    for key, column in (("label", label), ("time", time), ("user", user)):
        if not column:
            raise InputError(f"data.{key} is empty; name the column with --config.data.{key}")
    if not categorical:
        raise InputError("data.categorical is empty; name at least one categorical column")
    features = (*categorical, *dense)
    for column in features:
        if column == label:
            raise InputError(f"data.label {label!r} is also a feature; take it out of the features")
        if features.count(column) > 1:
            raise InputError(f"column {column!r} is named twice as a feature; name it once")


def _read_file(path: str) -> pl.DataFrame:
    file = Path(path)
    if not path:
        raise InputError("data.path is empty; set --config.data.path to a Parquet or CSV file")
    if not file.is_file():
        found = "is a folder" if file.is_dir() else "does not exist"
        raise InputError(f"{path}: {found}; set --config.data.path to a Parquet or CSV file")
    if file.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; give a file with at least one row")
    if file.name.endswith((".csv", ".csv.gz")):
        return columns.read_csv(columns.read_bytes(file), path)
    if file.suffix not in (".parquet", ".pq"):
        raise InputError(f"{path}: unknown kind of file; give .parquet, .csv or .csv.gz")
    try:
        frame = pl.read_parquet(file)
    except (pl.exceptions.PolarsError, OSError) as error:
        why = columns.one_line(error)
        raise InputError(f"{path}: cannot be read as Parquet ({why}); write it anew") from error
    if frame.is_empty():
        raise InputError(f"{path}: the file has no rows; give a file with at least one row")
    return frame
