"""A model starts a row alike in any table, and sees of its columns what the schema says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from zoo_formulas import FORMULAS, Row

from diet_jax.models import MODELS, init_params, logits, make_model
from diet_jax.models.base import look_up, read

B, F, G, V = 5, 3, 2, 20


@pytest.mark.parametrize("name", ["LR", "DeepFM", "DCNv2"])
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


@pytest.mark.parametrize("name, scale", [("MLP", 0.2), ("MLP:init_scale=0.2", 0.01)])
def test_embeddings_start_at_the_scale_that_is_asked_for(name, scale):
    model = make_model(name, dim=8, hidden=(4,), init_scale=scale)
    table = init_params(model, jax.random.key(0), jnp.arange(500), F, G)["table"]
    assert abs(np.std(table) - 0.2) < 0.01 and abs(np.mean(table)) < 0.02


def test_a_log_without_dense_features_has_logits():
    for name in MODELS:
        model = make_model(name, 2, (4,), pool=(0, 1, 2, 2), vocab=(0, 1, 1, 1))

        def answer(model=model):
            params = init_params(model, jax.random.key(0), jnp.arange(V), 0, 0)
            return logits(model, params, jnp.zeros((B, 4), int), jnp.zeros((B, 0)))

        assert jax.eval_shape(answer).shape == (B,)


def test_a_history_is_read_in_the_order_of_its_columns():
    model = make_model("MLP", 2, (4,), pool=(0, 1, 2, 2, 2), vocab=(0, 1, 1, 1, 1))
    table = jnp.arange(2.0 * V).reshape(V, 2)
    ids = jnp.array([[3, 5, -1, 6, 8], [4, 6, -1, -1, -1]])
    x = read(model, look_up({"table": table}, ids), ids, jnp.ones((2, G)))
    assert np.array_equal(x.seen, [[False, True, True], [False] * 3])
    assert np.array_equal(x.history, [[[0, 0], [12, 13], [16, 17]], [[0, 0]] * 3])
    assert np.array_equal(x.emb, [[[6, 7], [10, 11], [14, 15]], [[8, 9], [12, 13], [0, 0]]])


def test_a_log_without_a_history_has_one_of_no_length():
    model = make_model("MLP", 2, (4,), pool=(0, 1, 1), vocab=(0, 1, 1))
    x = read(model, jnp.ones((B, 3, 2)), jnp.zeros((B, 3), int), jnp.ones((B, G)))
    assert x.history.shape == (B, 0, 2) and x.seen.shape == (B, 0)


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
    want = [FORMULAS["DCNv2"](net, Row(e, d, [], 0, -1)) for e, d in zip(emb, dense, strict=True)]
    np.testing.assert_allclose(z, want, rtol=1e-5, atol=1e-5)
    # What is not there has no gradient: not even the last row, which -1 would index.
    grads = jax.grad(lambda p: logits(model, p, jnp.asarray(ids), jnp.asarray(dense)).sum())(params)
    assert set(np.flatnonzero(np.any(grads["table"] != 0, axis=1))) == {3, 5, 6, 7, 8}
