"""A Flax module of one's own is an architecture like any other."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from diet_jax.models import MODELS, Inputs, from_linen, from_nnx, init_params, logits, make_model
from diet_jax.models.layers import flat
from diet_jax.types import InputError

B, F, G, D, V = 5, 3, 2, 4, 20


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x: Inputs):
        inner = nn.silu(nn.Dense(6)(flat(x.emb, x.dense)))
        return nn.Dense(1)(inner)[:, 0]


class OfNnx(nnx.Module):
    def __init__(self, rngs, x):
        size = x.emb.shape[-2] * x.emb.shape[-1] + x.dense.shape[-1]
        self.inner = nnx.Linear(size, 6, rngs=rngs)
        self.last = nnx.Linear(6, 1, rngs=rngs)

    def __call__(self, x: Inputs):
        return self.last(nnx.silu(self.inner(flat(x.emb, x.dense))))[:, 0]


def layers(net):
    """The two layers' (kernel, bias)."""
    found = net.get("params", net)
    return [tuple(np.asarray(leaf[k]) for k in ("kernel", "bias")) for leaf in found.values()]


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_a_module_is_trained_as_written(kind):
    model = from_linen("mine", Linen(), D) if kind == "linen" else from_nnx("mine", OfNnx, D)
    rng = np.random.default_rng(0)
    ids, dense = rng.integers(0, V, (B, F)), rng.normal(size=(B, G)).astype(np.float32)

    @jax.jit
    def start(key):
        return init_params(model, key, jnp.arange(V), F, G)

    params = start(jax.random.key(0))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))

    @jax.jit
    @jax.vmap
    def slope(params):
        def loss(params):
            z = logits(model, params, ids, jnp.asarray(dense))
            return jnp.square(z).sum(), z

        return jax.grad(loss, has_aux=True)(params)

    seeds = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), params)
    grads, z = slope(seeds)
    for seed in range(2):
        net = jax.tree.map(lambda a, seed=seed: np.asarray(a[seed]), seeds["net"])
        (w, b), (v, c) = layers(net)
        x = np.concatenate([np.asarray(seeds["table"])[seed][ids].reshape(B, -1), dense], 1) @ w + b
        want = (x / (1 + np.exp(-x)) @ v + c)[:, 0]
        np.testing.assert_allclose(z[seed], want, rtol=1e-5, atol=1e-6)
    for leaf in jax.tree.leaves(grads):
        assert np.isfinite(leaf).all() and np.any(leaf != 0)
    other = start(jax.random.key(1))
    assert not np.array_equal(layers(other["net"])[0][0], layers(params["net"])[0][0])


def test_a_module_may_take_only_what_it_wants():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, v):
            return nn.Dense(1)(v.mean(1))[:, 0]

    model = from_linen("mine", Plain(), D, args=lambda x: (x.emb,))
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0), jnp.arange(V), F, G))
    assert shapes["net"]["params"]["Dense_0"]["kernel"].shape == (D, 1)


class Stateful(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=False)(x.emb).sum((1, 2))


class Wide(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(x.dense)


class StatefulNnx(nnx.Module):
    def __init__(self, rngs, x):
        self.norm = nnx.BatchNorm(x.emb.shape[-1], rngs=rngs)

    def __call__(self, x):
        return self.norm(x.emb).sum((1, 2))


@pytest.mark.parametrize(
    "model, message",
    [
        (from_linen("mine", Stateful(), D), "'mine' keeps state.*batch_stats"),
        (from_nnx("mine", StatefulNnx, D), "'mine' keeps state.*BatchStat"),
        (from_linen("mine", Wide(), D), r"'mine' answers with shape \[1, 1\] for 1 rows"),
    ],
    ids=["linen state", "nnx state", "shape"],
)
def test_what_is_no_pure_logit_is_refused(model, message):
    with pytest.raises(InputError, match=message):
        jax.eval_shape(lambda: init_params(model, jax.random.key(0), jnp.arange(V), F, G))


def test_the_page_on_models_shows_one_that_works():
    page = (Path(__file__).parents[1] / "docs" / "models.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 15
    try:
        exec(code, {"__name__": "mine"})
        model = make_model("Gated", D, ())
    finally:
        MODELS.pop("Gated", None)

    def answer():
        params = init_params(model, jax.random.key(0), jnp.arange(V), F, G)
        return logits(model, params, jnp.zeros((B, F), int), jnp.ones((B, G)))

    assert jax.eval_shape(answer).shape == (B,)


def test_the_page_on_models_names_the_zoo():
    page = (Path(__file__).parents[1] / "docs" / "models.md").read_text()
    table = page.split("| file |")[1].split("What papers have")[0]
    named = re.findall(
        r"`(\w+)`", "".join(line.split("|")[2] for line in table.splitlines()[2:] if line)
    )
    assert sorted(named) == sorted(MODELS)
