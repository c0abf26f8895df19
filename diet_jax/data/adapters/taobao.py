"""Two logs of Taobao as unpacked: Alimama's display ads, and Tmall's repeat buyers (IJCAI-15).

alimama  raw_sample.csv, ad_feature.csv, user_profile.csv: ads shown on 8 days of May 2017, the
         label is the click (clk). Not every user has a profile; the header of the profiles ends in
         a blank, a brand may read NULL.
tmall    user_log_format1.csv, user_info_format1.csv: what users did with items, from May to the
         sales of 11 November. A row is an action (0 click, 1 put in the cart, 2 purchase, 3 put
         among the favourites) and the label is 1 for a PURCHASE, 0 for the other three: the
         contest's own label, a later purchase from the same seller, is not used. Times are days,
         mmdd without their year, with or without a leading 0; the year is 2014, since the
         contest ran in spring 2015.
"""

import os

import polars as pl

from diet_jax.data.adapters.files import parsed, picked
from diet_jax.data.adapters.kuairand import joined, locate
from diet_jax.data.readers import delimited
from diet_jax.data.source import Dense, Field, History, Roles, Source, map_frames
from diet_jax.types import InputError

_FILES = {
    "alimama": ("raw_sample.csv", "ad_feature.csv", "user_profile.csv"),
    "tmall": ("user_log_format1.csv", "user_info_format1.csv"),
}
_GET = {
    "alimama": "get 'Ad Display/Click Data on Taobao.com' from Tianchi and unpack its files",
    "tmall": "get data_format1.zip of 'IJCAI-15 Repeat Buyers Prediction' from Tianchi",
}
_LICENCE = "The terms of the dataset's page on Tianchi apply."
_AD = ("cate_id", "campaign_id", "customer", "brand", "price")
_PROFILE = (
    *("cms_segid", "cms_group_id", "final_gender_code", "age_level", "pvalue_level"),
    *("shopping_level", "occupation", "new_user_class_level"),
)
_WEEKDAY = Field("weekday", derived="weekday")
_ACTION = ("user_id", "item_id", "cat_id", "seller_id", "brand_id")
_PERSON = ("age_range", "gender")


def read(path: str, name: str = "") -> Source:
    """The log in the folder `path`, or its data_format1. name: "alimama", "tmall", or "" for what
    is found there.

    Raises InputError for another name, a missing file, a missing column.
    """
    if name not in ("", *_FILES):
        raise InputError(f"Taobao has no variant {name!r}; choose alimama or tmall")
    inner = os.path.join(path, "data_format1")
    folder = inner if os.path.isdir(inner) else path
    there = [v for v, (log, *_) in _FILES.items() if os.path.isfile(os.path.join(folder, log))]
    if not name and len(there) != 1:
        logs = " and ".join(log for log, *_ in _FILES.values())
        problem = f"both {logs}" if there else f"none of {logs}"
        raise InputError(f"{path}: {problem} there; name alimama or tmall, or {_GET['alimama']}")
    variant = name or there[0]
    files = locate(folder, _FILES[variant], f"Taobao, variant {variant}", _GET[variant])
    return _alimama(*files) if variant == "alimama" else _tmall(*files)


def _alimama(log: str, ads: str, users: str) -> Source:
    columns = ("user", "time_stamp", "adgroup_id", "pid", "clk")
    cure = _GET["alimama"]
    part = picked(delimited(log), columns, cure)
    parts = joined((part,), ("adgroup_id", "adgroup_id"), ads, _AD, cure)
    parts = joined(parts, ("user", "userid"), users, _PROFILE, cure)
    plain = ("user", "adgroup_id", "pid", *_AD[:-1], *_PROFILE)
    roles = Roles(
        label="clk",
        time="time_stamp",
        user="user",
        fields=(*map(Field, plain), Field("hour", derived="hour"), _WEEKDAY),
        dense=(Dense("price", scale="log", missing=0.0),),
        # A user clicks about one ad in the eight days: the ads' categories recur, the ads do not.
        history=History("cate_id", 10),
    )
    return Source("Alimama display ads", parts, roles, _LICENCE)


def _tmall(log: str, users: str) -> Source:
    columns = (*_ACTION, "time_stamp", "action_type")
    part = picked(delimited(log), columns, _GET["tmall"])
    day = "2014" + pl.col("time_stamp").str.strip_chars().str.zfill(4)
    time = day.str.to_date("%Y%m%d", strict=False).alias("time")
    action = pl.col("action_type").str.strip_chars()
    purchase = pl.when(action.is_in(["0", "1", "2", "3"])).then(action == "2").alias("purchase")
    part = parsed(part, "time_stamp", time, "is no day")
    part = parsed(part, "action_type", purchase, "is no action")
    (part,) = joined((part,), ("user_id", "user_id"), users, _PERSON, _GET["tmall"])
    # Of both, one code and no value at all mean the same: unknown.
    known = (pl.col("age_range").replace("0", None), pl.col("gender").replace("2", None))
    part = map_frames(part, lambda frame: frame.with_columns(*known))
    roles = Roles(
        label="purchase",
        time="time",
        user="user_id",
        fields=(*map(Field, (*_ACTION, *_PERSON)), _WEEKDAY),
        history=History("item_id", 20),
    )
    return Source("Tmall repeat buyers", (part,), roles, _LICENCE)
