"""Self-attention over histories: SASRec, HSTU."""

import jax.numpy as jnp
from flax import linen as nn

from diet_jax.models.base import Model, Spec
from diet_jax.models.sequence import masked_softmax, ranker
from diet_jax.types import Array, InputError

LAYER_NORM_EPS = 1e-5


def latest(states: Array, seen: Array) -> Array:
    """Of states [B, L, d] the last one that was seen, zero without any: [B, d]."""
    after = jnp.cumsum(seen[:, ::-1], axis=1)[:, ::-1]
    return jnp.einsum("bl,bld->bd", (seen & (after == 1)).astype(states.dtype), states)


def _causal(seen: Array) -> Array:
    """bool [B, 1, L, L]: whether place i may look at place j."""
    length = seen.shape[1]
    return (jnp.tril(jnp.ones((length, length), bool))[None] & seen[:, None])[:, None]


class SasEncoder(nn.Module):
    n_blocks: int
    heads: int

    @nn.compact
    def __call__(self, items: Array, seen: Array, target: Array) -> Array:
        length, d = items.shape[1:]
        age = jnp.cumsum(seen[:, ::-1], axis=1)[:, ::-1] - 1  # 0 for the latest
        places = self.param("places", nn.initializers.normal(0.01), (length, d))
        x = items + places[jnp.maximum(age, 0)]
        allowed = _causal(seen)
        size = d // self.heads
        for _ in range(self.n_blocks):
            normal = nn.LayerNorm(LAYER_NORM_EPS)(x)
            parts = nn.DenseGeneral((3, self.heads, size), use_bias=False)(normal)
            q, k, v = (parts[:, :, p] for p in range(3))
            score = jnp.einsum("bihd,bjhd->bhij", q, k) / size**0.5
            mixed = jnp.einsum("bhij,bjhd->bihd", masked_softmax(score, allowed), v)
            x = x + mixed.reshape(x.shape)
            x = x + nn.Dense(d)(nn.relu(nn.Dense(d)(nn.LayerNorm(LAYER_NORM_EPS)(x))))
        return latest(nn.LayerNorm(LAYER_NORM_EPS)(x), seen)


class HstuEncoder(nn.Module):
    n_blocks: int
    heads: int

    @nn.compact
    def __call__(self, items: Array, seen: Array, target: Array) -> Array:
        # The target is the last event, as when HSTU ranks.
        x = jnp.concatenate([items, target[:, None]], axis=1)
        seen = jnp.concatenate([seen, jnp.ones((len(seen), 1), bool)], axis=1)
        length, d = x.shape[1:]
        place = jnp.cumsum(seen, axis=1)
        apart = jnp.maximum(place[:, :, None] - place[:, None], 0)
        allowed = _causal(seen)
        size = d // self.heads
        for k in range(self.n_blocks):
            normal = nn.LayerNorm(LAYER_NORM_EPS)(x)
            parts = nn.silu(nn.DenseGeneral((4, self.heads, size))(normal))
            u, v, q, key = (parts[:, :, p] for p in range(4))
            bias = self.param(f"apart_{k}", nn.initializers.zeros, (length,))
            score = nn.silu(jnp.einsum("bihd,bjhd->bhij", q, key) + bias[apart][:, None])
            mixed = jnp.einsum("bhij,bjhd->bihd", jnp.where(allowed, score, 0) / length, v)
            gated = nn.LayerNorm(LAYER_NORM_EPS)(mixed.reshape(x.shape)) * u.reshape(x.shape)
            x = x + nn.Dense(d)(gated)
        return x[:, -1]


def sas_rec(spec: Spec, n_blocks: int = 2, heads: int = 1) -> Model:
    """SASRec (Kang & McAuley 2018, eq. 2-6): causal self-attention, read at its latest item.

    Places are counted from the latest item back; the latest state is normalised, as in the authors'
    code. Without dropout. heads: a divisor of `dim`.
    """
    _divides("SASRec", heads, spec.dim)
    return ranker("SASRec", SasEncoder(n_blocks, heads), spec)


def hstu(spec: Spec, n_blocks: int = 2, heads: int = 1) -> Model:
    """HSTU (Zhai et al. 2024, eq. 1-3): pointwise (SiLU) attention with gates, the target appended.

    The bias of a score is by distance in places; that by time is left out, as rows carry none.
    heads: a divisor of `dim`.
    """
    _divides("HSTU", heads, spec.dim)
    return ranker("HSTU", HstuEncoder(n_blocks, heads), spec)


def _divides(name: str, heads: int, dim: int) -> None:
    if heads < 1 or dim % heads:
        raise InputError(f"{name}: heads is {heads}; set it to a divisor of {dim}, the dim")
