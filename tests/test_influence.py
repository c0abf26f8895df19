"""What is called exact influence is what retraining with another weight would show."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from diet_jax import touched, train
from diet_jax.influence import influence
from diet_jax.metagrad import outer_loss, warm_up
from diet_jax.models import logits, look_up, penalty
from diet_jax.optim import Optimizer

H = 1e-5
CANDIDATES = 6


@pytest.fixture(scope="module", params=["adam", "sgd"])
def case(request):
    """The inner loop, its slots, run and outer rows, candidates, and the influence of both."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(1)
        inner = toy.inner_in_double(optimizer=Optimizer(request.param, momentum=0.9))
        slots, outer, candidates = toy.in_double(
            (toy.slots(rng), toy.examples(rng, 20), toy.examples(rng, CANDIDATES))
        )
        run = toy.trajectory()
        scores = jax.jit(lambda *args: influence(inner, slots, run, outer, *args, block=CANDIDATES))
        return inner, slots, run, outer, candidates, scores(candidates)


def test_influence_of_a_slot_is_what_its_weight_does(x64, case):
    inner, slots, run, outer, _, (of_slots, _) = case
    weight = np.exp(slots.log_weight)
    loss = jax.jit(
        jax.vmap(lambda w: outer_loss(inner, slots._replace(log_weight=jnp.log(w)), run, outer))
    )
    moves = H * np.eye(toy.SLOTS)
    slope = (loss(weight + moves) - loss(weight - moves)) / (2 * H)
    assert of_slots.dtype == np.float64
    np.testing.assert_allclose(of_slots[: toy.VALID], -slope[: toy.VALID], rtol=1e-4)
    assert not of_slots[toy.VALID :].any()


def test_influence_of_a_candidate_is_what_adding_it_does(x64, case):
    """Retrained with the candidate's loss, at weight e / n, added to the loss of every step."""
    inner, slots, run, outer, candidates, (_, of_rows) = case
    start, order, _ = warm_up(inner, slots, run)
    tx = inner.tx()

    def objective(params, batch, candidate, e):
        z = logits(inner.model, params, candidate.ids[None], candidate.dense[None])[0]
        entropy = optax.sigmoid_binary_cross_entropy(z, candidate.target)
        loss = train.loss(inner.model, params, batch)
        loss += inner.l2 * penalty(inner.model, look_up(params, batch.ids), batch.ids)
        return loss + e / toy.VALID * entropy

    @jax.jit
    @jax.vmap
    def step(state, index, candidate, e):
        grads = jax.grad(objective)(state.params, slots.examples(index), candidate, e)
        updates, opt = tx.update(grads, state.opt, state.params)
        return train.TrainState(optax.apply_updates(state.params, updates), opt)

    twice = jax.tree.map(lambda a: jnp.concatenate([a, a]), candidates)
    e = jnp.repeat(jnp.array([H, -H]), CANDIDATES)
    state = jax.tree.map(lambda a: jnp.broadcast_to(a, (len(e), *a.shape)), start)
    for index in order:
        state = step(state, jnp.broadcast_to(index, (len(e), len(index))), twice, e)
    loss = jax.vmap(lambda params: train.loss(inner.model, params, outer))(state.params)
    slope = (loss[:CANDIDATES] - loss[CANDIDATES:]) / (2 * H)
    np.testing.assert_allclose(of_rows, -slope, rtol=1e-4)


def test_blocks_of_candidates_score_like_one(x64, case):
    inner, slots, run, outer, candidates, (of_slots, of_rows) = case
    blocks = jax.jit(lambda c: influence(inner, slots, run, outer, c, block=2))(candidates)
    np.testing.assert_allclose(blocks[0], of_slots, rtol=1e-10)
    np.testing.assert_allclose(blocks[1], of_rows, rtol=1e-10)


@pytest.mark.parametrize("optimizer", ["lazy_adam", "rowwise_adagrad"])
def test_by_touched_rows_influence_is_by_the_whole_table(x64, optimizer, monkeypatch):
    """Candidates look up rows that no batch touches, and move them where the optimizer does."""
    rng = np.random.default_rng(4)
    inner = toy.inner_in_double(optimizer=Optimizer(optimizer))
    slots, outer, candidates = toy.in_double(
        (toy.slots(rng), toy.examples(rng, 20), toy.examples(rng, CANDIDATES))
    )
    used, tried = np.unique(slots.ids[: toy.VALID]), np.unique(candidates.ids)
    assert len(np.setdiff1d(tried, used))
    found = []
    for pays in (True, False):
        monkeypatch.setattr(touched, "pays", lambda *_, pays=pays: pays)
        scores = jax.jit(lambda *args: influence(inner, *args, block=2))
        found.append(scores(slots, toy.trajectory(), outer, candidates))
    for by_rows, by_table in zip(*found, strict=True):
        assert np.any(by_table != 0)
        np.testing.assert_allclose(by_rows, by_table, rtol=1e-9, atol=1e-14)


def test_influence_keeps_to_the_budget_of_a_meta_gradient():
    """And not parameters and adjoints of all steps, of all rows that a candidate may look up."""
    rng, n_table, steps = np.random.default_rng(3), 1 << 14, 128
    state = 3 * n_table * 3 * 4  # bytes: parameters and both moments of Adam
    inner = toy.inner(steps=steps, window=steps, budget=24 * state)
    slots, outer, candidates = toy.slots(rng), toy.examples(rng, 20), toy.examples(rng, 8)
    run = toy.trajectory(end=steps)._replace(trained=np.arange(n_table, dtype=np.int32))
    program = jax.jit(lambda *args: influence(inner, *args, block=4))
    memory = program.lower(slots, run, outer, candidates).compile().memory_analysis()
    # The budget and a third; on accelerators, whose compilers add more, far from all steps still.
    most = 32 if jax.default_backend() == "cpu" else steps / 4
    assert memory.temp_size_in_bytes < most * state


@pytest.mark.parametrize("mode", ["implicit", "one_step"])
def test_without_unrolling_a_slot_scores_like_a_candidate_that_equals_it(x64, mode):
    rng = np.random.default_rng(2)
    inner = toy.inner_in_double(mode=mode, damping=1.0)
    slots, outer = toy.in_double((toy.slots(rng), toy.examples(rng, 20)))
    run, every = toy.trajectory(), slots.examples(jnp.arange(toy.SLOTS))
    of_slots, of_rows = influence(inner, slots, run, outer, every, block=toy.SLOTS)
    used = slice(toy.VALID)
    assert np.all(of_slots[used] != 0) and not of_slots[toy.VALID :].any()
    np.testing.assert_allclose(of_rows[used], of_slots[used], rtol=1e-9)
    loss = lambda w: outer_loss(inner, slots._replace(log_weight=jnp.log(w)), run, outer)  # noqa: E731
    slope = jax.grad(loss)(jnp.exp(slots.log_weight))
    np.testing.assert_allclose(of_slots, -slope, rtol=1e-9)
