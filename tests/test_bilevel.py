"""An outer step descends the mean over its trajectories, on rows of the stage and of the past."""

import jax
import jax.numpy as jnp
import numpy as np
import toy

from diet_jax.bilevel import draw, outer_examples
from diet_jax.metagrad import outer_loss


def test_the_outer_gradient_is_the_mean_over_trajectories(engine):
    scene, slots = toy.first_turn(engine)
    loss, gradient = toy.outer_gradient(engine, scene, slots)
    inner = toy.proxy()
    slots = jax.tree.map(jnp.asarray, slots)

    @jax.jit
    @jax.value_and_grad
    def one(learned, run, outer):
        return outer_loss(inner, slots._replace(**learned), run, outer)

    key = jax.random.fold_in(jax.random.key(7), 0)
    runs, outer = draw(key, inner, engine.plan, scene.stage, scene.anchor)
    learned = {name: getattr(slots, name) for name in toy.LEARNED}
    each = [
        one(learned, runs._replace(key=k), jax.tree.map(lambda a, r=r: a[r], outer))
        for r, k in enumerate(runs.key)
    ]
    losses, gradients = zip(*each, strict=True)
    assert len(losses) == engine.plan.trajectories and np.ptp(losses) > 1e-3
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)
    for name, got in gradient.items():
        want = np.mean([g[name] for g in gradients], axis=0)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_windows_end_anywhere_that_holds_them(engine):
    scene, _ = toy.first_turn(engine)
    inner = toy.proxy()
    keys = jax.random.split(jax.random.key(0), 40)
    runs, _ = jax.vmap(lambda k: draw(k, inner, engine.plan, scene.stage, scene.anchor))(keys)
    assert set(runs.end.tolist()) == set(range(inner.window, inner.steps + 1))


def test_outer_rows_weigh_the_stage_and_the_past_by_their_shares(engine):
    plan, (scene, slots) = engine.plan, toy.first_turn(engine)
    keys = jax.random.split(jax.random.key(0), 50)
    rows = jax.vmap(lambda k: outer_examples(k, plan, scene.stage, scene.anchor))(keys)
    fresh, old = (
        jax.tree.map(lambda a, part=part: a[:, part].reshape(-1, *a.shape[2:]), rows)
        for part in (slice(plan.batch), slice(plan.batch, None))
    )
    total = np.sum(rows.weight)
    np.testing.assert_allclose(np.mean(rows.weight), 1, rtol=1e-5)
    np.testing.assert_allclose(fresh.weight.sum() / total, 0.7, rtol=1e-5)
    np.testing.assert_allclose(old.weight.sum() / total, 0.3, rtol=1e-5)

    heavy = scene.stage._replace(weight=3 * scene.stage.weight)
    again = jax.vmap(lambda k: outer_examples(k, plan, heavy, scene.anchor))(keys).weight
    np.testing.assert_allclose(again[:, : plan.batch], 3 * rows.weight[:, : plan.batch], rtol=1e-6)
    np.testing.assert_array_equal(again[:, plan.batch :], rows.weight[:, plan.batch :])

    def seen(ids, target):
        return {(*row, round(t, 3)) for row, t in zip(ids.tolist(), target.tolist(), strict=True)}

    stage, n = scene.stage, int(scene.stage.n)
    assert seen(fresh.ids, fresh.target) == seen(stage.ids[:n], stage.target[:n])
    used = slots.valid
    soft = 1 / (1 + np.exp(-slots.label_logit[used]))
    assert seen(old.ids, old.target) == seen(slots.ids[used], soft)
