"""Cuts a log into stages so that no stage can know anything of a later one."""

import math

import numpy as np

from diet_jax.data.encode import as_known, encode, number
from diet_jax.data.log import Log, instant
from diet_jax.types import InputError, Rows, Schema, Stage, Stream

__all__ = ["as_known", "build", "cut", "standardize"]


def build(log: Log, count: int, fractions: tuple[float, ...], min_count: int) -> Stream:
    """Cuts, encodes and standardizes a log in time order.

    count: stages of equal counts, unless `fractions` gives their shares. min_count: see `encode`.
    Raises InputError if the log cannot be cut so, or a stage has one class only.
    """
    if min_count < 1:
        raise InputError(f"data.min_count is {min_count}; set it to 1 or more")
    borders = cut(log.time, count, fractions, log.where)
    n_stages = len(borders) - 1
    _check_classes(log, borders)
    stage = np.repeat(np.arange(n_stages), np.diff(borders))
    encoded = encode(log.fields, stage, n_stages, min_count)
    dense, stats = standardize(log.dense, int(borders[1]))
    user, _ = number(log.user)
    source = np.arange(len(log.time), dtype=np.int64)

    pieces = []
    for s in range(n_stages):
        piece = slice(int(borders[s]), int(borders[s + 1]))
        rows = Rows(encoded.ids[piece], dense[piece], log.label[piece])
        size = encoded.vocab_sizes[s]
        pieces.append(
            Stage(rows, user[piece].astype(np.int32), log.time[piece], source[piece], size)
        )
    return Stream(
        schema=Schema(tuple(log.fields.columns), log.dense_names),
        stages=tuple(pieces),
        values=encoded.values,
        row_field=encoded.row_field,
        dense_stats=stats,
        name=log.name,
    )


def cut(time: np.ndarray, count: int, fractions: tuple[float, ...], where: str) -> np.ndarray:
    """Row borders int64 [stages + 1] from 0 to n: stage s is rows borders[s] .. borders[s + 1] - 1.

    time: int64 [n], ascending. Rows of one time stay together, in the earlier stage.
    Raises InputError for bad shares, fewer rows than stages and stages left empty.
    """
    n = len(time)
    stages = len(fractions) or count
    if stages < 1:
        raise InputError(f"stages.count is {count}; set it to 1 or more")
    if fractions and (min(fractions) <= 0 or not math.isclose(sum(fractions), 1, abs_tol=1e-6)):
        raise InputError(
            f"stages.fractions {fractions} sums to {sum(fractions):g}; give positive shares that "
            "sum to 1"
        )
    if n < stages:
        raise InputError(
            f"{where}: {n} rows are too few for {stages} stages; set --config.stages.count lower"
        )
    if fractions:
        ends = np.floor(np.cumsum(fractions) * n + 0.5).astype(np.int64)
        ends[-1] = n
    else:
        ends = np.arange(1, stages + 1, dtype=np.int64) * n // stages
    # A border inside a tie moves behind the tie. A border at 0 is an empty stage, refused below.
    ends = np.where(ends > 0, np.searchsorted(time, time[ends - 1], side="right"), 0)
    borders = np.concatenate([[0], ends])
    empty = np.flatnonzero(np.diff(borders) == 0)
    if len(empty):
        s = int(empty[0])
        near = instant(time[max(int(borders[s]) - 1, 0)])
        raise InputError(
            f"{where}: stage {s + 1} of {stages} would be empty, since rows of one time stay "
            f"together (the stage before ends at {near} UTC); ask for fewer or larger stages"
        )
    return borders


def _check_classes(log: Log, borders: np.ndarray) -> None:
    stages = len(borders) - 1
    for s in range(stages):
        first, last = int(borders[s]), int(borders[s + 1]) - 1
        label = log.label[first : last + 1]
        if label.min() == label.max():
            raise InputError(
                f"{log.where}: stage {s + 1} of {stages} ({instant(log.time[first])} to "
                f"{instant(log.time[last])} UTC, {len(label)} rows) has only label {label[0]:g}; "
                "ask for fewer stages, or check the label column and data.threshold"
            )


def standardize(dense: np.ndarray, n_first: int) -> tuple[np.ndarray, np.ndarray]:
    """Scales by the mean and standard deviation of the first `n_first` rows, the first stage.

    dense: float32 [n, G]. Returns float32 [n, G] and the statistics, float32 [G, 2]. A feature that
    is constant there has the standard deviation 1, so that it passes on unscaled.
    """
    first = dense[:n_first].astype(np.float64)
    mean = first.mean(axis=0)
    spread = np.where(first.min(axis=0) < first.max(axis=0), first.std(axis=0), 1.0)
    stats = np.stack([mean, spread], axis=1).astype(np.float32)
    return ((dense - mean) / spread).astype(np.float32), stats
