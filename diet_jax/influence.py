"""How much a row matters: the exact influence of slots and of candidate rows on the outer loss.

The influence of a row z is I(z) = -dL/dw_z, the derivative of the outer loss L with respect to the
row's weight in inner training: at its own weight for a slot, at weight zero for a candidate. With
mu_k the derivative of L by the gradient that step k descends, dL/dw_z = sum_k mu_k . grad
l_z(theta_k), and a sum of directional derivatives needs one forward-mode pass a step, never a
gradient per row. It is taken while the backward pass is at step k, where both are at hand, so that
influence needs the memory of a meta-gradient.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from diet_jax.metagrad import (
    Inner,
    Nudge,
    Slots,
    Trajectory,
    all_trained,
    implicit_loss,
    outer_loss,
    warm_up,
)
from diet_jax.models import Model, logits
from diet_jax.train import Batch, Examples
from diet_jax.types import Array, Params


def influence(
    inner: Inner,
    slots: Slots,
    trajectory: Trajectory,
    outer: Batch,
    candidates: Examples,
    block: int,
) -> tuple[Array, Array]:
    """Influence of the slots and of candidates along one trajectory.

    candidates: C rows or mixtures, C a multiple of `block` (rows scored at once; bounds memory);
    their weights are not read. A candidate is thought to be drawn as often as a slot: 1 / n of each
    step's batch, with n the number of valid slots. All rows of the table count as trained, since a
    candidate moves rows that no slot touches.
    Returns (float32 [N], float32 [C]); a positive influence lowers the outer loss.
    """
    n = jnp.maximum(slots.valid.sum(), 1)
    trajectory = all_trained(inner, trajectory)

    def step_by_step(log_weight, extra):
        now = slots._replace(log_weight=log_weight)
        nudge = Nudge(candidates, extra, Partial(partial(at_weight_zero, inner.model, block)))
        return outer_loss(inner, now, trajectory, outer, nudge)

    if inner.unrolled:
        nothing = jnp.zeros(len(candidates.ids), slots.log_weight.dtype)
        of_slots, of_rows = jax.grad(step_by_step, (0, 1))(slots.log_weight, nothing)
    else:
        state, _, none = warm_up(inner, slots, trajectory)

        def at_the_end(log_weight):
            now = slots._replace(log_weight=log_weight)
            return implicit_loss(inner, now, state.params, none, outer)

        of_slots, v = jax.grad(at_the_end, has_aux=True)(slots.log_weight)
        of_rows = -slopes(inner.model, state.params, v, candidates, block)
    return -of_slots / jnp.exp(slots.log_weight), -of_rows / n


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def at_weight_zero(
    model: Model, block: int, rows: Examples, weights: Array, params: Params
) -> Params:
    """What rows add to a step's gradient, at weights [C] that are zero: nothing, but a derivative.

    It has none by `params`, as what the weights multiply is zero.
    """
    del model, block, rows, weights
    return jax.tree.map(jnp.zeros_like, params)


def _forward(model, block, rows, weights, params):
    return at_weight_zero(model, block, rows, weights, params), (rows, params)


def _backward(model, block, kept, mu):
    rows, params = kept
    return None, slopes(model, params, mu, rows, block), jax.tree.map(jnp.zeros_like, params)


at_weight_zero.defvjp(_forward, _backward)


def slopes(model: Model, params: Params, along: Params, rows: Examples, block: int) -> Array:
    """The derivative of each row's loss along a direction of the parameters: [C]."""
    n_blocks = len(rows.ids) // block
    blocks = jax.tree.map(lambda a: a.reshape(n_blocks, block, *a.shape[1:]), rows)

    def score(rows: Examples) -> Array:
        def losses(params):
            z = logits(model, params, rows.ids, rows.dense, rows.mix)
            return optax.sigmoid_binary_cross_entropy(z, rows.target)

        return jax.jvp(losses, (params,), (along,))[1]

    return jax.lax.map(score, blocks).reshape(-1)
