"""The derivative that the whole method rests on is exact, through every inner optimizer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from diet_jax import train
from diet_jax.compact import compact
from diet_jax.metagrad import outer_loss, scan_window, warm_up
from diet_jax.models import make_model

H = 1e-5  # of central differences


def problem():
    rng = np.random.default_rng(0)
    return toy.in_double((toy.slots(rng), toy.examples(rng, 20)))


def linear(**change):
    """The inner loop of the model that compiles fastest."""
    return toy.inner(model=make_model("LR", 1, (), init_scale=0.3), **change)


def late_losses(inner, slots, changes, trajectory, outer):
    """Outer losses [P], trained step by step: the window's batches see slots that are changed.

    changes: by leaf of the slots, P values of it. Steps before the window see the slots unchanged.
    """
    state, order, _ = jax.jit(lambda s: warm_up(inner, s, trajectory))(slots)
    tx = inner.tx()

    @jax.jit
    @jax.vmap
    def steps(state, change, index):
        batch = slots._replace(**change).examples(index)
        return train.step(inner.model, tx, state, batch, inner.l2)

    n = len(next(iter(changes.values())))
    state = jax.tree.map(lambda a: jnp.broadcast_to(a, (n, *a.shape)), state)
    for index in order:
        state = steps(state, changes, jnp.broadcast_to(index, (n, len(index))))
    return jax.vmap(lambda params: train.loss(inner.model, params, outer))(state.params)


def central_differences(losses, x):
    """The gradient [n] or [n, m] at x of what gives losses [P] for P values of x."""
    moves = H * np.eye(x.size).reshape(x.size, *x.shape)
    up, down = np.split(losses(np.concatenate([x + moves, x - moves])), 2)
    return ((up - down) / (2 * H)).reshape(x.shape)


@pytest.mark.parametrize(("window", "end"), [(6, 6), (3, 5)])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adagrad"])
def test_meta_gradient_against_central_differences(x64, optimizer, window, end):
    inner = toy.inner_in_double(optimizer=optimizer, window=window)
    slots, outer = problem()
    trajectory = toy.trajectory(end=end)
    learned = {name: getattr(slots, name) for name in toy.LEARNED}
    sizes = [leaf.size for leaf in learned.values()]

    def split(flat):
        parts = jnp.split(jnp.asarray(flat), np.cumsum(sizes)[:-1], axis=-1)
        return {
            name: part.reshape(*flat.shape[:-1], *leaf.shape)
            for part, (name, leaf) in zip(parts, learned.items(), strict=True)
        }

    rough = central_differences(
        lambda x: late_losses(inner, slots, split(x), trajectory, outer),
        np.concatenate([leaf.ravel() for leaf in learned.values()]),
    )
    exact = jax.jit(jax.grad(lambda d: outer_loss(inner, slots._replace(**d), trajectory, outer)))
    for name, want in split(rough).items():
        got = exact(learned)[name]
        assert got.dtype == np.float64
        assert np.linalg.norm(got - want) <= 1e-6 * np.linalg.norm(want), name


def test_rows_that_no_slot_touches_need_not_be_carried(x64):
    """Loss and gradient are those of training the whole table."""
    slots, outer = problem()
    slots = slots._replace(ids=slots.ids.at[:, 1].set(9))  # of the second field one value only
    table = compact(slots.ids, np.arange(toy.VOCAB), floor=8)
    run = toy.trajectory()
    small = run._replace(trained=table.rows[: table.n_trained], fixed=table.rows[table.n_trained :])
    inner = linear(optimizer="adam")

    def both(run, place):
        moved = slots._replace(ids=jnp.asarray(place(slots.ids)))
        rows = outer._replace(ids=jnp.asarray(place(outer.ids)))
        f = lambda w: outer_loss(inner, moved._replace(log_weight=w), run, rows)  # noqa: E731
        return jax.value_and_grad(f)(slots.log_weight)

    whole, part = both(run, np.asarray), both(small, table.positions)
    assert len(small.fixed) and np.any(part[1] != 0)
    np.testing.assert_allclose(part[0], whole[0], rtol=1e-12)
    np.testing.assert_allclose(part[1], whole[1], rtol=1e-9)


def test_slots_out_of_use_have_no_gradient(x64):
    slots, outer = problem()
    inner = linear()
    grads = jax.grad(lambda d: outer_loss(inner, slots._replace(dense=d), toy.trajectory(), outer))
    moved = np.any(grads(slots.dense) != 0, axis=1)
    assert moved[: toy.VALID].any() and not moved[toy.VALID :].any()


def test_recomputing_activations_changes_nothing(x64):
    slots, outer = problem()

    def gradient(inner):
        return jax.jit(
            jax.grad(lambda w: outer_loss(inner, slots._replace(log_weight=w), run, outer))
        )(slots.log_weight)

    run = toy.trajectory()
    np.testing.assert_allclose(
        gradient(linear(remat=True)), gradient(linear(remat=False)), rtol=1e-10
    )


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("length", [1, 6, 7, 9])
def test_segments_of_any_length_run_every_step_once_and_in_order(length, remat):
    def step(x, y):
        return jnp.sin(x) + y

    def in_a_row(ys):
        return functools.reduce(step, ys, 1.0)

    def in_segments(ys):
        return scan_window(step, jnp.float32(1), ys, length, remat)

    ys = jnp.linspace(0.5, 1.5, length)
    for f in (lambda g: g, jax.grad):
        np.testing.assert_allclose(f(in_segments)(ys), f(in_a_row)(ys), rtol=1e-5)


def test_a_table_row_that_no_slot_touches_leaves_gradients_finite(x64):
    slots, outer = problem()
    slots = slots._replace(ids=jnp.zeros_like(slots.ids))
    grads = jax.grad(
        lambda d: outer_loss(linear(optimizer="adam"), slots._replace(**d), toy.trajectory(), outer)
    )({name: getattr(slots, name) for name in toy.LEARNED})
    for leaf in grads.values():
        assert np.isfinite(leaf).all() and np.any(leaf != 0)
