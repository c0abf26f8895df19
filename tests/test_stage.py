"""A stage tells its compiled parts what to do, and does what they say: here they are stubs.

None of these tests compiles an inner training.
"""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
import toy
from scipy.special import expit
from scipy.special import logit as to_logit

from diet_jax import bilevel
from diet_jax import memory as mem
from diet_jax.bilevel import BINS, draw, make_influence
from diet_jax.distill import choose_rows, distill_stage, grow
from diet_jax.scene import Engine, lay_out, set_scene
from diet_jax.sharding import ONE_DEVICE

OLD, NEW = 16, 8
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
WEIGHT = RNG.permutation(np.linspace(-3, 3, OLD)).astype(np.float32)  # logarithms, far apart
LABEL = RNG.normal(size=OLD).astype(np.float32)
INFLUENCE = np.append(RNG.normal(size=OLD), np.zeros(toy.CAPACITY - OLD))
OF_ROWS = RNG.normal(size=64)  # of candidates


def old_memory(n: int = OLD):
    """The first rows of stage 1, with labels and weights of their own."""
    (ids, dense, *_), source = toy.stage(1).rows, toy.stage(1).source
    return mem.append(toy.empty(), ids[:n], dense[:n], LABEL[:n], WEIGHT[:n], 1, source[:n])


def heavy_stage():
    """Stage 2, whose rows weigh unequally and are answered otherwise once they are hidden."""
    fresh = toy.stage(2)
    weight = np.linspace(0.5, 2, toy.ROWS_A_STAGE, dtype=np.float32)
    z = np.linspace(-4, 4, toy.ROWS_A_STAGE, dtype=np.float32)
    rows = fresh.rows._replace(weight=weight)
    return fresh._replace(rows=rows, teacher_logit=z, ahead_logit=np.roll(z, 7))


def stubbed(**change) -> tuple[Engine, list, list]:
    """An engine that says INFLUENCE and OF_ROWS and adds 1 to what it may write, and what its
    scores and its outer steps are told."""
    engine = toy.engine(**({"pool": 64, "spread_field": -1, "chunk": 2} | change))
    judged, told = [], []

    def scores(*args):
        judged.append((jax.tree.map(np.asarray, args[4]), args[2]))
        return INFLUENCE, OF_ROWS[: engine.plan.pool]

    def outer_steps(state, slots, writable, key, first, total, stage, anchor):
        told.append((int(first), int(total), np.asarray(writable), anchor, stage))
        up = {name: a + (writable if a.ndim == 1 else 0) for name, a in state.learned.items()}
        return state._replace(learned=up), np.zeros(engine.plan.chunk, np.float32)

    def overshoot(*args):
        return np.zeros((1, 3))

    return (
        engine._replace(scores=scores, outer_steps=outer_steps, overshoot=overshoot),
        judged,
        told,
    )


def test_the_rows_of_most_influence_are_chosen_and_none_that_a_slot_has():
    engine, judged, _ = stubbed()
    fresh, best = heavy_stage(), np.argsort(-OF_ROWS[: toy.ROWS_A_STAGE])
    memory = old_memory()
    memory.source[:2] = fresh.source[best[:2]]
    scene = set_scene(engine, memory, memory, lay_out(engine, fresh), 0.0)
    chosen, of_slots = choose_rows(engine, memory, fresh, scene, 5, KEY)
    assert chosen.tolist() == best[2:7].tolist()
    assert np.array_equal(of_slots, INFLUENCE)
    ((candidates, _),) = judged  # as the slots that they may become
    np.testing.assert_allclose(candidates.target[:60], expit(scene.start_logit), rtol=1e-6)
    assert np.array_equal(scene.compact.rows[candidates.ids[:60]], fresh.rows.ids)
    assert np.array_equal(candidates.dense[:60], fresh.rows.dense)


