"""What a stage adds and rewrites follows the config, and so does the memory."""

import numpy as np
import polars as pl
import pytest
import toy

from diet_jax import distill as distill_module
from diet_jax import memory as mem
from diet_jax.job import prepare
from diet_jax.run import distill


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    pl.DataFrame(toy.log()).write_parquet(path)
    return str(path)


def memories(log, stages, **change):
    job = prepare(toy.config(log, **change))
    state, found = job.first, []
    for number in range(1, stages + 1):
        state, facts = distill(job, state, number, lambda step, loss: None)
        found.append((state.memory, facts))
    return found


def test_a_memory_distilled_anew_holds_rows_of_the_stage_or_of_the_stream(log):
    for scratch, born in (("stage", {2}), ("stream", {2})):
        (first, _), (second, facts) = memories(log, 2, **{"memory.scratch": scratch})
        assert first.valid.sum() == 6 and second.valid.sum() == 12 == facts["new"]
        assert set(second.born[second.valid]) == born and facts["written"] == 0
        sources = second.source[second.valid]
        assert (sources >= 60).all() == (scratch == "stage")
        assert len(set(sources)) == 12


def test_selected_rows_are_added_in_the_place_of_influential_ones(log):
    ((memory, _),) = memories(log, 1, **{"growth.select": "recent"})
    assert set(memory.source[memory.valid]) == set(range(54, 60))


def test_addressing_says_which_slots_are_rewritten(log, monkeypatch):
    """As many in any way, and those of the most influence in one way only."""
    judged, plain = [], distill_module.of_all_slots
    monkeypatch.setattr(
        distill_module, "of_all_slots", lambda *args: judged.append(plain(*args)) or judged[-1]
    )
    rewritten = {}
    for by in mem.ADDRESSING:
        change = {"addressing.by": by, "addressing.share": 0.5}
        (old, _), (new, facts) = memories(log, 2, **change)
        changed = old.valid & (old.label_logit != new.label_logit)
        assert facts["written"] == changed.sum() == 3
        rewritten[by] = frozenset(np.flatnonzero(changed))
    strongest = np.argsort(-np.abs(judged[1]))[:3]  # in stage 2, the same in any way
    assert np.array_equal(judged[1], judged[-1])
    assert rewritten["influence"] == set(strongest)
    assert rewritten["influence"] not in (rewritten["sampled"], rewritten["random"])


def test_a_threshold_of_influence_lets_a_stage_rewrite_as_many_slots_as_matter_to_it(log):
    written = {}
    for times in (0.0, 1.0, 100.0):
        change = {"addressing.share": 1.0, "addressing.threshold": times}
        (before, _), (after, facts) = memories(log, 2, **change)
        same = (before.label_logit == after.label_logit) & before.valid
        assert same.sum() >= before.valid.sum() - facts["written"]
        written[times] = facts["written"]
    assert written[0.0] == before.valid.sum() > written[1.0] > written[100.0] == 0


def test_other_objectives_learn_labels(log):
    ((plain, _),) = memories(log, 1, **{"growth.select": "random"})
    ((memory, _),) = memories(log, 1, **{"growth.select": "random", "outer.objective": "kernel"})
    assert np.array_equal(plain.source, memory.source)
    assert not np.array_equal(plain.label_logit, memory.label_logit)
