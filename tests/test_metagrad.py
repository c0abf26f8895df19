"""The derivative that the whole method rests on is exact, through every inner optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from diet_jax import touched, train
from diet_jax.compact import compact
from diet_jax.metagrad import Inner, Slots, Trajectory, outer_loss, overshoot, warm_up
from diet_jax.models import make_model
from diet_jax.optim import INNER, Optimizer

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

    @jax.jit
    @jax.vmap
    def steps(state, change, index):
        return inner.step(state, slots._replace(**change).examples(index))

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


def rule(name):
    return Optimizer(name, momentum=0.9, decay=0.3)


@pytest.mark.parametrize(
    ("optimizer", "window", "end"), [*((name, 6, 6) for name in INNER), ("adam", 3, 5)]
)
def test_meta_gradient_against_central_differences(x64, optimizer, window, end):
    inner = toy.inner_in_double(optimizer=rule(optimizer), window=window)
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


@pytest.mark.parametrize("optimizer", ["adamw", "rowwise_adagrad"])
def test_the_derivative_by_learning_rates_against_central_differences(x64, optimizer):
    """Of the table and of the net, which start at other ones than `lr`."""
    inner, run = linear(optimizer=rule(optimizer)), toy.trajectory()
    slots, outer = problem()
    rates = np.array([0.3, -0.2])
    loss = lambda r: outer_loss(inner, slots._replace(rates=r), run, outer)  # noqa: E731
    both = jax.jit(jax.value_and_grad(loss))
    rough = central_differences(lambda x: np.array([both(r)[0] for r in x]), rates)
    np.testing.assert_allclose(both(rates)[1], rough, rtol=1e-6)
    same = jax.jit(lambda: outer_loss(inner._replace(lr=2 * inner.lr), slots, run, outer))()
    np.testing.assert_allclose(both(np.full(2, np.log(2.0)))[0], same, rtol=1e-9)


@pytest.mark.parametrize("optimizer", INNER)
def test_rows_that_no_slot_touches_need_not_be_carried(x64, optimizer):
    """Loss and gradient are those of training the whole table, adamw's decay included."""
    slots, outer = problem()
    slots = slots._replace(ids=slots.ids.at[:, 1].set(9))  # of the second field one value only
    table = compact(slots.ids, np.arange(toy.VOCAB), floor=8)
    run = toy.trajectory()
    small = run._replace(trained=table.rows[: table.n_trained], fixed=table.rows[table.n_trained :])
    inner = linear(optimizer=rule(optimizer))

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


def weight_gradient(inner, run=None):
    slots, outer = problem()
    run = run or toy.trajectory()
    f = lambda w: outer_loss(inner, slots._replace(log_weight=w), run, outer)  # noqa: E731
    return jax.jit(jax.grad(f))(slots.log_weight)


@pytest.mark.parametrize(
    "change",
    [{"budget": 60_000}, {"budget": 60_000, "offload": True}, {"mixed": True}, {"unroll": 4}],
    ids=["recomputed", "offloaded", "mixed", "unrolled"],
)
def test_how_steps_are_differentiated_changes_nothing(x64, change):
    inner = toy.inner_in_double(steps=20, window=20)
    run = toy.trajectory(end=20)
    want = weight_gradient(inner, run)
    np.testing.assert_allclose(weight_gradient(inner._replace(**change), run), want, rtol=1e-8)


