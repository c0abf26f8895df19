"""A stage rewrites what it addressed and nothing else, the same way every time."""

import hashlib
import math

import jax
import numpy as np
import pytest
import toy

from diet_jax import checkpoint
from diet_jax import memory as mem
from diet_jax.baselines import find
from diet_jax.bilevel import BINS, draw
from diet_jax.distill import Progress, blank_halfway, choose_rows, distill_stage, growth
from diet_jax.models import init_params, make_model
from diet_jax.optim import Optimizer
from diet_jax.scene import lay_out, of_all_slots, set_scene
from diet_jax.select import Look
from diet_jax.types import InputError

STAGES = 3
NEW = 8


@pytest.fixture(scope="module")
def streamed(engine):
    """The memory before the first of three stages and after each, and the facts of each."""
    return toy.stream(engine, STAGES, NEW)


@pytest.fixture(params=range(1, STAGES), ids=["stage 2", "stage 3"])
def turn(request, streamed):
    """A memory as a stage found it and as it left it, bool [N]: what it changed, and its facts."""
    memories, facts = streamed
    old, new = memories[request.param], memories[request.param + 1]
    changed = np.zeros(toy.CAPACITY, bool)
    for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True):
        changed |= (a != b).reshape(toy.CAPACITY, -1).any(1)
    return old, new, changed, facts[request.param]


def hash_of(memory):
    leaves = map(np.ascontiguousarray, jax.tree.leaves(memory))
    return hashlib.sha256(b"".join(leaves)).hexdigest()


def test_slots_that_are_not_addressed_stay_bit_for_bit(turn):
    old, new, changed, facts = turn
    share = 0.3  # toy's
    assert facts["written"] == math.ceil(share * old.valid.sum())
    assert (changed & old.valid).sum() <= facts["written"]
    assert (changed & old.valid).any()  # what it addressed did learn
    assert not changed[~new.valid].any()
    for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True):
        assert a.dtype == b.dtype
        assert a[~changed].tobytes() == b[~changed].tobytes()


def test_the_learned_leaves_all_move(turn):
    old, new, changed, _ = turn
    for name in toy.LEARNED:
        a, b = getattr(old, name), getattr(new, name)
        assert np.any(a[old.valid] != b[old.valid]), name
        assert np.isfinite(b).all(), name


def test_old_slots_keep_what_they_came_from(turn):
    old, new, _, _ = turn
    used = old.valid
    for name in ("ids", "born", "source", "valid"):
        assert np.array_equal(getattr(new, name)[used], getattr(old, name)[used]), name


def test_the_memory_grows_by_rows_of_the_stage(streamed):
    memories, _ = streamed
    for number in range(1, STAGES + 1):
        old, new, fresh = memories[number - 1], memories[number], toy.stage(number)
        grown = new.valid & ~old.valid
        assert grown.sum() == NEW
        assert new.valid.sum() == NEW * number
        assert np.all(new.born[grown] == number)
        at = new.source[grown] - fresh.source[0]
        assert np.array_equal(new.ids[grown], fresh.rows.ids[at])
    assert len(np.unique(memories[-1].source[memories[-1].valid])) == NEW * STAGES


def test_no_row_is_taken_twice_where_few_are_left(engine):
    """15 rows at random, then 15 of a pool of 32 out of the same 60."""
    memory, _ = distill_stage(engine, toy.empty(), toy.stage(1), 30, 2, 1, jax.random.key(0))
    assert len(np.unique(memory.source[memory.valid])) == 30


def test_a_stage_may_give_nearly_all_of_its_rows(engine):
    """At the last round a pool of 32 out of 60 has less than the 15 rows that are left."""
    plan = engine.plan._replace(rounds=4)
    memory, _ = distill_stage(
        engine._replace(plan=plan), toy.empty(), toy.stage(1), 32, 2, 1, jax.random.key(0)
    )
    assert memory.valid.sum() == 32 and len(np.unique(memory.source[:32])) == 32


def test_slots_that_no_window_draws_are_judged_too():
    """20 slots, windows of 2 steps of 4: all have an influence, of which many windows' mean is like
    that of what they draw, so that no slot is passed over for its place."""
    one = toy.smooth_proxy()._replace(window=2, batch=4, steps=6)
    engine = toy.engine(proxies=(one,), trajectories=1)
    (ids, dense, *_), source, logit, *_ = toy.stage(1)
    memory = mem.append(toy.empty(), ids[:20], dense[:20], 8 * logit[:20], 0, 1, source[:20])
    scene = set_scene(engine, memory, memory, lay_out(engine, toy.stage(2)), 0.3)
    drawn, judged = [], []
    for key in jax.random.split(jax.random.key(0), 300):
        _, of_slots = choose_rows(engine, memory, toy.stage(2), scene, 4, key)
        drawn.append(of_slots)
        judged.append(of_all_slots(engine, memory, scene, of_slots, key))
    drawn, judged = np.array(drawn), np.array(judged)
    assert np.all((drawn != 0).sum(1) == 8) and np.all((judged != 0) == memory.valid)
    assert np.corrcoef(drawn.mean(0)[:20], judged.mean(0)[:20])[0, 1] > 0.85
    enough = engine._replace(draws=20)  # then what was drawn is exact, and stays
    assert np.array_equal(of_all_slots(enough, memory, scene, drawn[0], key), drawn[0])


