"""Turns one raw column into numbers, categories or times; a value that is none of them is null."""

import polars as pl

from diet_jax.types import InputError

MISSING = "<missing>"

# Microseconds in a unit of time, and below which number it is read as that unit: in each, that
# number is the year 5138 or earlier, and in the next it is March 1973, before any log of ours.
UNITS = {"seconds": (1_000_000, 1e11), "milliseconds": (1_000, 1e14), "microseconds": (1, 9e15)}
_ISO_DATE, _ZONE = r"^[+-]?\d{4,}-\d\d-\d\d", r":.*(Z|[+-]\d\d(:?\d\d)?)$"
# YYYYMMDD, and HH, HHMM or HHMMSS behind it
_DIGITS = r"^(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(([01]\d|2[0-3])([0-5]\d){0,2})?$"
# How many microseconds a unit is, or how many units a microsecond is.
_TICKS = {"d": (86_400_000_000, 1), "ms": (1000, 1), "us": (1, 1), "ns": (1, 1000)}


def one_line(text: object, limit: int = 160) -> str:
    """Folds white space and shortens, so that any library's message fits in our one line."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def as_number(raw: pl.Series, where: str) -> pl.Series:
    """Floats, null where the text is no number; raises for a type that holds no numbers."""
    if raw.dtype.is_float():
        return raw
    if raw.dtype == pl.String:
        return raw.str.strip_chars().cast(pl.Float64, strict=False)
    if raw.dtype.is_numeric() or raw.dtype in (pl.Boolean, pl.Null):
        return raw.cast(pl.Float64, strict=False)
    raise _wrong_kind(raw, where, "numbers; name another column")


def is_absent(raw: pl.Series) -> pl.Series:
    """Boolean [n]: no value at all, which CSV writes as nothing and float columns as NaN."""
    if raw.dtype == pl.String:
        return raw.is_null() | (raw.str.strip_chars() == "")
    return raw.is_null() | raw.is_nan() if raw.dtype.is_float() else raw.is_null()


def category(raw: pl.Series, where: str) -> pl.Series:
    """[n], text or whole numbers without nulls: a missing value is a value of its own."""
    if raw.dtype.is_integer() and not raw.null_count():
        return raw
    if not _is_single(raw.dtype):
        cure = "use text or numbers, or name it in data.multi if it is multi-valued"
        raise _wrong_kind(raw, where, f"single values; {cure}")
    # CSV cannot tell an empty text from none, so Parquet does not either.
    return as_text(raw).replace("", None).fill_null(MISSING)


def categories(raw: pl.Series, where: str, separator: str) -> pl.Series:
    """List [n] of text or whole numbers, empty where there is no value.

    raw: lists, or text that `separator` splits, blanks around values dropped; without a separator
    the text is one value.
    """
    raw = raw.arr.to_list() if isinstance(raw.dtype, pl.Array) else raw
    if isinstance(raw.dtype, pl.List) and _is_single(raw.dtype.inner):
        lists = raw
    elif raw.dtype in (pl.String, pl.Null):
        text = raw.cast(pl.String)
        lists = text.reshape((-1, 1)).arr.to_list()
        if separator:
            lists = text.str.split(separator).list.eval(pl.element().str.strip_chars(" "))
    else:
        raise _wrong_kind(raw, where, "several values; give lists, or text with a separator")
    kind, value = lists.dtype.inner, pl.element()  # pyright: ignore[reportAttributeAccessIssue]
    if kind.is_integer():
        lists = lists.list.drop_nulls()
    else:
        value = _text(value, kind)
        lists = lists.list.eval(value.filter(value != ""))  # a null is dropped, too
    return lists.zip_with(lists.is_not_null(), pl.Series([[]], dtype=lists.dtype))


def as_text(raw: pl.Series) -> pl.Series:
    """String [n], null where there is no value. A number of whatever type is 7 if it is 7.0 (and
    below 2^63), as other files may write the same id; text stays as it is."""
    return raw.to_frame("").select(_text(pl.first(), raw.dtype)).to_series()


def _text(value: pl.Expr, kind) -> pl.Expr:
    if kind.is_float():
        # Polars writes large numbers with an exponent.
        whole, text = value.cast(pl.Int64, strict=False), value.fill_nan(None).cast(pl.String)
        return pl.when(whole == value).then(whole.cast(pl.String)).otherwise(text)
    if kind.is_decimal() and kind.scale:
        return value.cast(pl.String).str.strip_chars_end("0").str.strip_suffix(".")
    if kind not in (pl.Date, pl.Datetime):
        return value.cast(pl.String)
    # Beyond its calendar Polars panics: there, the number that is stored.
    near = pl.when(_micros(value, kind).is_not_null()).then(value.to_physical())
    return pl.coalesce(near.cast(kind).cast(pl.String), value.to_physical().cast(pl.String))


def _micros(value: pl.Expr, kind) -> pl.Expr:
    """Microseconds since 1970 of dates and times, null beyond the limit for plain numbers."""
    more, fewer = _TICKS["d" if kind == pl.Date else kind.time_unit]
    number = value.to_physical().cast(pl.Int64) // fewer
    limit = int(UNITS["microseconds"][1]) // more
    return pl.when(number.is_between(-limit, limit)).then(number) * more


def _is_single(kind) -> bool:
    return not kind.is_nested() and kind not in (pl.Binary, pl.Object, pl.Duration)


def _wrong_kind(raw: pl.Series, where: str, wanted: str) -> InputError:
    kind = one_line(raw.dtype, 60)
    return InputError(f"{where}, column {raw.name!r}: holds {kind}, not {wanted}")


def usual_unit(raw: pl.Series, where: str) -> str:
    """The unit of most of the numbers in a column of times; "" for dates, ISO text or nothing."""
    if raw.dtype.is_temporal() or not _looks_numeric(raw):
        return ""
    number = as_number(raw, where)
    _check_digits(number, f"{where}, column {raw.name!r}")
    size = number.abs()
    counts, below = {}, 0
    for unit, (_, limit) in UNITS.items():
        upto = int((size < limit).sum())
        counts[unit], below = upto - below, upto
    return max(counts, key=lambda unit: counts[unit]) if below else ""


def _check_digits(number: pl.Series, where: str) -> None:
    """Raises InputError if all numbers are dates like 20240531180000: as seconds such a day is in
    August 1970, and one by itself is what a file of each day holds."""
    known = number.cast(pl.Float64).fill_nan(None).drop_nulls().unique()
    text = known.cast(pl.Int64, strict=False).cast(pl.String)
    whole = (known == known.round()) & text.str.contains(_DIGITS)
    if len(known) and whole.all(ignore_nulls=False):
        raise InputError(
            f"{where}: holds dates like {text[0]}; write them as 2024-05-31 or 2024-05-31 18:30:00"
        )


def _looks_numeric(raw: pl.Series) -> bool:
    if raw.dtype != pl.String:
        return True
    known = raw.drop_nulls().str.strip_chars().cast(pl.Float64, strict=False)
    return known.null_count() * 2 <= len(known)


def moment(raw: pl.Series, where: str, unit: str) -> tuple[pl.Series, pl.Series]:
    """Int64 [n], microseconds since 1970, null for what is no time; and where the unit is another.

    raw: numbers in `unit`, dates, or ISO text; times without a zone are UTC.
    """
    never = pl.repeat(False, len(raw), eager=True)
    if raw.dtype in (pl.Date, pl.Datetime):
        return raw.to_frame("").select(_micros(pl.first(), raw.dtype)).to_series(), never
    if not _looks_numeric(raw):
        # BigQuery ends its times in " UTC", others put a blank before +0000.
        text = raw.str.strip_chars().str.replace(r"(\d)\s*(z|Z|UTC|GMT)$", "${1}Z")
        text = text.str.replace(r"(:\S*)\s+([+-]\d\d(:?\d\d)?)$", "$1$2")
        is_date, has_zone = text.str.contains(_ISO_DATE), text.str.contains(_ZONE)
        # Polars wants all of a column with a zone, or none.
        known = [
            pl.select(pl.when(is_date & some).then(text))
            .to_series()
            .str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
            for some in (has_zone, ~has_zone)
        ]
        return pl.select(pl.coalesce(known)).to_series().dt.epoch("us"), never
    number = as_number(raw, where).cast(pl.Float64)
    size, limits = number.abs(), [0, *(limit for _, limit in UNITS.values())]
    number = pl.select(pl.when(size < limits[-1]).then(number)).to_series()
    factor, limit = UNITS.get(unit, (1, 0))
    # Zero is the epoch in every unit.
    fits = (size < limit) & (size >= limits[limits.index(limit) - 1]) | (size == 0)
    other = (number.is_not_null() & ~fits).fill_null(False)
    # Float64 holds every whole microsecond up to the year 2255: rounding repairs the product.
    micros = pl.select(pl.when(~other).then((number * factor).round())).to_series()
    return micros.cast(pl.Int64), other
