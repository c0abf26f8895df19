"""Avazu's click log of the Kaggle challenge as downloaded: ten days of 2014, with an hour a row.

train.csv (also train.gz, as Kaggle packs it) has the header id, click, hour (YYMMDDHH, UTC), C1,
banner_pos, site_*, app_*, device_*, C14-C21. There is no user: the device stands for one, or where
its id is the one that most rows share (no id was sent), its address and model together.
"""

import os

import polars as pl

from diet_jax.data.adapters.files import parsed, picked
from diet_jax.data.readers import delimited
from diet_jax.data.source import Field, Roles, Source
from diet_jax.types import InputError

_FILES = ("train.csv", "train.gz", "train.csv.gz", "train")
_NO_DEVICE_ID = "a99f214a"
_CATEGORIES = (
    *("C1", "banner_pos", "site_id", "site_domain", "site_category", "app_id", "app_domain"),
    *("app_category", "device_id", "device_ip", "device_model", "device_type", "device_conn_type"),
    *(f"C{i}" for i in range(14, 22)),
)
_GET = "give train.csv or train.gz of Kaggle's 'Click-Through Rate Prediction' (avazu) challenge"


def read(path: str, name: str = "") -> Source:
    """The training file `path`, or the one in the folder `path`. name: "" or "avazu".

    The fields are all 21 columns but id, and the hour and weekday of the time, which is the start
    of the hour (Datetime). Raises InputError for another name, a missing file, a missing column.
    """
    if name not in ("", "avazu"):
        raise InputError(f"Avazu has no variant {name!r}; leave it empty")
    made = (Field("hour", derived="hour"), Field("weekday", derived="weekday"))
    roles = Roles("click", "time", "user", (*map(Field, _CATEGORIES), *made))
    address = pl.concat_str("device_ip", "device_model", separator="_")
    known = pl.col("device_id") != _NO_DEVICE_ID
    user = pl.when(known).then("device_id").otherwise(address).alias("user")
    needs = ("click", "hour", *_CATEGORIES)
    part = picked(delimited(_file(path)), needs, _GET, (*needs, user))
    minute = pl.col("hour").str.strip_chars() + "00"
    time = minute.str.to_datetime("%y%m%d%H%M", strict=False).alias("time")
    part = parsed(part, "hour", time, "is no hour")
    return Source("Avazu", (part,), roles, "The rules of the Kaggle challenge apply.")


def _file(path: str) -> str:
    for file in (path, *(os.path.join(path, name) for name in _FILES)):
        if os.path.isfile(file):
            return file
    raise InputError(f"{path}: no {' or '.join(_FILES[:2])} there (Avazu); {_GET}")
