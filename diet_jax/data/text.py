"""Splits text into rows of delimited cells, and what cannot be split into rejects."""

import csv
from collections.abc import Callable, Iterator
from itertools import chain
from typing import IO, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv

from diet_jax.data.columns import one_line
from diet_jax.data.source import Block, Reject
from diet_jax.types import InputError

BLOCK = 1 << 17  # rows
_CHUNK = 1 << 24  # bytes of text that are parsed at once
_LINE = 1 << 24  # bytes of the longest line
_PIECE = 1 << 16  # bytes that are parsed at once around a bad row
_QUOTED = 1 << 17  # bytes within which a quote must be closed
_BOM = b"\xef\xbb\xbf"
_RAGGED, _STRAY = "another number of columns", "a quote in the wrong place"
_OPEN = "an unclosed quote, or too long a cell"


class Form(NamedTuple):
    """separator: one byte. quote: "" for none. names: of all columns. kept: those to keep, and the
    place of each."""

    separator: str
    quote: str
    where: str
    names: tuple[str, ...] = ()
    kept: dict[str, int] = {}


class Piece(NamedTuple):
    """What a piece of text gave. rest: its unfinished end. row: the number of the next row."""

    frame: pl.DataFrame
    rows: pl.Series
    rejects: tuple[Reject, ...]
    rest: bytes
    row: int


def chunks(stream: IO[bytes], where: str) -> Iterator[bytes]:
    """At least one chunk of whole lines, all ended by LF; without a byte order mark."""
    rest, start, empty = b"", True, True
    while data := stream.read(_CHUNK):
        while data.endswith(b"\r") and (more := stream.read(1)):
            data += more
        if start and data.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise InputError(f"{where}: is UTF-16 text; convert it to UTF-8")
        if start:
            data = data.removeprefix(_BOM)
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        start, empty = False, empty and not data.strip()
        data = rest + data
        end = 0 if empty else data.rfind(b"\n") + 1
        rest = data[end:]
        if len(rest) > _LINE:
            raise InputError(f"{where}: a line of more than {_LINE} bytes; give lines of text")
        if end:
            yield data[:end]
    if empty:
        raise InputError(f"{where}: is empty; give a file with at least one row")
    if rest:
        yield rest + b"\n"


def blocks(chunks: Iterator[bytes], parse: Callable[[bytes, int, bool], Piece]) -> Iterator[Block]:
    """parse: of text, the number of its first row, and whether no text follows."""
    rest, row, silent = b"", 1, True
    for chunk in chain(filter(None, chunks), [b""]):
        frame, rows, rejects, rest, row = parse(rest + chunk, row, not chunk)
        if len(rows) or rejects or (silent and not chunk):
            silent = False
            for at in range(0, max(len(rows), 1), BLOCK):
                yield Block(frame[at : at + BLOCK], rows[at : at + BLOCK], rejects)
                rejects = ()


def numbers(row: int, count: int) -> pl.Series:
    return pl.int_range(row, row + count, dtype=pl.Int64, eager=True)


def reject(where: str, row: int, line: bytes, reason: str) -> Reject:
    return Reject(where, row, "", one_line(line.decode("utf8", "backslashreplace"), 80), reason)