@pytest.mark.parametrize("optimizer", touched.LOCAL)
def test_by_touched_rows_is_by_the_whole_table(x64, optimizer, monkeypatch):
    """Of mixtures with values that are missing; by what is learned of rates, too."""
    rng = np.random.default_rng(3)
    model = make_model("DeepFM", dim=2, hidden=(4,), init_scale=0.3, pool=(0, 1, 1))
    inner = toy.inner_in_double(model=model, optimizer=Optimizer(optimizer), batch=3, window=4)
    n, start = toy.SLOTS, toy.in_double(toy.slots(rng))
    ids = np.where(rng.random((n, 2, 3)) < 0.2, -1, np.stack([start.ids, start.ids[::-1]], axis=1))
    learned = {name: getattr(start, name) for name in toy.LEARNED}
    learned |= {"mix": jnp.asarray(rng.normal(size=(n, 2))), "rates": jnp.zeros(2)}
    outer = toy.in_double(toy.examples(rng, 20))

    def gradient():
        def loss(learned):
            now = start._replace(ids=jnp.asarray(ids, np.int32), **learned)
            return outer_loss(inner, now, toy.trajectory(), outer)

        return jax.jit(jax.grad(loss))(learned)

    assert inner.batch * ids[0].size < toy.VOCAB  # or the whole table would be less
    found = gradient()
    monkeypatch.setattr(touched, "is_local", lambda _: False)
    want = gradient()
    for name in learned:
        assert np.any(want[name] != 0)
        np.testing.assert_allclose(found[name], want[name], rtol=1e-9, atol=1e-14, err_msg=name)


def test_by_touched_rows_what_is_kept_does_not_grow_with_the_table():
    """64 steps: a table eight times as long adds some tables, and not one a step."""
    rng = np.random.default_rng(0)
    inner = toy.inner(optimizer=Optimizer("rowwise_adagrad"), steps=64, window=64)
    slots, outer = jax.tree.map(jnp.asarray, (toy.slots(rng), toy.examples(rng, 20)))

    def temp(n_table):
        run = toy.trajectory(end=64)._replace(trained=np.arange(n_table, dtype=np.int32))
        f = jax.grad(lambda w: outer_loss(inner, slots._replace(log_weight=w), run, outer))
        lowered = jax.jit(f).lower(jnp.asarray(slots.log_weight))
        return lowered.compile().memory_analysis().temp_size_in_bytes

    table = 7 * (1 << 12) * 3 * 4  # bytes of the rows more
    assert temp(8 << 12) - temp(1 << 12) < 16 * table


def test_bfloat16_comes_near(x64):
    exact = toy.inner_in_double()
    rough = exact._replace(model=exact.model._replace(compute="bfloat16"))
    want, got = weight_gradient(exact), weight_gradient(rough)
    assert got.dtype == np.float64
    assert 1e-6 < np.linalg.norm(got - want) / np.linalg.norm(want) < 0.1


def test_implicit_gradient_is_that_of_the_stationary_point(x64):
    """Against training to the end with each label moved; every batch is the whole memory."""
    slots, outer = problem()
    steps = 2000
    optimizer = Optimizer("sgd", momentum=0.9)
    inner = linear(
        optimizer=optimizer, lr=0.3, l2=0.0, steps=steps, batch=toy.VALID, mode="implicit",
        damping=1e-9, solves=200,
    )  # fmt: skip
    run = toy.trajectory(end=steps)

    def reached(label_logit):
        moved = slots._replace(label_logit=label_logit)
        state, *_ = warm_up(inner, moved, run)
        return train.loss(inner.model, state.params, outer)

    moves = 1e-4 * np.eye(toy.SLOTS)
    ends = jax.jit(jax.vmap(reached))
    logit = slots.label_logit[None]
    slope = (ends(logit + moves) - ends(logit - moves)) / 2e-4
    f = lambda z: outer_loss(inner, slots._replace(label_logit=z), run, outer)  # noqa: E731
    got = jax.jit(jax.grad(f))(slots.label_logit)
    assert np.linalg.norm(slope) > 1e-2
    np.testing.assert_allclose(got, slope, rtol=1e-3, atol=1e-3 * np.abs(slope).max())


def test_one_step_is_a_gradient_step_on_the_whole_memory(x64):
    slots, outer = problem()
    inner = toy.inner_in_double(mode="one_step")
    run = toy.trajectory(end=4)
    # The same as one more step of plain SGD whose batch is the memory, up to second order in lr.
    plain = inner._replace(
        mode="random", window=1, steps=1, batch=toy.VALID, optimizer=Optimizer("sgd"), lr=1e-6
    )
    first = run._replace(end=np.int32(0))
    f = lambda i, r: jax.jit(  # noqa: E731
        jax.grad(lambda w: outer_loss(i, slots._replace(log_weight=w), r, outer))
    )(slots.log_weight)
    got = f(inner._replace(lr=1e-6), first)
    want = f(plain, run._replace(end=np.int32(1)))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-12)
    assert np.any(f(inner, run) != 0)


