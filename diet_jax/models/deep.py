"""Multilayer perceptrons over embeddings: MLP, DeepFM."""

import jax.numpy as jnp

from diet_jax.models.base import Model, Tower
from diet_jax.models.linear import first_order, init_first_order, pairwise
from diet_jax.types import Array


def flat(v: Array, dense: Array) -> Array:
    """Embeddings [B, F, d] and dense [B, G] side by side: [B, F * d + G]."""
    return jnp.concatenate([v.reshape(v.shape[0], -1), dense], axis=-1)


def mlp(dim: int, hidden: tuple[int, ...]) -> Model:
    """Embeddings into a ReLU tower (the DNN of Zhang et al. 2016, without its pre-training)."""
    tower = Tower(hidden)
    return Model(
        name="MLP",
        init=lambda key, emb, dense: tower.init(key, flat(emb, dense)),
        apply=lambda net, emb, dense: tower.apply(net, flat(emb, dense)),
        width=dim,
        linear=False,
    )


def deep_fm(dim: int, hidden: tuple[int, ...]) -> Model:
    """FM and a tower on shared embeddings, logits added (Guo et al. 2017)."""
    tower = Tower(hidden)

    def init(key, emb, dense):
        net = init_first_order(dense)
        return {**net, "tower": tower.init(key, flat(emb[:, :, 1:], dense))}

    def apply(net, emb, dense):
        v = emb[:, :, 1:]
        wide = first_order(net, emb[:, :, 0], dense) + pairwise(v)
        return wide + tower.apply(net["tower"], flat(v, dense))

    return Model("DeepFM", init, apply, 1 + dim, True)
