"""Fields that weigh, gate or mask each other: AutoInt, FiBiNET, MaskNet."""

import jax.numpy as jnp
from flax import linen as nn

from diet_jax.models.adapters import from_linen
from diet_jax.models.base import Inputs, Model, Spec
from diet_jax.models.layers import FirstOrder, Tower, field_pairs, flat
from diet_jax.types import Array

LAYER_NORM_EPS = 1e-5


class Interacting(nn.Module):
    """Multi-head attention among tokens [B, X, d], unscaled, plus a linear skip, then ReLU."""

    heads: int
    size: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        parts = nn.DenseGeneral((3, self.heads, self.size), use_bias=False, name="qkv")(x)
        q, k, v = (parts[:, :, p] for p in range(3))
        weights = nn.softmax(jnp.einsum("bihd,bjhd->bhij", q, k))
        mixed = jnp.einsum("bhij,bjhd->bihd", weights, v)
        skip = nn.Dense(self.heads * self.size, use_bias=False, name="skip")(x)
        return nn.relu(mixed.reshape(skip.shape) + skip)


class AutoIntNet(nn.Module):
    hidden: tuple[int, ...]
    n_layers: int
    heads: int
    size: int

    @nn.compact
    def __call__(self, x: Inputs) -> Array:
        start = nn.initializers.normal(0.01)
        numbers = self.param("numbers", start, (x.dense.shape[-1], x.emb.shape[-1]))
        tokens = jnp.concatenate([x.emb, x.dense[..., None] * numbers[None]], axis=1)
        for _ in range(self.n_layers):
            tokens = Interacting(self.heads, self.size)(tokens)
        answer = nn.Dense(1)(tokens.reshape(len(tokens), -1))[:, 0]
        return answer + Tower(self.hidden)(flat(x.emb, x.dense))


def auto_int(spec: Spec, n_layers: int = 2, heads: int = 2, size: int = 8) -> Model:
    """AutoInt+ (Song et al. 2019, eq. 4-9): attention among fields beside a tower.

    A dense feature is a token, too: a vector of its own times its value. size: columns of a head.
    """
    return from_linen("AutoInt", AutoIntNet(spec.hidden, n_layers, heads, size), spec.dim)


class FiBiNet(nn.Module):
    hidden: tuple[int, ...]
    reduction: int

    @nn.compact
    def __call__(self, x: Inputs) -> Array:
        v = x.emb[:, :, 1:]
        n_fields, d = v.shape[1:]
        squeezed = nn.Dense(max(1, n_fields // self.reduction), use_bias=False)(v.mean(-1))
        weights = nn.relu(nn.Dense(n_fields, use_bias=False)(nn.relu(squeezed)))
        i, j = field_pairs(n_fields)
        w = self.param("pairs", nn.initializers.lecun_normal(batch_axis=0), (len(i), d, d))
        products = [
            jnp.einsum("bpd,pde->bpe", e[:, i], w) * e[:, j] for e in (v, weights[..., None] * v)
        ]
        deep = Tower(self.hidden)(flat(jnp.concatenate(products, axis=1), x.dense))
        return FirstOrder()(x.emb[:, :, 0], x.dense) + deep


def fi_bi_net(spec: Spec, reduction: int = 3) -> Model:
    """FiBiNET (Huang et al. 2019, eq. 3-8): fields reweighed (SENET), bilinear products, a tower.

    One matrix a pair of fields ("interaction"), shared by raw and reweighed fields.
    """
    return from_linen("FiBiNET", FiBiNet(spec.hidden, reduction), 1 + spec.dim, linear=True)


class MaskNetwork(nn.Module):
    hidden: tuple[int, ...]
    n_blocks: int
    block: int
    reduction: float

    @nn.compact
    def __call__(self, x: Inputs) -> Array:
        normal = nn.LayerNorm(LAYER_NORM_EPS, use_bias=False, use_scale=False)(x.emb)
        scale = self.param("scale", nn.initializers.ones, x.emb.shape[1:])
        shift = self.param("shift", nn.initializers.zeros, x.emb.shape[1:])
        values, raw = flat(normal * scale[None] + shift[None], x.dense), flat(x.emb, x.dense)
        blocks = []
        for _ in range(self.n_blocks):
            inner = nn.relu(nn.Dense(max(1, int(self.reduction * raw.shape[-1])))(raw))
            masked = nn.Dense(self.block, use_bias=False)(nn.Dense(raw.shape[-1])(inner) * values)
            blocks.append(nn.relu(nn.LayerNorm(LAYER_NORM_EPS)(masked)))
        return Tower(self.hidden)(jnp.concatenate(blocks, axis=-1))


def mask_net(spec: Spec, n_blocks: int = 3, block: int = 64, reduction: float = 1.0) -> Model:
    """MaskNet, parallel (Wang et al. 2021, eq. 6-9, 15): blocks masked by the raw row, a tower.

    block: units of a block. reduction: units that aggregate the mask, per input of theirs.
    """
    return from_linen("MaskNet", MaskNetwork(spec.hidden, n_blocks, block, reduction), spec.dim)
