"""The shape vocabulary and the data structures that every other module speaks.

Axis names used in docstrings throughout the project:

    B  rows of a batch            F  categorical fields      G  dense features
    K  id columns (F, and more where a field has several values)
    N  memory slots (capacity)    T  inner steps             W  window: inner steps differentiated
    R  trajectories (inner runs)  V  rows of the vocabulary  U  rows of a compact table (U <= V)
    D  width of a table row       S  seeds                   C  candidate rows
    M  real rows that a slot mixes

One embedding table serves all fields: row ids are global, so the pair (field, value) has one row.
Rows 0 .. F-1 are the out-of-vocabulary rows of the F fields; later rows are appended in the order
in which the stream shows them and are never renumbered.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

Array = Any  # of JAX or of NumPy, as the docstrings say with its shape and dtype
Params = Any  # a pytree of arrays
Config = Any  # an ml_collections.ConfigDict, whose attributes no type checker knows


class InputError(ValueError):
    """Bad input: the message is one line that names what, where, and the cure."""


class Busy(InputError):
    """What is asked for is in another process's hands: the same may succeed later."""


class Rows(NamedTuple):
    """Encoded log rows.

    ids: int32 [B, K], table rows, -1 where a multi-valued field has no more. dense: float32 [B, G].
    label: float32 [B] in [0, 1]. weight: float32 [B], positive.
    """

    ids: Array
    dense: Array
    label: Array
    weight: Array


class Stage(NamedTuple):
    """One time-ordered piece of the log, on the host.

    rows: the encoded rows, ordered by time.
    user: int32 [n], a dense user number for GAUC; time: int64 [n], seconds since 1970.
    source: the rows' numbers in the time-ordered log (0-based).
    vocab_size: table rows known once this stage has been read (a later id is unknown to it).
    """

    rows: Rows
    user: np.ndarray
    time: np.ndarray
    source: range
    vocab_size: int


class Taught(NamedTuple):
    """A stage's rows as distillation may use them, with the teacher's view of them.

    rows: n encoded rows. source: int64 [n], their numbers in the log. teacher_logit: float32 [n].
    ahead_ids: int32 [n, K], the rows' ids as the next stage would show them (`outlook`), and
    ahead_logit: float32 [n], the teacher's answer to those. embed(at int [k]) -> float32 [k, X],
    what the teacher's tower is given for rows `at`; of no columns for a teacher who has none.
    """

    rows: Rows
    source: np.ndarray
    teacher_logit: np.ndarray
    ahead_ids: np.ndarray
    ahead_logit: np.ndarray
    embed: Callable[[np.ndarray], np.ndarray] = lambda at: np.zeros((len(at), 0), np.float32)


class Schema(NamedTuple):
    """What the columns of `Rows` are.

    fields: names of the F categorical fields. dense: names of the G dense features.
    pool: for each of the K id columns the field that it is pooled into; K = F and 0 .. F-1 where no
    field has several values. vocab: the field whose table rows the column holds; another one than
    `pool` for a history of items. tasks: of a log with several labels, by the label's name, the id
    column in which the rows of that label, and no others, have a value; else empty.
    """

    fields: tuple[str, ...]
    dense: tuple[str, ...]
    pool: tuple[int, ...]
    vocab: tuple[int, ...]
    tasks: dict[str, int] = {}


class Stream(NamedTuple):
    """A whole prepared log: its schema, its stages in time order, and the vocabulary's values.

    rows: of all stages, which are slices of them.
    values: one string for each table row, `values[row]`; the first rows read "<unknown>".
    row_field: int32 [V], the field that each table row belongs to.
    scales: how each dense feature was transformed (`data.features.Scale`).
    name: what the log is called in reports. licence: its owner's terms. rejected: how many rows
    could not be used, by reason. key: of the prepared log; of other content, or prepared otherwise,
    it is another one.
    """

    schema: Schema
    rows: Rows
    stages: tuple[Stage, ...]
    values: Sequence[str]
    row_field: np.ndarray
    scales: tuple[Any, ...]
    name: str
    licence: str
    rejected: dict[str, int] = {}
    key: str = ""


class Memory(NamedTuple):
    """The distilled memory: a pytree of static capacity N, of which `valid` slots are in use.

    ids: int32 [N, K], the real row's ids. dense: float32 [N, G].
    label_logit: float32 [N]; the soft label is its sigmoid.
    log_weight: float32 [N]; the sample weight is its exponential.
    born: int32 [N], the stage that wrote the slot. source: int64 [N], the row of the time-ordered
    log that it started from. valid: bool [N], False for a slot not in use.
    mix: None; or, of a memory whose slots mix M real rows each, float32 [N, M]: its softmax weighs
    the rows' embeddings. Then ids is [N, M, K] and source [N, M].
    rates: None; or, of a memory that learned them, float32 [proxies, 2]: logarithms of what each
    proxy's inner learning rate is multiplied by, for the table and for the net.
    """

    ids: Array
    dense: Array
    label_logit: Array
    log_weight: Array
    born: Array
    source: Array
    valid: Array
    mix: Array | None = None
    rates: Array | None = None
