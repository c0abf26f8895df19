"""What an architecture is: a pair of pure functions on table rows, one table for all fields."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diet_jax.types import Array, Params


class Inputs(NamedTuple):
    """What an architecture sees of B rows: looked-up table rows and numbers, never ids.

    emb: [B, F, D], one table row a field; of a field with several values (a history, too) the mean.
    dense: [B, G]. history: [B, L, D], the table rows of the history's items one by one, in the
    order of the log: the latest comes last (`data.features.histories`); zero where there is none.
    seen: bool [B, L], where there is one. L = 0 for a log without a history.
    task: bool [B, T], which of a log's T labels is asked for; T = 0 for a log with one label.
    """

    emb: Array
    dense: Array
    history: Array
    seen: Array
    task: Array


class Spec(NamedTuple):
    """What an architecture is built for (static).

    dim: columns of an embedding. hidden: widths of its ReLU layers. n_fields: F, 0 if not told.
    target: the field whose values the history holds, -1 for a log without a history. task: the
    field that says which label is asked for, -1 for a log with one label.
    """

    dim: int
    hidden: tuple[int, ...]
    n_fields: int = 0
    target: int = -1
    task: int = -1


class Model(NamedTuple):
    """An architecture.

    init(key, inputs of one row) -> net, the parameters beside the table (a pytree).
    apply(net, inputs of B rows) -> logit [B].
    width: D, the columns of a table row. linear: column 0 is a first-order weight, starting at 0.
    init_scale: standard deviation of the other columns at the start.
    pool: for each id column the field that it is pooled into (`types.Schema`); () if every column
    is a field of its own. history: the id columns that are a history, in time order. tasks: the id
    columns of which a row of task t has a value in the t-th alone (`Schema.tasks`).
    compute: dtype of the forward pass, "" for that of the parameters; logits are as exact as those.
    """

    name: str
    init: Callable[[Array, Inputs], Any]
    apply: Callable[[Any, Inputs], Array]
    width: int
    linear: bool
    init_scale: float = 0.01
    pool: tuple[int, ...] = ()
    history: tuple[int, ...] = ()
    tasks: tuple[int, ...] = ()
    compute: str = ""


def init_table(model: Model, key: Array, rows: Array) -> Array:
    """Start values of the table rows `rows` (int32 [U]) as float32 [U, D].

    Each row is drawn from `key` and its own number alone, so a compact table starts exactly where
    the same rows of the whole table start, and the whole table need not exist.
    """
    draw = jax.vmap(lambda row: jax.random.normal(jax.random.fold_in(key, row), (model.width,)))
    table = model.init_scale * draw(rows)
    return table.at[:, 0].set(0.0) if model.linear else table


def init_params(model: Model, key: Array, rows: Array, n_fields: int, n_dense: int) -> Params:
    """Fresh parameters {"table": [U, D], "net": ...} for the table rows `rows` (int32 [U]).

    n_fields: F, unless the model's `pool` says it.
    """
    key_table, key_net = jax.random.split(key)
    emb = jnp.zeros((1, max(model.pool) + 1 if model.pool else n_fields, model.width))
    length = len(model.history)
    history, seen = jnp.zeros((1, length, model.width)), jnp.zeros((1, length), bool)
    task = jnp.zeros((1, len(model.tasks)), bool)
    inputs = Inputs(emb, jnp.zeros((1, n_dense)), history, seen, task)
    return {"table": init_table(model, key_table, rows), "net": model.init(key_net, inputs)}


def look_up(params: Params, ids: Array) -> Array:
    """The rows [.., D] of params["table"] [U, D] that ids (int32 [..]) name.

    Of a negative id, which is no value, some row: who uses it has to leave it out.
    """
    return params["table"][jnp.maximum(ids, 0)]


def pooled(model: Model, rows: Array, ids: Array) -> Array:
    """Embeddings [B, F, D] of looked-up rows [B, K, D]: the mean of the values that a field has.

    ids: int32 [B, K]; a negative one is no value, and a field without any is zero.
    """
    if not model.pool:
        return rows
    here = ids >= 0
    found = jnp.where(here[..., None], rows, 0)
    field = jax.nn.one_hot(jnp.array(model.pool), max(model.pool) + 1, dtype=rows.dtype)
    total = jnp.einsum("bkd,kf->bfd", found, field)
    return total / jnp.maximum(here @ field, 1)[..., None]


def read(model: Model, rows: Array, ids: Array, dense: Array, mix: Array | None = None) -> Inputs:
    """The inputs of rows of a log: what their ids int32 [B, K] look up [B, K, D], and dense [B, G].

    mix: float32 [B, M], if each is a mixture of M rows of a log with ids [B, M, K]: the weights of
    their embeddings.
    """
    if mix is not None:
        each = jax.vmap(lambda rows, ids: read(model, rows, ids, dense), 1, 1)(rows, ids)
        emb, history = (jnp.einsum("bm...,bm->b...", a, mix) for a in (each.emb, each.history))
        return Inputs(emb, dense, history, each.seen.any(1), each.task[:, 0])

    def of(columns, a):
        return a[:, list(columns)] if columns else a[:, :0]

    seen = of(model.history, ids) >= 0
    history = jnp.where(seen[..., None], of(model.history, rows), 0)
    return Inputs(pooled(model, rows, ids), dense, history, seen, of(model.tasks, ids) >= 0)


def exact_products():
    """In this context products of float32 matrices are in float32, also on GPUs and TPUs, which
    round their factors to 10 or 7 bits (TF32, bfloat16) unless told not to. Derivatives follow.

    `jax_default_matmul_precision`, where it is set, is left as it is.
    """
    return jax.default_matmul_precision(
        jax.config.values["jax_default_matmul_precision"] or "float32"
    )


def penalty(model: Model, rows: Array, ids: Array, mix: Array | None = None) -> Array:
    """L2 on touched rows: the mean over a batch of the squared length of its embeddings: [].

    First-order weights are left out. Rows outside the batch have no gradient, so that training on a
    compact table stays exact. rows, ids, mix: as in `read`; a mixed row counts by its weight.
    """
    v = rows[..., int(model.linear) :]
    by_row = jnp.where(ids >= 0, jnp.square(v).sum(-1), 0).sum(-1)
    return by_row.mean() if mix is None else (by_row * mix).sum(-1).mean()


def answer(
    model: Model, net: Params, rows: Array, ids: Array, dense: Array, mix: Array | None = None
) -> Array:
    """Logits [B] of looked-up rows; rows, ids, dense, mix: as in `read`."""
    with exact_products():
        given = net, read(model, rows, ids, dense, mix)
        if model.compute:
            given = jax.tree.map(lambda a: a if a.dtype == bool else a.astype(model.compute), given)
        return model.apply(*given).astype(rows.dtype)


def logits(
    model: Model, params: Params, ids: Array, dense: Array, mix: Array | None = None
) -> Array:
    """Logits [B] for ids int32 [B, K] that index params["table"], and dense [B, G].

    mix: as in `read`.
    """
    return answer(model, params["net"], look_up(params, ids), ids, dense, mix)
