"""Steps on a table whose cost is what their batch touches, whatever the table's size.

Dense training passes over the table and its moments at every step. Here a step takes the rows that
its batch looks up, trains them as a compact table (`compact.py` on the scale of a step), and puts
them back. That is exact for the optimizers that leave rows without gradient alone (`LOCAL`), of
which lazy Adam is the one to train full data with. Its derivative touches those rows alone, too.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diet_jax import train
from diet_jax.models import Model
from diet_jax.optim import Optimizer, make
from diet_jax.train import Examples, TrainState
from diet_jax.types import Array, InputError

LOCAL = ("sgd", "lazy_adam", "adagrad", "rowwise_adagrad")


def is_local(optimizer: Optimizer) -> bool:
    """Whether a row without gradient, and what is remembered of it, stays as it is."""
    return optimizer.name in LOCAL and not (optimizer.name == "sgd" and optimizer.momentum)


def pays(optimizer: Optimizer, looked_up: int, n_table: int) -> bool:
    """Whether steps that look up so many rows are to go by touched rows: the optimizer allows it,
    and the table has more."""
    return is_local(optimizer) and looked_up < n_table


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
    step = by_touched_rows(
        lambda small, rest: train.step(model, make(optimizer, rest[1]), small, rest[0], rest[2]),
        which_by_row(make(optimizer, lr), state),
    )

    def body(k, carry):
        state, mark = carry
        batch = jax.tree.map(lambda a: a[order[k]], data)
        mark, places, (batch,) = find_places(mark, batch)
        return step(state, (batch, lr, l2), places), mark

    mark = jnp.zeros(len(state.params["table"]), jnp.int32)
    return jax.lax.fori_loop(0, n_steps, body, (state, mark))[0]


class Places(NamedTuple):
    """Where the P ids of a batch look in a table of n rows, int32 [P] each.

    here: the row, 0 for no value. back: the row that is written from this place. Of the places that
    look at one row one writes it; the others, and those without a value, have n, which is no row.
    """

    here: Array
    back: Array


def find_places(mark: Array, *batches: Examples) -> tuple[Array, Places, tuple[Examples, ...]]:
    """The places of batches, and these with ids that count places instead of table rows.

    mark: int32 [n], to be handed from step to step; its first values do not matter.
    """
    ids = jnp.concatenate([batch.ids.reshape(-1) for batch in batches])
    place = jnp.arange(len(ids), dtype=jnp.int32)
    # Of the places that look at a row one is marked as its own: the last, on most devices. Marks of
    # former steps are never read, as every row asked for is marked anew.
    mark = mark.at[jnp.where(ids >= 0, ids, len(mark))].set(place, mode="drop")
    own = mark[jnp.maximum(ids, 0)]
    back = jnp.where((ids >= 0) & (own == place), ids, len(mark))
    local = jnp.split(
        jnp.where(ids >= 0, own, -1), np.cumsum([batch.ids.size for batch in batches])[:-1]
    )
    counted = (
        batch._replace(ids=here.reshape(batch.ids.shape))
        for batch, here in zip(batches, local, strict=True)
    )
    return mark, Places(jnp.maximum(ids, 0), back), tuple(counted)


def by_touched_rows(f: Callable, by_row: TrainState) -> Callable:
    """step(state, rest, places) -> state, which is f(state, rest) on the rows at `places` alone.

    f must leave rows alone that it does not look up. by_row: as `which_by_row` says. Both ways the
    step costs what its places are: backwards it keeps their rows, and of the state's cotangent it
    reads and rewrites those, in place.
    """

    def take(state, index):
        # "Nowhere" is a row of zeros: the cotangent of a place that is not written.
        def rows(is_rows, a):
            return a.at[index].get(mode="fill", fill_value=0) if is_rows else a

        return jax.tree.map(rows, by_row, state)

    def put(state, small, index):
        def rows(is_rows, a, b):
            return a.at[index].set(b, mode="drop") if is_rows else b

        return jax.tree.map(rows, by_row, state, small)

    @jax.custom_vjp
    def step(state, rest, places):
        return put(state, f(take(state, places.here), rest), places.back)

    def forward(state, rest, places):
        small = take(state, places.here)
        return put(state, f(small, rest), places.back), (small, rest, places)

    def backward(kept, cotangent):
        small, rest, places = kept
        d_small, d_rest = jax.vjp(f, small, rest)[1](take(cotangent, places.back))
        return put(cotangent, d_small, places.back), d_rest, None

    step.defvjp(forward, backward)
    return step


def which_by_row(tx: Any, state: TrainState) -> TrainState:
    """Which leaves of a state have a row for each row of the table: those that grow with it."""
    table = state.params["table"]
    longer = jax.ShapeDtypeStruct((len(table) + 1, *table.shape[1:]), table.dtype)
    shapes = [
        TrainState(params, jax.eval_shape(tx.init, params))
        for params in (state.params, {**state.params, "table": longer})
    ]
    return jax.tree.map(lambda a, b: jnp.shape(a) != jnp.shape(b), *shapes)
