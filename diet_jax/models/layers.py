"""The parts that architectures share: flat inputs, field pairs, ReLU layers, first-order terms."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diet_jax.types import Array


def flat(v: Array, dense: Array) -> Array:
    """Embeddings [B, F, d] and dense [B, G] side by side: [B, F * d + G]."""
    return jnp.concatenate([v.reshape(v.shape[0], -1), dense], axis=-1)


def field_pairs(n_fields: int) -> tuple[np.ndarray, np.ndarray]:
    """The P = F (F - 1) / 2 pairs i < j of fields, as int [P] each: (0, 1), (0, 2) .. (1, 2) .."""
    return np.triu_indices(n_fields, 1)


def pairwise(v: Array) -> Array:
    """Dot products of v [B, F, d] summed over field pairs, in O(F d): [B] (Rendle 2010)."""
    return 0.5 * (jnp.square(v.sum(1)) - jnp.square(v).sum(1)).sum(-1)


def first_order(net: dict, weights: Array, dense: Array) -> Array:
    """Sum of the first-order weights [B, F], of dense [B, G] times theirs, and the bias: [B]."""
    return weights.sum(-1) + dense @ net["dense"] + net["bias"]


def init_first_order(dense: Array) -> dict:
    return {"bias": jnp.zeros(()), "dense": jnp.zeros(dense.shape[-1])}


class FirstOrder(nn.Module):
    """`first_order` as a module: weights [B, F], dense [B, G] -> [B]."""

    @nn.compact
    def __call__(self, weights: Array, dense: Array) -> Array:
        zeros = nn.initializers.zeros
        net = {"dense": self.param("dense", zeros, (dense.shape[-1],))}
        return first_order({**net, "bias": self.param("bias", zeros, ())}, weights, dense)


class Mlp(nn.Module):
    """ReLU layers of the widths `hidden`: [.., X] -> [.., hidden[-1]]; none: X stays."""

    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
        return x


class Tower(nn.Module):
    """ReLU layers of the widths `hidden`, then one linear unit: [B, X] -> [B]."""

    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(1)(x)[:, 0]
