"""Frames of texts and numbers on disk: written a piece at a time, and then memory-mapped."""

from collections.abc import Iterable
from pathlib import Path

import polars as pl
import pyarrow as pa

PIECE = 1 << 20  # rows


def write(path: Path, pieces: Iterable[pl.DataFrame]) -> None:
    """An Arrow file of all pieces; at least one, of the same columns."""
    writer = None
    with open(path, "wb") as file:
        for piece in pieces:
            table = pa.table({c.name: _compact(c) for c in piece})
            writer = writer or pa.ipc.new_file(file, table.schema)
            writer.write_table(table)
        assert writer is not None
        writer.close()


def _compact(column: pl.Series) -> pa.Array:
    """The column alone: what Polars gathers shares the texts of the whole that it comes from."""
    array = column.to_arrow()  # texts end to end, that is, copied
    # As views they are mapped without a copy of anything.
    return array.cast(pa.string_view()) if column.dtype == pl.String else array


def read(path: Path) -> pl.DataFrame:
    """The frame; its pages stay on disk until they are looked at, and may leave memory again."""
    with pa.memory_map(str(path)) as file:
        frame = pl.from_arrow(pa.ipc.open_file(file).read_all())
    assert isinstance(frame, pl.DataFrame)
    return frame
