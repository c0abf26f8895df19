"""Gives every (field, value) one table row for ever, in the order in which the stream shows it."""

import numpy as np

UNKNOWN = "<unknown>"


class Vocabulary:
    """The table rows of all fields as the stream goes on; rows 0 .. F-1 are the unknown ones.

    Values are spoken of by their slot: field f's code c is slot offset[f] + c, and the last slot
    stands for no value at all. What a stage's rows get depends on nothing after that stage.
    """

    def __init__(self, sizes: list[int], vocab: np.ndarray, min_count: int):
        """sizes: values of each field. vocab: int [C], the field of each column of codes."""
        starts = np.cumsum([0, *sizes])
        self.field = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        self.offset = starts[vocab].astype(np.int32)
        self.none = int(starts[-1])
        self.starts, self.vocab, self.min_count = starts, vocab, min_count
        self.seen = np.zeros(self.none + 1, bool)
        self.first = np.zeros(self.none + 1, np.int64)  # the cell of the log that showed it first
        self.count = np.zeros(self.none + 1, np.int64) if min_count > 1 else None
        # Unknown until admitted; no value stays -1.
        self.row = np.append(self.field, np.int32(-1))
        self.size = len(sizes)

    def slots(self, codes: np.ndarray) -> np.ndarray:
        """int32 [n, C] codes, -1 for none, to slots."""
        slots = codes + self.offset
        if codes.min(initial=0) < 0:
            slots[codes < 0] = self.none
        return slots

    def observe(self, slots: np.ndarray, start: int) -> None:
        """Takes in the next rows of the stream, [n, C]; `start`: the first one's number."""
        flat = slots.ravel()
        if self.count is not None:
            np.add.at(self.count, flat, 1)  # unlike bincount at the price of the rows alone
        new = np.flatnonzero(~self.seen.take(flat))[::-1]
        # Of a slot that comes twice the last assignment stays, here the first appearance.
        self.first[flat[new]] = start * slots.shape[1] + new
        self.seen[flat[new]] = True

    def admit(self) -> np.ndarray:
        """Gives rows to the values seen often enough so far, at the end of a stage.

        Returns their slots, int32, in the order of their rows: by first appearance, then by column.
        """
        ready = np.append(self.seen[:-1] & (self.row[:-1] == self.field), False)
        if self.count is not None:
            ready &= self.count >= self.min_count
        new = np.flatnonzero(ready).astype(np.int32)
        new = new[np.argsort(self.first[new])]
        self.row[new] = self.size + np.arange(len(new))
        self.size += len(new)
        return new


def as_known(ids: np.ndarray, known: np.ndarray, vocab: tuple[int, ...]) -> np.ndarray:
    """Ids that are not known yet become the unknown row of their column's field.

    ids: int32 [n, K], -1 for none. known: bool, of each table row and, last, of -1.
    vocab: the field of each column.
    """
    return np.where(known[ids], ids, np.array(vocab, ids.dtype))
