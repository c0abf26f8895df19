"""From the vocabulary to the few table rows that a stage touches, and back.

A row that no training sample touches has zero gradient, so SGD, momentum, Adagrad and Adam leave
it where it started: training on the sub-table of touched rows is exact, and its cost does not
depend on the size of the vocabulary.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from diet_jax.types import Array

BLOCK = 1 << 20  # ids that are looked up at once: a stage's would take several times its memory


class Compact(NamedTuple):
    """Where the table rows of a stage lie in its compact table.

    rows: int32 [U]; position p of the compact table holds the table row rows[p]. Of each of its
    equal parts (as many as `compact` is told) the first positions hold rows that training touches,
    `n_trained` in all, and the others rows that are only looked up: devices that share the table by
    row need send nothing to take the two apart. Both are padded by repeating a row, so that their
    sizes change seldom.
    """

    rows: np.ndarray
    n_trained: int

    def positions(self, ids: np.ndarray) -> np.ndarray:
        """The first position of each table row in `ids`, same shape, int32; -1 (no value) stays.

        Raises ValueError when an id is not among the rows: a look-up would return another row.
        """
        # A table of all ids: a look-up each, and pages of it that no id falls in take no memory.
        size = int(self.rows.max()) + 1
        position = np.zeros(size, np.int32)  # and one, so that 0 says that a row is not there
        position[self.rows[::-1]] = np.arange(len(self.rows), 0, -1)
        flat, positions = ids.reshape(-1), np.empty(ids.size, np.int32)
        for start in range(0, ids.size, BLOCK):
            some = flat[start : start + BLOCK]
            at = np.where(some < 0, 0, position[np.clip(some, 0, size - 1)]) - 1
            if (some >= size).any() or (at < 0)[some >= 0].any():
                raise ValueError("an id is not among the rows of the compact table")
            positions[start : start + BLOCK] = at
        return positions.reshape(ids.shape)


def distinct(*ids: np.ndarray) -> np.ndarray:
    """int32 [U], the table rows among ids of any shapes, each once, ascending.

    By marks in a table of all ids, since to sort the ids of a long stage takes minutes.
    """
    flat = [a.reshape(-1) for a in ids if a.size]
    seen = np.zeros(max((int(a.max()) for a in flat), default=-1) + 2, bool)
    for a in flat:
        for start in range(0, a.size, BLOCK):
            seen[a[start : start + BLOCK]] = True  # -1, no value, marks the last place
    return np.flatnonzero(seen[:-1]).astype(np.int32)


def compact(
    trained: np.ndarray, looked_up: np.ndarray, floor: int, parts: int = 1, most: int | None = None
) -> Compact:
    """The compact table of the ids (any shapes) that training touches and of further ids.

    Both kinds have the capacity of a power of two >= `floor` that holds their distinct rows, or of
    the next multiple of `parts`. most: the rows of the whole table, above which no kind needs more.
    """
    inner = distinct(trained)
    rest = np.setdiff1d(distinct(looked_up), inner, assume_unique=True)

    def padded(kind: np.ndarray) -> np.ndarray:
        size = capacity(len(kind), floor)
        size = size if most is None else min(size, most)
        return pad_rows(kind, -(-size // parts) * parts).reshape(parts, -1)

    kinds = [padded(kind) for kind in (inner, rest)]
    return Compact(np.concatenate(kinds, 1).reshape(-1), kinds[0].size)


def cut(table: Array, n_trained: int, parts: int = 1) -> tuple[Array, Array]:
    """The trained rows of what has the rows of a compact table, [U, ..], and the others."""
    if parts == 1:
        return table[:n_trained], table[n_trained:]
    by_part = table.reshape(parts, -1, *table.shape[1:])
    n = n_trained // parts
    trained, rest = by_part[:, :n], by_part[:, n:]
    return trained.reshape(-1, *table.shape[1:]), rest.reshape(-1, *table.shape[1:])


def join(trained: Array, rest: Array, parts: int = 1) -> Array:
    """What `cut` has taken apart."""
    if parts == 1:
        return jnp.concatenate([trained, rest])
    both = [a.reshape(parts, -1, *a.shape[1:]) for a in (trained, rest)]
    return jnp.concatenate(both, 1).reshape(-1, *trained.shape[1:])


def among_trained(at: Array, n_trained: int, n_rest: int, parts: int = 1) -> Array:
    """Where trained rows lie once they are cut out of the table that has them at `at`."""
    if parts == 1:
        return at
    n, m = n_trained // parts, n_rest // parts
    return jnp.where(at < 0, at, at // (n + m) * n + at % (n + m))


def capacity(n: int, floor: int = 1) -> int:
    """The smallest power of two >= n and >= floor: shapes change only when it doubles."""
    return 1 << (max(int(n), floor, 1) - 1).bit_length()


def pad_rows(rows: np.ndarray, size: int) -> np.ndarray:
    """int32 [u] padded to [size] with its last entry (with row 0 if there is none)."""
    last = rows[-1] if len(rows) else 0
    return np.concatenate([rows, np.full(size - len(rows), last, np.int32)])


def in_blocks(a: np.ndarray, n_blocks: int, block: int) -> np.ndarray:
    """`a` padded with zeros and cut into blocks: [n_blocks, block, ..]."""
    return pad_to(a, n_blocks * block).reshape(n_blocks, block, *a.shape[1:])


def pad_to(a: np.ndarray, size: int) -> np.ndarray:
    """`a` with zeros appended along its first axis up to `size`; ValueError if it is longer."""
    if len(a) > size:
        raise ValueError(f"{len(a)} rows do not fit {size}")
    return np.concatenate([a, np.zeros((size - len(a), *a.shape[1:]), a.dtype)])
