"""Logs in, prepared stages out: the only door between files and the rest of the project."""

import difflib
import os
from pathlib import Path
from typing import Any

from diet_jax.data import simulator, source, store, table
from diet_jax.data.adapters import (
    amazon,
    avazu,
    criteo,
    kuairand,
    mind,
    movielens,
    sessions,
    taobao,
    yambda,
)
from diet_jax.data.prepare import Report, identify, prepare
from diet_jax.data.stages import Cuts
from diet_jax.types import Config, InputError, Stream

PUBLISHED = {
    "amazon": amazon.read,
    "avazu": avazu.read,
    "criteo": criteo.read,
    "kuairand": kuairand.read,
    "mind": mind.read,
    "sessions": sessions.read,
    "taobao": taobao.read,
    "yambda": yambda.read,
}
OTHERS = {
    "movielens": lambda d: movielens.read(d.name, d.path, d.threshold, d.tfds_dir),
    "simulator": lambda d: simulator.source(simulator.World(**d.options)),
    "table": table.read,
}
# The keys of the blocks, as configs/default.py has them.
KEYS = {
    "data": (
        *("source", "name", "path", "tfds_dir", "options", "min_count", "max_rejected", "cache"),
        *("threshold", "label", "more_labels", "time", "user", "weight", "categorical", "multi"),
        *("separator", "hashed", "derived", "dense", "scale", "missing"),
        *("history", "history_length"),
    ),
    "stages": ("count", "fractions", "interval"),
}


def check_keys(config: Config) -> None:
    """Raises InputError for a key that no one would read."""
    for block, known in KEYS.items():
        for key in config[block]:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
                raise InputError(f"{block}.{key} is no key of the config; {hint}")


def find(data: Config) -> source.Source:
    """The log that the config's block `data` names. Raises InputError if there is none such."""
    if data.source not in OTHERS | PUBLISHED:
        names = ", ".join(sorted(OTHERS | PUBLISHED))
        raise InputError(f"data.source is {data.source!r}; set it to one of {names}")
    if data.source in PUBLISHED and not data.path:
        raise InputError("data.path is empty; set --config.data.path to the unpacked download")
    try:
        if data.source in OTHERS:
            return OTHERS[data.source](data)
        return PUBLISHED[data.source](data.path, data.name, **data.options)
    except TypeError as error:
        raise InputError(
            f"data.options does not fit data.source {data.source!r}: {error}"
        ) from error


def prepare_log(config: Config, report: Report = Report()) -> Path:  # noqa: B008 (immutable)
    """The folder of the prepared log, made now unless the cache holds it.

    Only the blocks `data` and `stages` are read. Raises InputError, one line that names what, where
    and the cure, for any bad input.
    """
    return prepare(*asked(config), report)


def log_key(config: Config) -> str:
    """`Stream.key` of the log as its files are now; nothing is prepared. Raises as `prepare_log`
    does for files that cannot be read."""
    return identify(*asked(config))[0]


def asked(config: Config) -> tuple[source.Source, Cuts, int, float, Path, dict[str, Any]]:
    """What `prepare` and `identify` are told."""
    check_keys(config)
    data, cuts = config.data, config.stages
    about = {k: v for k, v in data.to_dict().items() if k not in ("path", "tfds_dir", "cache")}
    return (
        find(data),
        Cuts(cuts.count, tuple(cuts.fractions), cuts.interval),
        data.min_count,
        data.max_rejected,
        cache_folder(data.cache),
        about,
    )


def cache_folder(given: str) -> Path:
    """Where prepared logs are kept: the config's, else $DIET_JAX_CACHE, else the user's cache."""
    if given := given or os.environ.get("DIET_JAX_CACHE", ""):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diet_jax"


def load_stream(config: Config, report: Report = Report()) -> Stream:  # noqa: B008 (immutable)
    """Prepares the log if need be and opens it."""
    return store.read(prepare_log(config, report))
