"""One trainer for all: teacher, inner loop and evaluation train by the same step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from diet_jax.models import Model, logits, penalty
from diet_jax.types import Array, Params

USES = ("teacher", "stage", "trial")


def key_for(seed: int, use: str) -> Array:
    """The key of one use in a run of `seed`, so that no two uses draw the same numbers."""
    return jax.random.fold_in(jax.random.key(seed), USES.index(use))


class Examples(NamedTuple):
    """Training rows: ids int32 [.., F], dense [.., G], target [..] in [0, 1], weight [..]."""

    ids: Array
    dense: Array
    target: Array
    weight: Array


class TrainState(NamedTuple):
    """Parameters and optimizer state, the carry of every training loop."""

    params: Params
    opt: Params


def loss(model: Model, params: Params, batch: Examples) -> Array:
    """Weighted cross-entropy in nats, the mean over the batch of weight times entropy: []."""
    z = logits(model, params, batch.ids, batch.dense)
    return jnp.mean(batch.weight * optax.sigmoid_binary_cross_entropy(z, batch.target))


def step(
    model: Model, tx, state: TrainState, batch: Examples, l2: float | Array, nudge: Params = None
) -> TrainState:
    """One optimizer step on `batch`: its loss plus l2 times the penalty of the embeddings it uses.

    `nudge`, if given, is added to the gradient first. The derivative of a later loss with respect
    to a zero nudge is the adjoint that influence needs.
    """

    def objective(params):
        return loss(model, params, batch) + l2 * penalty(model, params, batch.ids)

    grads = jax.grad(objective)(state.params)
    if nudge is not None:
        grads = jax.tree.map(jnp.add, grads, nudge)
    updates, opt = tx.update(grads, state.opt, state.params)
    return TrainState(optax.apply_updates(state.params, updates), opt)


def start(tx, params: Params) -> TrainState:
    return TrainState(params, tx.init(params))


def fit(
    model: Model,
    tx,
    state: TrainState,
    data: Examples,
    order: Array,
    n_steps,
    l2: float | Array = 0.0,
) -> TrainState:
    """Run the first `n_steps` (may be traced) batches of `order` (int32 [T, B], rows of `data`)."""

    def body(k, state):
        return step(model, tx, state, jax.tree.map(lambda a: a[order[k]], data), l2)

    return jax.lax.fori_loop(0, n_steps, body, state)


def cyclic_order(key: Array, valid: Array, steps: int, batch: int) -> Array:
    """Batches int32 [steps, batch] that pass through the valid rows in one random cyclic order.

    valid: bool [N] with at least one True. Every valid row is seen equally often, up to one.
    """
    draw = jax.random.uniform(key, valid.shape)
    shuffled = jnp.argsort(jnp.where(valid, draw, 2.0))
    position = jnp.arange(steps * batch) % jnp.maximum(valid.sum(), 1)
    return shuffled[position].reshape(steps, batch)
