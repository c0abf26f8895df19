"""Reads a log once, checks it and leaves it on disk as numbers, in order of time.

Rows of fixed width, so that what follows can be read, sorted and sliced without parsing anything.
Memory is bounded by the block size and the number of distinct values, not by the log's length.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from diet_jax.data import frames
from diet_jax.data.clean import Clean, clean
from diet_jax.data.codes import Codes
from diet_jax.data.columns import MISSING
from diet_jax.data.progress import (
    Progress,
    check,
    check_rejected,
    in_words,
    lines,
    resume,
    save,
)
from diet_jax.data.records import append, one_ahead, read_chunks, sort_into
from diet_jax.data.source import TASK, Field, Roles, Source, still_lacking
from diet_jax.files import replace_file
from diet_jax.types import InputError

SEGMENT = 1 << 22  # rows between two points at which an interrupted reading resumes
WEEKDAYS = pl.Series(["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"])
COUNTS = pl.Series([str(k) for k in range(64)])  # the values of a derived count


class Spool(NamedTuple):
    """A checked log as numbers. path: n records of `dtype`, in order of time once sorted.

    values: by field name, and "" for the users, the text of every code. rejected: how many rows
    were set aside, by reason.
    """

    path: Path
    dtype: np.dtype
    n: int
    values: dict[str, pl.Series]
    rejected: dict[str, int]

    def chunks(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """The records start .. stop - 1, a chunk at a time."""
        yield from read_chunks(self.path, self.dtype, start, stop)

    def time(self) -> np.ndarray:
        """int64 [n], microseconds since 1970, memory-mapped."""
        return np.memmap(self.path, self.dtype, "r", shape=(self.n,))["time"]


def columns_of(fields: tuple[Field, ...]) -> list[tuple[int, slice]]:
    """Each field's number and its columns of codes."""
    ends = np.cumsum([0, *(field.width for field in fields)])
    return [(f, slice(int(ends[f]), int(ends[f + 1]))) for f in range(len(fields))]


def field_of(fields: tuple[Field, ...]) -> np.ndarray:
    """int64 [C]: the field of each column of codes."""
    return np.repeat(range(len(fields)), [field.width for field in fields])


def counted(roles: Roles) -> list[tuple[int, int]]:
    """The columns of codes that are derived counts, and those of what they count."""
    names, columns = [field.name for field in roles.fields], dict(columns_of(roles.fields))
    return [
        (columns[f].start, columns[names.index(of)].start)
        for f, field in enumerate(roles.fields)
        for kind, _, of in [field.derived.partition(":")]
        if kind == "count"
    ]


def record(roles: Roles) -> np.dtype:
    """One row: time (microseconds), codes (-1 where a multi-valued field has no more), numbers."""
    width = sum(field.width for field in roles.fields)
    parts = [
        ("time", np.int64),
        ("codes", np.int32, (width,)),
        ("user", np.int32),
        ("label", np.float32),
        ("dense", np.float32, (len(roles.dense),)),
    ]
    return np.dtype(parts + ([("weight", np.float32)] if roles.weight else []))


def write(
    source: Source,
    folder: Path,
    max_rejected: float,
    report: Callable[[int], None] = lambda rows: None,
) -> Spool:
    """Reads every part once; resumes after the last whole segment that `folder` holds.

    report(rows) is told the rows done after every block. Rejected rows go to rejected.csv. Raises
    InputError if more than the share `max_rejected` of the rows is rejected, at the end of the log
    or of a segment, or if none is left.
    """
    coders = make_coders(source.roles)
    done = resume(folder, coders)
    if done.next[0] < len(source.parts):
        done = read_parts(source, folder, coders, done, max_rejected, report)
    if not done.rows:
        raise InputError(f"{where(source)}: no rows to use; give a log with at least one good row")
    values, dtype = keep_values(folder, coders), record(source.roles)
    spool = Spool(folder / "spool.bin", dtype, done.rows, values, done.rejected)
    return spool if done.ascending else sort(spool, folder)


