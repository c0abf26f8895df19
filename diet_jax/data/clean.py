"""Checks the columns of a log and sets aside every row that cannot be used, with its reason.

Nothing is guessed: a value that is not what its role asks for rejects its row. What a row may lack
is a category (a missing one is a value of its own) and a dense value that has a default.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl

from diet_jax.data.columns import (
    UNITS,
    as_number,
    as_text,
    categories,
    category,
    is_absent,
    moment,
    one_line,
    usual_unit,
)
from diet_jax.data.errors import told
from diet_jax.data.source import Block, Part, Reject, Roles
from diet_jax.types import InputError

# What to do about each reason for which a row is set aside; the readers have more reasons.
_TIMES = "give seconds, milliseconds or microseconds since 1970, or ISO dates like 2024-05-31 18:30"
CURES = {
    "the value is missing": "fill it in, or for dense columns set data.missing",
    "is no time": _TIMES,
    "lies before 1970": _TIMES,
    **{f"is not in {unit} like the rest": "bring all times to one unit" for unit in UNITS},
    "is neither 0 nor 1": "give labels 0 and 1, or set --config.data.threshold if it is a rating",
    "is not a rating": "give ratings that are numbers",
    "is not a positive weight": "give weights above 0",
    "no label is there": "fill in one of data.label and data.more_labels, or leave that row out",
    "is nested": "give plain values, or name the column in data.multi if it holds lists",
    "is not a finite float32 number": "fill or remove it, or name the column in data.categorical",
}
OTHER_CURE = "fix or remove that row"


class Clean(NamedTuple):
    """The usable rows of a block, in its order.

    time: int64 [n], microseconds since 1970. label: float32 [n]; weight too, or None for no role.
    task: int64 [n], which of `Roles.labels` that label is. dense: float32 [n, G]. user: a column of
    text or whole numbers. fields: such a column for each field that is not derived, a List of them
    for a multi-valued one. No nulls anywhere. lacking: see `Block`.
    """

    time: np.ndarray
    label: np.ndarray
    task: np.ndarray
    weight: np.ndarray | None
    dense: np.ndarray
    user: pl.Series
    fields: dict[str, pl.Series]
    lacking: dict[str, str] | None = {}


def clean(
    parts: tuple[Part, ...], roles: Roles, start: tuple[int, int] = (0, 0), unit: str = ""
) -> Iterator[tuple[tuple[int, int], str, Clean, list[Reject]]]:
    """Every block of every part: where the next one starts (part, block), the unit of numeric
    times, the checked rows, and the rows that were set aside.

    start, unit: where to begin, and what was yielded with it; earlier blocks are not checked again.
    Raises InputError if a column is missing or holds another kind of thing altogether.
    """
    for number in range(start[0], len(parts)):
        part = parts[number]
        with told(part.where):  # an adapter changes frames, too
            for k, block in enumerate(part.blocks()):
                if (number, k) < start:
                    continue
                if not block.frame.width:  # no line of it could be read
                    block = block._replace(frame=pl.DataFrame(schema=dict.fromkeys(used(roles))))
                require_columns(block.frame.columns, used(roles), part.where)
                unit = unit or usual_unit(block.frame[roles.time], part.where)
                yield (number, k + 1), unit, *check(block, roles, part.where, unit)


def used(roles: Roles) -> tuple[str, ...]:
    """The raw columns that the roles need."""
    fields = [field.name for field in roles.fields if not field.derived]
    weight = [roles.weight] if roles.weight else []
    return (*roles.labels, roles.time, roles.user, *fields, *(d.name for d in roles.dense), *weight)


def check(block: Block, roles: Roles, where: str, unit: str) -> tuple[Clean, list[Reject]]:
    """Each role's column checked; a row is rejected for the first of them that is bad.

    unit: of numeric times, see UNITS; "" where there are none. With several labels, a row is
    checked, and can be rejected, once for each of them.
    """
    block, task = by_label(block, roles, where)
    frame, bad, rejects = block.frame, np.zeros(len(block.frame), bool), list(block.rejects)

    def refuse(which: pl.Series, column: str, reason: str) -> None:
        new = np.flatnonzero(which.fill_null(True).to_numpy() & ~bad)
        if len(new):
            bad[new] = True
            values = frame[column].gather(new)
            values = as_text(values) if values.dtype.is_temporal() else values
            for row, value in zip(block.rows.gather(new), values, strict=True):
                text = "" if value is None else one_line(value, 60)
                why = "the value is missing" if text == "" else reason
                rejects.append(Reject(where, row, column, text, why))

    time, other_unit = moment(frame[roles.time], where, unit)
    refuse(other_unit, roles.time, f"is not in {unit} like the rest")
    refuse(time.is_null(), roles.time, "is no time")
    refuse(time < 0, roles.time, "lies before 1970")
    label = np.empty(len(frame), np.float32)
    for number, name in enumerate(roles.labels):
        mine, given = task == number, as_number(frame[name], where)
        if roles.threshold < 0:
            refuse(pl.Series(mine) & ~given.is_in([0.0, 1.0]), name, "is neither 0 nor 1")
        else:
            refuse(pl.Series(mine) & ~given.is_finite(), name, "is not a rating")
            given = given >= roles.threshold
        label[mine] = given.cast(pl.Float32).to_numpy()[mine]
    weight = None
    if roles.weight:
        weight = as_number(frame[roles.weight], where).cast(pl.Float32)
        refuse(~(weight.is_finite() & (weight > 0)), roles.weight, "is not a positive weight")
    dense = np.empty((len(frame), len(roles.dense)), np.float32)
    for g, feature in enumerate(roles.dense):
        x = as_number(frame[feature.name], where).cast(pl.Float32)
        if feature.missing is not None:
            absent = is_absent(frame[feature.name]) | x.is_nan().fill_null(False)
            x = x.zip_with(~absent, pl.Series([feature.missing], dtype=pl.Float32))
        refuse(~x.is_finite(), feature.name, "is not a finite float32 number")
        dense[:, g] = x.fill_null(0).to_numpy()
    fields = {
        f.name: category(frame[f.name], where)
        if f.width == 1
        else categories(frame[f.name], where, f.separator)
        for f in roles.fields
        if not f.derived
    }
    user = category(frame[roles.user], where)
    keep = np.flatnonzero(~bad)

    def good(x):
        if len(keep) < len(bad):
            x = x[keep] if isinstance(x, np.ndarray) else x.gather(keep)
        return x

    found = Clean(
        good(time).to_numpy(),
        good(label),
        good(task),
        None if weight is None else good(weight).to_numpy(),
        good(dense),
        good(user),
        {name: good(column) for name, column in fields.items()},
        block.lacking,
    )
    return found, sorted(rejects, key=lambda reject: reject.row)


def by_label(block: Block, roles: Roles, where: str) -> tuple[Block, np.ndarray]:
    """The block with each row once for each label that it has, and int64 [n]: which it is.

    Of several labels some may be missing, but not all: then there is no such row. A single one may
    not. A label that no row of the block has is among those `lacking`.
    """
    if not roles.more_labels:
        return block, np.zeros(len(block.frame), np.int64)
    there = np.stack([~is_absent(block.frame[name]).to_numpy() for name in roles.labels], axis=1)
    row, task = np.nonzero(there)  # row by row
    none = block.rows.gather(np.flatnonzero(~there.any(1)))
    rejects = [Reject(where, number, roles.label, "", "no label is there") for number in none]
    cure = "fill in that column, or take it out of data.label and data.more_labels"
    absent = {
        name: f"{where}: no row has the label {name!r}; {cure}"
        for number, name in enumerate(roles.labels)
        if not (task == number).any()
    }
    return (
        Block(
            block.frame[row],
            block.rows.gather(row),
            (*block.rejects, *rejects),
            None if block.lacking is None else absent | block.lacking,
        ),
        task,
    )


def require_columns(have: Sequence[str], names: tuple[str, ...], where: str) -> None:
    """Raises InputError that lists the columns that exist if one of `names` does not."""
    for message in lacking(have, names, where).values():
        raise InputError(message)


def lacking(have: Sequence[str], names: tuple[str, ...], where: str) -> dict[str, str]:
    """Those of `names` that are not there, and what to say of each."""
    cure = "set data.label, time, user, categorical and dense to its columns"
    listed, known = one_line(", ".join(have), 400), set(have)
    return {
        name: f"{where}: no column {name!r}; it has: {listed}; {cure}"
        for name in names
        if name not in known
    }
