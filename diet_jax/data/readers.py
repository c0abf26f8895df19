"""Reads log files of every format in blocks, and gives each row that it cannot split a reason.

Every row has a number, counted from 1 without the header: rejected rows, and blank lines too, which
are skipped. What is wrong with a file as a whole is one InputError that names it. A file without
rows gives one empty block, so that its columns are known.
"""

import fnmatch
import glob
import gzip
import mmap
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from diet_jax.data import json_lines, text
from diet_jax.data.clean import lacking
from diet_jax.data.errors import told
from diet_jax.data.source import Block, Part, map_frames
from diet_jax.types import InputError

_UNIT = "\x1f"  # stands for a separator that is longer than the one byte that parsers know
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"


def delimited(
    path: str | Path,
    separator: str = ",",
    header: tuple[str, ...] = (),
    quote: str = '"',
    encoding: str = "utf8",
    member: str = "",
    columns: tuple[str, ...] = (),
) -> Part:
    """Delimited text, gzipped if its name ends in .gz: columns as String without blanks around
    them, an empty cell as null.

    header: the column names of a file that has none. quote: "" if the file knows no quotes, as one
    with a separator longer than one byte never does. encoding: utf8 or latin1. member: the name of
    the file inside the zip archive `path`. columns: those to keep, () for all; if the header lacks
    one of them, no rows come, but the names of all. Lines end with LF, CRLF or CR, and a quoted
    cell may hold such ends. Rejected: rows with another number of columns, not in UTF-8, or with a
    quote that is not closed (reading then goes on with the next line). Raises InputError if the
    file cannot be read, is empty, or has a header with a kept column unnamed or named twice.
    """
    known = len(separator.encode()) == 1
    form = text.Form(separator if known else _UNIT, quote if known else "", "")

    def blocks(chunks: Iterator[bytes], where: str) -> Iterator[Block]:
        if encoding == "latin1":
            chunks = (chunk.decode("latin1").encode() for chunk in chunks)
        if not known:
            chunks = (chunk.replace(separator.encode(), _UNIT.encode()) for chunk in chunks)
        names = header
        if not names:
            filled = filter(None, (chunk.lstrip(b"\n") for chunk in chunks))
            line, _, first = next(filled).partition(b"\n")
            names = text.header(line, form._replace(where=where), columns)
            chunks = chain([first], chunks)
        if set(columns).difference(names):
            return iter([Block(pl.DataFrame(schema=dict.fromkeys(names)), text.numbers(1, 0))])
        kept = {name: names.index(name) for name in columns or names}
        whole = form._replace(names=tuple(names), kept=kept, where=where)
        return text.blocks(chunks, partial(text.split, whole))

    return _text_part(path, member, blocks)


def jsonl(
    path: str | Path,
    columns: tuple[str, ...],
    lists: dict[str, str] = {},  # noqa: B006 (not changed)
) -> Part:
    """One JSON object a line, gzipped if its name ends in .gz: scalars typed, lists of them List.

    columns: the keys to keep. A key that a row lacks is null; a block says which of
    `columns` it lacks. A column has one type in a block, but its type may differ between blocks:
    where a block's rows do not agree it is String, with numbers in their plain text form.
    lists: those of `columns` that hold lists, and what separates the values of a text that stands
    among these; a single value is a list, too. Rejected: lines that are not JSON, or not an object,
    and rows with an object, or a list that is not of `lists`, in `columns`.
    Raises InputError if the file cannot be read or is empty.
    """

    def blocks(chunks: Iterator[bytes], where: str) -> Iterator[Block]:
        for block in text.blocks(chunks, partial(json_lines.objects, where, columns, lists)):
            have = block.frame.columns
            frame = json_lines.filled(block.frame, columns, len(block.rows))
            lacks = lacking(have, columns, where) if have else None
            yield block._replace(frame=frame, lacking=lacks)

    return _text_part(path, "", blocks)


def parquet(path: str | Path, columns: tuple[str, ...] = ()) -> Part:
    """A Parquet file: types as they are, but dictionary (categorical) columns as String.

    columns: those to read, () for all; if it lacks one of them, no rows come, but the names of all.
    Raises InputError if it cannot be read.
    """
    where = str(path)

    def tables(head: bytes) -> Iterator[pa.Table | pa.RecordBatch]:
        # Buffered reads of each column: memory does not grow with the size of row groups.
        with pa.OSFile(where) as source:
            file = pq.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20)
            have, count = file.schema_arrow.names, 0
            if set(columns).difference(have):
                yield _names(have)
                return
            kept = list(columns or have)
            yield file.schema_arrow.empty_table().select(kept)
            for batch in file.iter_batches(text.BLOCK, columns=kept):
                count += batch.num_rows
                yield batch.select(kept)
            if count != file.metadata.num_rows:
                raise ValueError(f"{count} rows, not {file.metadata.num_rows}")

    return _table_part(where, tables)