def keep_values(folder: Path, coders: dict[str, Codes]) -> dict[str, pl.Series]:
    """`Spool.values`, memory-mapped. Coders take several times that memory: each is gone, and
    taken out of `coders`, before the next one is written."""
    values = {}
    for k, name in enumerate(list(coders)):
        path, coder = folder / f"values-{k}.arrow", coders.pop(name)
        starts = range(0, max(1, len(coder)), frames.PIECE)
        pieces = (coder.values(at, min(at + frames.PIECE, len(coder))) for at in starts)
        frames.write(path, (pl.DataFrame({"value": piece}) for piece in pieces))
        values[name] = frames.read(path)["value"]
    return values


def read_parts(
    source: Source,
    folder: Path,
    coders: dict[str, Codes],
    done: Progress,
    max_rejected: float,
    report: Callable[[int], None],
) -> Progress:
    """Appends to spool.bin and rejected.csv all that `done` does not cover yet; see `write`."""
    roles, dtype, saved = source.roles, record(source.roles), done
    path, aside = folder / "spool.bin", folder / "rejected.csv"
    for file, size in ((path, done.rows * dtype.itemsize), (aside, done.aside)):
        file.touch()
        os.truncate(file, size)
    with open(path, "ab") as out, open(aside, "ab") as rest:
        blocks = one_ahead(clean(source.parts, roles, done.next, done.unit))
        for upto, unit, rows, rejects, sizes, lacking in one_ahead(encoded(blocks, roles, coders)):
            append(out, rows)
            rest.write(lines(rejects, header=rest.tell() == 0))
            time = np.concatenate([[done.last], rows["time"]])
            done = Progress(
                next=upto,
                unit=unit,
                rows=done.rows + len(rows),
                aside=rest.tell(),
                rejected=dict(Counter(done.rejected) + Counter(r.reason for r in rejects)),
                first=done.first or (in_words(rejects[0]) if rejects else ""),
                last=int(time.max()),
                ascending=done.ascending and bool((np.diff(time) >= 0).all()),
                sizes=sizes,
                lacking=still_lacking(done.lacking, lacking),
            )
            report(done.rows)
            if done.seen - saved.seen >= SEGMENT:
                check_rejected(done, max_rejected)
                save(folder, coders, saved.sizes, done, (out, rest))
                saved = done
        check(done, max_rejected)
        if not done.ascending:
            # Sorting takes the place of spool.bin: what it was made of must be known from here on.
            done = done._replace(next=(len(source.parts), 0))
            save(folder, coders, saved.sizes, done, (out, rest))
    return done


def encoded(blocks, roles: Roles, coders: dict[str, Codes]) -> Iterator[tuple]:
    """What `clean` yields with the rows as records, how many values each column has by then, and
    the columns that are lacking."""
    dtype = record(roles)
    for upto, unit, found, rejects in blocks:
        rows = encode(found, roles, coders, dtype)
        sizes = {name: len(coder) for name, coder in coders.items()}
        yield upto, unit, rows, rejects, sizes, found.lacking


def where(source: Source) -> str:
    """The files of the log, for messages about all of it."""
    more = ["..."] if len(source.parts) > 3 else []
    return ", ".join([part.where for part in source.parts[:3]] + more) or source.name


def rejected_rows(folder: Path) -> Path | None:
    """The file of the rejected rows, if there are any."""
    aside = folder / "rejected.csv"
    return aside if aside.exists() and aside.stat().st_size else None


def clear(folder: Path, keep: tuple[str, ...]) -> None:
    """Removes all files but those to `keep`, and the rejected rows if there are any."""
    (folder / "progress.json").unlink(missing_ok=True)  # first: without the others it is false
    for file in folder.iterdir():
        if file.name not in keep and file != rejected_rows(folder):
            file.unlink()


def make_coders(roles: Roles) -> dict[str, Codes]:
    """By field name; "" for the users, unless a field numbers them anyway."""
    coders = {field.name: Codes(field.hashed) for field in roles.fields}
    if user_field(roles) < 0:
        coders[""] = Codes()
    for field in roles.fields:
        if field.derived.startswith("count:"):
            coders[field.name].encode(COUNTS)
        if field.derived == TASK:
            coders[field.name].encode(pl.Series(roles.labels))
    return coders


