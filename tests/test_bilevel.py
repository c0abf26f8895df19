"""An outer step descends the mean over its trajectories, on rows of the stage and of the past."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy

from diet_jax.bilevel import (
    BINS,
    draw,
    draw_end,
    make_outer_steps,
    outer_examples,
    start_outer,
)
from diet_jax.metagrad import outer_loss


def test_the_outer_gradient_is_the_mean_over_trajectories_and_proxies():
    proxies = toy.smooth_proxy(), toy.smooth_proxy("LR")._replace(lr=0.3)
    engine = toy.engine(proxies=proxies)
    scene, slots = toy.first_turn(engine)
    loss, gradient = toy.outer_gradient(engine, scene, slots)
    slots = jax.tree.map(jnp.asarray, slots)
    key = jax.random.fold_in(jax.random.key(7), 0)
    runs, _, outer = draw(key, proxies[0], engine.plan, scene.stage, scene.anchor, jnp.zeros(BINS))
    learned = {name: getattr(slots, name) for name in toy.LEARNED}
    each = []
    for number, proxy in enumerate(proxies):

        @jax.jit
        @jax.value_and_grad
        def one(learned, run, outer, proxy=proxy):
            return outer_loss(proxy, slots._replace(**learned), run, outer)

        for r, k in enumerate(runs.key):
            run = runs._replace(key=jax.random.fold_in(k, number))
            each.append(one(learned, run, jax.tree.map(lambda a, r=r: a[r], outer)))
    losses, gradients = zip(*each, strict=True)
    assert len(losses) == 2 * engine.plan.trajectories and np.ptp(losses) > 1e-3
    np.testing.assert_allclose(loss, np.mean(losses), rtol=1e-5)
    for name, got in gradient.items():
        want = np.mean([g[name] for g in gradients], axis=0)
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_in_rotation_a_step_descends_the_loss_of_one_proxy():
    proxies = toy.smooth_proxy(), toy.smooth_proxy("LR")._replace(lr=0.3)
    scene, slots = toy.first_turn(toy.engine(proxies=proxies))

    def losses(which, **change):
        engine = toy.engine(proxies=which, chunk=4, trajectories=1, lr=0.0, **change)
        learned = {name: jnp.asarray(getattr(slots, name)) for name in toy.LEARNED}
        rest = slots, slots.valid, jax.random.key(7), np.int32(0), np.int32(4)
        state = start_outer(engine.plan, learned)
        return engine.outer_steps(state, *rest, scene.stage, scene.anchor)[1]

    in_turn, of_first = losses(proxies, rotate=True), losses(proxies[:1])
    np.testing.assert_allclose(in_turn[::2], of_first[::2], rtol=1e-6)
    assert np.abs(in_turn[1::2] / of_first[1::2] - 1).min() > 1e-3
    both = losses(proxies)
    np.testing.assert_allclose(2 * both[1::2], of_first[1::2] + in_turn[1::2], rtol=1e-5)


def test_windows_end_anywhere_that_holds_them(engine):
    scene, _ = toy.first_turn(engine)
    inner = toy.smooth_proxy()
    keys = jax.random.split(jax.random.key(0), 40)
    runs, *_ = jax.vmap(
        lambda k: draw(k, inner, engine.plan, scene.stage, scene.anchor, jnp.zeros(BINS))
    )(keys)
    assert set(runs.end.tolist()) == set(range(inner.window, inner.steps + 1))


@pytest.mark.parametrize(("steps", "window"), [(87, 8), (60, 30), (12, 8)])
def test_adaptive_windows_end_where_gradients_were_large(steps, window):
    """A bin not seen counts as the largest; every end keeps a chance, an empty bin has none."""
    inner = toy.inner(mode="adaptive", steps=steps, window=window)
    n = steps - window + 1  # ends: 80, ten a bin; 31; 5
    width = np.bincount(np.arange(n) * BINS // n, minlength=BINS)
    keys = jax.random.split(jax.random.key(0), 4000)

    def counts(ends):
        found, bins = jax.vmap(lambda k: draw_end(k, inner, jnp.asarray(ends)))(keys)
        np.testing.assert_array_equal(np.unique(found), np.arange(window, steps + 1))
        np.testing.assert_array_equal(bins, (found - window) * BINS // n)
        return np.bincount(bins, minlength=BINS) / len(keys)

    def chance(size):
        size = np.where(width, size, 0)
        return 0.8 * size / size.sum() + 0.2 * width / n

    np.testing.assert_allclose(counts(np.zeros(BINS, np.float32)), chance(1), atol=0.02)
    some = np.array([1, 1, 2, 4, 1, 1, 2, 0], np.float32)
    np.testing.assert_allclose(counts(some), chance([1, 1, 2, 4, 1, 1, 2, 4]), atol=0.02)


def outer_steps(engine, n, **change):
    """The state before and after n outer steps of stage 2, under another plan."""
    plan = engine.plan._replace(trajectories=1, chunk=n, **change)
    scene, slots = toy.first_turn(engine)
    learned = {name: jnp.asarray(getattr(slots, name)) for name in toy.LEARNED}
    before = start_outer(plan, learned)
    run = make_outer_steps((toy.smooth_proxy(),), plan, engine.place)

    def go(scene, state=before, span=(0, n)):
        state = jax.tree.map(jnp.array, state)  # what is donated is gone
        steps = map(np.int32, span)
        return run(state, slots, slots.valid, jax.random.key(7), *steps, scene.stage, scene.anchor)

    return scene, before, go


def test_a_step_that_is_not_finite_is_not_taken_and_counted(engine):
    scene, before, go = outer_steps(engine, 3)
    rows = scene.stage.rows
    rows = rows._replace(target=np.full_like(rows.target, np.nan))
    broken = scene.stage._replace(rows=rows)
    after, loss = go(scene._replace(stage=broken))
    assert np.isnan(loss).all() and after.skipped == 3
    for a, b in zip(
        jax.tree.leaves(after._replace(skipped=0)),
        jax.tree.leaves(before._replace(skipped=0)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    after, loss = go(scene)
    assert np.isfinite(loss).all() and after.skipped == 0 and after.norm > 0


def test_gradients_are_cut_to_their_running_mean(engine):
    scene, before, go = outer_steps(engine, 1, clip=0.5)
    first, _ = go(scene)
    assert first.ends[first.ends > 0].tolist() == [first.norm]
    small = before._replace(norm=np.float32(0.01) * first.norm)
    moment = lambda state: optax.tree.norm(optax.tree_utils.tree_get(state.opt, "mu"))  # noqa: E731
    cut, _ = go(scene, small)
    np.testing.assert_allclose(moment(cut), 0.1 * 0.5 * small.norm, rtol=1e-5)
    np.testing.assert_allclose(moment(first), 0.1 * first.norm, rtol=1e-5)
    np.testing.assert_allclose(cut.norm, 0.95 * small.norm + 0.05 * first.norm, rtol=1e-5)


@pytest.mark.parametrize("done, pace", [(0, 1.0), (4, 0.5), (8, 0.0)])
def test_steps_shrink_along_a_cosine_over_the_stage(engine, done, pace):
    def moved(schedule):
        scene, before, go = outer_steps(engine, 1, schedule=schedule)
        after, _ = go(scene, span=(done, 8))
        return after.learned["label_logit"] - before.learned["label_logit"]

    far = moved("constant")
    assert np.abs(far).max() > 1e-3
    np.testing.assert_allclose(moved("cosine"), pace * far, atol=1e-6)


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

    log = scene.stage.rows
    heavy = scene.stage._replace(rows=log._replace(weight=3 * log.weight))
    again = jax.vmap(lambda k: outer_examples(k, plan, heavy, scene.anchor))(keys).weight
    np.testing.assert_allclose(again[:, : plan.batch], 3 * rows.weight[:, : plan.batch], rtol=1e-6)
    np.testing.assert_array_equal(again[:, plan.batch :], rows.weight[:, plan.batch :])

    def seen(ids, target):
        return {(*row, round(t, 3)) for row, t in zip(ids.tolist(), target.tolist(), strict=True)}

    n, where = int(scene.stage.n), np.asarray(scene.stage.where)
    assert seen(fresh.ids, fresh.target) == seen(where[log.ids[:n]], log.target[:n])
    used = slots.valid
    soft = 1 / (1 + np.exp(-slots.label_logit[used]))
    assert seen(old.ids, old.target) == seen(slots.ids[used], soft)
