"""Files of fixed-width records: read in chunks, and sorted by time in bounded memory."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TypeVar, cast

import numpy as np

T = TypeVar("T")
CHUNK = 1 << 14  # rows handled at once
IN_MEMORY = 1 << 28  # bytes of the rows sorted at once
MOST_CUTS = 200  # by which a file is dealt at once: twice as many files are open


def append(file: IO[bytes], rows: np.ndarray) -> None:
    """Writes an array's bytes. (ndarray.tofile says nothing if the disk is full.)"""
    file.write(np.ascontiguousarray(rows).data)


def read_chunks(path: Path, dtype: np.dtype, start: int, stop: int) -> Iterator[np.ndarray]:
    """The records start .. stop - 1, a chunk at a time."""
    with open(path, "rb") as file:
        file.seek(start * dtype.itemsize)
        for first in range(start, stop, CHUNK):
            yield np.fromfile(file, dtype, min(CHUNK, stop - first))


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, the next one made in a thread while the caller works on this one."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield cast(T, item)


def sort_into(out: IO[bytes], path: Path, dtype: np.dtype, n: int) -> None:
    """Appends the records of `path` to `out` in order of time.

    A file that is too long is first dealt into files of adjacent times.
    """
    most = max(IN_MEMORY // dtype.itemsize, 1)
    if n <= most:
        rows = np.fromfile(path, dtype)
        order = np.argsort(rows["time"], kind="stable")
        for at in range(0, n, CHUNK):  # all of them in order would take the memory again
            append(out, rows[order[at : at + CHUNK]])
        return
    times = np.memmap(path, dtype, "r", shape=(n,))["time"]
    shares = np.linspace(0, 1, 2 + min(2 * n // most, MOST_CUTS))[1:-1]
    borders = np.unique(np.quantile(times[:: -(-n // 100_000)], shares, method="lower"))
    del times
    pieces = [path.with_name(f"{path.name}.{k}") for k in range(2 * len(borders) + 1)]
    with ExitStack() as stack:
        files = [stack.enter_context(open(piece, "wb")) for piece in pieces]
        for rows in read_chunks(path, dtype, 0, n):
            # Odd pieces hold one time only, so that they need no sorting however long they are.
            sides = (np.searchsorted(borders, rows["time"], side) for side in ("left", "right"))
            piece = np.asarray(sum(sides))
            order = np.argsort(piece, kind="stable")
            here, first = np.unique(piece[order], return_index=True)
            for k, some in zip(here, np.split(rows[order], first[1:]), strict=True):
                append(files[k], some)
    for k, piece in enumerate(pieces):
        size = piece.stat().st_size // dtype.itemsize
        if k % 2:
            for rows in read_chunks(piece, dtype, 0, size):
                append(out, rows)
        else:
            sort_into(out, piece, dtype, size)
        piece.unlink()
