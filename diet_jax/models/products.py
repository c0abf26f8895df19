"""Products of field pairs, pooled or read by a tower: IPNN, NFM, AFM, xDeepFM."""

import jax.numpy as jnp
from flax import linen as nn

from diet_jax.models.adapters import from_linen
from diet_jax.models.base import Inputs, Model, Spec
from diet_jax.models.layers import FirstOrder, Tower, field_pairs, flat
from diet_jax.types import Array


class IpnnNet(nn.Module):
    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Inputs) -> Array:
        i, j = field_pairs(x.emb.shape[1])
        products = (x.emb[:, i] * x.emb[:, j]).sum(-1)
        return Tower(self.hidden)(jnp.concatenate([flat(x.emb, x.dense), products], axis=-1))


def ipnn(spec: Spec) -> Model:
    """A tower on embeddings and the dot products of field pairs (PNN, Qu et al. 2016, eq. 6)."""
    return from_linen("IPNN", IpnnNet(spec.hidden), spec.dim)


class NfmNet(nn.Module):
    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Inputs) -> Array:
        v = x.emb[:, :, 1:]
        products = 0.5 * (jnp.square(v.sum(1)) - jnp.square(v).sum(1))
        deep = Tower(self.hidden)(jnp.concatenate([products, x.dense], axis=-1))
        return FirstOrder()(x.emb[:, :, 0], x.dense) + deep


def nfm(spec: Spec) -> Model:
    """First order and a tower on the summed products of field pairs (He & Chua 2017, eq. 2, 4).

    Dense features enter the tower beside the products. The paper's batch norm and dropout are left
    out: a training state and random draws have no place in a pure forward pass.
    """
    return from_linen("NFM", NfmNet(spec.hidden), 1 + spec.dim, linear=True)


class AfmNet(nn.Module):
    attention: int

    @nn.compact
    def __call__(self, x: Inputs) -> Array:
        v = x.emb[:, :, 1:]
        i, j = field_pairs(v.shape[1])
        products = v[:, i] * v[:, j]
        score = nn.Dense(1, use_bias=False)(nn.relu(nn.Dense(self.attention)(products)))
        pooled = (nn.softmax(score, axis=1) * products).sum(1)
        return FirstOrder()(x.emb[:, :, 0], x.dense) + nn.Dense(1, use_bias=False)(pooled)[:, 0]


def afm(spec: Spec, attention: int = 16) -> Model:
    """FM whose pairs are weighed by attention (Xiao et al. 2017, eq. 4-6), without dropout.

    attention: units that score a pair. `hidden` does not apply.
    """
    return from_linen("AFM", AfmNet(attention), 1 + spec.dim, linear=True)


class CinNet(nn.Module):
    """First order, a compressed interaction network without activation, and a tower."""

    hidden: tuple[int, ...]
    maps: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Inputs) -> Array:
        v = now = x.emb[:, :, 1:]
        pooled = []
        for k, n in enumerate(self.maps):
            start = nn.initializers.lecun_normal(in_axis=(1, 2), out_axis=0)
            weights = self.param(f"maps_{k}", start, (n, now.shape[1], v.shape[1]))
            now = jnp.einsum("bid,bjd,nij->bnd", now, v, weights)
            pooled.append(now.sum(-1))
        cin = nn.Dense(1, use_bias=False)(jnp.concatenate(pooled, axis=-1))[:, 0]
        return FirstOrder()(x.emb[:, :, 0], x.dense) + cin + Tower(self.hidden)(flat(v, x.dense))


def x_deep_fm(spec: Spec, maps: tuple[int, ...] = (16, 16)) -> Model:
    """xDeepFM (Lian et al. 2018, eq. 6-8 and 15): `maps` feature maps in each CIN layer."""
    return from_linen("xDeepFM", CinNet(spec.hidden, maps), 1 + spec.dim, linear=True)