def user_field(roles: Roles) -> int:
    """The field that holds the user as it is, or -1."""
    plain = [f.name for f in roles.fields if f.width == 1 and not f.hashed and not f.derived]
    return [f.name for f in roles.fields].index(roles.user) if roles.user in plain else -1


def encode(found: Clean, roles: Roles, coders: dict[str, Codes], dtype: np.dtype) -> np.ndarray:
    """The rows of a block as records."""
    out = np.empty(len(found.time), dtype)
    out["time"], out["label"], out["dense"] = found.time, found.label, found.dense
    if found.weight is not None:
        out["weight"] = found.weight

    def of_field(f: int) -> np.ndarray:  # int32 [n], or [n, width] for a multi-valued one
        field = roles.fields[f]
        if field.derived.startswith("count:"):
            return np.zeros(len(found.time), np.int32)  # known only in order of time
        if field.derived == TASK:
            tasks = np.arange(field.width, dtype=np.int32)
            return np.where(found.task[:, None] == tasks, tasks, -1)
        if field.derived:
            return coders[field.name].encode(of_time(found.time, field.derived))
        column = found.fields[field.name]
        if field.width == 1:
            return coders[field.name].encode(column)
        return encode_lists(column, coders[field.name], field.width)

    found_codes = [of_field(f) for f in range(len(roles.fields))]
    out["codes"] = np.column_stack(found_codes) if found_codes else 0
    known = user_field(roles)
    if known < 0:
        out["user"] = coders[""].encode(found.user)
    else:
        out["user"] = found_codes[known]
    return out


def of_time(time: np.ndarray, what: str) -> pl.Series:
    """The hour (0-23), the weekday (Mon-Sun) or the day (since 1970) of times, UTC."""
    if what == "hour":
        return pl.Series(time // 3_600_000_000 % 24)
    days = time // 86_400_000_000
    return pl.Series(days) if what == "day" else WEEKDAYS.gather((days + 3) % 7)


def task_columns(roles: Roles) -> slice:
    """The columns of codes of the field TASK, none without further labels."""
    kinds = [field.derived for field in roles.fields]
    return columns_of(roles.fields)[kinds.index(TASK)][1] if roles.more_labels else slice(0)


def nobody(values: dict[str, pl.Series], roles: Roles) -> int:
    """The code that stands for a missing user, -1 for none; values: of `Spool`."""
    found = values[roles.user if user_field(roles) >= 0 else ""].index_of(MISSING)
    return -1 if found is None else found


def remembered(rows: np.ndarray, roles: Roles, nobody: int) -> np.ndarray:
    """bool [n]: the records that histories are made of, the positive ones of the first label. Rows
    without a user are of many: they have no history."""
    first = rows["codes"][:, task_columns(roles)][:, :1] >= 0
    return (rows["label"] > 0) & (rows["user"] != nobody) & first.all(1)


def countable(rows: np.ndarray, of: int, roles: Roles) -> np.ndarray:
    """int64 [n]: the codes in column `of`, told apart by task, so that a row counts but once."""
    codes, tasks = rows["codes"][:, of].astype(np.int64), rows["codes"][:, task_columns(roles)]
    return codes * len(roles.labels) + tasks.max(1, initial=0)


def encode_lists(lists: pl.Series, coder: Codes, width: int) -> np.ndarray:
    """int32 [n, width]: the codes of the first values of each list, then -1."""
    kept = lists.list.head(width)
    lengths = kept.list.len().to_numpy().astype(np.int64)
    flat = coder.encode(kept.list.explode(keep_nulls=False, empty_as_null=False))
    out = np.full((len(lists), width), -1, np.int32)
    out[np.arange(width) < lengths[:, None]] = flat
    return out


def sort(spool: Spool, folder: Path) -> Spool:
    """Puts the records in order of time (rows of one time keep theirs), in bounded memory.

    The unsorted ones go only when the sorted ones are whole, so that nothing is to be read again.
    """
    target = folder / "sorted.bin"

    def write(draft: Path) -> None:
        with open(draft, "wb") as out:
            sort_into(out, spool.path, spool.dtype, spool.n)

    if not target.exists():
        replace_file(target, write)
    spool.path.unlink(missing_ok=True)
    return spool._replace(path=target)