def header(line: bytes, form: Form, columns: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the columns; those of `columns`, () for all, must be unique."""
    try:
        cells, is_open = _cells(line.decode() + "\n", form)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{form.where}: bad header ({one_line(error)}); fix line 1") from error
    names = tuple(cell.strip() for cell in cells)
    if is_open:
        raise InputError(f"{form.where}: the header has an unclosed quote; fix line 1")
    if "" in names and not columns:
        column = names.index("") + 1
        raise InputError(f"{form.where}: the header has no name for column {column}; give it one")
    for at, name in enumerate(names):
        if name in names[:at] and name in (columns or names):
            shown = one_line(repr(name), 60)
            raise InputError(f"{form.where}: the header names {shown} twice; rename one column")
    other = [mark for mark in ",\t;|" if mark in names[0]]
    if len(names) == 1 and other:
        raise InputError(
            f"{form.where}: its columns seem to be separated by {other[0]!r}, not by "
            f"{form.separator!r}; give a file with the right separator"
        )
    return names


def split(form: Form, data: bytes, row: int, last: bool) -> Piece:
    """Splits text into rows: all at once, or in small pieces if it holds anything unusual."""
    whole = _split_lines(form, data, row)
    if whole:
        return whole
    done, rest, at = [], b"", 0
    while at < len(data):
        end = data.find(b"\n", at + _PIECE) + 1 or len(data)
        piece = rest + data[at:end]
        at_end = last and end == len(data)
        done.append(_split_lines(form, piece, row) or _split_records(form, piece, row, at_end))
        rest, row, at = done[-1].rest, done[-1].row, end
    frames, rows, rejects, *_ = zip(*done, strict=True)
    return Piece(pl.concat(frames), pl.concat(rows), tuple(chain(*rejects)), rest, row)


def _split_lines(form: Form, data: bytes, row: int) -> Piece | None:
    """All rows of the text, or None unless each of its lines is one good row."""
    if not data:
        return Piece(_frame(form, []), numbers(row, 0), (), b"", row)
    if data.startswith(b"\n") or b"\n\n" in data:
        return None
    count = data.count(b"\n")
    quoted = bool(form.quote) and form.quote.encode() in data
    mark = _BOM if data.startswith(_BOM) else b""  # the parser drops one from every text
    # The parser silently closes a quote at the end of the text: it swallows this line then.
    probe = form.separator.join("x" for _ in form.names).encode() if quoted else b""
    text = dict.fromkeys(form.kept, pa.string())
    quoting = {"quote_char": form.quote or False, "newlines_in_values": quoted}
    try:
        table = pacsv.read_csv(
            pa.py_buffer(mark + data + probe),
            pacsv.ReadOptions(column_names=form.names, block_size=1 << 21),
            pacsv.ParseOptions(delimiter=form.separator, **quoting),
            pacsv.ConvertOptions(
                column_types=text,
                null_values=[""],
                strings_can_be_null=True,
                include_columns=list(form.kept),
            ),
        )
    except (pa.ArrowException, ValueError):
        return None
    if table.num_rows != count + quoted:
        return None
    frame = pl.DataFrame(table)[:count]
    # Most texts have no blanks there, and looking into each cell takes as long as parsing it.
    ends = (form.separator, "\n", form.quote or "\n")
    around = (f"{end} ".encode() in data or f" {end}".encode() in data for end in ends)
    if b" " in data and (data.startswith(b" ") or any(around)):
        frame = _stripped(frame)
    return Piece(frame, numbers(row, count), (), b"", row + count)


def _split_records(form: Form, data: bytes, row: int, last: bool) -> Piece:
    """Takes records, which may span lines, one by one to find the bad ones."""
    lines = [line + "\n" for line in data.decode("utf8", "surrogateescape").split("\n")[:-1]]
    good, rows, rejects, at, rest = [], [], [], 0, b""
    while at < len(lines):
        cells, taken, reason = _record(form, lines, at)
        if reason == _OPEN and not last:
            rest = "".join(lines[at:]).encode("utf8", "surrogateescape")
            if len(rest) <= _QUOTED:
                break
            rest = b""
        if reason:
            line = lines[at].encode("utf8", "surrogateescape")
            rejects.append(reject(form.where, row, line, reason))
        elif cells:
            good.append(cells)
            rows.append(row)
        row += 1
        at += taken
    numbers = pl.Series(rows, dtype=pl.Int64)
    return Piece(_frame(form, good), numbers, tuple(rejects), rest, row)


def _record(form: Form, lines: list[str], at: int) -> tuple[list[str], int, str]:
    """The kept cells of the record from line `at` on, its number of lines, and what is wrong."""
    if lines[at] == "\n":
        return [], 1, ""
    taken = 1
    try:
        cells, is_open = _cells(lines[at], form)
        if is_open:
            following = map(lines.__getitem__, range(at, len(lines)))
            reader = csv.reader(
                following, delimiter=form.separator, quotechar=form.quote, strict=True
            )
            cells, taken = next(reader), reader.line_num
    except csv.Error as error:
        return [], 1, _STRAY if "expected after" in str(error) else _OPEN
    if len(cells) != len(form.names):
        return [], 1, _RAGGED if taken == 1 else _STRAY
    cells = [cells[place] for place in form.kept.values()]
    if any("\udc80" <= mark <= "\udcff" for mark in "".join(cells)):
        return [], 1, "not UTF-8"
    return cells, taken, ""


def _cells(line: str, form: Form) -> tuple[list[str], bool]:
    """The cells of one line, and whether its last quote is still open."""
    if not form.quote:
        return line.removesuffix("\n").split(form.separator), False
    cells = next(csv.reader([line], delimiter=form.separator, quotechar=form.quote))
    return cells, bool(cells) and cells[-1].endswith("\n")


def _frame(form: Form, records: list[list[str]]) -> pl.DataFrame:
    return _stripped(pl.DataFrame(records, dict.fromkeys(form.kept, pl.String), orient="row"))


def _stripped(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.all().str.strip_chars(" ").replace("", None))
