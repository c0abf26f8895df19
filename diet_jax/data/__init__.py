"""Real logs in, encoded stages out: the only door between files and the rest of the project."""

from typing import Any

import ml_collections

from diet_jax.data import movielens, stages, table
from diet_jax.types import InputError, Stream


def load_stream(config: ml_collections.ConfigDict) -> Stream:
    """Reads the log that `config.data` names and cuts it as `config.stages` says.

    config: the whole configuration; only its parts `data` and `stages` are read.
    Raises InputError, one line that names what, where and the cure, for any bad input.
    """
    data: Any = config.data  # typed as Any: its keys are checked when the config is locked
    cuts: Any = config.stages
    if data.source == "movielens":
        log = movielens.read(data.name, data.path, data.threshold, data.tfds_dir)
    elif data.source == "table":
        log = table.read(
            data.path,
            label=data.label,
            time=data.time,
            user=data.user,
            categorical=tuple(data.categorical),
            dense=tuple(data.dense),
            threshold=data.threshold,
            name=data.name,
        )
    else:
        raise InputError(f"data.source is {data.source!r}; set it to 'movielens' or 'table'")
    return stages.build(log, cuts.count, tuple(cuts.fractions), data.min_count)