@pytest.mark.parametrize("mix_by", ["teacher", "label"])
def test_a_stage_too_short_for_a_slot_adds_none(mix_by):
    engine = toy.engine(mix_by=mix_by)
    blank = mem.empty(toy.CAPACITY, len(toy.FIELDS), 1, n_mixed=2)
    first, second = (s._replace(embed=lambda at: at[:, None] * 1.0) for s in map(toy.stage, (1, 2)))
    old, _ = distill_stage(engine, blank, first, 4, 2, 1, jax.random.key(0))
    new, facts = distill_stage(engine, old, second, 0, 2, 2, jax.random.key(0))
    assert new.valid.sum() == 4 and facts["written"] > 0
    assert np.any(new.label_logit != old.label_logit)


def test_the_cap_on_one_value_holds_within_a_round(streamed):
    memories, _ = streamed
    third = memories[-1]
    of_stage = third.ids[third.born == 3, 1]  # the spread field; two rounds of at most two
    assert np.bincount(of_stage).max() <= 4


def test_same_seed_same_memory_other_seed_other_memory(engine, streamed):
    memories, _ = streamed
    again, _ = toy.stream(engine, STAGES, NEW)
    assert [hash_of(m) for m in again] == [hash_of(m) for m in memories]
    other, _ = toy.stream(engine, 1, NEW, seed=1)
    assert hash_of(other[1]) != hash_of(memories[1])


def test_the_memory_that_is_given_is_left_alone(engine, streamed):
    memories, _ = streamed
    before = hash_of(memories[1])
    distill_stage(engine, memories[1], toy.stage(2), NEW, 2, 2, jax.random.key(0))
    assert hash_of(memories[1]) == before


def test_a_memory_may_fill_up(engine):
    past, fresh = mem.empty(2, 3, 1), toy.stage(1)
    look = Look(fresh, None, None)  # pyright: ignore
    now = find("random_hard")(past, look, 2 + int(past.valid.sum()), 2, 1, np.random.default_rng(0))
    assert now.valid.all()
    set_scene(engine, past, now, lay_out(engine, fresh), share=0.0)


def test_one_compilation_serves_every_stage(engine, streamed):
    assert engine.outer_steps._cache_size() == 1
    assert engine.scores._cache_size() == 1


def linear(**change):
    """An engine whose proxy compiles fast; `change` is of its inner loop."""
    model = make_model("LR", 1, (), init_scale=0.3)
    return toy.inner(model=model, optimizer=Optimizer("adam", eps_root=1e-3), **change)


@pytest.mark.parametrize("mode", ["full", "adaptive", "implicit", "one_step"])
def test_a_stage_in_every_mode(mode):
    engine = toy.engine(proxies=(linear(mode=mode, window=3),), trajectories=1)
    memory, facts = distill_stage(engine, toy.empty(), toy.stage(1), NEW, 20, 1, jax.random.key(0))
    assert memory.valid.sum() == NEW and facts["skipped"] == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(memory))
    start = np.clip(toy.stage(1).teacher_logit, -2, 2)[memory.source[memory.valid]]
    assert np.all(memory.label_logit[memory.valid] != start)  # every slot has learned
    [(median, largest)] = facts["overshoot"]
    assert 0 < median <= largest


def test_the_inner_learning_rates_may_be_learned():
    """Of each proxy its own, and they go on from stage to stage."""
    proxies = (linear(window=3), linear(window=3, lr=0.02))
    engine = toy.engine(learn=("label_logit", "rates"), proxies=proxies, trajectories=1)
    memory = mem.empty(toy.CAPACITY, len(toy.FIELDS), 1, n_rates=2)
    for number in (1, 2):
        before, key = memory.rates, jax.random.key(0)
        stage = toy.stage(number)
        memory, _ = distill_stage(engine, memory, stage, NEW, 6, number, key)
        moved = memory.rates - before
        assert np.isfinite(memory.rates).all() and np.all(moved != 0)
        assert np.all(np.abs(moved) <= 6 * 1.1 * engine.plan.lr)  # six steps of Adam
    assert memory.valid.sum() == 2 * NEW and not np.any(memory.label_logit[~memory.valid])


