"""What is known of a run before it starts or goes on: is there anything to do, on the same log?"""

import hashlib
import zlib
from pathlib import Path

import numpy as np

from diet_jax.data import log_key
from diet_jax.job import Job
from diet_jax.record import is_finished, look_into
from diet_jax.report import read_config
from diet_jax.same_log import Mark, known_log, refuse_another_log
from diet_jax.types import Config, InputError, Stage


def nothing_to_do(folder: Path, config: Config) -> str:
    """Why there is nothing to do but the report, in a sentence; empty if there is.

    Raises InputError for another config or log, as far as that is known before the log is read.
    """
    finished = is_finished(look_into(folder, config))
    known, given = known_log(folder)["key"], config.data
    if not known:
        return "Which log it read is not known." if finished else ""
    before = read_config(folder)["data"]
    moved = (before["path"], before["tfds_dir"]) != (given.path, given.tfds_dir)
    try:
        same = log_key(config) == known
    except InputError as error:
        if moved or not finished or config.stages.interval:
            raise
        return f"Whether its log has changed is not known: {error}"
    if not same and not config.stages.interval:
        if moved or not finished:
            refuse_another_log(folder, "")
        return "Its log has changed since: that takes another --workdir, or stages.interval."
    return "Its log is as it was." if finished and same and not moved else ""


def marks(job: Job) -> list[Mark]:
    """Of each stage, where they stay as they are when the log grows, its rows and a digest."""
    return [mark(stage) for stage in job.stream.stages if job.config.stages.interval]


def mark(stage: Stage) -> Mark:
    found, piece = hashlib.blake2b(digest_size=16), 1 << 20  # rows
    # A user's number hangs on the order of the files: which rows are of one user does not.
    _, first, user = np.unique(stage.user, return_index=True, return_inverse=True)
    for column in (*stage.rows, stage.time, first[user]):
        for start in range(0, len(column), piece):
            found.update(np.ascontiguousarray(column[start : start + piece]).data)
    return [len(stage.source), found.hexdigest()]


def digest(job: Job) -> int:
    """32 bits that tell apart jobs of other configs or logs, but not all of them."""
    return zlib.crc32((job.config.to_json(sort_keys=True) + job.stream.key).encode())