def test_a_new_slot_weighs_the_mean_of_the_old_ones_times_its_row():
    plan, fresh, chosen = toy.engine().plan, heavy_stage(), np.array([3, 0, 50, 9])
    scene = SimpleNamespace(start_logit=np.clip(fresh.teacher_logit, -2, 2))
    memory = old_memory()
    for old, mean in ((memory, np.exp(WEIGHT).mean()), (toy.empty(), 1)):
        grown = grow(plan, old, fresh, scene, chosen, 2)
        new = grown.valid & ~old.valid
        weight = mean * fresh.rows.weight[chosen]
        np.testing.assert_allclose(np.exp(grown.log_weight[new]), weight, rtol=1e-5)
        assert np.array_equal(grown.label_logit[new], scene.start_logit[chosen])
        assert np.array_equal(grown.source[new], fresh.source[chosen])
        assert np.all(grown.born[new] == 2)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_the_outer_loss_sees_rows_as_the_next_stage_would(share):
    """And new slots start at no more than the outer loss knows of the rows as they are."""
    fresh = heavy_stage()
    laid = lay_out(toy.engine(label_share=share, max_logit=2.5), fresh)
    rows, n = jax.tree.map(np.asarray, laid.rows), toy.ROWS_A_STAGE
    assert laid.n == n and len(rows.ids) == 64
    assert np.array_equal(laid.table_rows[rows.ids[:n]], fresh.ahead_ids)
    assert np.array_equal(rows.dense[:n], fresh.rows.dense)
    assert np.array_equal(rows.weight[:n], fresh.rows.weight)

    def known(z):
        return share * fresh.rows.label + (1 - share) * expit(z.astype(float))

    np.testing.assert_allclose(rows.target[:n], known(fresh.ahead_logit), atol=1e-6)
    with np.errstate(divide="ignore"):
        start = np.clip(to_logit(known(fresh.teacher_logit)), -2.5, 2.5)
    np.testing.assert_allclose(laid.start_logit, start, atol=1e-5)
    assert np.abs(laid.start_logit).max() == 2.5


def test_the_anchor_is_the_memory_that_the_stage_found():
    engine, fresh, past = toy.engine(), heavy_stage(), old_memory()
    laid = lay_out(engine, fresh)
    now = grow(engine.plan, past, fresh, laid, np.arange(NEW), 2)
    now = now._replace(label_logit=now.label_logit + 1)
    scene = set_scene(engine, past, now, laid, 0.3)
    slots, n, share = scene.anchor
    assert (n, share) == (OLD, np.float32(0.3))
    assert np.array_equal(scene.compact.rows[slots.ids], past.ids)
    for name in ("valid", "dense", "label_logit", "log_weight"):
        assert np.array_equal(getattr(slots, name), getattr(past, name)), name
    # What the stage looks up is where it says.
    rows = scene.stage.examples(np.arange(toy.ROWS_A_STAGE))
    assert np.array_equal(scene.compact.rows[rows.ids], fresh.ahead_ids)


