"""Training on a whole table whose step costs what its batch touches, whatever the table's size.

Dense training passes over the table and its moments at every step. Here a step takes the rows that
its batch looks up, trains them as a compact table (`compact.py` on the scale of a step), and puts
them back. That is exact for the optimizers that leave rows without gradient alone (`LOCAL`), of
which lazy Adam is the one to train full data with.
"""

from typing import Any

import jax
import jax.numpy as jnp

from diet_jax import train
from diet_jax.models import Model
from diet_jax.optim import Optimizer, make
from diet_jax.train import Examples, TrainState
from diet_jax.types import Array, InputError

LOCAL = ("sgd", "lazy_adam", "adagrad", "rowwise_adagrad")


def is_local(optimizer: Optimizer) -> bool:
    """Whether a row without gradient, and what is remembered of it, stays as it is."""
    return optimizer.name in LOCAL and not (optimizer.name == "sgd" and optimizer.momentum)


def fit(
    model: Model,
    optimizer: Optimizer,
    lr: float | Array,
    state: TrainState,
    data: Examples,
    order: Array,
    n_steps: int | Array,
    l2: float | Array = 0.0,
) -> TrainState:
    """`train.fit`, to the same parameters and optimizer state, by touched rows.

    state: `train.start(make(optimizer, lr), params)`; donate it to the jit around this, or the
    table is copied once. order: int32 [T, B], rows of `data`; the first `n_steps` are run.

    Raises InputError for an optimizer that moves rows which a step does not touch.
    """
    if not is_local(optimizer):
        raise InputError(
            f"{optimizer.name} moves rows that a step does not touch: use lazy_adam, adagrad, "
            "rowwise_adagrad, or sgd without momentum"
        )
    tx = make(optimizer, lr)
    by_row = _by_row(tx, state)
    n_table = len(state.params["table"])

    def body(k, carry):
        state, mark = carry
        batch = jax.tree.map(lambda a: a[order[k]], data)
        ids = batch.ids.reshape(-1)
        place = jnp.arange(len(ids), dtype=jnp.int32)
        # Of the places where a row is looked up one is marked as its own: the last, on most
        # devices. Marks of former steps are never read, as every row asked for is marked anew.
        mark = mark.at[jnp.where(ids >= 0, ids, n_table)].set(place, mode="drop")
        own = mark[jnp.maximum(ids, 0)]
        local = jnp.where(ids >= 0, own, -1).reshape(batch.ids.shape)
        here = jnp.maximum(ids, 0)
        small = jax.tree.map(lambda rows, a: a[here] if rows else a, by_row, state)
        small = train.step(model, tx, small, batch._replace(ids=local), l2)
        back = jnp.where((ids >= 0) & (own == place), ids, n_table)

        def put(rows, a, b):
            return a.at[back].set(b, mode="drop") if rows else b

        return jax.tree.map(put, by_row, state, small), mark

    mark = jnp.zeros(n_table, jnp.int32)
    return jax.lax.fori_loop(0, n_steps, body, (state, mark))[0]


def _by_row(tx: Any, state: TrainState) -> TrainState:
    """Which leaves of a state have a row for each row of the table: those that grow with it."""
    table = state.params["table"]
    longer = jax.ShapeDtypeStruct((len(table) + 1, *table.shape[1:]), table.dtype)
    shapes = [
        TrainState(params, jax.eval_shape(tx.init, params))
        for params in (state.params, {**state.params, "table": longer})
    ]
    return jax.tree.map(lambda a, b: jnp.shape(a) != jnp.shape(b), *shapes)
