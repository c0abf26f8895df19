"""What an architecture is: a pair of pure functions on table rows, one table for all fields."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from diet_jax.types import Array, Params


class Model(NamedTuple):
    """An architecture.

    init(key, emb [1, F, D], dense [1, G]) -> net, the parameters beside the table (a pytree).
    apply(net, emb [B, F, D], dense [B, G]) -> logit [B].
    width: D, the columns of a table row. linear: column 0 is a first-order weight, starting at 0.
    init_scale: standard deviation of the other columns at the start.
    pool: for each id column the field that it is pooled into (`types.Schema`); () if every column
    is a field of its own.
    compute: dtype of the forward pass, "" for that of the parameters; logits are as exact as those.
    """

    name: str
    init: Callable[[Array, Array, Array], Any]
    apply: Callable[[Any, Array, Array], Array]
    width: int
    linear: bool
    init_scale: float = 0.01
    pool: tuple[int, ...] = ()
    compute: str = ""


class Tower(nn.Module):
    """ReLU layers of the widths `hidden`, then one linear unit: [B, X] -> [B]."""

    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(1)(x)[:, 0]


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
    return {
        "table": init_table(model, key_table, rows),
        "net": model.init(key_net, emb, jnp.zeros((1, n_dense))),
    }


def look_up(model: Model, table: Array, ids: Array) -> Array:
    """Embeddings [B, F, D] of ids int32 [B, K]: the mean of the values that a field has.

    A negative id is no value; a field without any is zero.
    """
    if not model.pool:
        return table[ids]
    here = ids >= 0
    found = jnp.where(here[..., None], table[jnp.maximum(ids, 0)], 0)
    field = jax.nn.one_hot(jnp.array(model.pool), max(model.pool) + 1, dtype=table.dtype)
    total = jnp.einsum("bkd,kf->bfd", found, field)
    return total / jnp.maximum(here @ field, 1)[..., None]


def penalty(model: Model, params: Params, ids: Array) -> Array:
    """L2 on touched rows: the mean over ids [B, K] of the squared length of a row's embeddings: [].

    First-order weights are left out. Rows outside the batch have no gradient, so that training on a
    compact table stays exact.
    """
    v = params["table"][jnp.maximum(ids, 0)][..., int(model.linear) :]
    return jnp.where(ids >= 0, jnp.square(v).sum(-1), 0).sum(-1).mean()


def logits(model: Model, params: Params, ids: Array, dense: Array) -> Array:
    """Logits [B] for ids int32 [B, K] that index params["table"], and dense [B, G]."""
    inputs = params["net"], look_up(model, params["table"], ids), dense
    if model.compute:
        inputs = jax.tree.map(lambda a: a.astype(model.compute), inputs)
    return model.apply(*inputs).astype(params["table"].dtype)
