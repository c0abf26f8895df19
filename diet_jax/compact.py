"""From the vocabulary to the few table rows that a stage touches, and back.

A row that no training sample touches has zero gradient, so SGD, momentum, Adagrad and Adam leave
it where it started: training on the sub-table of touched rows is exact, and its cost does not
depend on the size of the vocabulary.
"""

import numpy as np


def capacity(n: int, floor: int = 256) -> int:
    """The smallest power of two >= n (and >= floor): shapes change only when it doubles."""
    return max(floor, 1 << (int(n) - 1).bit_length())


def touched_rows(*ids: np.ndarray) -> np.ndarray:
    """Sorted distinct table rows, int32 [u], that occur in any of the id arrays."""
    return np.unique(np.concatenate([np.ravel(a) for a in ids])).astype(np.int32)


def pad_rows(rows: np.ndarray, size: int) -> np.ndarray:
    """`rows` (sorted int32 [u]) padded to int32 [size] with its last entry, which stays sorted."""
    if len(rows) > size:
        raise ValueError(f"{len(rows)} touched rows do not fit a compact table of {size}")
    return np.concatenate([rows, np.full(size - len(rows), rows[-1], np.int32)])


def to_local(rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The positions in `rows` (sorted) of the table rows `ids`, same shape, int32.

    Raises ValueError when an id is not among the rows, since a look-up would return another row.
    """
    local = np.searchsorted(rows, ids)
    if not np.array_equal(rows[np.minimum(local, len(rows) - 1)], ids):
        raise ValueError("an id is not among the touched rows")
    return local.astype(np.int32)


def pad_to(a: np.ndarray, size: int) -> np.ndarray:
    """`a` with zeros appended along its first axis up to `size`; ValueError if it is longer."""
    if len(a) > size:
        raise ValueError(f"{len(a)} rows do not fit {size}")
    return np.concatenate([a, np.zeros((size - len(a), *a.shape[1:]), a.dtype)])
