"""Every architecture computes the formula of its paper, and can be trained through."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from zoo_formulas import FORMULAS, Row

from diet_jax.models import MODELS, init_params, logits, make_model, parse
from diet_jax.types import InputError

# user, item, place, which of two labels, and a history of four items: F = 5, K = 9.
POOL, VOCAB, TASKS = (0, 1, 2, 3, 3, 4, 4, 4, 4), (0, 1, 2, 3, 3, 1, 1, 1, 1), (3, 4)
V, G, DIM, HIDDEN = 22, 2, 4, (5, 3)
SEED = 0  # leaves no unit dead for every row, of any architecture
IDS = np.array(
    [
        [5, 10, 16, 19, -1, -1, -1, 8, 9],
        [6, 9, 17, -1, 20, 11, 8, 8, 10],
        [7, 8, 18, -1, 3, -1, -1, -1, -1],
        [5, 9, 16, 19, -1, -1, -1, -1, 8],
    ],
    np.int32,
)


def model_of(name):
    return make_model(name, DIM, HIDDEN, 0.3, POOL, VOCAB, TASKS)


class Computed(NamedTuple):
    """Of two seeds side by side [2, ..]: random parameters in every place (no zero hides a missing
    term), in the second but for a table of zeros, where norms and roots have no derivative.

    z: their logits. grads: of the summed loss. curved: the derivative of those along the
    parameters.
    """

    params: dict
    dense: np.ndarray
    z: jax.Array
    grads: dict
    curved: dict


@pytest.fixture(scope="module")
def computed():
    """What an architecture computes, all of it from one compilation."""

    @cache
    def compute(name):
        rng, model = np.random.default_rng(SEED), model_of(name)
        dense = rng.normal(size=(len(IDS), G)).astype(np.float32)
        shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0), jnp.arange(V), 0, G))
        params = jax.tree.map(lambda a: rng.uniform(-1, 1.5, (2, *a.shape)).astype(a.dtype), shapes)
        params["table"][1] = 0

        def of_one(params):
            def loss(params):
                z = logits(model, params, IDS, jnp.asarray(dense))
                return jnp.logaddexp(0, z).sum(), z

            grads, curved, z = jax.jvp(jax.grad(loss, has_aux=True), (params,), (params,), True)
            return z, grads, curved

        return Computed(params, dense, *jax.jit(jax.vmap(of_one))(params))

    return compute


def test_the_formulas_cover_the_zoo():
    assert [parse(name)[0] for name in FORMULAS] == list(MODELS)


@pytest.mark.parametrize("name", FORMULAS)
def test_logits_against_the_formula(computed, name):
    found = computed(name)
    assert found.z.shape == (2, len(IDS)) and found.z.dtype == np.float32
    for seed in range(2):
        wide = jax.tree.map(lambda a, seed=seed: a[seed].astype(np.float64), found.params)
        want = []
        for ids, dense in zip(IDS, found.dense.astype(np.float64), strict=True):
            task, past = int(ids[4] >= 0), [wide["table"][i] for i in ids[5:] if i >= 0]
            pooled = sum(past) / len(past) if past else np.zeros(wide["table"].shape[1])
            emb = np.stack([*wide["table"][ids[[0, 1, 2, 3 + task]]], pooled])
            row = Row(emb, dense, past, 4, target=1, task=task, task_field=3)
            want.append(FORMULAS[name](wide["net"], row))
        np.testing.assert_allclose(found.z[seed], want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FORMULAS)
def test_derivatives_are_finite_and_reach_every_parameter(computed, name):
    found = computed(name)
    for path, leaf in jax.tree_util.tree_leaves_with_path(found.grads):
        assert np.isfinite(leaf).all() and np.any(leaf[0] != 0), path
    for path, leaf in jax.tree_util.tree_leaves_with_path(found.curved):
        assert np.isfinite(leaf).all(), path
    # What is not there has no gradient: not even the last row, which -1 would index.
    touched = np.any(np.asarray(found.grads["table"]) != 0, axis=(0, 2))
    assert set(np.flatnonzero(touched)) <= set(IDS[IDS >= 0])


def test_training_can_be_differentiated(computed):
    """As the meta-gradient does it, by the weights of the rows; against central differences. Of the
    model that has most of what is delicate: norms, masks, attention, rows without a history."""
    name, label = "SASRec:heads=2,n_blocks=1", jnp.array([1.0, 0.0, 1.0, 0.0])
    model, start = model_of(name), jax.tree.map(lambda a: 0.3 * a[0], computed(name).params)

    def after_a_step(weight):
        def loss(params, weight):
            z = logits(model, params, IDS, jnp.zeros((len(IDS), G)))
            return jnp.mean(weight * optax.sigmoid_binary_cross_entropy(z, label))

        params = jax.tree.map(lambda p, g: p - 0.6 * g, start, jax.grad(loss)(start, weight))
        return loss(params, jnp.ones(4))

    h = 0.01
    weights = jnp.concatenate([jnp.ones((1, 4)), 1 + h * jnp.eye(4), 1 - h * jnp.eye(4)])
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(after_a_step)))(weights)
    np.testing.assert_allclose(slope[0], (value[1:5] - value[5:]) / (2 * h), rtol=0.01, atol=3e-5)
    assert np.abs(slope).max() > 1e-3


@pytest.mark.parametrize("name", FORMULAS)
def test_every_layer_computes_in_bfloat16(name):
    """Nothing in a model is of float32 by its own choice, which would promote all that follows."""
    model, found = model_of(name), []
    watched = model._replace(
        compute="bfloat16", apply=lambda *args: found.append(model.apply(*args)) or found[0]
    )

    def answer():
        params = init_params(model, jax.random.key(0), jnp.arange(V), 0, G)
        return logits(watched, params, jnp.asarray(IDS), jnp.zeros((len(IDS), G)))

    assert jax.eval_shape(answer).dtype == np.float32
    assert found[0].dtype == jnp.bfloat16


@pytest.mark.parametrize("name", ["MMoE:tower=(3,)", "PLE:tower=(3,),n_own=2"])
def test_a_row_teaches_its_own_task_alone(computed, name):
    """Nothing of the other's tower and last gate; of what is shared, all."""
    model, found = model_of(name), computed(name)
    params = jax.tree.map(lambda a: a[0], found.params)

    def of_row(k):
        return lambda p: logits(model, p, IDS[k : k + 1], jnp.asarray(found.dense[k : k + 1]))[0]

    gate = "VmapGate_0" if name.startswith("MMoE") else "VmapGate_1"
    for k, mine in ((0, 0), (1, 1)):
        net = jax.grad(of_row(k))(params)["net"]["params"]
        for kind in ("VmapTower_0", gate):
            for leaf in jax.tree.leaves(net[kind]):
                assert np.any(leaf[mine] != 0) and not np.any(leaf[1 - mine])
        for leaf in jax.tree.leaves({kind: net[kind] for kind in net if kind[:7] == "Experts"}):
            assert np.any(leaf != 0)


