"""The one trainer does what its formulas say: loss, the three optimizers, the order of batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_jax import train
from diet_jax.models import init_params, look_up, make_model, penalty
from diet_jax.optim import Optimizer, make
from diet_jax.train import Examples
from diet_jax.types import InputError

LR = make_model("LR", dim=1, hidden=())


def sgd(g, memory, lr):
    memory["trace"] = 0.9 * memory.get("trace", 0) + g
    return -lr * memory["trace"]


def adagrad(g, memory, lr):
    memory["sum"] = memory.get("sum", 0.1) + g**2
    return -lr * g / np.sqrt(memory["sum"] + 1e-7)


def adam(g, memory, lr):
    memory["k"] = k = memory.get("k", 0) + 1
    memory["m"] = m = 0.9 * memory.get("m", 0) + 0.1 * g
    memory["v"] = v = 0.999 * memory.get("v", 0) + 0.001 * g**2
    return -lr * m / (1 - 0.9**k) / (np.sqrt(v / (1 - 0.999**k) + 1e-4) + 1e-8)


def adamw(g, memory, lr):
    return adam(g, memory, lr) - lr * 0.3 * memory["theta"]


@pytest.mark.parametrize("rule", [sgd, adagrad, adam, adamw])
def test_training_a_logistic_regression_against_its_formulas(x64, rule):
    data = toy.in_double(toy.examples(np.random.default_rng(0), 12))
    order = np.random.default_rng(1).integers(0, 12, (6, 4))
    tx = make(Optimizer(rule.__name__, momentum=0.9, eps_root=1e-4, decay=0.3), 0.1)
    params = init_params(LR, jax.random.key(0), jnp.arange(toy.VOCAB), 3, 1)
    fitted = train.fit(LR, tx, train.start(tx, params), data, jnp.asarray(order), 5).params

    theta = {"table": np.zeros(toy.VOCAB), "bias": np.zeros(()), "dense": np.zeros(1)}
    memories = {name: {} for name in theta}
    for index in order[:5]:  # the last one is beyond n_steps
        ids, dense, target, weight = (np.asarray(a)[index] for a in data[:4])
        z = theta["table"][ids].sum(1) + dense @ theta["dense"] + theta["bias"]
        error = weight * (1 / (1 + np.exp(-z)) - target) / len(index)
        table = np.zeros(toy.VOCAB)
        np.add.at(table, ids, error[:, None])
        grads = {"table": table, "bias": error.sum(), "dense": error @ dense}
        for name, memory in memories.items():
            memory["theta"] = theta[name]
        theta = {name: theta[name] + rule(grads[name], memories[name], 0.1) for name in theta}
    np.testing.assert_allclose(fitted["table"][:, 0], theta["table"], rtol=1e-10)
    np.testing.assert_allclose(fitted["net"]["bias"], theta["bias"], rtol=1e-10)
    np.testing.assert_allclose(fitted["net"]["dense"], theta["dense"], rtol=1e-10)


def table_moves(name, grads):
    """What an optimizer of rate one adds to a table [4, 3] under a list of gradients of it."""
    tx = make(Optimizer(name, eps_root=1e-4), 1.0)
    params = {"table": jnp.zeros((4, 3)), "net": jnp.zeros(2)}
    state, moves = tx.init(params), []
    for table in grads:
        updates, state = tx.update({"table": jnp.asarray(table), "net": jnp.ones(2)}, state, params)
        moves.append(updates["table"])
    return moves


def some_gradients():
    """Three gradients of a table; row 2 is touched by the first and the last, row 3 by none."""
    grads = np.random.default_rng(0).normal(size=(3, 4, 3))
    grads[:, 3] = grads[1, 2] = 0
    return grads


def test_rowwise_adagrad_has_one_accumulator_a_row(x64):
    total = np.full((4, 1), 0.1)
    for g, move in zip(
        some_gradients(), table_moves("rowwise_adagrad", some_gradients()), strict=True
    ):
        total = total + (g**2).mean(1, keepdims=True)
        np.testing.assert_allclose(move, -g / np.sqrt(total + 1e-7), rtol=1e-10)


def test_lazy_adam_leaves_rows_alone_in_steps_that_do_not_touch_them(x64):
    """Row by row: moments of the steps that touched it, corrected by the count of all steps."""
    m, v = np.zeros((4, 3)), np.zeros((4, 3))
    moves = table_moves("lazy_adam", some_gradients())
    for k, (g, move) in enumerate(zip(some_gradients(), moves, strict=True), 1):
        for row in range(4):
            if not g[row].any():
                assert not move[row].any()
                continue
            m[row] = 0.9 * m[row] + 0.1 * g[row]
            v[row] = 0.999 * v[row] + 0.001 * g[row] ** 2
            step = m[row] / (1 - 0.9**k) / (np.sqrt(v[row] / (1 - 0.999**k) + 1e-4) + 1e-8)
            np.testing.assert_allclose(move[row], -step, rtol=1e-10)
    dense = table_moves("adam", some_gradients())
    assert np.any(dense[1][2] != 0)  # by its momentum, where the lazy one rests
    np.testing.assert_allclose(moves[2][:2], dense[2][:2], rtol=1e-10)


def test_loss_is_the_mean_of_weight_times_entropy():
    ids, dense = np.zeros((2, 3), np.int32), np.array([[1.0], [-2.0]], np.float32)
    target, weight = np.array([0.25, 1], np.float32), np.array([3, 0.5], np.float32)
    params = {"table": jnp.zeros((1, 1)), "net": {"bias": jnp.zeros(()), "dense": jnp.ones(1)}}
    p = 1 / (1 + np.exp(-dense[:, 0]))
    entropy = -(target * np.log(p) + (1 - target) * np.log(1 - p))
    got = train.loss(LR, params, Examples(ids, dense, target, weight))
    np.testing.assert_allclose(got, (weight * entropy).sum() / 2, rtol=1e-6)


@settings(max_examples=30)
@given(st.lists(st.booleans(), min_size=8, max_size=8).filter(any), st.integers(0, 99))
def test_order_passes_through_the_valid_rows_only_and_evenly(valid, seed):
    order = np.asarray(train.cyclic_order(jax.random.key(seed), jnp.asarray(valid), 5, 3))
    assert order.shape == (5, 3)
    counts = np.bincount(order.ravel(), minlength=8)
    assert not counts[~np.array(valid)].any()
    assert np.ptp(counts[valid]) <= 1
    n = sum(valid)
    assert np.array_equal(order.ravel()[n:], order.ravel()[:-n])


@pytest.mark.parametrize("name", ["adam", "adamw", "lazy_adam"])
@pytest.mark.parametrize("eps_root", [0.0, -1e-8, float("nan")])
def test_adam_without_eps_root_is_refused(name, eps_root):
    with pytest.raises(InputError, match="eps_root"):
        make(Optimizer(name, eps_root=eps_root), 0.1)


def test_an_unknown_optimizer_is_refused_by_name():
    with pytest.raises(InputError, match="'lion'.*sgd, adam, adamw"):
        make(Optimizer("lion"), 0.1)


def test_the_penalty_is_the_squared_length_of_embeddings_alone():
    table = jnp.array([[5.0, 1.0, 2.0], [7.0, 3.0, 0.0]])
    ids = jnp.array([[0, 1, 1], [1, -1, 0]])
    for name, want in (("FM", (5 + 9 + 9 + 9 + 5) / 2), ("MLP", (30 + 58 + 58 + 58 + 30) / 2)):
        model = make_model(name, dim=2, hidden=())
        assert penalty(model, look_up({"table": table}, ids), ids) == pytest.approx(want)
    assert penalty(LR, look_up({"table": table[:, :1]}, ids), ids) == 0
