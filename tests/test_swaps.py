"""Slots take values of other rows where the first-order gain of the swap says that it helps."""

import jax
import numpy as np
import pytest
import toy
from test_metagrad import linear

from diet_jax import memory as mem
from diet_jax.distill import distill_stage
from diet_jax.metagrad import Trajectory, outer_loss
from diet_jax.scene import lay_out, set_scene, to_slots
from diet_jax.swaps import swap

M = 2


def memory_of(stage, n_mixed: int):
    """12 slots of a stage's first rows, with labels and weights of their own."""
    rng, n = np.random.default_rng(5), 12 * n_mixed
    each = (12, n_mixed) if n_mixed > 1 else (12,)
    ids = stage.rows.ids[:n].reshape(*each, -1)
    new = ids, stage.rows.dense[:12], rng.normal(size=12), rng.normal(size=12)
    blank = mem.empty(toy.CAPACITY, len(toy.FIELDS), 1, n_mixed)
    return mem.append(blank, *new, 1, stage.source[:n].reshape(each))


def swapped(n_mixed: int, share: float):
    """A scene of stage 2, a memory of stage 1 in it, and that memory after swaps."""
    engine = toy.engine(proxies=(linear(),), trajectories=1, swap_share=share, pool=256)
    memory, fresh = memory_of(toy.stage(1), n_mixed), toy.stage(2)
    scene = set_scene(engine, memory, memory, lay_out(engine, fresh), 0.0)
    writable = memory.valid & (np.arange(toy.CAPACITY) % 2 == 0)
    key = jax.random.key(0)
    return engine, scene, memory, writable, swap(engine, memory, fresh, scene, writable, key)


@pytest.mark.parametrize("n_mixed", [1, M])
def test_a_swap_changes_one_field_of_one_row_of_a_slot_that_may_be_written(n_mixed):
    _, _, memory, writable, after = swapped(n_mixed, 0.5)
    changed = memory.ids != after.ids
    slots = changed.reshape(toy.CAPACITY, -1).sum(1)
    assert 1 <= (slots > 0).sum() <= 0.5 * writable.sum()
    assert slots.max() == 1 and not slots[~writable].any()
    fields = np.broadcast_to(np.arange(len(toy.FIELDS)), memory.ids.shape)
    known = toy.stage(2).rows.ids
    assert all(v in known[:, f] for v, f in zip(after.ids[changed], fields[changed], strict=True))
    for name in set(memory._fields) - {"ids"}:
        assert getattr(memory, name) is getattr(after, name)


@pytest.mark.parametrize("n_mixed", [1, M])
def test_swaps_lower_the_outer_loss(n_mixed):
    """The mean over fresh runs of what training on either memory loses on all rows of the stage."""
    engine, _, memory, _, after = swapped(n_mixed, 1.0)
    inner = linear()
    both = set_scene(engine, memory, after, lay_out(engine, toy.stage(2)), 0.0)
    stage = both.stage
    rows = stage.examples(np.arange(int(stage.n)))

    @jax.jit
    def loss(slots):
        def one(key):
            run = Trajectory(stage.trained, stage.fixed, key, np.int32(inner.steps))
            return outer_loss(inner, slots, run, rows)

        return jax.lax.map(one, jax.random.split(jax.random.key(1), 32)).mean()

    assert (memory.ids != after.ids).any()
    before, now = (float(loss(to_slots(m, both.compact))) for m in (memory, after))
    assert now < before


def test_a_stage_swaps_between_its_rounds():
    def ids(share: float) -> np.ndarray:
        engine = toy.engine(proxies=(linear(),), trajectories=1, swap_share=share)
        args = toy.empty(), toy.stage(1), 8, 6, 1, jax.random.key(0)
        memory, facts = distill_stage(engine, *args)
        assert np.isfinite([loss for _, loss in facts["outer"]]).all()
        return memory.ids[memory.valid]

    real = {tuple(row) for row in toy.stage(1).rows.ids}
    assert all(tuple(row) in real for row in ids(0.0))
    assert not all(tuple(row) in real for row in ids(0.5))
