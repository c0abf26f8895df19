"""The shape vocabulary and the data structures that every other module speaks.

Axis names used in docstrings throughout the project:

    B  rows of a batch            F  categorical fields      G  dense features
    N  memory slots (capacity)    T  inner steps             W  window: inner steps differentiated
    R  trajectories (inner runs)  V  rows of the vocabulary  U  rows of a compact table (U <= V)
    D  width of a table row       S  seeds                   C  candidate rows

One embedding table serves all fields: row ids are global, so the pair (field, value) has one row.
Rows 0 .. F-1 are the out-of-vocabulary rows of the F fields; later rows are appended in the order
in which the stream shows them and are never renumbered.
"""

from typing import Any, NamedTuple

import numpy as np

Array = Any  # of JAX or of NumPy, as the docstrings say with its shape and dtype
Params = Any  # a pytree of arrays
Config = Any  # an ml_collections.ConfigDict, whose attributes no type checker knows


class InputError(ValueError):
    """Bad input: the message is one line that names what, where, and the cure."""


class Rows(NamedTuple):
    """Encoded log rows: ids int32 [B, F], dense float32 [B, G], label float32 [B] in [0, 1]."""

    ids: Array
    dense: Array
    label: Array


class Stage(NamedTuple):
    """One time-ordered piece of the log, on the host.

    rows: the encoded rows, ordered by time.
    user: int32 [n], a dense user number for GAUC; time: int64 [n], seconds since 1970.
    source: int64 [n], the row's number in the time-ordered log (0-based).
    vocab_size: table rows known once this stage has been read (a later id is unknown to it).
    """

    rows: Rows
    user: np.ndarray
    time: np.ndarray
    source: np.ndarray
    vocab_size: int


class Taught(NamedTuple):
    """A stage's rows as distillation may use them, with the teacher's view of them.

    rows: n encoded rows. source: int64 [n], their numbers in the log. teacher_logit: float32 [n].
    """

    rows: Rows
    source: np.ndarray
    teacher_logit: np.ndarray


class Schema(NamedTuple):
    """Names of the F categorical fields and the G dense features of `Rows`."""

    fields: tuple[str, ...]
    dense: tuple[str, ...]


class Stream(NamedTuple):
    """A whole prepared log: its schema, its stages in time order, and the vocabulary's values.

    values: one string for each table row, `values[row]`; rows 0 .. F-1 read "<unknown>".
    row_field: int32 [V], the field that each table row belongs to.
    dense_stats: float32 [G, 2], mean and standard deviation of dense features on stage 1.
    name: what the log is called in reports.
    """

    schema: Schema
    stages: tuple[Stage, ...]
    values: tuple[str, ...]
    row_field: np.ndarray
    dense_stats: np.ndarray
    name: str


class Memory(NamedTuple):
    """The distilled memory: a pytree of static capacity N (DESIGN: "Memory").

    ids: int32 [N, F], the real row's ids. dense: float32 [N, G].
    label_logit: float32 [N]; the soft label is its sigmoid.
    log_weight: float32 [N]; the sample weight is its exponential.
    born: int32 [N], the stage that wrote the slot. source: int32 [N], the row of the time-ordered
    log that it started from. valid: bool [N], False for a slot not in use.
    """

    ids: Array
    dense: Array
    label_logit: Array
    log_weight: Array
    born: Array
    source: Array
    valid: Array
