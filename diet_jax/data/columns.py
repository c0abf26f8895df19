"""Turns one raw column into a checked one, or names the first row that cannot be used.

Rows in messages are 1-based, in the order of the file; the header is not counted.
"""

import csv
import gzip
import io
from pathlib import Path

import numpy as np
import polars as pl

from diet_jax.data.log import MISSING
from diet_jax.types import InputError

_MICROS = {"seconds": 1_000_000, "milliseconds": 1_000}
_ISO_DATE = r"^[+-]?\d{4,}-\d\d-\d\d"


def one_line(text: object, limit: int = 160) -> str:
    """Folds white space and shortens, so that any library's message fits in our one line."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def require_columns(frame: pl.DataFrame, names: tuple[str, ...], where: str, cure: str) -> None:
    """Raises InputError that lists the columns that exist if one of `names` does not."""
    for name in names:
        if name not in frame.columns:
            have = one_line(", ".join(frame.columns), 400)
            raise InputError(f"{where}: no column {name!r}; it has: {have}; {cure}")


def _refuse_first(bad: pl.Series, raw: pl.Series, where: str, problem: str, cure: str) -> None:
    rows = bad.fill_null(True).arg_true()
    if len(rows):
        row = int(rows[0])
        value = raw[row]
        shown = (
            "the value is missing" if value is None else f"{one_line(repr(value), 60)} {problem}"
        )
        raise InputError(f"{where}, row {row + 1}, column {raw.name!r}: {shown}; {cure}")


def _as_number(raw: pl.Series, where: str) -> pl.Series:
    """Float64, null where the text is no number; raises for a type that holds no numbers."""
    if raw.dtype == pl.String:
        return raw.str.strip_chars().cast(pl.Float64, strict=False)
    if raw.dtype.is_numeric() or raw.dtype in (pl.Boolean, pl.Null):
        return raw.cast(pl.Float64, strict=False)
    kind = one_line(raw.dtype, 60)
    raise InputError(
        f"{where}, column {raw.name!r}: holds {kind}, not numbers; name another column"
    )


def label(raw: pl.Series, threshold: float, where: str) -> np.ndarray:
    """float32 [n]: 1 where the rating reaches `threshold`; below 0: the column is 0/1 already.

    Raises InputError for the first value that is no number, or neither 0 nor 1 without threshold.
    """
    number = _as_number(raw, where)
    if threshold < 0:
        cure = "give labels 0 and 1, or set --config.data.threshold if these are ratings"
        _refuse_first(~number.is_in([0.0, 1.0]), raw, where, "is neither 0 nor 1", cure)
        return number.to_numpy().astype(np.float32)
    _refuse_first(~number.is_finite(), raw, where, "is not a rating", "fix or remove that row")
    return (number.to_numpy() >= threshold).astype(np.float32)


def dense(raw: pl.Series, where: str) -> np.ndarray:
    """float32 [n], all finite; raises InputError for the first value that is not."""
    number = _as_number(raw, where).cast(pl.Float32)
    cure = "fill or remove it, or list the column under --config.data.categorical"
    _refuse_first(~number.is_finite(), raw, where, "is not a finite float32 number", cure)
    return number.to_numpy().astype(np.float32)


def category(raw: pl.Series, where: str) -> pl.Series:
    """String [n] without nulls: a missing value (null, NaN, empty) is a value of its own."""
    if raw.dtype.is_nested() or raw.dtype in (pl.Binary, pl.Object):
        kind = one_line(raw.dtype, 60)
        raise InputError(
            f"{where}, column {raw.name!r}: holds {kind}, not single values; use text or numbers"
        )
    plain = raw.fill_nan(None) if raw.dtype.is_float() else raw
    # CSV cannot tell an empty text from none, so Parquet does not either.
    return plain.cast(pl.String).replace("", None).fill_null(MISSING)


def moment(raw: pl.Series, where: str) -> pl.Series:
    """Int64 [n], microseconds since 1970, of numbers (seconds, milliseconds), dates or ISO text.

    Times without a zone are UTC. Raises InputError for the first value that is no time.
    """
    cure = "give seconds or milliseconds since 1970, or ISO dates like 2024-05-31 18:30:00"
    if raw.dtype in (pl.Date, pl.Datetime):
        micros = raw.cast(pl.Datetime("us")) if raw.dtype == pl.Date else raw
        _refuse_first(micros.is_null(), raw, where, "is no time", cure)
        return micros.dt.epoch("us")
    if raw.dtype == pl.String and not _looks_numeric(raw):
        text = raw.str.strip_chars()
        iso = text.to_frame().select(
            pl.when(pl.col(raw.name).str.contains(_ISO_DATE)).then(pl.col(raw.name))
        )
        parsed = iso.to_series().str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
        problem = "is not a time, or not written like the first one"
        _refuse_first(parsed.is_null(), raw, where, problem, cure)
        return parsed.dt.epoch("us")
    number = _as_number(raw, where)
    _refuse_first(~(number.is_finite() & (number.abs() < 9e15)), raw, where, "is no time", cure)
    return _numbers_to_micros(raw, number, where)


def _looks_numeric(raw: pl.Series) -> bool:
    known = raw.drop_nulls().str.strip_chars().head(1)
    return len(known) == 0 or known.cast(pl.Float64, strict=False).null_count() == 0


def _numbers_to_micros(raw: pl.Series, number: pl.Series, where: str) -> pl.Series:
    """Milliseconds when beyond 10^11 (the year 5138 in seconds); one column has one unit."""
    is_milli = number.abs() > 1e11
    unit = "milliseconds" if is_milli.any() else "seconds"
    if is_milli.any() and not is_milli.all():
        # Milliseconds before March 1973 are no log of ours: such a mix is a damaged or merged file.
        cure = "bring all rows to one unit"
        odd = is_milli if is_milli.sum() * 2 <= len(is_milli) else ~is_milli
        _refuse_first(odd, raw, where, "mixes seconds and milliseconds with other rows", cure)
    # Float64 holds every whole microsecond up to the year 2255: rounding repairs the product.
    return (number * _MICROS[unit]).round().cast(pl.Int64)


def read_csv(
    content: bytes, where: str, separator: str = ",", header: tuple[str, ...] = ()
) -> pl.DataFrame:
    """Parses delimited UTF-8 text with every column as String; trailing blank lines are dropped.

    header: the column names of a file that has none; such files know no quotes either.
    Raises InputError if the text is empty, is not UTF-8 or has another number of columns.
    """
    if not content.strip():
        raise InputError(f"{where}: the file is empty; give a file with at least one row")
    try:
        frame = pl.read_csv(
            io.BytesIO(content),
            separator=separator,
            has_header=not header,
            new_columns=list(header) or None,
            quote_char=None if header else '"',
            infer_schema=False,
        )
    except pl.exceptions.PolarsError as error:
        cure = _ragged_row(content, separator, len(header)) or one_line(error)
        raise InputError(f"{where}: cannot be read as delimited UTF-8 text: {cure}") from error
    filled = frame.select(pl.any_horizontal(pl.all().is_not_null())).to_series().arg_true()
    frame = frame.head(int(filled[-1]) + 1 if len(filled) else 0)
    if frame.is_empty():
        raise InputError(f"{where}: no rows below the header; give a file with at least one row")
    return frame


def _ragged_row(content: bytes, separator: str, width: int) -> str:
    """Names the first row without `width` columns (0: those of the header); '' if there is none."""
    text = io.StringIO(content.decode("utf-8", "replace"))
    quoting = csv.QUOTE_NONE if width else csv.QUOTE_MINIMAL
    rows = csv.reader(text, delimiter=separator, quoting=quoting)
    try:
        width = width or len(next(rows))
        for row, cells in enumerate(rows, start=1):
            if cells and len(cells) != width:
                return f"row {row} has {len(cells)} columns, not {width}; quote or fix that row"
    except csv.Error:
        pass
    return ""


def read_bytes(path: Path) -> bytes:
    """The file's content, unpacked if its name ends in .gz; raises InputError if it cannot."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); check the file") from error
