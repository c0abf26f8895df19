"""One trainer for all: teacher, inner loop and evaluation train by the same step."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from diet_jax.models import Model, answer, logits, look_up, penalty
from diet_jax.types import Array, Params

USES = ("teacher", "stage", "trial")


def key_for(seed: int, use: str) -> Array:
    """The key of one use in a run of `seed`, so that no two uses draw the same numbers."""
    return jax.random.fold_in(jax.random.key(seed), USES.index(use))


class Examples(NamedTuple):
    """Training rows: ids int32 [.., K], dense [.., G], target [..] in [0, 1], weight [..].

    mix: [.., M], if each is a mixture of M rows of a log; then ids is [.., M, K].
    """

    ids: Array
    dense: Array
    target: Array
    weight: Array
    mix: Array | None = None


Batch = Examples | tuple[Examples, ...]  # several count as one: rows and mixtures of them, say


class TrainState(NamedTuple):
    """Parameters and optimizer state, the carry of every training loop."""

    params: Params
    opt: Params


def loss(model: Model, params: Params, batch: Batch) -> Array:
    """`entropy` of what the model answers; of several parts of a batch, by their sizes: []."""
    if not isinstance(batch, Examples):
        sizes = [len(part.weight) for part in batch]
        sums = [loss(model, params, part) * n for part, n in zip(batch, sizes, strict=True)]
        return sum(sums, jnp.zeros(())) / sum(sizes)
    return entropy(logits(model, params, batch.ids, batch.dense, batch.mix), batch)


def entropy(logit: Array, batch: Examples) -> Array:
    """Weighted cross-entropy in nats, the mean over the batch of weight times entropy: []."""
    return jnp.mean(batch.weight * optax.sigmoid_binary_cross_entropy(logit, batch.target))


def objective(model: Model, params: Params, batch: Examples, l2: float | Array) -> Array:
    """What training descends: the loss plus l2 times the penalty of the batch's embeddings: []."""
    # Both from one look-up, whose derivative scatters into the table once.
    ids, mix, rows = batch.ids, batch.mix, look_up(params, batch.ids)
    z = answer(model, params["net"], rows, ids, batch.dense, mix)
    return entropy(z, batch) + l2 * penalty(model, rows, ids, mix)


def step(
    model: Model,
    tx,
    state: TrainState,
    batch: Examples,
    l2: float | Array,
    nudge: Params = None,
    gradient: Callable = jax.grad,
) -> TrainState:
    """One optimizer step on `batch`.

    `nudge`, if given, is added to the gradient first. The derivative of a later loss with respect
    to a zero nudge is the adjoint that influence needs. gradient: `jax.grad`, or
    `forward_over_reverse`, of a function of the parameters and the batch.
    """
    grads = gradient(lambda params, batch: objective(model, params, batch, l2))(state.params, batch)
    if nudge is not None:
        grads = jax.tree.map(jnp.add, grads, nudge)
    updates, opt = tx.update(grads, state.opt, state.params)
    return TrainState(optax.apply_updates(state.params, updates), opt)


def forward_over_reverse(f: Callable) -> Callable:
    """The gradient of f(params, batch) by params, whose own derivative is taken in forward mode.

    With an adjoint c for the gradient g, the backward pass needs (dg/dparams)^T c, which equals H c
    as H is symmetric, and (dg/dbatch)^T c: the directional derivative along c of the gradient by
    both. So nothing of the model's inner life is stored (MixFlow-MG, Kemaev et al. 2025).
    """

    @jax.custom_vjp
    def gradient(params, batch):
        return jax.grad(f)(params, batch)

    def forward(params, batch):
        return gradient(params, batch), (params, batch)

    def backward(kept, adjoint):
        params, batch = kept

        def by_both(params):
            real = batch._replace(ids=None)
            whole = lambda p, real: f(p, real._replace(ids=batch.ids))  # noqa: E731
            return jax.grad(whole, (0, 1))(params, real)

        return jax.jvp(by_both, (params,), (adjoint,))[1]

    gradient.defvjp(forward, backward)
    return gradient


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
    lay: Callable[[TrainState, Examples], tuple[TrainState, Examples]] = lambda *both: both,
) -> TrainState:
    """Run the first `n_steps` (may be traced) batches of `order` (int32 [T, B], rows of `data`).

    lay: says before every step where state and batch are to lie on the devices.
    """

    def body(k, state):
        state, batch = lay(state, jax.tree.map(lambda a: a[order[k]], data))
        return step(model, tx, state, batch, l2)

    return jax.lax.fori_loop(0, n_steps, body, state)


def cyclic_order(key: Array, valid: Array, steps: int, batch: int) -> Array:
    """Batches int32 [steps, batch] that pass through the valid rows in one random cyclic order.

    valid: bool [N] with at least one True. Every valid row is seen equally often, up to one.
    """
    draw = jax.random.uniform(key, valid.shape)
    shuffled = jnp.argsort(jnp.where(valid, draw, 2.0))
    position = jnp.arange(steps * batch) % jnp.maximum(valid.sum(), 1)
    return shuffled[position].reshape(steps, batch)
