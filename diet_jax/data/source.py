"""What every adapter hands over: parts of raw rows in blocks, and which column plays which role."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import polars as pl


class Reject(NamedTuple):
    """One row that cannot be used, and why; it is counted and written aside, never lost silently.

    row: 1-based in the file, the header not counted. column: its name, or "" for the whole row.
    value: what was found there, in words. reason: a short fixed phrase; rejects are counted by it.
    """

    where: str
    row: int
    column: str
    value: str
    reason: str


class Block(NamedTuple):
    """Some rows of a part in file order.

    frame: one column per raw column, of any type. rows: Int64 [n], each row's number in its file,
    1-based, the header not counted. rejects: rows of this block that could not be split into cells.
    lacking: of columns that rows may lack, those that all of them do, and what to say if no row of
    the log has one; None if no row shows what it has.
    """

    frame: pl.DataFrame
    rows: pl.Series
    rejects: tuple[Reject, ...] = ()
    lacking: dict[str, str] | None = {}


def still_lacking(
    before: dict[str, str] | None, lacking: dict[str, str] | None
) -> dict[str, str] | None:
    """What rows lack of which it is known what they lack, see `Block`, and what further ones do."""
    if before is None or lacking is None:
        return lacking if before is None else before
    return {name: said for name, said in lacking.items() if name in before}


class Part(NamedTuple):
    """A piece of a log that is read in one go: a file, or one member of an archive.

    where: the path, for messages. files: what it is made of, whose content identifies the part
    (none: a generated log, identified by its schema and config). blocks(): its rows from the start,
    each call anew, in bounded memory; raises InputError if the file as a whole cannot be read.
    said: (column, value) that the names of folders say of all of its rows.
    """

    where: str
    files: tuple[str, ...]
    blocks: Callable[[], Iterator[Block]]
    said: tuple[tuple[str, str | None], ...] = ()


class Field(NamedTuple):
    """A categorical field.

    width: 1 for one value a row; more for a multi-valued field (a List column, or text that
    `separator` splits) of which the first `width` values are kept.
    hashed: 0 for a vocabulary that grows along the stream; else the values share that many rows.
    derived: "" for a column of the source; "hour", "weekday", "day" (of the time, UTC); or
    "count:COLUMN", floor(log2(1 + rows before this one with the same value of that field)).
    """

    name: str
    width: int = 1
    separator: str = ""
    hashed: int = 0
    derived: str = ""


TASK = "task"  # the field, and what it is derived from, that says which label a row has


class Dense(NamedTuple):
    """A dense feature.

    scale: none | standard | log (sign(x) log(1 + |x|), standardized) | quantile.
    missing: what a null becomes, or None if a row without the value is to be rejected.
    """

    name: str
    scale: str = "standard"
    missing: float | None = None


class History(NamedTuple):
    """A behaviour sequence: the last `length` values of `field` in positive rows of the same user,
    strictly before the time of the row."""

    field: str
    length: int


class Roles(NamedTuple):
    """Which column of a source is what.

    label: 0/1, or a rating with `threshold` >= 0, at or above which it is positive.
    more_labels: further such columns, see `with_tasks`; () for one label.
    time: seconds, milliseconds or microseconds since 1970, a date, or ISO text (UTC).
    user: for GAUC and histories.
    weight: a positive sample weight, "" for none.
    """

    label: str
    time: str
    user: str
    fields: tuple[Field, ...]
    dense: tuple[Dense, ...] = ()
    threshold: float = -1.0
    weight: str = ""
    history: History | None = None
    more_labels: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """All label columns; their numbers here are those of the tasks."""
        return self.label, *self.more_labels


def with_tasks(roles: Roles, more_labels: tuple[str, ...]) -> Roles:
    """The roles of a log with further labels: each row of it becomes one row for each label that it
    has, in the order of `Roles.labels`, and the field TASK says which.

    That field has a column for each label, of which a row fills its own. So a row's task shows in
    where it has a value, whatever becomes of table rows on the way to a model.
    """
    if not more_labels:
        return roles
    task = Field(TASK, width=1 + len(more_labels), derived=TASK)
    return roles._replace(more_labels=more_labels, fields=(*roles.fields, task))


class Source(NamedTuple):
    """A log as it was found, not yet checked or put in order of time.

    name: what it is called in reports. parts: in any order; rows of one time keep theirs.
    licence: the owner's terms in a sentence, for the exported memory's card.
    """

    name: str
    parts: tuple[Part, ...]
    roles: Roles
    licence: str = "The terms of the log apply."


def map_frames(part: Part, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Part:
    """The part with `change` applied to every block; it must keep rows and their order."""

    def blocks() -> Iterator[Block]:
        for block in part.blocks():
            yield block._replace(frame=change(block.frame))

    return part._replace(blocks=blocks)