def test_a_run_may_start_from_given_parameters(x64):
    slots, outer = problem()
    inner = toy.inner_in_double()
    run = toy.trajectory()
    state, *_ = warm_up(inner._replace(mode="one_step"), slots, run)
    given = jax.tree.map(lambda a: a + 0.1, state.params)
    loss = lambda r: float(outer_loss(inner, slots, r, outer))  # noqa: E731
    fresh = loss(run)
    assert loss(run._replace(start=given, fresh=jnp.array(True))) == fresh
    there = loss(run._replace(start=given, fresh=jnp.array(False)))
    assert there != fresh
    elsewhere = run._replace(start=given, fresh=jnp.array(False), key=jax.random.key(0))
    assert loss(elsewhere) == there


def test_overshoot_of_a_quadratic_is_its_curvature_times_the_rate(x64):
    """A loss that is nearly quadratic, with curvature h along the way: d . Hd / |g . d| = lr h."""
    slots, _ = problem()
    slots = slots._replace(
        ids=jnp.zeros_like(slots.ids), dense=0 * slots.dense, label_logit=jnp.full(toy.SLOTS, 1e-3)
    )
    change = {"l2": 0.0, "optimizer": Optimizer("sgd"), "batch": toy.VALID}
    weight = np.exp(slots.log_weight[: toy.VALID]).mean()
    # Three columns share the one row, and the bias joins them: curvature (9 + 1) / 4 of the weight.
    got = overshoot(linear(lr=0.05, **change), slots, toy.trajectory())
    np.testing.assert_allclose(got, 0.05 * weight * 10 / 4, rtol=1e-3)
    twice = overshoot(linear(lr=0.1, **change), slots, toy.trajectory())
    np.testing.assert_allclose(twice, 2 * got, rtol=1e-3)


def test_a_thousand_steps_of_ten_thousand_rows_fit_in_a_hundred_mebibytes():
    """Of XLA's temporary memory, read from the compiled program; nothing is run."""
    rows, slots, fields = 10_000, 1_024, 20
    model = make_model("DeepFM", dim=16, hidden=(64, 32))
    inner = Inner(model, Optimizer("adam"), 1e-2, 1024, 128, 1024, mode="full", budget=80 << 20)
    shape = jax.ShapeDtypeStruct
    memory = Slots(
        shape((slots, fields), np.int32),
        shape((slots,), bool),
        shape((slots, 0), np.float32),
        *[shape((slots,), np.float32)] * 2,
    )
    run = Trajectory(
        shape((rows,), np.int32), shape((2048,), np.int32), jax.random.key(0), np.int32(1024)
    )
    outer = train.Examples(
        shape((2048, fields), np.int32),
        shape((2048, 0), np.float32),
        *[shape((2048,), np.float32)] * 2,
    )

    def loss(log_weight, slots, run, outer):
        return outer_loss(inner, slots._replace(log_weight=log_weight), run, outer)

    program = jax.jit(jax.grad(loss)).lower(memory.log_weight, memory, run, outer).compile()
    of_products = (32 << 20) * (jax.default_backend() == "gpu")  # what XLA gives cuBLAS on Hopper
    assert program.memory_analysis().temp_size_in_bytes < (100 << 20) + of_products


def test_a_table_row_that_no_slot_touches_leaves_gradients_finite(x64):
    slots, outer = problem()
    slots = slots._replace(ids=jnp.zeros_like(slots.ids))
    grads = jax.grad(lambda d: outer_loss(linear(), slots._replace(**d), toy.trajectory(), outer))(
        {name: getattr(slots, name) for name in toy.LEARNED}
    )
    for leaf in grads.values():
        assert np.isfinite(leaf).all() and np.any(leaf != 0)
