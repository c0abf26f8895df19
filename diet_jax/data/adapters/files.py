"""Finds the files of a published log, and reads the small tables that describe its items whole."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from diet_jax.data.columns import is_absent, one_line
from diet_jax.data.source import Block, Part, Reject, map_frames, still_lacking
from diet_jax.types import InputError


def find(path: str, patterns: tuple[str, ...], cure: str) -> tuple[Path, ...]:
    """`path` itself if it is a file, or the files of that folder that match, sorted by name.

    Raises InputError if there is none, or if the folder cannot be looked into.
    """
    root = Path(path)
    try:
        if path and root.is_file():
            return (root,)
        if not path or not os.path.lexists(root):
            raise InputError(f"{path or 'data.path'}: does not exist; {cure}")
        os.listdir(root)  # a pattern would find nothing where it may not look
        found = {file for pattern in patterns for file in root.glob(pattern) if file.is_file()}
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {cure}") from error
    if not found:
        raise InputError(f"{path}: has no {' or '.join(patterns)}; {cure}")
    return tuple(sorted(found))


def beside(file: Path, name: str, cure: str) -> Path:
    """The file `name` in the same folder; raises InputError if there is none."""
    if not file.with_name(name).is_file():
        raise InputError(f"{file.parent}: has no {name}; {cure}")
    return file.with_name(name)


def whole(part: Part, cure: str, kinds: dict[str, pl.DataType] | None = None) -> pl.DataFrame:
    """All rows of a side table; raises InputError for a row that cannot be split into cells, or a
    column that no row has.

    kinds: if given, only these columns, of these types; null where a cell does not fit its type.
    """
    frames, lacking = [], None
    for block in part.blocks():
        for bad in block.rejects:
            raise InputError(f"{bad.where}, row {bad.row}: {bad.reason} ({bad.value!r}); {cure}")
        frame = block.frame
        if kinds:
            require(frame, tuple(kinds), part.where, cure)
            frame = frame.select(pl.col(c).cast(kind, strict=False) for c, kind in kinds.items())
        frames.append(frame)
        lacking = still_lacking(lacking, block.lacking)
    for name in lacking or ():
        raise InputError(f"{part.where}: no row has {name!r}; {cure}")
    return pl.concat(frames)


def picked(
    part: Part, needs: tuple[str, ...], cure: str, columns: Sequence[str | pl.Expr] = ()
) -> Part:
    """The part with `columns` alone, which are made of the columns `needs`; () for these.

    Raises InputError, when it is read, for the first of `needs` that is not there.
    """

    def change(frame: pl.DataFrame) -> pl.DataFrame:
        require(frame, needs, part.where, cure)
        return frame.select(columns or needs)

    return map_frames(part, change)


def parsed(part: Part, column: str, value: pl.Expr, reason: str) -> Part:
    """The part with `value`, named by it, for the text in `column` that it is made of.

    A text of which `value` makes null rejects its row, for `reason`.
    """

    def blocks() -> Iterator[Block]:
        for block in part.blocks():
            text, made = block.frame[column], block.frame.select(value).to_series()
            bad = made.is_null() & ~is_absent(text)
            found = zip(block.rows.filter(bad), text.filter(bad), strict=True)
            rejects = [Reject(part.where, row, column, one_line(t, 60), reason) for row, t in found]
            yield block._replace(
                frame=block.frame.drop(column).with_columns(made).filter(~bad),
                rows=block.rows.filter(~bad),
                rejects=(*block.rejects, *rejects),
            )

    return part._replace(blocks=blocks)


def require(frame: pl.DataFrame, columns: tuple[str, ...], where: str, cure: str) -> None:
    """Raises InputError for the first of `columns` that is not there."""
    for column in columns:
        if column not in frame.columns:
            have = ", ".join(frame.columns)[:400]
            raise InputError(f"{where}: no column {column!r}; it has: {have}; {cure}")
