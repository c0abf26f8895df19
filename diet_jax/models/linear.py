"""Linear and factorization models: LR, FM."""

import jax.numpy as jnp

from diet_jax.models.base import Model
from diet_jax.types import Array


def first_order(net: dict, weights: Array, dense: Array) -> Array:
    """Sum of the first-order weights [B, F], of dense [B, G] times theirs, and the bias: [B]."""
    return weights.sum(-1) + dense @ net["dense"] + net["bias"]


def init_first_order(dense: Array) -> dict:
    return {"bias": jnp.zeros(()), "dense": jnp.zeros(dense.shape[-1])}


def pairwise(v: Array) -> Array:
    """Dot products of v [B, F, d] summed over field pairs, in O(F d): [B] (Rendle 2010)."""
    return 0.5 * (jnp.square(v.sum(1)) - jnp.square(v).sum(1)).sum(-1)


def lr(dim: int, hidden: tuple[int, ...]) -> Model:
    """Logistic regression (Richardson et al. 2007); `dim` and `hidden` do not apply."""
    return Model(
        name="LR",
        init=lambda key, emb, dense: init_first_order(dense),
        apply=lambda net, emb, dense: first_order(net, emb[:, :, 0], dense),
        width=1,
        linear=True,
    )


def fm(dim: int, hidden: tuple[int, ...]) -> Model:
    """Factorization machine (Rendle 2010); `hidden` does not apply."""

    def apply(net, emb, dense):
        return first_order(net, emb[:, :, 0], dense) + pairwise(emb[:, :, 1:])

    return Model("FM", lambda key, emb, dense: init_first_order(dense), apply, 1 + dim, True)