def test_trajectories_may_start_at_the_teacher():
    """At those of its rows that a stage needs; of `mixed` some do."""
    proxy = linear(window=3)
    rows, rng = np.arange(toy.VOCAB), np.random.default_rng(0)
    params = jax.tree.map(
        lambda a: rng.normal(size=a.shape).astype(np.float32),
        init_params(proxy.model, jax.random.key(1), rows, len(toy.FIELDS), 1),
    )
    for start, shares in (("fresh", None), ("teacher", {0.0}), ("mixed", {0.0, 0.5, 1.0})):
        engine = toy.engine(proxies=(proxy,), trajectories=2, start=start, rounds=1)
        scene, _ = toy.first_turn(engine, None if start == "fresh" else params)
        stage = scene.stage
        args = proxy, engine.plan, stage, scene.anchor, np.zeros(BINS, np.float32)
        keys = jax.random.split(jax.random.key(0), 16)
        drawn = jax.vmap(lambda key, args=args: draw(key, *args)[0].fresh)(keys)
        if start == "fresh":
            assert stage.start is None and drawn is None
            continue
        assert set(drawn.mean(1).tolist()) == shares
        needed = np.concatenate([stage.trained, stage.fixed])
        assert np.array_equal(stage.start["table"], params["table"][needed])
        jax.tree.map(np.testing.assert_array_equal, stage.start["net"], params["net"])
    # Where it stands tells: `engine` is the one of mixed starts.
    args = engine, toy.empty(), toy.stage(1), NEW, 2, 1, jax.random.key(0)
    starts = params, jax.tree.map(lambda a: a + 1, params)
    one, other = (distill_stage(*args, start=start)[0] for start in starts)
    assert np.isfinite(one.label_logit).all() and hash_of(one) != hash_of(other)


def test_a_stage_without_a_finite_loss_is_refused():
    engine = toy.engine(proxies=(linear(lr=float("nan")),), trajectories=1, rounds=1)
    with pytest.raises(InputError, match="stage 1.*--config.inner.lr lower"):
        distill_stage(engine, toy.empty(), toy.stage(1), NEW, 4, 1, jax.random.key(0))


def test_the_outer_loss_of_a_learnable_log_goes_down(engine):
    told = []
    _, facts = distill_stage(
        engine,
        toy.empty(),
        toy.stage(1),
        16,
        120,
        1,
        jax.random.key(0),
        lambda step, loss: told.append((step, loss)),
    )
    steps, losses = zip(*facts["outer"], strict=True)
    assert steps == tuple(range(1, 121)) and facts["outer_steps"] == 120
    assert np.mean(losses[-20:]) < np.mean(losses[:5]) - 0.05
    assert told == facts["outer"][:-1]  # one chunk late, the last one not at all


@pytest.mark.parametrize("rounds", [1, 2, 5])
@pytest.mark.parametrize("n_new", [0, 3, 20])
def test_growth_spends_all_rows_and_steps(engine, rounds, n_new):
    plan = engine.plan._replace(rounds=rounds, chunk=4, final_share=0.4)
    turns = growth(plan, n_new, 37)
    sizes, chunks = zip(*turns, strict=True)
    assert len(turns) == max(1, min(rounds, n_new))  # no round without a row
    assert sum(sizes) == n_new and max(sizes) - min(sizes) <= 1
    assert sum(chunks) == 10  # 37 steps in chunks of 4
    assert chunks[-1] == (10 if len(turns) == 1 else 4)


@pytest.mark.parametrize("chunks", [0, 2, 5])
def test_a_paused_stage_comes_out_as_one_that_was_not(engine, streamed, tmp_path, chunks):
    """Bit for bit, from what a checkpoint gives back: before its first step, in a later round."""
    memories, facts = streamed
    args = (engine, memories[1], toy.stage(2), 8, 6, 2, jax.random.key(0))
    pauses = []
    undisturbed, _ = distill_stage(*args, at_safe_point=lambda pause: pauses.append(pause()))
    halfway, progress = pauses[chunks]
    assert [len(progress.losses) for _, progress in pauses] == list(range(6))
    checkpoint.save(tmp_path, chunks, halfway, progress._asdict(), checkpoint.PAUSED)
    like = blank_halfway(engine.plan, memories[1])
    halfway, said = checkpoint.load(tmp_path, chunks, like, checkpoint.PAUSED)
    memory, fact = distill_stage(*args, paused=(halfway, Progress(**said)))
    for name, want in memories[2]._asdict().items():
        assert np.array_equal(getattr(memory, name), want), name
        assert np.array_equal(getattr(undisturbed, name), want), name  # to look changes nothing
    assert fact["outer"] == facts[1]["outer"]
