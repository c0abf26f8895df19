"""Numbers the values of a column as a log is read, in memory proportional to distinct values."""

import uuid
import zlib

import numpy as np
import polars as pl

# Whole numbers below this are looked up in an array, at 4 bytes each; others as text.
_DIRECT = 1 << 22


class Codes:
    """The codes of one column: value -> 0, 1, 2 .. in the order of arrival, never renumbered.

    A value is its text, so 7 and "7" are one value. With `hashed` > 0 the values are "#0" ..
    "#(hashed - 1)", the hash (CRC-32) of the text modulo `hashed`.
    """

    def __init__(self, hashed: int = 0):
        self.hashed = hashed
        self.dtype = pl.Categorical(pl.Categories(uuid.uuid4().hex))
        # Polars forgets the categories when the last column that uses them is gone.
        self._keep = pl.Series([], dtype=self.dtype)
        self._size = 0
        self._direct = np.zeros(0, np.int32)
        # While all values are small whole numbers: those of the codes 0, 1, .., in pieces. Their
        # text is then made only when it is asked for.
        self._numbers: list[np.ndarray] | None = []

    def __len__(self) -> int:
        return self._size

    def encode(self, column: pl.Series) -> np.ndarray:
        """int32 [n] for text or whole numbers without nulls; new values get the next codes."""
        if self.hashed:
            column = _bucket(column, self.hashed)
        if column.dtype.is_integer() and column.dtype not in (pl.Int128, pl.UInt128):
            numbers = column.to_numpy()
            if len(numbers) and numbers.min() >= 0 and numbers.max() < _DIRECT:
                return self._encode_small(numbers, int(numbers.max()))
        return self._encode_text(column.cast(pl.String))

    def _encode_text(self, column: pl.Series) -> np.ndarray:
        if self._numbers is not None:
            column = pl.concat([self.values(), column])
        coded = column.cast(self.dtype)
        self._keep = coded.head(1) if len(coded) else self._keep
        codes = coded.to_physical().to_numpy().astype(np.int32)
        if self._numbers is not None:
            codes, self._numbers = codes[self._size :], None
        self._size = max(self._size, int(codes.max(initial=-1)) + 1)
        return codes

    def _encode_small(self, numbers: np.ndarray, high: int) -> np.ndarray:
        if high >= len(self._direct):
            size = min(_DIRECT, max(1024, 2 * (high + 1)))
            grown = np.full(size, -1, np.int32)
            grown[: len(self._direct)] = self._direct
            self._direct = grown
        codes = self._direct[numbers]
        new = numbers[codes < 0]
        if len(new):
            at = np.arange(len(new), dtype=np.int32)
            # Of a number that comes twice the last assignment stays, here the first appearance.
            self._direct[new[::-1]] = at[::-1]
            new = new[self._direct[new] == at]
            if self._numbers is None:
                self._direct[new] = self._encode_text(pl.Series(new).cast(pl.String))
            else:
                self._numbers.append(new.astype(np.int64))
                self._direct[new] = self._size + at[: len(new)]
                self._size += len(new)
            codes = self._direct[numbers]
        return codes

    def restore(self, values: pl.Series) -> None:
        """Takes `values` (String, distinct, new) in as the next codes, as `values()` gave them."""
        self._encode_text(values)

    def values(self, start: int = 0, stop: int | None = None) -> pl.Series:
        """String: the values of the codes start .. stop - 1, or to the last so far.

        With a `stop` that was once the length, another thread may go on encoding.
        """
        stop = self._size if stop is None else stop
        numbers = self._numbers
        if numbers is not None:
            known = np.concatenate([np.zeros(0, np.int64), *numbers])[start:stop]
            return pl.Series(known, dtype=pl.Int64).cast(pl.String)
        codes = pl.Series(np.arange(start, stop, dtype=np.uint32))
        return codes.cat.to(self.dtype).cast(pl.String)


def _bucket(column: pl.Series, size: int) -> pl.Series:
    """Text "#k", k the hash of each value modulo `size`."""
    seen = Codes()
    codes = seen.encode(column)
    # Polars' own hash may change with its version; a stored memory must not.
    buckets = [f"#{zlib.crc32(value.encode()) % size}" for value in seen.values()]
    return pl.Series(buckets, dtype=pl.String).gather(codes)
