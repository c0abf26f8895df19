"""The outer loss of a memory and its exact derivative through unrolled inner training.

One trajectory starts from fresh parameters, trains on minibatches of the memory and ends in a loss
on real rows. Of its steps the last `window` are differentiated; the end is drawn at random between
`window` and `steps` (RaT-BPTT, Feng et al. 2024), or fixed at `steps` when window == steps.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diet_jax import train
from diet_jax.models import Model, init_params
from diet_jax.optim import make_inner
from diet_jax.train import Examples, TrainState
from diet_jax.types import Array, Params


class Inner(NamedTuple):
    """The inner loop: which model, trained how (all static).

    steps: T. batch: rows a step. window: W <= T, the steps that are differentiated.
    remat: recompute activations in sqrt(W) segments, for memory; costs one more forward pass.
    l2: weight of the penalty on the embeddings of a batch.
    """

    model: Model
    optimizer: str
    lr: float
    momentum: float
    eps_root: float
    steps: int
    batch: int
    window: int
    remat: bool
    l2: float

    def tx(self):
        return make_inner(self.optimizer, self.lr, self.momentum, self.eps_root)


class Slots(NamedTuple):
    """A memory as the inner loop sees it.

    ids: int32 [N, F], positions in the compact table. valid: bool [N].
    dense [N, G], label_logit [N], log_weight [N]: what may be learned.
    """

    ids: Array
    valid: Array
    dense: Array
    label_logit: Array
    log_weight: Array

    def examples(self, index: Array) -> Examples:
        return Examples(
            self.ids[index],
            self.dense[index],
            jax.nn.sigmoid(self.label_logit[index]),
            jnp.exp(self.log_weight[index]),
        )


class Trajectory(NamedTuple):
    """One inner run: the table rows of its compact table, its key, and the step that it ends at.

    trained: int32 [Ut], the rows that the memory touches, which training may move and has to carry.
    fixed: int32 [Uf], rows that only outer rows or candidates look up; they stay where they start.
    """

    trained: Array
    fixed: Array
    key: Array
    end: Array  # int32 [], window <= end <= steps


def scan_window(step, state: TrainState, xs, length: int, remat: bool) -> TrainState:
    """`lax.scan` of `step(state, x) -> state`, recomputed by segments of about sqrt(length)."""

    def body(state, x):
        return step(state, x), None

    if not remat:
        return jax.lax.scan(body, state, xs)[0]
    segments = max(d for d in range(1, math.isqrt(length) + 1) if length % d == 0)

    def segment(state, x):
        return jax.lax.scan(jax.checkpoint(body), state, x)[0], None

    nested = jax.tree.map(lambda a: a.reshape(segments, length // segments, *a.shape[1:]), xs)
    return jax.lax.scan(jax.checkpoint(segment), state, nested)[0]


def warm_up(inner: Inner, slots: Slots, trajectory: Trajectory) -> tuple[TrainState, Array, Array]:
    """Fresh parameters trained up to the window, its batches [W, b], and the fixed rows [Uf, D]."""
    key_init, key_order = jax.random.split(trajectory.key)
    n_fields, n_dense = slots.ids.shape[1], slots.dense.shape[1]
    rows = jnp.concatenate([trajectory.trained, trajectory.fixed])
    params = init_params(inner.model, key_init, rows, n_fields, n_dense)
    table, fixed = jnp.split(params["table"], [len(trajectory.trained)])
    order = train.cyclic_order(key_order, slots.valid, inner.steps, inner.batch)
    first = trajectory.end - inner.window
    tx, frozen = inner.tx(), jax.lax.stop_gradient(slots)

    def body(k, state):
        return train.step(inner.model, tx, state, frozen.examples(order[k]), inner.l2)

    state = jax.lax.fori_loop(0, first, body, train.start(tx, {**params, "table": table}))
    window = jax.lax.dynamic_slice_in_dim(order, first, inner.window)
    return jax.lax.stop_gradient(state), window, fixed


def whole(params: Params, fixed: Array) -> Params:
    """Parameters whose table holds the trained rows and then the fixed ones."""
    return {**params, "table": jnp.concatenate([params["table"], fixed])}


def outer_loss(inner: Inner, slots: Slots, trajectory: Trajectory, outer: Examples) -> Array:
    """Loss on `outer` of the model that one trajectory trains on the memory: []."""
    state, order, fixed = warm_up(inner, slots, trajectory)
    tx = inner.tx()
    state = scan_window(
        lambda state, batch: train.step(inner.model, tx, state, batch, inner.l2),
        state,
        slots.examples(order),
        inner.window,
        inner.remat,
    )
    return train.loss(inner.model, whole(state.params, fixed), outer)


def adjoints(
    inner: Inner, slots: Slots, trajectory: Trajectory, outer: Examples
) -> tuple[Params, Params, Array]:
    """One trajectory's parameters before each step of the window, and the loss's adjoints there.

    All rows count as trained, since a candidate moves rows that no slot touches.
    Returns (theta, mu, d_weight): theta and mu are like the parameters with a leading axis W;
    mu_k is the derivative of the outer loss with respect to the gradient that step k descends.
    d_weight float32 [N] is the derivative with respect to each slot's weight.
    """
    rows = jnp.concatenate([trajectory.trained, trajectory.fixed])
    trajectory = trajectory._replace(trained=rows, fixed=rows[:0])
    state, order, _ = warm_up(inner, slots, trajectory)
    tx = inner.tx()
    zeros = jax.tree.map(lambda a: jnp.zeros((inner.window, *a.shape), a.dtype), state.params)

    def run(nudges, log_weight):
        batches = slots._replace(log_weight=log_weight).examples(order)

        def body(state, x):
            batch, nudge = x
            return train.step(inner.model, tx, state, batch, inner.l2, nudge), state.params

        last, theta = jax.lax.scan(body, state, (batches, nudges))
        return train.loss(inner.model, last.params, outer), theta

    (mu, d_log_weight), theta = jax.grad(run, argnums=(0, 1), has_aux=True)(zeros, slots.log_weight)
    return theta, mu, d_log_weight / jnp.exp(slots.log_weight)
