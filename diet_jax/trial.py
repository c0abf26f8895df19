"""One architecture, compiled: trained from scratch by several seeds side by side, then asked."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diet_jax import fed, touched, train
from diet_jax.models import Model, init_params, logits
from diet_jax.optim import Optimizer, make, untouched
from diet_jax.sharding import ONE_DEVICE, Placement


class Recipe(NamedTuple):
    """How a trial trains: the optimizer, and the rows of a step."""

    optimizer: Optimizer
    batch: int


class Trials(NamedTuple):
    """The compiled trials of one architecture, vmapped over S seeds that train side by side.

    fit(keys [S], lr, l2, rows [U], rest [R], Examples [S, ..] or [..], order [S, T, b], n)
        -> params, whose table has the rows that may be trained, then those only looked up
    fit_fed(keys [S], lr, l2, rows [U], Rows in files, orders [S, T, b] of chunks, n) -> params,
        for an S that the devices share evenly
    predict(params, ids [blocks, .., F], dense [blocks, .., G]) -> logits [S, blocks, ..]
    """

    fit: Callable
    fit_fed: Callable
    predict: Callable


def make_trials(
    model: Model, recipe: Recipe, shared_data: bool, place: Placement = ONE_DEVICE
) -> Trials:
    """Trials of `model`; with `shared_data` all seeds train on the same rows (the full log), whose
    table is whole. By touched rows, if the optimizer allows it; on a subset only if the table has
    more rows than a batch looks up.

    Seeds are spread over the devices, and of the full log the rows of a batch and of the table too.
    """
    by_touched = shared_data and touched.is_local(recipe.optimizer)

    def lay(state, batch):
        return (tables(state), place.rows(batch)) if shared_data else (state, batch)

    def tables(tree):
        return place.tables(tree) if shared_data else tree

    def begin(key, lr, rows, data):
        n_fields, n_dense = data.ids.shape[-1], data.dense.shape[-1]
        params = tables(init_params(model, key, rows, n_fields, n_dense))
        return train.start(make(recipe.optimizer, lr), params)

    def more(state, lr, l2, data, order, n_steps):
        looked_up = data.ids[0].size * order.shape[-1]
        if by_touched or touched.pays(recipe.optimizer, looked_up, len(state.params["table"])):
            return touched.fit(model, recipe.optimizer, lr, state, data, order, n_steps, l2)
        return train.fit(model, make(recipe.optimizer, lr), state, data, order, n_steps, l2, lay)

    def fit(key, lr, l2, rows, rest, data, order, n_steps):
        params = more(begin(key, lr, rows, data), lr, l2, data, order, n_steps).params
        if not len(rest):
            return params
        fixed = begin(key, lr, rest, data).params["table"]
        fixed = fixed * untouched(recipe.optimizer, lr, n_steps)
        return {**params, "table": jnp.concatenate([params["table"], fixed])}

    def go_on(state, lr, l2, chunk, n_steps):
        return more(state, lr, l2, chunk, jnp.arange(len(chunk.target)), n_steps)

    def predict(params, ids, dense):
        return jax.lax.map(lambda x: logits(model, params, *x), (ids, dense))

    # By touched rows every device does the whole of a step.
    spread = ("trajectory", None, None if by_touched else "data")
    begin_each = jax.jit(place.each(begin, (0, None, None, 0)))
    go_on_each = jax.jit(place.each(go_on, (0, None, None, 0, None)), donate_argnums=0)

    def fit_fed(keys, lr, l2, rows, columns, orders, n_steps):
        state = None
        for chunk, n in fed.chunks(columns, orders, n_steps, place, spread):
            state = state or begin_each(keys, lr, rows, chunk)
            state = jax.block_until_ready(go_on_each(state, lr, l2, chunk, n))
        assert state is not None
        return state.params

    axes = (0, None, None, None, None, None if shared_data else 0, 0, None)
    each_predict = jax.jit(place.each(predict, (0, None, None)), out_shardings=place.whole)
    return Trials(jax.jit(place.each(fit, axes)), fit_fed, each_predict)
