"""Linear and factorization models: LR, FM, FFM, FwFM, FmFM.

All have the first-order term; they differ in how the vectors of a pair of fields meet.
"""

import jax.numpy as jnp
from flax import linen as nn

from diet_jax.models.adapters import from_linen
from diet_jax.models.base import Inputs, Model, Spec
from diet_jax.models.layers import (
    FirstOrder,
    field_pairs,
    first_order,
    init_first_order,
    pairwise,
)
from diet_jax.types import Array, InputError


def lr(spec: Spec) -> Model:
    """Logistic regression (Richardson et al. 2007); `dim` and `hidden` do not apply."""
    return Model(
        name="LR",
        init=lambda key, x: init_first_order(x.dense),
        apply=lambda net, x: first_order(net, x.emb[:, :, 0], x.dense),
        width=1,
        linear=True,
    )


def fm(spec: Spec) -> Model:
    """Factorization machine (Rendle 2010); `hidden` does not apply."""

    def apply(net, x):
        return first_order(net, x.emb[:, :, 0], x.dense) + pairwise(x.emb[:, :, 1:])

    return Model("FM", lambda key, x: init_first_order(x.dense), apply, 1 + spec.dim, True)


def ffm(spec: Spec) -> Model:
    """Field-aware FM (Juan et al. 2016, eq. 4): a value has a vector for each field that it meets.

    A table row holds these F vectors of `dim` columns (the one for its own field is never read), so
    it needs to know F; `hidden` does not apply. Raises InputError without it.
    """
    if not spec.n_fields:
        raise InputError("FFM has a vector for each other field: tell make_model the log's `pool`")

    def apply(net, x):
        v = x.emb[:, :, 1:].reshape(-1, spec.n_fields, spec.n_fields, spec.dim)
        i, j = field_pairs(spec.n_fields)
        pairs = (v[:, i, j] * v[:, j, i]).sum((1, 2))
        return first_order(net, x.emb[:, :, 0], x.dense) + pairs

    width = 1 + spec.n_fields * spec.dim
    return Model("FFM", lambda key, x: init_first_order(x.dense), apply, width, True)


class FwFm(nn.Module):
    """First order plus r_ij <v_i, v_j> over field pairs."""

    @nn.compact
    def __call__(self, x: Inputs) -> Array:
        v = x.emb[:, :, 1:]
        i, j = field_pairs(v.shape[1])
        r = self.param("pairs", nn.initializers.ones, (len(i),))
        return FirstOrder()(x.emb[:, :, 0], x.dense) + (v[:, i] * v[:, j]).sum(-1) @ r


class FmFm(nn.Module):
    """First order plus v_i^T M_ij v_j over field pairs."""

    @nn.compact
    def __call__(self, x: Inputs) -> Array:
        v = x.emb[:, :, 1:]
        i, j = field_pairs(v.shape[1])
        m = self.param("pairs", _identities, (len(i), v.shape[-1]))
        pairs = jnp.einsum("bpd,pde,bpe->b", v[:, i], m, v[:, j])
        return FirstOrder()(x.emb[:, :, 0], x.dense) + pairs


def _identities(key: Array, shape: tuple[int, int]) -> Array:
    return jnp.tile(jnp.eye(shape[1])[None], (shape[0], 1, 1))


def fw_fm(spec: Spec) -> Model:
    """Field-weighted FM (Pan et al. 2018, eq. 4), from weights of one: it starts as an FM."""
    return from_linen("FwFM", FwFm(), 1 + spec.dim, linear=True)


def fm_fm(spec: Spec) -> Model:
    """Field-matrixed FM (Sun et al. 2021, eq. 3), from identity matrices: it starts as an FM."""
    return from_linen("FmFM", FmFm(), 1 + spec.dim, linear=True)