def arrow(path: str | Path, columns: tuple[str, ...] = ()) -> Part:
    """An Arrow IPC file, stream or Feather file: types and `columns` as for Parquet.

    Only a record batch that is compressed is held in memory as a whole.
    Raises InputError if the file cannot be read, or is a stream without its end mark.
    """
    where = str(path)

    def tables(head: bytes) -> Iterator[pa.Table | pa.RecordBatch]:
        # Mapped, as a single record batch may be larger than memory.
        with open(where, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        buffer = pa.py_buffer(mapped)
        source = pa.BufferReader(buffer)
        start = pa.ipc.open_file if head == b"ARROW1" else pa.ipc.open_stream
        have = start(pa.BufferReader(buffer)).schema.names
        if set(columns).difference(have):
            yield _names(have)
            return
        kept = list(columns or have)
        places = [at for at, name in enumerate(have) if name in columns]
        reader = start(source, options=pa.ipc.IpcReadOptions(included_fields=places))
        batches = reader
        if head == b"ARROW1":
            batches = map(reader.get_batch, range(reader.num_record_batches))
        yield reader.schema.empty_table().select(kept)
        for batch in batches:
            for at in range(0, batch.num_rows, text.BLOCK):
                yield batch.slice(at, text.BLOCK).select(kept)
                mapped.madvise(mmap.MADV_DONTNEED)  # pages that were read count no longer as ours
        if head != b"ARROW1" and (source.tell() < len(mapped) or mapped[-8:] != _STREAM_END):
            raise ValueError("the stream's end mark is not at its end")

    return _table_part(where, tables)


_tsv = partial(delimited, separator="\t")
_READERS: dict[str, Callable[..., Part]] = {
    **dict.fromkeys((".csv", ".csv.gz"), delimited),
    **dict.fromkeys((".tsv", ".tsv.gz"), _tsv),
    **dict.fromkeys((".parquet", ".pq"), parquet),
    **dict.fromkeys((".arrow", ".feather", ".ipc"), arrow),
    **dict.fromkeys((".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz"), jsonl),
}
# The marks are those of Spark, Databricks and Parquet's writers.
_NO_LOG = re.compile(
    r"_SUCCESS|_(common_)?metadata|_(started|committed).*|.*\.md|"
    r"(readme|licen[cs]e)(\.(txt|rst|html))?",
    re.IGNORECASE,
)


def table_parts(
    path: str | Path,
    columns: tuple[str, ...] = (),
    lists: dict[str, str] = {},  # noqa: B006 (not changed)
) -> tuple[Part, ...]:
    """A file, or all files below a folder, or below what a pattern (* ? [..] **) matches, sorted by
    path, each read as the end of its name says.

    columns: those to keep; () for all, unless there are JSON lines. lists: see `jsonl`. A folder
    that is named KEY=VALUE says what all rows below it have in that column, if it is one of
    `columns`, whatever the files say. In folders what is hidden is left out, and files that are
    named as a readme, a licence, Markdown or a mark (_SUCCESS) are.
    Raises InputError if there is no such path, nothing at it with a known ending, or something else
    in a folder.
    """
    root, found = _found(Path(path))
    parts, known, there = [], " ".join(_READERS), {}
    for file in found:
        if there.setdefault(file.resolve(), file) != file:
            raise InputError(f"{file}: is the same as {there[file.resolve()]}; remove the link")
        ending = next((e for e in _READERS if file.name.lower().endswith(e)), "")
        if ending and not file.is_dir():
            given = _said_by_folders(file, root, columns)
            more = {"lists": lists} if _READERS[ending] is jsonl else {}
            own = tuple(c for c in columns if c not in given)
            part = _READERS[ending](file, columns=own, **more)
            if given:
                part = map_frames(part, partial(_filled, given))
            parts.append(part._replace(said=tuple(given.items())))
        elif file.is_dir() and file.name[:1] == "_":
            raise InputError(
                f"{file}: would be left out; it is the writer's own, as that of a Delta table, "
                "whose other files are not just the log: write the log out plainly, or name its "
                "files by a pattern"
            )
        elif file != root and not (file.is_file() and _NO_LOG.fullmatch(file.name)):
            raise InputError(
                f"{file}: would be left out; move it away, or make it a file that ends in {known}"
            )
    if not parts:
        raise InputError(f"{path}: no file with a known ending; give one that ends in {known}")
    return tuple(parts)


def _found(path: Path) -> tuple[Path, list[Path]]:
    """What the names of folders count from, and the files of a log, with folders that are none of
    its own."""
    with told(str(path)):
        if path.exists() or not glob.has_magic(str(path)):
            path.stat()
            return path, _files_below(path)
        plain = next(k for k, part in enumerate(path.parts) if glob.has_magic(part))
        root = Path(*path.parts[:plain])
        found = list(dict.fromkeys(_matches(root, path.parts[plain:])))
    if not found:
        raise InputError(f"{path}: matches no file; check the pattern")
    return root, found


def _files_below(path: Path, above: tuple[Path, ...] = ()) -> list[Path]:
    """A file alone, or those in a folder, by name."""
    inside = _inside(path, above) if path.is_dir() else []
    if inside is None or not path.is_dir():
        return [path]
    here = (*above, path.resolve())
    return [found for file in inside for found in _files_below(file, here)]


def _matches(path: Path, pattern: tuple[str, ...], above: tuple[Path, ...] = ()) -> list[Path]:
    """The files below `path` whose way from there begins as the parts of the pattern say; ** stands
    for any folders, or none."""
    if not pattern or not path.is_dir():
        return _files_below(path, above) if not set(pattern) - {"**"} else []
    inside = _inside(path, above)
    if inside is None:
        return [path]
    here, (part, *rest) = (*above, path.resolve()), pattern
    if part == "**":
        more = (f for file in inside if file.is_dir() for f in _matches(file, pattern, here))
        return sorted([*_matches(path, tuple(rest), above), *more])
    chosen = (file for file in inside if fnmatch.fnmatchcase(file.name, part))
    return [found for file in chosen for found in _matches(file, tuple(rest), here)]


def _inside(folder: Path, above: tuple[Path, ...]) -> list[Path] | None:
    """What is in a folder but what is hidden, by name. None if its name begins with _: such a one
    is the writer's, as that of a Delta table is, whose files are not all of the log.

    above: the folders that it lies in, up to the one that is given, which may be called anything.
    """
    if above and folder.name[:1] == "_":
        return None
    if folder.resolve() in above:
        raise InputError(f"{folder}: is a link to a folder that it lies in; remove it")
    return [file for file in sorted(folder.iterdir()) if file.name[0] != "."]


def _said_by_folders(file: Path, root: Path, columns: tuple[str, ...]) -> dict[str, str | None]:
    """The `columns` that the names of the folders between `root` and a file give, as Hive, Spark
    and Polars name them."""
    pairs = (part.partition("=") for part in file.relative_to(root).parts[:-1])
    return {
        unquote(key): None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)
        for key, equals, value in pairs
        if equals and unquote(key) in columns
    }


