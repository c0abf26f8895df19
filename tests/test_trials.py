"""Every trial is a plain training from scratch; seeds, padding and compact tables do not show."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from hypothesis import given
from hypothesis import strategies as st

from diet_jax import metrics, train, trials
from diet_jax.compact import compact
from diet_jax.fed import epochs
from diet_jax.models import init_params, logits, make_model
from diet_jax.optim import Optimizer, make
from diet_jax.teacher import make_teacher
from diet_jax.trial import Recipe, make_trials
from diet_jax.trials import Plan, Task, run_trials

MODEL = make_model("FM", dim=2, hidden=(), init_scale=0.3)
RECIPES = [  # whether seeds share their rows; adamw moves rows that are only looked up, too
    (True, Recipe(Optimizer("lazy_adam"), 4)),
    (False, Recipe(Optimizer("sgd", 0.9), 4)),
    (False, Recipe(Optimizer("adamw", decay=0.5), 4)),
]
SEEDS = (3, 8)
LR, L2 = 0.3, 0.1


@pytest.mark.parametrize(("shared", "recipe"), RECIPES)
def test_trials_side_by_side_are_plain_trainings(shared, recipe):
    rng = np.random.default_rng(0)
    rows = toy.rows(rng, 50)
    part = np.repeat([0, 1, 2, 3], [20, 10, 10, 10])
    test = trials.Test(rows.ids, rows.dense, rows.label, rng.integers(0, 5, 50), part, 3)
    each = [toy.examples(rng, 12) for _ in SEEDS]
    if shared:
        each = each[:1] * 2
    order = np.stack([epochs(rng, 10, 7, 4) for _ in SEEDS])
    data = each[0] if shared else jax.tree.map(lambda *leaves: np.stack(leaves), *each)
    table = compact(data.ids, test.ids, floor=16)
    compiled = {"FM": make_trials(MODEL, recipe, shared)}
    plan = Plan(
        models={"FM": MODEL},
        subset=recipe,
        full=recipe,
        subset_trials=compiled,
        full_trials=compiled,
        seed=5,
        seeds=SEEDS,
        steps=6,
        epochs=1.0,
        rates=lambda method, arch: (LR, L2),
        n_rows=50,
        n_table=toy.VOCAB,
        min_rows=16,
        n_blocks=2,
    )
    task = Task(compiled, table, data, order, steps=6, rows=10)
    figures, cost = run_trials(plan, task, "FM", (LR, L2), test)
    assert cost["seconds"] > 0 and cost["seconds_compile"] > 0
    for seed, data, batches, figure in zip(SEEDS, each, order, figures, strict=True):
        key = jax.random.fold_in(train.key_for(plan.seed, "trial"), seed)
        tx = make(recipe.optimizer, LR)
        params = init_params(MODEL, key, jnp.arange(toy.VOCAB), 3, 1)
        data = jax.tree.map(jnp.asarray, data)
        state, batches = train.start(tx, params), jnp.asarray(batches)
        params = train.fit(MODEL, tx, state, data, batches, 6, L2).params
        z = np.asarray(logits(MODEL, params, test.ids, test.dense))
        want = metrics.score(test.label[:20], z[:20], test.user[:20])
        past = [metrics.auc(test.label[at : at + 10], z[at : at + 10]) for at in (20, 30, 40)]
        want |= {"auc_current": past[-1], "auc_past": np.mean(past[:2])}
        assert figure == pytest.approx(want, abs=1e-6)
    assert figures[0] != figures[1]


def test_with_several_labels_an_auc_is_within_each():
    """Rows of two tasks, each in perfect order, one of them far above the other; on a stage that
    was seen, one in wrong order and one of a single class."""
    ids = np.array([[3, 4, -1], [3, 4, -1], [3, -1, 5], [3, -1, 5]] * 2)
    label = np.array([0, 1, 0, 1, 1, 0, 1, 1], np.float32)
    logit, user = np.array([7.0, 8.0, 1.0, 2.0, 7.0, 8.0, 1.0, 2.0]), np.zeros(8, int)
    test = trials.Test(ids, np.zeros((8, 0)), label, user, np.repeat([0, 1], 4), 1)
    found = trials.scores(test, logit, {"click": 1, "buy": 2})
    assert found["auc"] == found["gauc"] == found["auc:click"] == found["auc:buy"] == 1
    assert found["auc_current"] == 0 and "auc_past" not in found
    assert found["logloss"] == pytest.approx(metrics.log_loss(label[:4], logit[:4]))
    one = trials.scores(test, logit, {})
    assert one["auc"] == 0.75 and "auc:click" not in one
    again = test._replace(part=np.array([0, 0, 1, 1, 2, 2, 3, 3]), stage=3)
    assert trials.scores(again, logit, {})["auc_past"] == 0.5  # the second is of one class
    held = trials.scores(test._replace(stage=2), logit, {})  # no rows of the latest
    assert held["auc_past"] == one["auc_current"] and "auc_current" not in held
    nobody = trials.scores(test._replace(ids=ids[:, [0, 1, 1]]), logit, {"click": 1, "rare": 0})
    assert nobody["auc"] < 1


@given(st.integers(1, 9), st.integers(1, 8), st.integers(1, 5))
def test_epochs_are_whole_random_passes(n, steps, batch):
    order = epochs(np.random.default_rng(0), n, steps, batch)
    assert order.shape == (steps, batch) and order.dtype == np.int32
    flat = order.ravel()
    for start in range(0, len(flat), n):
        one = flat[start : start + n]
        assert len(set(one)) == len(one) and 0 <= one.min() and one.max() < n


def test_the_teacher_learns_and_its_logits_are_of_the_rows_it_was_given():
    stage = toy.stage(1).rows
    model = make_model("LR", 1, ())
    teacher = make_teacher(model, 0.05, 8, toy.VOCAB, n_fields=3, n_dense=1, n_stage=100)
    start = teacher.init(jax.random.key(0))
    params = teacher.advance(start, stage, 8.0, np.random.default_rng(0))
    z = teacher.predict(params, stage.ids, stage.dense)
    assert z.shape == stage.label.shape
    want = logits(model, params, stage.ids, jnp.asarray(stage.dense))
    np.testing.assert_allclose(z, want, rtol=1e-5, atol=1e-6)
    assert metrics.log_loss(stage.label, z) < 0.6
    again = teacher.advance(start, stage, 8.0, np.random.default_rng(0))
    jax.tree.map(np.testing.assert_array_equal, again, params)
