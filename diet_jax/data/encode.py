"""Gives every (field, value) one table row for ever, in the order in which the stream shows it."""

from typing import NamedTuple

import numpy as np
import polars as pl

UNKNOWN = "<unknown>"


class Encoded(NamedTuple):
    """ids: int32 [n, F]. values: V strings; row_field: int32 [V]; vocab_sizes: one a stage."""

    ids: np.ndarray
    values: tuple[str, ...]
    row_field: np.ndarray
    vocab_sizes: tuple[int, ...]


class _Field(NamedTuple):
    """One field's m values in order of first appearance; codes: int [n], indices into them."""

    codes: np.ndarray
    values: np.ndarray
    first_row: np.ndarray
    admitted: np.ndarray  # the stage that gives the value its table row; n_stages: none does


def number(column: pl.Series) -> tuple[np.ndarray, pl.Series]:
    """int64 [n] codes numbered by first appearance, and the values that they stand for."""
    values = column.unique(maintain_order=True)
    return column.cast(pl.Enum(values)).to_physical().to_numpy().astype(np.int64), values


def encode(fields: pl.DataFrame, stage: np.ndarray, n_stages: int, min_count: int) -> Encoded:
    """Encodes rows in time order; what a stage's rows get depends on nothing after that stage.

    fields: String [n, F] without nulls. stage: int [n], ascending from 0, each row's stage.
    A value gets its row in the first stage by whose end it was seen `min_count` times; in earlier
    stages it is its field's unknown row.
    """
    width = len(fields.columns)
    parts = [_admit(fields[name], stage, n_stages, min_count) for name in fields.columns]
    admitted = np.concatenate([part.admitted for part in parts])
    first_row = np.concatenate([part.first_row for part in parts])
    field = np.repeat(np.arange(width), [len(part.values) for part in parts])
    order = np.lexsort((field, first_row, admitted))
    order = order[admitted[order] < n_stages]
    row = np.full(len(admitted), -1, np.int64)
    row[order] = width + np.arange(len(order))

    ids = np.empty((len(stage), width), np.int32)
    start = 0
    for f, part in enumerate(parts):
        known = part.admitted[part.codes] <= stage
        ids[:, f] = np.where(known, row[start + part.codes], f)
        start += len(part.values)
    texts = np.concatenate([part.values for part in parts])[order]
    sizes = width + np.searchsorted(admitted[order], np.arange(n_stages), side="right")
    return Encoded(
        ids=ids,
        values=(UNKNOWN,) * width + tuple(texts.tolist()),
        row_field=np.concatenate([np.arange(width), field[order]]).astype(np.int32),
        vocab_sizes=tuple(int(size) for size in sizes),
    )


def _admit(column: pl.Series, stage: np.ndarray, n_stages: int, min_count: int) -> _Field:
    codes, values = number(column)
    by_code = np.argsort(codes, kind="stable")
    counts = np.bincount(codes, minlength=len(values))
    start = np.cumsum(counts) - counts
    enough = counts >= min_count
    admitted = np.full(len(values), n_stages, np.int64)
    admitted[enough] = stage[by_code[start[enough] + min_count - 1]]
    return _Field(codes, values.to_numpy().astype(object), by_code[start], admitted)


def as_known(ids, vocab_size):
    """Maps ids that the table does not have yet to their field's unknown row (column f: row f).

    ids: int [..., F], NumPy or JAX. vocab_size: int, rows known. Returns the same kind and shape.
    """
    xp = ids.__array_namespace__()
    return xp.where(ids < vocab_size, ids, xp.arange(ids.shape[-1], dtype=ids.dtype))
