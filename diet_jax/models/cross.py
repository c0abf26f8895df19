"""Cross networks: DCNv2."""

import jax.numpy as jnp
from flax import linen as nn

from diet_jax.models.base import Model
from diet_jax.models.deep import flat
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


def dcn_v2(dim: int, hidden: tuple[int, ...], n_cross: int = 2) -> Model:
    """DCN-V2, parallel structure, full-rank crosses (Wang et al. 2021, eq. 1 and fig. 1b)."""
    net = CrossNet(hidden, n_cross)
    return Model(
        name="DCNv2",
        init=lambda key, emb, dense: net.init(key, flat(emb, dense)),
        apply=lambda params, emb, dense: net.apply(params, flat(emb, dense)),
        width=dim,
        linear=False,
    )
