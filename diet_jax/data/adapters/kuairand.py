"""KuaiRand (Pure, 1K, 27K) as unpacked: impressions of short videos, with their side tables.

The folder KuaiRand-X, or its folder data, holds log_standard_4_08_to_4_21_x.csv and
log_standard_4_22_to_5_08_x.csv (27K: each in _part1 and _part2), log_random_4_22_to_5_08_x.csv with
the videos that were shown at random, user_features_x.csv and video_features_basic_x.csv. Times are
milliseconds since 1970; the derived hour and weekday are UTC, eight hours behind the users' clocks.
What is known only after the impression (play_time_ms, the other feedback, the daily statistics of
videos, visible_status) is no feature.
"""

import os
from functools import cache

import polars as pl

from diet_jax.data.adapters.files import picked, whole
from diet_jax.data.readers import delimited
from diet_jax.data.source import (
    Dense,
    Field,
    History,
    Part,
    Roles,
    Source,
    map_frames,
    with_tasks,
)
from diet_jax.types import InputError

_LABELS = tuple("is_click is_like is_follow is_comment is_forward is_hate long_view".split())
_SPLITS = {"pure": ("",), "1k": ("",), "27k": ("_part1", "_part2")}
_USER = ("user_active_degree", "is_lowactive_period", "is_live_streamer", "is_video_author")
_USER_HASHED = tuple(f"onehot_feat{i}" for i in range(18))
_USER_COUNTS = ("follow_user_num", "fans_user_num", "friend_user_num", "register_days")
_VIDEO = ("author_id", "video_type", "upload_dt", "upload_type", "music_id", "music_type")
_GET = "give the folder KuaiRand-X of an archive of the KuaiRand record on Zenodo"


def read(
    path: str,
    name: str = "",
    label: str = "is_click",
    random: bool = False,
    more_labels: tuple[str, ...] = (),
) -> Source:
    """The log in the folder `path`.

    name: "pure", "1K", "27K", or "" for the one that is there. label: the feedback that is the
    positive. random: with the log of videos shown at random, and is_rand as a field. more_labels:
    feedback that is a label, too, say ("long_view",), see `source.with_tasks`.
    Raises InputError for another name or label, a missing file, a missing column.
    """
    for one in (label, *more_labels):
        if one not in _LABELS:
            raise InputError(f"KuaiRand has no label {one!r}; choose of {', '.join(_LABELS)}")
    if name.lower() not in ("", *_SPLITS):
        raise InputError(f"KuaiRand has no variant {name!r}; choose pure, 1K or 27K")
    inner = os.path.join(path, "data")
    folder = inner if os.path.isdir(inner) else path
    variant = name.lower() or _variant(folder)
    ends = [f"{variant}{part}.csv" for part in _SPLITS[variant]]
    logs = [f"log_standard_{span}_{e}" for span in ("4_08_to_4_21", "4_22_to_5_08") for e in ends]
    logs += [f"log_random_4_22_to_5_08_{variant}.csv"] if random else []
    sides = [f"user_features_{variant}.csv", f"video_features_basic_{variant}.csv"]
    *files, users, videos = locate(folder, (*logs, *sides), f"KuaiRand {variant}", _GET)
    shown = ("tab", *["is_rand"] * random)
    columns = ("user_id", "video_id", "time_ms", "duration_ms", *shown, label, *more_labels)
    parts = tuple(picked(delimited(file), columns, _GET) for file in files)
    about_user = (*_USER, *_USER_HASHED, *_USER_COUNTS)
    parts = joined(parts, ("user_id", "user_id"), users, about_user, _GET)
    parts = joined(parts, ("video_id", "video_id"), videos, (*_VIDEO, "tag"), _GET)
    plain = ("user_id", "video_id", *shown, *_USER, *_USER_HASHED, *_VIDEO)
    made = (Field("hour", derived="hour"), Field("weekday", derived="weekday"))
    roles = Roles(
        label=label,
        time="time_ms",
        user="user_id",
        fields=(*map(Field, plain), Field("tag", width=3, separator=","), *made),
        dense=tuple(Dense(c, scale="log", missing=0.0) for c in ("duration_ms", *_USER_COUNTS)),
        history=History("video_id", 20),
    )
    licence = "CC BY-SA 4.0, by the authors of KuaiRand."
    return Source(f"KuaiRand-{variant}", parts, with_tasks(roles, tuple(more_labels)), licence)


def _variant(folder: str) -> str:
    found = [v for v in _SPLITS if os.path.isfile(f"{folder}/user_features_{v}.csv")]
    if len(found) != 1:
        what = f"both KuaiRand {' and '.join(found)}" if found else "no user_features_*.csv"
        raise InputError(f"{folder}: {what} there; name pure, 1K or 27K, or {_GET}")
    return found[0]


def locate(folder: str, names: tuple[str, ...], what: str, cure: str) -> list[str]:
    """The paths of `names` in `folder`; raises InputError that lists the ones missing there."""
    paths = {name: os.path.join(folder, name) for name in names}
    missing = [name for name, path in paths.items() if not os.path.isfile(path)]
    if missing:
        raise InputError(f"{folder}: no {', '.join(missing)} there ({what}); {cure}")
    return list(paths.values())


def joined(
    parts: tuple[Part, ...],
    keys: tuple[str, str],
    path: str,
    columns: tuple[str, ...],
    cure: str,
) -> tuple[Part, ...]:
    """The parts with `columns` of the side table at `path`, as text, null in rows it lacks.

    keys: the columns of whole numbers that join, in the parts and in the side table. The table is
    read once, when the first block asks for it; of a repeated key, its first row holds.
    Raises InputError, then, if a column or a row of the table cannot be used.
    """

    @cache
    def side() -> pl.DataFrame:
        table = map_frames(delimited(path), lambda frame: frame.rename(str.strip))
        # Categorical: the table of KuaiRand-27K has 32 million rows.
        kinds = {keys[1]: pl.Int64(), **{column: pl.Categorical() for column in columns}}
        return whole(table, cure, kinds).unique(keys[1], keep="first", maintain_order=True)

    def change(frame: pl.DataFrame) -> pl.DataFrame:
        by = frame.select(pl.col(keys[0]).cast(pl.Int64, strict=False).alias(keys[1]))
        # The table may be far longer than a block: hash the block's few keys, not the whole table.
        few = side().join(by, on=keys[1], how="semi")
        few = few.with_columns(pl.col(columns).cast(pl.String).replace("NULL", None))
        found = by.join(few, on=keys[1], how="left", maintain_order="left")
        return frame.hstack(found.drop(keys[1]))

    return tuple(map_frames(p, change)._replace(files=(*p.files, path)) for p in parts)
