"""What every reader hands over, so that cutting and encoding need not know the source."""

from typing import NamedTuple

import numpy as np
import polars as pl

MISSING = "<missing>"


class Log(NamedTuple):
    """A checked log of n rows in time order, not yet encoded.

    fields: one String column without nulls for each categorical field, in schema order.
    dense: float32 [n, G], all finite; dense_names: its G column names.
    label: float32 [n], 0 or 1. user: String [n]. time: int64 [n], seconds since 1970, ascending.
    name: what the log is called in reports. where: the file or folder, for error messages.
    """

    fields: pl.DataFrame
    dense: np.ndarray
    dense_names: tuple[str, ...]
    label: np.ndarray
    user: pl.Series
    time: np.ndarray
    name: str
    where: str


def instant(seconds: int) -> str:
    """The UTC time in words, for any int64: '2001-09-09 01:46:40'."""
    return str(np.datetime64(int(seconds), "s")).replace("T", " ")
