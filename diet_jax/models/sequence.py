"""Histories read with the target in view: DIN, DIEN; and the tower that ranks after any encoder.

Histories come in time order, the latest last; places without an item may be anywhere. Where the
papers predict the next item, here the row's own item is at hand, and a tower ranks it.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from diet_jax.models.adapters import from_linen
from diet_jax.models.base import Inputs, Model, Spec
from diet_jax.models.layers import Tower, flat
from diet_jax.types import Array, InputError

FAR = -1e9  # of a score, instead of minus infinity: rows without any history stay finite


def masked_softmax(score: Array, seen: Array) -> Array:
    """Weights [.., L] that sum to one over `seen` (bool [.., L]); all zero where nothing is."""
    return nn.softmax(jnp.where(seen, score, FAR)) * seen


class Activation(nn.Module):
    """A score for each item of the history by how it meets the target: [B, L]."""

    units: tuple[int, ...]

    @nn.compact
    def __call__(self, items: Array, target: Array) -> Array:
        target = jnp.broadcast_to(target[:, None], items.shape)
        x = jnp.concatenate([items, target, items - target, items * target], axis=-1)
        for width in self.units:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(1)(x)[..., 0]


class DinEncoder(nn.Module):
    units: tuple[int, ...]

    @nn.compact
    def __call__(self, items: Array, seen: Array, target: Array) -> Array:
        weights = Activation(self.units)(items, target) * seen
        return jnp.einsum("bl,bld->bd", weights, items)


class Gru(nn.Module):
    """A GRU over x [B, L, d]; places not seen are skipped. States [B, L, units].

    attention: [B, L], scales the update gate (AUGRU, Zhou et al. 2019, eq. 12-14); ones: a GRU.
    """

    units: int

    @nn.compact
    def __call__(self, x: Array, seen: Array, attention: Array) -> Array:
        n = self.units
        given = nn.Dense(3 * n)(x)  # update gate, reset gate, candidate
        start = nn.initializers.orthogonal()
        u_gates = self.param("gates", start, (n, 2 * n))
        u_state = self.param("state", start, (n, n))

        def step(h, now):
            given, here, a = now
            gates = nn.sigmoid(given[:, : 2 * n] + h @ u_gates)
            update, reset = a[:, None] * gates[:, :n], gates[:, n:]
            new = jnp.tanh(given[:, 2 * n :] + (reset * h) @ u_state)
            h = jnp.where(here[:, None], (1 - update) * h + update * new, h)
            return h, h

        by_place = jax.tree.map(lambda a: jnp.moveaxis(a, 1, 0), (given, seen, attention))
        return jnp.moveaxis(jax.lax.scan(step, jnp.zeros_like(given[:, 0, :n]), by_place)[1], 0, 1)


class DienEncoder(nn.Module):
    units: int

    @nn.compact
    def __call__(self, items: Array, seen: Array, target: Array) -> Array:
        states = Gru(self.units)(items, seen, jnp.ones_like(items[:, :, 0]))
        score = jnp.einsum("bld,bd->bl", states, nn.Dense(self.units, use_bias=False)(target))
        return Gru(self.units)(states, seen, masked_softmax(score, seen))[:, -1]


class Ranker(nn.Module):
    """A tower on the row, what its history says, and how that meets the target."""

    encoder: nn.Module
    hidden: tuple[int, ...]
    target: int

    @nn.compact
    def __call__(self, x: Inputs) -> Array:
        target = x.emb[:, self.target]
        state = self.encoder(x.history, x.seen, target)
        meeting = [state * target] if state.shape == target.shape else []
        return Tower(self.hidden)(jnp.concatenate([flat(x.emb, x.dense), state, *meeting], axis=-1))


def ranker(name: str, encoder: nn.Module, spec: Spec) -> Model:
    if spec.target < 0:
        raise InputError(f"{name} reads a history and the log has none: set data.history")
    return from_linen(name, Ranker(encoder, spec.hidden, spec.target), spec.dim)


def din(spec: Spec, units: tuple[int, ...] = (32, 16)) -> Model:
    """Deep interest network (Zhou et al. 2018, eq. 3): items weighed by the target, not normalised.

    units: of the ReLU layers that weigh an item. Dice is left out: it needs running statistics.
    """
    return ranker("DIN", DinEncoder(units), spec)


def dien(spec: Spec) -> Model:
    """Deep interest evolution (Zhou et al. 2019, eq. 2-14): a GRU, then one steered by the target.

    The auxiliary loss is left out: it wants negative items for each step.
    """
    return ranker("DIEN", DienEncoder(spec.dim), spec)
