"""Every architecture computes the formula of its paper, and starts a row alike in any table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diet_jax.models import MODELS, init_params, logits, make_model
from diet_jax.types import InputError

B, F, G, V = 5, 3, 2, 20


def relu_tower(net, x, names):
    for name in names[:-1]:
        x = np.maximum(x @ net[name]["kernel"] + net[name]["bias"], 0)
    return (x @ net[names[-1]]["kernel"] + net[names[-1]]["bias"])[:, 0]


def first_order(net, emb, dense):
    return emb[:, :, 0].sum(1) + dense @ net["dense"] + net["bias"]


def pairs(v):
    total = np.zeros(len(v))
    for i in range(F):
        for j in range(i + 1, F):
            total += (v[:, i] * v[:, j]).sum(1)
    return total


def lr(net, emb, dense):
    return first_order(net, emb, dense)


def fm(net, emb, dense):
    return first_order(net, emb, dense) + pairs(emb[:, :, 1:])


def mlp(net, emb, dense):
    x = np.concatenate([emb.reshape(B, -1), dense], 1)
    return relu_tower(net["params"], x, ["Dense_0", "Dense_1", "Dense_2"])


def deep_fm(net, emb, dense):
    v = emb[:, :, 1:]
    x = np.concatenate([v.reshape(B, -1), dense], 1)
    tower = relu_tower(net["tower"]["params"], x, ["Dense_0", "Dense_1", "Dense_2"])
    return fm(net, emb, dense) + tower


def dcn_v2(net, emb, dense):
    """x_{l+1} = x_0 * (W_l x_l + b_l) + x_l, for each row by itself, beside a ReLU tower."""
    net = net["params"]
    z = []
    for e, d in zip(emb, dense, strict=True):
        x0 = x = deep = np.concatenate([e.ravel(), d])
        for cross in ("Dense_0", "Dense_1"):
            x = x0 * (net[cross]["kernel"].T @ x + net[cross]["bias"]) + x
        for layer in ("Dense_2", "Dense_3"):
            deep = np.maximum(net[layer]["kernel"].T @ deep + net[layer]["bias"], 0)
        z.append(np.append(x, deep) @ net["Dense_4"]["kernel"][:, 0] + net["Dense_4"]["bias"][0])
    return np.array(z)


FORMULAS = {"LR": lr, "FM": fm, "MLP": mlp, "DeepFM": deep_fm, "DCNv2": dcn_v2}


def case(name):
    """A model, random parameters in every place (no zero hides a missing term), and a batch."""
    rng = np.random.default_rng(0)
    model = make_model(name, dim=2, hidden=(4, 3))
    start = init_params(model, jax.random.key(0), jnp.arange(V), F, G)
    params = jax.tree.map(lambda a: rng.normal(size=a.shape).astype(np.float32), start)
    ids = rng.integers(0, V, (B, F), dtype=np.int32)
    return model, jax.tree.map(jnp.asarray, params), ids, rng.normal(size=(B, G)).astype(np.float32)


def test_the_formulas_cover_the_zoo():
    assert FORMULAS.keys() == MODELS.keys()


@pytest.mark.parametrize("name", FORMULAS)
def test_logits_against_the_formula(name):
    model, params, ids, dense = case(name)
    wide = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    z = logits(model, params, ids, jnp.asarray(dense))
    assert z.shape == (B,) and z.dtype == np.float32
    assert model.name == name
    want = FORMULAS[name](wide["net"], wide["table"][ids], dense.astype(np.float64))
    np.testing.assert_allclose(z, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FORMULAS)
def test_gradients_are_finite_and_reach_every_parameter(name):
    model, params, ids, dense = case(name)
    grads = jax.grad(lambda p: logits(model, p, ids, jnp.asarray(dense)).sum())(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(leaf).all() and np.any(leaf != 0), path


@pytest.mark.parametrize("name", FORMULAS)
def test_a_row_starts_alike_in_every_table(name):
    model = make_model(name, dim=2, hidden=(4,), init_scale=0.5)
    key = jax.random.key(1)
    whole = init_params(model, key, jnp.arange(V), F, G)
    rows = jnp.array([3, 7, 7, 19])
    some = init_params(model, key, rows, F, G)
    assert np.array_equal(some["table"], whole["table"][rows])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), some["net"], whole["net"])
    drawn = whole["table"][:, 1:] if model.linear else whole["table"]
    assert len(np.unique(drawn)) == drawn.size  # no two entries share their randomness
    assert not model.linear or not whole["table"][:, 0].any()


def test_embeddings_start_at_the_scale_that_is_asked_for():
    model = make_model("MLP", dim=8, hidden=(4,), init_scale=0.2)
    table = init_params(model, jax.random.key(0), jnp.arange(500), F, G)["table"]
    assert abs(np.std(table) - 0.2) < 0.01 and abs(np.mean(table)) < 0.02


def test_a_log_without_dense_features_has_logits():
    for name in MODELS:
        model = make_model(name, dim=2, hidden=(4,))
        params = init_params(model, jax.random.key(0), jnp.arange(V), F, 0)
        z = logits(model, params, jnp.zeros((B, F), int), jnp.zeros((B, 0)))
        assert z.shape == (B,) and np.isfinite(z).all()


def test_a_field_of_several_values_is_their_mean():
    pool = (0, 1, 1, 1, 2)
    model = make_model("DCNv2", dim=2, hidden=(4, 3), pool=pool)
    rng = np.random.default_rng(0)
    params = init_params(model, jax.random.key(0), jnp.arange(V), len(pool), G)
    params["table"] = jnp.asarray(rng.normal(size=(V, 2)), jnp.float32)
    ids = np.array([[3, 5, 6, -1, 8], [3, -1, -1, -1, 8], [3, 5, 5, 7, -1]], np.int32)
    dense = rng.normal(size=(3, G)).astype(np.float32)
    table = np.asarray(params["table"], np.float64)
    none = np.zeros(2)
    emb = np.array(
        [
            [table[3], (table[5] + table[6]) / 2, table[8]],
            [table[3], none, table[8]],
            [table[3], (2 * table[5] + table[7]) / 3, none],
        ]
    )
    net = jax.tree.map(lambda a: np.asarray(a, np.float64), params["net"])
    z = logits(model, params, jnp.asarray(ids), jnp.asarray(dense))
    np.testing.assert_allclose(z, dcn_v2(net, emb, dense.astype(np.float64)), rtol=1e-5, atol=1e-5)
    # What is not there has no gradient: not even the last row, which -1 would index.
    grads = jax.grad(lambda p: logits(model, p, jnp.asarray(ids), jnp.asarray(dense)).sum())(params)
    assert set(np.flatnonzero(np.any(grads["table"] != 0, axis=1))) == {3, 5, 6, 7, 8}


def test_an_unknown_architecture_is_refused_with_the_names_there_are():
    with pytest.raises(InputError, match="'BERT'.*LR, FM, MLP, DeepFM, DCNv2"):
        make_model("BERT", 2, (4,))
