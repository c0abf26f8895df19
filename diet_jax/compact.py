"""From the vocabulary to the few table rows that a stage touches, and back.

A row that no training sample touches has zero gradient, so SGD, momentum, Adagrad and Adam leave
it where it started: training on the sub-table of touched rows is exact, and its cost does not
depend on the size of the vocabulary.
"""

from typing import NamedTuple

import numpy as np

BLOCK = 1 << 20  # ids that are looked for at once: a stage's would take several times its memory


class Compact(NamedTuple):
    """Where the table rows of a stage lie in its compact table.

    rows: int32 [U]; position p of the compact table holds the table row rows[p]. The first
    `n_trained` positions hold the rows that training touches, the others rows that are only looked
    up. Both parts are padded by repeating a row, so that their sizes change seldom.
    """

    rows: np.ndarray
    n_trained: int

    def positions(self, ids: np.ndarray) -> np.ndarray:
        """The first position of each table row in `ids`, same shape, int32; -1 (no value) stays.

        Raises ValueError when an id is not among the rows: a look-up would return another row.
        """
        by_row = np.argsort(self.rows, kind="stable")
        ordered = self.rows[by_row]
        flat, positions = ids.reshape(-1), np.empty(ids.size, np.int32)
        for start in range(0, ids.size, BLOCK):
            some = flat[start : start + BLOCK]
            at = np.minimum(np.searchsorted(ordered, some), len(ordered) - 1)
            found = ordered[at] == some
            if not (found | (some < 0)).all():
                raise ValueError("an id is not among the rows of the compact table")
            positions[start : start + BLOCK] = np.where(found, by_row[at], -1)
        return positions.reshape(ids.shape)


def compact(trained: np.ndarray, looked_up: np.ndarray, floor: int) -> Compact:
    """The compact table of the ids (any shapes) that training touches and of further ids.

    Each part has the capacity of a power of two >= `floor` that holds its distinct rows.
    """
    inner = np.unique(trained[trained >= 0]).astype(np.int32)
    rest = np.setdiff1d(looked_up[looked_up >= 0], inner).astype(np.int32)
    parts = [pad_rows(part, capacity(len(part), floor)) for part in (inner, rest)]
    return Compact(np.concatenate(parts), len(parts[0]))


def capacity(n: int, floor: int = 1) -> int:
    """The smallest power of two >= n and >= floor: shapes change only when it doubles."""
    return 1 << (max(int(n), floor, 1) - 1).bit_length()


def pad_rows(rows: np.ndarray, size: int) -> np.ndarray:
    """int32 [u] padded to [size] with its last entry (with row 0 if there is none)."""
    last = rows[-1] if len(rows) else 0
    return np.concatenate([rows, np.full(size - len(rows), last, np.int32)])


def pad_to(a: np.ndarray, size: int) -> np.ndarray:
    """`a` with zeros appended along its first axis up to `size`; ValueError if it is longer."""
    if len(a) > size:
        raise ValueError(f"{len(a)} rows do not fit {size}")
    return np.concatenate([a, np.zeros((size - len(a), *a.shape[1:]), a.dtype)])
