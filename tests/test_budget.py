"""A memory under a budget: full, it gives up what matters least, and so do its baselines."""

import jax
import numpy as np
import polars as pl
import pytest
import toy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from test_metagrad import linear

from diet_jax import memory as mem
from diet_jax import run
from diet_jax.distill import choose_rows, distill_stage
from diet_jax.job import prepare, slots_after
from diet_jax.scene import lay_out, set_scene

BUDGET = 14


@given(st.data(), st.integers(0, 9))
def test_evict_gives_up_the_least_important_slots_in_use(data, k):
    importance = data.draw(hnp.arrays(np.float32, 9, elements=st.floats(-5, 5, width=32)))
    valid = data.draw(hnp.arrays(bool, 9))
    before = mem.empty(9, 2, 1)._replace(valid=valid)
    after = mem.evict(before, importance, min(k, int(valid.sum())))
    gone = valid & ~after.valid
    assert np.array_equal(before.valid, valid) and not np.any(after.valid & ~valid)
    assert gone.sum() == min(k, valid.sum())
    if gone.any() and after.valid.any():
        assert importance[gone].max() <= importance[after.valid].min()


def test_a_stage_gives_up_the_slots_whose_loss_costs_it_least():
    """By weight times influence before the stage; new slots take their places."""
    engine = toy.engine(proxies=(linear(),), trajectories=1)
    memories, _ = toy.stream(engine, 2)
    spread = np.random.default_rng(0).permutation(np.linspace(-2, 2, toy.CAPACITY))
    old = memories[-1]._replace(log_weight=spread.astype(np.float32))
    stage, key = toy.stage(3), jax.random.key(0)
    n_old, n_new, n_evict = int(old.valid.sum()), 6, 4
    new, _ = distill_stage(engine, old, stage, n_new, 6, 3, key, n_evict=n_evict)
    assert new.valid.sum() == n_old + n_new - n_evict
    assert new.valid[: int(new.valid.sum())].all()  # what is in use comes first
    stayed = np.isin(old.source, new.source[new.born < 3]) & old.valid
    assert stayed.sum() == n_old - n_evict and (new.born == 3).sum() == n_new

    share = engine.plan.anchor * n_old / (n_old + n_new)
    scene = set_scene(engine, old, old, lay_out(engine, stage), share)
    key_score = jax.random.split(jax.random.fold_in(key, 3))[0]
    _, influence = choose_rows(engine, old, stage, scene, 3, jax.random.fold_in(key_score, 0))
    cost = np.exp(old.log_weight) * influence
    assert cost[old.valid & ~stayed].max() <= cost[stayed].min()
    assert influence[old.valid & ~stayed].max() > influence[stayed].min()  # the weights tell


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp("budget")
    pl.DataFrame(toy.log()).write_parquet(root / "log.parquet")
    return toy.config(str(root / "log.parquet"), **{"memory.budget": BUDGET})


def test_a_run_keeps_to_its_budget(config):
    """6, 12 and 18 slots by the rate: the third stage's six evict four."""
    rivals = ("random_soft", "reservoir_hard", "window_hard")
    job = prepare(config, rivals=rivals)
    state, sizes, evicted = job.first, [], []
    for number in (1, 2, 3):
        state, facts = run.distill(job, state, number, lambda step, loss: None)
        sizes.append(int(state.memory.valid.sum()))
        evicted.append(facts["evicted"])
        for name in rivals:
            for rival in state.baselines[name]:
                assert rival.valid[: sizes[-1]].all() and rival.valid.sum() == sizes[-1], name
        assert np.all(np.bincount(state.memory.born[state.memory.valid])[number] == 6)
    assert sizes == [6, 12, BUDGET] and evicted == [0, 0, 4]
    assert [slots_after(config, toy.ROWS_A_STAGE * k) for k in (1, 2, 3)] == sizes
    records = run.judge(job, state, 3, ("memory", "random_soft"))
    assert all(0 <= r["auc"] <= 1 for r in records)
    old = state.baselines["random_soft"][0]
    assert np.bincount(old.born[old.valid])[3] == 6
