"""How much a row matters: the exact influence of slots and of candidate rows on the outer loss.

The influence of a row z is I(z) = -dL/dw_z, the derivative of the outer loss L with respect to the
row's weight in inner training: at its own weight for a slot, at weight zero for a candidate. With
mu_k the adjoint of the k-th gradient (metagrad.adjoints), dL/dw_z = sum_k mu_k . grad l_z(theta_k),
and a sum of directional derivatives needs one forward-mode pass a step, never a gradient per row.
"""

import jax
import jax.numpy as jnp
import optax

from diet_jax.metagrad import Inner, Slots, Trajectory, adjoints
from diet_jax.models import logits
from diet_jax.train import Batch, Examples
from diet_jax.types import Array


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
    step's batch, with n the number of valid slots.
    Returns (float32 [N], float32 [C]); a positive influence lowers the outer loss.
    """
    theta, mu, d_weight = adjoints(inner, slots, trajectory, outer)
    n_blocks = len(candidates.ids) // block
    blocks = jax.tree.map(lambda a: a.reshape(n_blocks, block, *a.shape[1:]), candidates)

    def score(rows: Examples) -> Array:
        def one_step(total, x):
            def row_losses(params):
                z = logits(inner.model, params, rows.ids, rows.dense, rows.mix)
                return optax.sigmoid_binary_cross_entropy(z, rows.target)

            _, slope = jax.jvp(row_losses, (x[0],), (x[1],))
            return total + slope, None

        total, _ = jax.lax.scan(one_step, jnp.zeros(block), (theta, mu))
        return total

    slopes = jax.lax.map(score, blocks).reshape(-1)
    return -d_weight, -slopes / jnp.maximum(slots.valid.sum(), 1)
