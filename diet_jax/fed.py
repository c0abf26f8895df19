"""Training on rows that stay in their files: they come to the devices in chunks of a few steps.

Row order, and what a step makes of its rows, are those of training on rows that lie on the devices.
Held are three chunks there, and here one pass of each order: 4 bytes a row and seed.
"""

import mmap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax
import numpy as np

from diet_jax.data.feed import ahead
from diet_jax.sharding import Placement
from diet_jax.train import Examples
from diet_jax.types import Rows

STEPS = 256  # of a chunk at most: enough that what a call costs is little beside them
AHEAD = 2  # chunks made ahead; one more is at work


class Log(NamedTuple):
    """Rows where they are: those of `columns` that `spans` number, one span after another."""

    columns: Rows
    spans: tuple[range, ...]


def size(log: Log) -> int:
    """The number of rows."""
    return sum(map(len, log.spans))


def read(log: Log) -> Rows:
    """The rows; spans that are neighbours in the log are not copied."""
    start, stop = log.spans[0].start, log.spans[-1].stop
    if stop - start == size(log):
        return Rows(*(column[start:stop] for column in log.columns))
    pieces = [slice(span.start, span.stop) for span in log.spans]
    return Rows(*(np.concatenate([column[p] for p in pieces]) for column in log.columns))


def numbers(log: Log, at: np.ndarray) -> np.ndarray:
    """The rows of `columns` that are the rows `at` (any shape) of the log."""
    lengths = np.array([len(span) for span in log.spans])
    ends = np.cumsum(lengths)
    shift = np.array([span.start for span in log.spans]) - (ends - lengths)
    return at + shift[np.searchsorted(ends, at, side="right")]


def row_bytes(rows: Rows) -> int:
    """Bytes of one row."""
    return sum(column.dtype.itemsize * int(np.prod(column.shape[1:])) for column in rows)


def chunk_steps(rows: Rows, n: int, epochs: float, batch: int, seeds: int, budget: int) -> int:
    """0 if `n` rows, and the order of their epochs for every seed, fit the budget of a device in
    bytes; else the steps of a chunk (one at least) of which all that are held fit it.
    """
    if n * (row_bytes(rows) + 4 * epochs * seeds) <= budget:
        return 0
    return min(max(1, budget // ((AHEAD + 1) * seeds * batch * row_bytes(rows))), STEPS)


def passes(
    rng: np.random.Generator, n: int, steps: int, batch: int, chunk: int
) -> Iterator[np.ndarray]:
    """Batches of row numbers below n in whole random passes, [chunk, batch] at a time.

    What is over in the last chunk is 0. int32, or int64 where that does not suffice.
    """
    kind = np.int32 if n < 1 << 31 else np.int64
    rest = np.zeros(0, kind)
    for first in range(0, steps, chunk):
        order = np.zeros((chunk, batch), kind)
        missing = order.reshape(-1)[: (steps - first) * batch]
        while len(missing):
            if not len(rest):
                del rest  # or two passes would be held for a while
                rest = np.arange(n, dtype=kind)
                rng.shuffle(rest)
            some = min(len(rest), len(missing))
            missing[:some] = rest[:some]
            missing, rest = missing[some:], rest[some:]
        yield order


def epochs(rng: np.random.Generator, n: int, steps: int, batch: int) -> np.ndarray:
    """Batches int32 [steps, batch] of row numbers below n, in whole random passes."""
    return next(passes(rng, n, steps, batch, steps))


def orders(
    log: Log, rngs: Iterable[np.random.Generator], steps: int, batch: int, chunk: int
) -> Iterator[np.ndarray]:
    """`passes` of every generator side by side, [S, chunk, batch], as rows of the log's columns."""
    each = [passes(rng, size(log), steps, batch, chunk) for rng in rngs]
    return (numbers(log, np.stack(some)) for some in zip(*each, strict=True))


def chunks(
    columns: Rows,
    orders: Iterator[np.ndarray],
    steps: int,
    place: Placement,
    axes: tuple[str | None, ...],
) -> Iterator[tuple[Examples, np.int32]]:
    """For each of `orders`, row numbers [.., T, B]: those rows on the devices, made ahead, and how
    many of the T steps are to be done, `steps` in all.

    axes: of the mesh, those that the axes of an order are spread over. A process reads the rows of
    its own devices only. Whoever trains on a chunk waits for its end before asking for the next,
    or chunks would pile up on the devices.
    """

    def put(rows: np.ndarray) -> Examples:
        def column(a):
            def part(index):
                return np.asarray(a).take(rows[index[: rows.ndim]], axis=0)

            return place.spread((*rows.shape, *a.shape[1:]), axes, part)

        return jax.tree.map(column, Examples(*columns))

    with read_at_random(columns):
        for chunk in ahead(put, orders, AHEAD, threads=AHEAD):
            size = chunk.target.shape[-2]
            yield chunk, np.int32(min(size, steps))
            steps -= size


@contextmanager
def read_at_random(columns: Rows) -> Iterator[None]:
    """Meanwhile a row costs a file one page; the kernel would fetch far more around it."""
    maps = []
    for owner in columns:
        while isinstance(owner, np.ndarray):
            owner = owner.base
        if isinstance(owner, mmap.mmap):
            maps.append(owner)
    try:
        for each in maps:
            each.madvise(mmap.MADV_RANDOM)
        yield
    finally:
        for each in maps:
            each.madvise(mmap.MADV_NORMAL)
