"""Two towers that meet in a product: TwoTower, FinalMLP."""

import jax.numpy as jnp
from flax import linen as nn

from diet_jax.models.adapters import from_linen
from diet_jax.models.base import Inputs, Model, Spec
from diet_jax.models.layers import Mlp, flat
from diet_jax.types import Array, InputError


class TwoTowerNet(nn.Module):
    hidden: tuple[int, ...]
    item: tuple[int, ...]
    out: int

    @nn.compact
    def __call__(self, x: Inputs) -> Array:
        n_fields = x.emb.shape[1]
        user = [f for f in range(n_fields) if f not in self.item]
        if not user or not self.item or max(self.item) >= n_fields:
            raise InputError(
                f"TwoTower: item is {self.item} of {n_fields} fields; name at least one field "
                "of them, and leave one to the user"
            )
        item = x.emb[:, list(self.item)]
        sides = flat(x.emb[:, user], x.dense), item.reshape(len(item), -1)
        a, b = (nn.Dense(self.out)(Mlp(self.hidden)(side)) for side in sides)
        bias = self.param("bias", nn.initializers.zeros, ())
        return jnp.sum(a * b, axis=-1) + bias


def two_tower(spec: Spec, item: tuple[int, ...] = (), out: int = 16) -> Model:
    """Two towers and a dot product (Huang et al. 2013; Yi et al. 2019), vectors not normalised.

    item: the fields of the item's tower; () for the one whose values the history holds, or the
    second field of a log without a history. All others and the dense features are the user's.
    out: columns of the vectors that meet.
    """
    item = item or (spec.target if spec.target >= 0 else 1,)
    return from_linen("TwoTower", TwoTowerNet(spec.hidden, item, out), spec.dim)


class TwoStreams(nn.Module):
    hidden: tuple[int, ...]
    contexts: tuple[tuple[int, ...], ...]
    heads: int

    @nn.compact
    def __call__(self, x: Inputs) -> Array:
        values, streams = flat(x.emb, x.dense), []
        for k, fields in enumerate(self.contexts):
            if fields:
                context = x.emb[:, list(fields)].reshape(len(values), -1)
            else:
                start = nn.initializers.normal(0.01)
                context = self.param(f"context_{k}", start, (1, x.emb.shape[-1]))
            gate = nn.sigmoid(nn.Dense(values.shape[-1])(Mlp(self.hidden[:1])(context)))
            gate = jnp.broadcast_to(2 * gate, values.shape)
            streams.append(Mlp(self.hidden)(gate * values))
        n = streams[0].shape[-1]
        if n % self.heads:
            raise InputError(f"FinalMLP: heads is {self.heads}; set it to a divisor of {n}")
        a, b = (s.reshape(len(s), self.heads, -1) for s in streams)
        start = nn.initializers.lecun_normal(in_axis=(0, 1, 2), out_axis=())
        w = self.param("fusion", start, (self.heads, *a.shape[2:], *b.shape[2:]))
        answers = [nn.Dense(1, use_bias=not k)(s)[:, 0] for k, s in enumerate(streams)]
        return answers[0] + answers[1] + jnp.einsum("bhi,hij,bhj->b", a, w, b)


def final_mlp(
    spec: Spec, first: tuple[int, ...] = (), second: tuple[int, ...] = (), heads: int = 1
) -> Model:
    """FinalMLP (Mao et al. 2023, eq. 2-8): two towers on gated features, fused bilinearly.

    first, second: the fields that gate a stream (say, of the user and of the item); none: a learned
    vector. heads: chunks that are fused each by itself. Without batch norm and dropout.
    """
    return from_linen("FinalMLP", TwoStreams(spec.hidden, (first, second), heads), spec.dim)