@pytest.mark.parametrize("rounds", [1, 2])
def test_outer_steps_are_told_how_far_they_are_and_what_the_past_was(rounds):
    engine, judged, told = stubbed(rounds=rounds)
    past = old_memory()
    after, facts = distill_stage(engine, past, heavy_stage(), NEW, 7, 2, KEY)
    first, total, writable, anchors, _ = zip(*told, strict=True)
    assert (first, set(total)) == ((0, 2, 4, 6), {8})
    assert facts["outer_steps"] == 8 and len(judged) == rounds
    share = engine.plan.anchor * OLD / (OLD + NEW)
    for anchor in anchors:  # in the last round, too, of which the slots have learned
        assert (float(anchor.share), int(anchor.n)) == (pytest.approx(share), OLD)
        assert np.array_equal(anchor.slots.label_logit, past.label_logit)
    new = [int(w[OLD:].sum()) for w in writable]
    assert new == ([NEW] * 4 if rounds == 1 else [NEW // 2] * 2 + [NEW] * 2)
    addressed = writable[0][:OLD]
    assert all(np.array_equal(w[:OLD], addressed) for w in writable)
    np.testing.assert_allclose(after.label_logit[:OLD] - LABEL, 4 * addressed, atol=1e-5)


def test_without_a_past_the_outer_loss_is_of_the_stage_alone():
    engine, judged, told = stubbed()
    after, _ = distill_stage(engine, toy.empty(), heavy_stage(), NEW, 4, 1, KEY)
    assert after.valid.sum() == NEW and len(judged) == 1  # nothing is influential at first
    assert all((anchor.share, anchor.n) == (0, 0) for *_, anchor, _ in told)


def test_slots_are_given_up_by_weight_times_influence():
    engine, _, _ = stubbed(write_share=0.0)
    after, _ = distill_stage(engine, old_memory(), heavy_stage(), 4, 2, 2, KEY, n_evict=3)
    least = np.argsort(np.exp(WEIGHT) * INFLUENCE[:OLD])
    assert set(least[:3]) != set(np.argsort(INFLUENCE[:OLD])[:3])  # the weights tell
    assert set(after.source[after.valid & (after.born == 1)]) == set(least[3:])
    assert (after.born[after.valid] == 2).sum() == 4


@pytest.mark.parametrize("change", [{}, {"threshold": 1.5}, {"write_share": 0.0}])
def test_the_old_slots_of_most_influence_may_be_written(change):
    engine, _, told = stubbed(**{"write_share": 0.5} | change)
    _, facts = distill_stage(engine, old_memory(), heavy_stage(), NEW, 2, 2, KEY)
    strength = np.abs(INFLUENCE[:OLD])
    want = set(np.argsort(-strength)[: int(OLD * engine.plan.write_share)])
    want &= set(np.flatnonzero(strength >= engine.plan.threshold * strength.mean()))
    assert set(np.flatnonzero(told[0][2][:OLD])) == want
    assert facts["written"] == len(want)


def test_slots_that_are_drawn_may_be_written_others_at_each_stage():
    def addressed(by, number):
        engine, _, told = stubbed(write_share=0.25, address_by=by)
        distill_stage(engine, old_memory(), heavy_stage(), NEW, 2, number, KEY)
        return np.flatnonzero(told[0][2][:OLD])

    strength = np.abs(INFLUENCE[:OLD])
    mean = {}
    for by in mem.ADDRESSING:
        found = [addressed(by, number) for number in range(2, 12)]
        assert all(len(each) == OLD // 4 for each in found)
        assert (len(set(map(tuple, found))) == 1) == (by == "influence")
        mean[by] = np.mean([strength[each].mean() for each in found])
    assert mean["influence"] > mean["sampled"] > mean["random"]


def test_all_trajectories_of_a_stage_start_where_it_is_told():
    """Those of influence, too."""
    engine, judged, told = stubbed(rounds=2)
    table = np.random.default_rng(1).normal(size=(toy.VOCAB, 2)).astype(np.float32)
    start = {"table": table, "net": np.float32(3)}
    distill_stage(engine, old_memory(), heavy_stage(), NEW, 4, 2, KEY, start=start)
    stages = [stage for *_, stage in [*judged, *told]]
    assert len(stages) == 4
    for stage in stages:
        rows = np.concatenate([stage.trained, stage.fixed])
        assert np.array_equal(stage.start["table"], table[rows])
        assert stage.start["net"] == 3


def test_rows_that_are_given_are_added_in_order():
    engine, _, _ = stubbed(rounds=2)
    rows, fresh = np.array([7, 3, 59, 0]), heavy_stage()
    after, _ = distill_stage(engine, old_memory(), fresh, 4, 4, 2, KEY, rows=rows)
    assert np.array_equal(after.source[OLD : OLD + 4], fresh.source[rows])


def test_influence_is_the_mean_over_trajectories_and_proxies(monkeypatch):
    """Of what each of them says of its own run and its own outer rows."""

    def said(proxy, slots, run, outer, candidates, block):
        own = proxy.lr * jax.random.uniform(run.key) + outer.target.mean()
        return own * slots.log_weight, own * candidates.target

    monkeypatch.setattr(bilevel, "influence", said)
    proxies = toy.smooth_proxy(), toy.smooth_proxy("LR")._replace(lr=2.0)
    engine = toy.engine(proxies=proxies, trajectories=3, label_share=0.0)
    memory, fresh = old_memory(), heavy_stage()
    stage, anchor = set_scene(engine, memory, memory, lay_out(engine, fresh), 0.3)[1:3]
    rows = toy.examples(np.random.default_rng(1), 32)
    slots = anchor.slots
    score = make_influence(proxies, engine.plan, ONE_DEVICE)
    of_slots, of_rows = score(slots, KEY, stage, anchor, rows)

    runs, _, outer = draw(KEY, proxies[0], engine.plan, stage, anchor, np.zeros(BINS, np.float32))
    drawn = np.array(
        [
            [jax.random.uniform(jax.random.fold_in(key, k)) for k in range(len(proxies))]
            for key in runs.key
        ]
    )
    own = drawn * [p.lr for p in proxies] + np.mean(outer.target, axis=1)[:, None]
    assert own.shape == (3, 2) and np.ptp(own, axis=0).min() > 1e-3
    np.testing.assert_allclose(of_slots, own.mean() * slots.log_weight, rtol=1e-5)
    np.testing.assert_allclose(of_rows, own.mean() * rows.target, rtol=1e-5)
