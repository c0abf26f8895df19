"""Cross networks, each beside a ReLU tower: DCN, DCNv2, DCNv2Mix, GDCN."""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from flax import linen as nn

from diet_jax.models.adapters import from_linen
from diet_jax.models.base import Model, Spec
from diet_jax.models.layers import Mlp, flat
from diet_jax.types import Array


class CrossNet(nn.Module):
    """Cross layers with full matrices beside a ReLU tower, then a linear unit: [B, X] -> [B]."""

    hidden: tuple[int, ...]
    n_cross: int

    @nn.compact
    def __call__(self, x0: Array) -> Array:
        x = x0
        for _ in range(self.n_cross):
            x = x0 * nn.Dense(x0.shape[-1])(x) + x
        deep = x0
        for width in self.hidden:
            deep = nn.relu(nn.Dense(width)(deep))
        return nn.Dense(1)(jnp.concatenate([x, deep], axis=-1))[:, 0]


class VectorCross(nn.Module):
    """x_{l+1} = x_0 (w_l . x_l) + b_l + x_l."""

    @nn.compact
    def __call__(self, x0: Array, x: Array) -> Array:
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return x0 * nn.Dense(1, use_bias=False)(x) + bias[None] + x


class MixtureCross(nn.Module):
    """x_{l+1} = sum_i G_i(x_l) x_0 * (U_i g(C_i g(V_i^T x_l)) + b) + x_l, with g = tanh."""

    n_experts: int
    rank: int

    @nn.compact
    def __call__(self, x0: Array, x: Array) -> Array:
        gates = nn.softmax(nn.Dense(self.n_experts, use_bias=False)(x))
        lift = nn.DenseGeneral((self.n_experts, self.rank), use_bias=False)(x)
        start = nn.initializers.lecun_normal(batch_axis=0)
        shape = self.n_experts, self.rank
        core = self.param("core", start, (*shape, self.rank))
        down = self.param("down", start, (*shape, x.shape[-1]))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        inner = jnp.tanh(jnp.einsum("ber,ers->bes", jnp.tanh(lift), core))
        # The gates sum to one, so that the bias, which all experts share, comes out of the sum.
        return x0 * (jnp.einsum("be,bes,esx->bx", gates, inner, down) + bias[None]) + x


class GatedCross(nn.Module):
    """x_{l+1} = x_0 * (W_c x_l + b) * sigmoid(W_g x_l) + x_l."""

    @nn.compact
    def __call__(self, x0: Array, x: Array) -> Array:
        n = x.shape[-1]
        return x0 * nn.Dense(n)(x) * nn.sigmoid(nn.Dense(n, use_bias=False)(x)) + x


class Parallel(nn.Module):
    """`n_cross` layers made by `layer` beside a ReLU tower, then a linear unit: [B, X] -> [B]."""

    layer: Callable[[], nn.Module]
    n_cross: int
    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, x0: Array) -> Array:
        x = x0
        for _ in range(self.n_cross):
            x = self.layer()(x0, x)
        return nn.Dense(1)(jnp.concatenate([x, Mlp(self.hidden)(x0)], axis=-1))[:, 0]


def _of_flat(name: str, net: nn.Module, spec: Spec) -> Model:
    return from_linen(name, net, spec.dim, args=lambda x: (flat(x.emb, x.dense),))


def dcn(spec: Spec, n_cross: int = 3) -> Model:
    """Deep & Cross, crosses by a vector (Wang et al. 2017, eq. 3): DCN-V2's vector form."""
    return _of_flat("DCN", Parallel(VectorCross, n_cross, spec.hidden), spec)


def dcn_v2(spec: Spec, n_cross: int = 2) -> Model:
    """DCN-V2, parallel structure, full-rank crosses (Wang et al. 2021, eq. 1 and fig. 1b)."""
    return _of_flat("DCNv2", CrossNet(spec.hidden, n_cross), spec)


def dcn_v2_mix(spec: Spec, n_cross: int = 2, n_experts: int = 4, rank: int = 32) -> Model:
    """DCN-V2, crosses by a mixture of low-rank experts, softmax gates (Wang et al. 2021, eq. 5)."""
    layer = partial(MixtureCross, n_experts, rank)
    return _of_flat("DCNv2Mix", Parallel(layer, n_cross, spec.hidden), spec)


def gdcn(spec: Spec, n_cross: int = 3) -> Model:
    """Gated deep & cross, parallel structure (GDCN-P, Wang et al. 2023, eq. 1)."""
    return _of_flat("GDCN", Parallel(GatedCross, n_cross, spec.hidden), spec)
