"""The objectives of rivals are zero where a memory is the real rows, and teach what they should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from diet_jax.distill import distill_stage
from diet_jax.matching import OBJECTIVES, RIDGE
from diet_jax.metagrad import Slots
from diet_jax.models import init_params, logits
from diet_jax.train import Examples

RIVALS = [name for name in OBJECTIVES if name != "loss"]


def memory_and_rows(same: bool) -> tuple[Slots, Examples]:
    """A memory of 12 slots, 10 in use, and real rows: the same ten, or others."""
    rng = np.random.default_rng(0)
    slots = jax.tree.map(jnp.asarray, toy.slots(rng))
    mine = slots.examples(np.arange(toy.VALID))
    return slots, mine if same else toy.examples(rng, 10)


@pytest.mark.parametrize("name", ["gradient", "distribution"])
def test_a_memory_that_is_the_real_rows_matches_them(name):
    distance = {}
    for same in (True, False):
        slots, outer = memory_and_rows(same)
        distance[same] = float(OBJECTIVES[name](toy.inner(), slots, toy.trajectory(), outer))
    assert distance[True] == pytest.approx(0, abs=1e-5)
    assert distance[False] > 0.01


def test_a_trajectory_matches_itself():
    inner = toy.inner(window=4, steps=6)
    slots, _ = memory_and_rows(True)
    slots = jax.tree.map(lambda a: a[: toy.VALID], slots)  # equal slots, so equal orders
    outer = slots.examples(np.arange(toy.VALID))
    run = toy.trajectory(end=4)  # the expert starts its steps with the student's
    match = OBJECTIVES["trajectory"]
    assert float(match(inner, slots, run, outer)) == pytest.approx(0, abs=1e-5)
    turned = slots._replace(label_logit=-slots.label_logit)
    assert float(match(inner, turned, run, outer)) > 0.1


def test_kernel_ridge_answers_as_the_normal_equations_do():
    inner, (slots, outer) = toy.inner(), memory_and_rows(False)
    run = toy.trajectory(end=0)
    value = OBJECTIVES["kernel"](inner, slots, run, outer)

    key = jax.random.split(run.key)[0]
    params = init_params(inner.model, key, run.trained, 3, 1)

    def features(rows):
        def answers(net):
            return logits(inner.model, {**params, "net": net}, rows.ids, rows.dense)

        parts = [
            j.reshape(len(rows.ids), -1)
            for j in jax.tree.leaves(jax.jacobian(answers)(params["net"]))
        ]
        return np.concatenate([np.ones((len(rows.ids), 1)), *parts], axis=1)

    mine = slots.examples(np.arange(toy.VALID))
    x, weight = features(mine), np.asarray(mine.weight) * toy.SLOTS / toy.VALID
    ridge = RIDGE * (weight * np.square(x).sum(1)).sum() / toy.SLOTS * np.eye(x.shape[1])
    gram = (x * weight[:, None]).T @ x
    answer = np.linalg.solve(gram + ridge, x.T @ (weight * (np.asarray(mine.target) - 0.5)))
    error = features(outer) @ answer - (np.asarray(outer.target) - 0.5)
    assert float(value) == pytest.approx(float(np.mean(outer.weight * error**2)), rel=1e-3)


@pytest.mark.parametrize("name", RIVALS)
def test_its_gradient_is_that_of_central_differences(name):
    with jax.enable_x64(True):
        inner = toy.inner_in_double()
        slots, outer = toy.in_double(memory_and_rows(False))
        run = toy.trajectory()
        direction = jnp.asarray(np.random.default_rng(1).normal(size=toy.SLOTS))

        def at(step):
            moved = slots._replace(label_logit=slots.label_logit + step * direction)
            # Some objectives hold what training on the memory has reached for a constant.
            return OBJECTIVES[name](inner, moved, run._replace(end=np.int32(end)), outer)

        end = 0 if name in ("gradient", "kernel") else 6
        slope = float(jax.grad(at)(0.0))
        numeric = float(at(1e-5) - at(-1e-5)) / 2e-5
        assert slope == pytest.approx(numeric, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("name", RIVALS)
def test_a_stage_can_be_distilled_by_it(name):
    engine = toy.engine(objective=name, trajectories=1, anchor=0.0)
    memory, facts = distill_stage(engine, toy.empty(), toy.stage(1), 8, 12, 1, jax.random.key(0))
    assert memory.valid.sum() == 8 and facts["skipped"] == 0
    losses = [loss for _, loss in facts["outer"]]
    assert np.all(np.isfinite(losses))
    assert len(set(memory.label_logit[:8])) == 8
