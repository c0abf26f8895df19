"""Makes rows of JSON objects, one a line, and rejects of what is none."""

import io
import json
from collections.abc import Iterable
from contextlib import suppress
from decimal import Decimal
from itertools import chain
from typing import Any

import polars as pl
import polars.selectors as cs

from diet_jax.data.columns import one_line
from diet_jax.data.source import Reject
from diet_jax.data.text import Piece, numbers, reject


def objects(
    where: str,
    columns: tuple[str, ...],
    lists: dict[str, str],
    data: bytes,
    row: int,
    last: bool,
) -> Piece:
    """Reads all lines at once, or one by one if one is bad or their types do not agree.

    Keys that are none of `columns` are there by name, full of nulls.
    """
    count = data.count(b"\n")
    frame = _scan_objects(data, columns, lists)
    if frame is not None and frame.height == count:
        return Piece(frame, numbers(row, count), (), b"", row + count)
    good, rows, rejects, keys = [], [], [], {}
    for number, line in enumerate(data.split(b"\n")[:-1], start=row):
        if not line.strip():
            continue
        value, reason = _object(line)
        keys |= dict.fromkeys(value)
        nested = [name for name in columns if _is_nested(value.get(name), name in lists)]
        if reason:
            rejects.append(reject(where, number, line, reason))
        elif nested:
            found = one_line(json.dumps(value[nested[0]]), 60)
            rejects.append(Reject(where, number, nested[0], found, "is nested"))
        else:
            good.append(value)
            rows.append(number)
    kept = [name for name in columns if name in keys]
    cells = ([_in_list(value.get(n), lists.get(n)) for value in good] for n in kept)
    frame = pl.DataFrame(list(map(_series, kept, cells)) or None, height=len(good))
    frame = filled(frame, dict.fromkeys(str(_text(key)) for key in keys), len(good))
    return Piece(frame, pl.Series(rows, dtype=pl.Int64), tuple(rejects), b"", row + count)


def _scan_objects(
    data: bytes, columns: tuple[str, ...], lists: dict[str, str]
) -> pl.DataFrame | None:
    """None if Polars cannot read a line, could round whole numbers beyond 2^53, or has something
    nested in `columns`."""
    try:
        scan = pl.scan_ndjson(io.BytesIO(data), infer_schema_length=None)
        kinds = scan.collect_schema()
        kept = [name for name in columns if name in kinds]
        if any((inner(kinds[n]) if n in lists else kinds[n]).is_nested() for n in kept):
            return None
        frame = scan.select(kept).collect()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError):
        return None
    largest = frame.select(cs.float().abs().max()).rows()
    if any((cell or 0) >= 2**53 for cell in chain(*largest)):
        return None
    if any(map(_may_hide, frame)):
        return None
    # Text is left to be split.
    lone = frame.select(lists.keys() & set(frame.columns)).select(~cs.list() - cs.string())
    frame = frame.with_columns(map(pl.concat_list, lone.columns))
    return filled(frame, kinds, frame.height)


def _may_hide(column: pl.Series) -> bool:
    """Whether it holds text that Polars may have made of an object or a list."""
    if inner(column.dtype) != pl.String:
        return False
    flat = column
    if isinstance(column.dtype, pl.List):
        flat = column.list.explode(keep_nulls=False, empty_as_null=False)
    return flat.str.contains(r"^[\[{]").any()


def inner(kind: pl.DataType) -> Any:
    return kind.inner if isinstance(kind, pl.List) else kind


def _object(line: bytes) -> tuple[dict[str, Any], str]:
    try:
        value = json.loads(line.decode(), object_pairs_hook=_first_of_each)
    except UnicodeDecodeError:
        return {}, "not UTF-8"
    except (ValueError, RecursionError):
        return {}, "not JSON"
    return (value, "") if isinstance(value, dict) else ({}, "not an object")


def _first_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of a key that comes twice the first value, as Polars takes it."""
    found = dict(pairs)
    return found if len(found) == len(pairs) else dict(reversed(pairs))


def _is_nested(value: Any, in_list: bool) -> bool:
    items = value if in_list and isinstance(value, list) else [value]
    return any(isinstance(item, dict | list) for item in items)


def _in_list(value: Any, separator: str | None) -> Any:
    """A value of a column of lists as one; those that text holds if there is a separator."""
    if separator is None or value is None or isinstance(value, list):
        return value
    if separator and isinstance(value, str):
        return [one.strip(" ") for one in value.split(separator)]
    return [value]


def _series(name: str, values: list[Any]) -> pl.Series:
    """A column of JSON values, or lists of them: of their type if it is one, else text."""
    lists = {type(value) for value in values} <= {list, type(None)}
    kinds = {type(value) for value in (chain(*filter(None, values)) if lists else values)}
    kinds.discard(type(None))
    # Polars would round what is not of the first value's type.
    with suppress(TypeError, OverflowError, UnicodeEncodeError):
        if len(kinds) < 2:
            return pl.Series(name, values)
    if lists:
        cells = [cell if cell is None else [_text(item) for item in cell] for cell in values]
        return pl.Series(name, cells, pl.List(pl.String))
    return pl.Series(name, [_text(value) for value in values], pl.String)


def _text(value: Any) -> str | None:
    if value is None or value != value:
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    if isinstance(value, float):
        text = f"{Decimal(text):f}".removesuffix(".0")  # as Polars writes it
    return text.encode("utf8", "replace").decode()


def filled(frame: pl.DataFrame, names: Iterable[str], height: int) -> pl.DataFrame:
    """The columns `names`, those that the frame lacks full of nulls."""
    nulls = pl.Series([None] * height, dtype=pl.Null)
    have = set(frame.columns)
    kept = [frame[name] if name in have else nulls.alias(name) for name in names]
    return pl.DataFrame(kept or None, height=height)
