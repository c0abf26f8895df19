"""Towers over embeddings, with a wide part or without: MLP, WideDeep, DeepFM."""

from flax import linen as nn

from diet_jax.models.adapters import from_linen
from diet_jax.models.base import Inputs, Model, Spec
from diet_jax.models.layers import (
    FirstOrder,
    Tower,
    first_order,
    flat,
    init_first_order,
    pairwise,
)
from diet_jax.types import Array


def mlp(spec: Spec) -> Model:
    """Embeddings into a ReLU tower: the DNN, and the FNN (Zhang et al. 2016) not pre-trained."""
    return from_linen("MLP", Tower(spec.hidden), spec.dim, args=lambda x: (flat(x.emb, x.dense),))


def deep_fm(spec: Spec) -> Model:
    """FM and a tower on shared embeddings, logits added (Guo et al. 2017)."""
    tower = Tower(spec.hidden)

    def init(key, x):
        net = init_first_order(x.dense)
        return {**net, "tower": tower.init(key, flat(x.emb[:, :, 1:], x.dense))}

    def apply(net, x):
        v = x.emb[:, :, 1:]
        wide = first_order(net, x.emb[:, :, 0], x.dense) + pairwise(v)
        return wide + tower.apply(net["tower"], flat(v, x.dense))

    return Model("DeepFM", init, apply, 1 + spec.dim, True)


class WideDeepNet(nn.Module):
    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Inputs) -> Array:
        wide = FirstOrder()(x.emb[:, :, 0], x.dense)
        return wide + Tower(self.hidden)(flat(x.emb[:, :, 1:], x.dense))


def wide_deep(spec: Spec) -> Model:
    """First order and a tower (Cheng et al. 2016); no crosses chosen by hand in the wide part."""
    return from_linen("WideDeep", WideDeepNet(spec.hidden), 1 + spec.dim, linear=True)