def _filled(given: dict[str, str | None], frame: pl.DataFrame) -> pl.DataFrame:
    each = (pl.Series(name, [value], pl.String) for name, value in given.items())
    return frame.with_columns(column.new_from_index(0, frame.height) for column in each)


def _text_part(
    path: str | Path, member: str, read: Callable[[Iterator[bytes], str], Iterator[Block]]
) -> Part:
    where = f"{path}/{member}" if member else str(path)

    def blocks() -> Iterator[Block]:
        with told(where), ExitStack() as stack:
            if member:
                archive = stack.enter_context(zipfile.ZipFile(path))
                stream = stack.enter_context(archive.open(member))
            else:
                stream = stack.enter_context(open(path, "rb"))
            if where.lower().endswith(".gz"):
                stream = stack.enter_context(gzip.open(stream))
            yield from read(text.chunks(cast(IO[bytes], stream), where), where)

    return Part(where, (str(path),), blocks)


def _table_part(where: str, tables: Callable[[bytes], Iterator[Any]]) -> Part:
    """tables: given the first bytes, yields a table without rows and then batches like it."""

    def blocks() -> Iterator[Block]:
        row = 1
        with told(where):
            with open(where, "rb") as file:
                head = file.read(6)
            if not head:
                raise InputError(f"{where}: is empty; give a file with at least one row")
            batches = tables(head)
            empty = _plain(next(batches), where)
            for batch in filter(len, batches):
                # Polars trusts offsets and UTF-8: a damaged file would make it read anywhere.
                batch.validate(full=True)
                yield Block(_plain(batch, where), text.numbers(row, len(batch)))
                row += len(batch)
            if row == 1:
                yield Block(empty, text.numbers(1, 0))

    return Part(where, (where,), blocks)


def _names(have: Iterable[str]) -> pa.Table:
    """A table of these columns, without rows."""
    return pa.table({name: pa.nulls(0) for name in have})


def _plain(table: Any, where: str) -> pl.DataFrame:
    """Categories, also in lists, as String; without metadata, whose damage makes Polars panic."""
    for name, kind in zip(table.schema.names, table.schema.types, strict=True):
        getattr(kind, "tz", None)  # raises if it is not UTF-8
        if "decimal256" in str(kind):  # of which Polars panics
            cure = "write it with 38 digits or less, or as text"
            raise InputError(f"{where}, column {name!r}: holds {kind}; {cure}")
    frame = pl.DataFrame(pa.table(table.columns, names=table.schema.names))
    coded: dict[Any, Any] = {
        name: pl.List(pl.String) if isinstance(kind, pl.List) else pl.String
        for name, kind in frame.schema.items()
        if json_lines.inner(kind) in (pl.Categorical, pl.Enum)
    }
    return frame.cast(coded)
