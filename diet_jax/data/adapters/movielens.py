"""MovieLens in every form it is found in, made into the same ten fields."""

from pathlib import Path

from diet_jax.data.adapters import movielens_files, movielens_tfds
from diet_jax.data.source import Field, Roles, Source
from diet_jax.types import InputError

NAMES = ("latest-small", "100k", "1m", "20m", "25m", "32m", "latest")
_BUNDLED = Path(__file__).parents[1] / "bundled" / "ml-latest-small.zip"
_DEMOGRAPHIC = tuple("user item age gender occupation zip year genre genre2 hour".split())
_PLAIN = tuple("user item year genre genre2 genres hour weekday user_count item_count".split())
_DERIVED = {
    "hour": "hour",
    "weekday": "weekday",
    "user_count": "count:user",
    "item_count": "count:item",
}
_LICENCE = (
    "MovieLens, GroupLens at the University of Minnesota: research use; commercial use and "
    "redistribution as the README of the data set says."
)


def read(name: str, path: str, threshold: float, tfds_dir: str) -> Source:
    """MovieLens `name` from `path`, or from the package ('latest-small') or tfds if ''.

    path: a zip or folder of GroupLens, or a folder of RecBole atomic files. threshold: a rating at
    or above it is a positive. tfds_dir: the data_dir of tensorflow-datasets, '' for its default.
    Raises InputError for anything that is missing.
    """
    if name not in NAMES:
        raise InputError(f"data.name is {name!r}; set it to one of {', '.join(NAMES)}")
    if path or name == "latest-small":
        part = movielens_files.read(name, path or str(_BUNDLED))
    elif name in ("32m", "latest"):
        raise InputError(f"data.path is empty; set it to the zip of MovieLens {name} or its folder")
    else:
        part = movielens_tfds.read(name, tfds_dir)
    names = _DEMOGRAPHIC if name in ("100k", "1m") else _PLAIN
    fields = tuple(Field(field, derived=_DERIVED.get(field, "")) for field in names)
    roles = Roles("rating", "timestamp", "user", fields, threshold=threshold)
    return Source(f"MovieLens {name}", (part,), roles, _LICENCE)