@pytest.mark.parametrize("name", ["MMoE:tower=(3,)", "PLE:tower=(3,),n_own=2"])
def test_one_label_is_one_task(name):
    model, rng = make_model(name, DIM, HIDDEN, pool=(0, 1), vocab=(0, 1)), np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0), jnp.arange(V), 2, 0))
    params = jax.tree.map(lambda a: rng.uniform(-1, 1.5, a.shape).astype(a.dtype), shapes)
    ids, wide = np.array([[2, 3], [4, 5]]), jax.tree.map(lambda a: a.astype(float), params)
    rows = [Row(wide["table"][i], np.zeros(0), [], 0, -1) for i in ids]
    want = [FORMULAS[name](wide["net"], row) for row in rows]
    np.testing.assert_allclose(logits(model, params, ids, jnp.zeros((2, 0))), want, rtol=1e-5)


@pytest.mark.parametrize("name", ["DIN", "DIEN", "SASRec", "HSTU"])
def test_a_model_of_histories_says_that_it_wants_one(name):
    with pytest.raises(InputError, match=f"{name} reads a history.*data.history"):
        make_model(name, 4, (4,), pool=(0, 1, 2))


@pytest.mark.parametrize(
    "name, message",
    [
        ("BERT", "'BERT': choose from LR, FM, FFM"),
        ("DCNv2:heads=2", "DCNv2 has no 'heads'.*dim, hidden, init_scale, n_cross"),
        ("MLP:hidden=64", r"hidden is 64; write it like \(5, 3\)"),
        ("DCNv2:n_cross=2.5", "n_cross is 2.5; write it like 2"),
        ("DCNv2:n_cross", "'n_cross' of .*KEY=VALUE"),
        ("DCNv2:n_cross=print(1)", "KEY=VALUE"),
        ("DCNv2:**{}", "KEY=VALUE"),
        ("SASRec:heads=3", "heads is 3; set it to a divisor of 4"),
        ("FFM", "FFM.*pool"),
        ("MMoE:n_experts=0", "n_experts is 0; set it to 1 or more"),
        ("PLE:n_own=0", "n_own is 0; set it to 1 or more"),
    ],
)
def test_what_cannot_be_made_is_refused(name, message):
    pool, vocab = ((), ()) if name == "FFM" else (POOL, VOCAB)
    with pytest.raises(InputError, match=message):
        make_model(name, DIM, HIDDEN, pool=pool, vocab=vocab)


@pytest.mark.parametrize(
    "name, message",
    [
        ("TwoTower:item=(0,1,2,3,4)", "item is .* of 5 fields"),
        ("TwoTower:item=(9,)", "item is .* of 5 fields"),
        ("FinalMLP:heads=2", "heads is 2; set it to a divisor of 3"),
    ],
)
def test_what_does_not_fit_the_log_is_refused_at_the_start(name, message):
    with pytest.raises(InputError, match=message):
        jax.eval_shape(lambda: init_params(model_of(name), jax.random.key(0), jnp.arange(V), 0, G))


def test_settings_in_a_name_are_obeyed():
    model = make_model("MLP:dim=3,hidden=(7,)", DIM, HIDDEN)
    assert model.name == "MLP:dim=3,hidden=(7,)" and model.width == 3
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0), jnp.arange(V), 2, 0))
    kernels = {k: v["kernel"].shape for k, v in shapes["net"]["params"].items()}
    assert kernels == {"Dense_0": (6, 7), "Dense_1": (7, 1)}
