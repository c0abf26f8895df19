"""A loop in nested segments runs every step once and in order, and fits the bytes it is given."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diet_jax.types import InputError
from diet_jax.unroll import LEVELS, bytes_kept, choose_level, scan_steps


def step(x, y):
    return jnp.sin(x) + y


@pytest.mark.parametrize("unroll", [1, 4])
@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("level", range(4))
@pytest.mark.parametrize("length", [1, 6, 7, 9])
def test_segments_of_any_length_run_every_step_once_and_in_order(length, level, offload, unroll):
    def in_a_row(ys):
        return functools.reduce(step, ys, 1.0)

    def in_segments(ys):
        return scan_steps(step, jnp.float32(1), ys, length, level, offload, unroll)

    ys = jnp.linspace(0.5, 1.5, length)
    for f in (lambda g: g, jax.grad):
        np.testing.assert_allclose(jax.jit(f(in_segments))(ys), f(in_a_row)(ys), rtol=1e-5)


def test_offloaded_states_go_to_the_host():
    def f(ys, offload):
        return scan_steps(step, jnp.float32(1), ys, 9, 2, offload)

    programs = [
        str(jax.make_jaxpr(jax.grad(lambda ys, o=o: f(ys, o)))(jnp.ones(9))) for o in (False, True)
    ]
    assert ["Host" in program or "pinned_host" in program for program in programs] == [False, True]


def wide(x, y):
    """A step that keeps ten times its state."""
    for k in range(10):
        x = jnp.sin(x + k * y)
    return x


def test_less_memory_is_what_recomputation_buys():
    state, ys = jnp.ones(10_000), jnp.ones(64)

    def temp(level):
        f = jax.grad(lambda ys: scan_steps(wide, state, ys, 64, level).sum())
        return jax.jit(f).lower(ys).compile().memory_analysis().temp_size_in_bytes

    measured = [temp(level) for level in range(3)]
    assert measured[0] > 2 * measured[1] > 4 * measured[2]


def test_the_level_of_least_recomputation_that_fits_is_chosen():
    state, ys = jax.ShapeDtypeStruct((10_000,), np.float32), jnp.ones(64)
    size = 4 * 10_000
    levels = [
        choose_level(wide, state, ys, 64, budget)
        for budget in (64 * 12 * size, 64 * size + 12 * size, 30 * size)
    ]
    assert levels == [1, 1, 2]
    with pytest.raises(InputError, match="inner.mebibytes leaves 0;"):
        choose_level(wide, state, ys, 64, size)
    # Eight devices that share the rows of the state hold an eighth of it each.
    assert choose_level(wide, state, ys, 64, 64 * size // 8 + 12 * size, (10_000, 8)) == 1


def test_more_levels_keep_fewer_states():
    kept = [bytes_kept(4096, level, state=1000, step=1000) for level in range(LEVELS + 1)]
    assert kept[0] == 4096 * 1000
    assert kept[2:] == sorted(kept[2:], reverse=True)
    assert kept[2] == (64 + 64 + 1) * 1000
