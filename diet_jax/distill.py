"""One stage of DIET: grow the memory by influential rows, then rewrite the addressed slots.

To grow in rounds by the rows of highest exact influence, and to re-learn labels and weights after
each round, is a fully corrective Frank-Wolfe method on the bi-level objective.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from scipy.special import expit

from diet_jax import memory as mem
from diet_jax.alike import MIX_BY, alike
from diet_jax.bilevel import OuterState, Plan, start_outer
from diet_jax.scene import (
    DIVERGES,
    Engine,
    Scene,
    influences,
    lay_out,
    of_all_slots,
    set_scene,
    to_slots,
)
from diet_jax.sharding import of_first
from diet_jax.swaps import swap
from diet_jax.train import Examples
from diet_jax.types import Array, InputError, Memory, Params, Taught


def growth(plan: Plan, n_new: int, n_steps: int) -> list[tuple[int, int]]:
    """(rows to add, chunks of outer steps after adding them) for each round of a stage.

    The last round gets `final_share` of the steps, the others equal parts of the rest. Every round
    adds a row, so few new rows mean few rounds.
    """
    rounds = max(1, min(plan.rounds, n_new))
    sizes = np.diff(np.linspace(0, n_new, rounds + 1).round().astype(int))
    chunks = -(-n_steps // plan.chunk)
    last = chunks if rounds == 1 else max(1, round(plan.final_share * chunks))
    before = np.diff(np.linspace(0, chunks - last, rounds).round().astype(int))
    return [(int(n), int(c)) for n, c in zip(sizes, [*before, last], strict=True)]


def choose_rows(
    engine: Engine, memory: Memory, fresh: Taught, scene: Scene, k: int, key: Array
) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of the stage to use next, and the influence of every slot (zeros without slots).

    An empty memory trains nothing, so nothing can be influential yet: its first rows are random.
    """
    plan, n = engine.plan, len(fresh.source)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    if not memory.valid.any():
        return np.sort(rng.choice(n, k, replace=False)), np.zeros(len(memory.valid))
    held = memory.source[memory.valid]
    pool = np.sort(rng.choice(n, min(plan.pool, n), replace=False))
    taken = np.isin(fresh.source[pool], held)
    if (~taken).sum() < k:  # of a short stage nearly all rows may be taken
        free = np.flatnonzero(~np.isin(fresh.source, held))
        pool = np.sort(rng.permutation(free)[: plan.pool])
        taken = np.zeros(len(pool), bool)
    padded = np.resize(pool, plan.pool)
    candidates = Examples(
        fresh.rows.ids[padded],
        fresh.rows.dense[padded],
        expit(scene.start_logit[padded]),
        np.ones(plan.pool, np.float32),
    )
    of_slots, of_rows = influences(engine, memory, scene, candidates, key)
    of_rows = of_rows[: len(pool)]
    of_rows[taken] = -np.inf
    alone = np.arange(len(pool))  # every row a group of its own: no cap
    group = fresh.rows.ids[pool, plan.spread_field] if plan.spread_field >= 0 else alone
    return pool[mem.pick(of_rows, k, group, plan.spread_cap)], of_slots


def grow(
    plan: Plan, memory: Memory, fresh: Taught, scene: Scene, chosen: np.ndarray, number: int
) -> Memory:
    """Append rows of the stage at the labels of the scene and the memory's mean weight.

    A row of the log that weighs more starts with that much more. Where slots mix M rows, as many
    make one slot: those that are alike, so that their mean is true of each (`plan.mix_by`); they
    start at equal shares. Where a slot brings fewer along, `own`, slots next to it lend it theirs.
    """
    if not len(chosen):  # of a stage too short for a slot
        return memory
    in_use = memory.log_weight[memory.valid]
    log_weight = np.log(np.exp(in_use).mean()) if len(in_use) else 0.0
    new = (
        fresh.rows.ids[chosen],
        fresh.rows.dense[chosen],
        scene.start_logit[chosen],
        log_weight + np.log(fresh.rows.weight[chosen]),
        fresh.source[chosen],
    )
    if memory.mix is not None:
        n, m = len(chosen), memory.mix.shape[1]
        own = plan.own or m
        first = np.minimum(np.arange(0, n, own), max(n - m, 0))
        at = np.minimum(first[:, None] + np.arange(m), n - 1)
        order = alike(MIX_BY[plan.mix_by](new[2], partial(fresh.embed, chosen)), own)
        # What lies nearly in the middle may fall on another side on another host.
        order = of_first(order)[at]
        ids, dense, logit, log_weight, source = (a[order] for a in new)
        new = ids, dense.mean(1), logit.mean(1), log_weight.mean(1), source
    return mem.append(memory, *new[:4], number, new[4])


class Halfway(NamedTuple):
    """A stage between two chunks of outer steps: all that it takes to go on from there.

    memory: as the latest round grew it. writable: bool [N]. outer: what outer steps carry.
    """

    memory: Memory
    writable: np.ndarray
    outer: OuterState


class Progress(NamedTuple):
    """The rest of what such a stage has done, JSON values.

    round: the latest, 0-based. chunks: done in it. losses: the mean of each chunk so far. seconds:
    of influence, and of outer steps.
    """

    round: int
    chunks: int
    losses: list[float]
    seconds: list[float]


def make_room(
    engine: Engine,
    at: Halfway,
    fresh: Taught,
    scene: Scene,
    k: int,
    number: int,
    key: Array,
    n_evict: int,
) -> tuple[Halfway, np.ndarray]:
    """Before a stage's first rows: evict, and address the old slots that it may rewrite.

    Both go by influence on the stage as the memory meets it. Returns the k rows of most influence
    too, for which that was found along with theirs.
    """
    memory, plan = at.memory, engine.plan
    chosen, of_slots = choose_rows(engine, memory, fresh, scene, k, key)
    chosen_by_it = 0 < plan.write_share < 1 and plan.address_by != "random"
    if n_evict or chosen_by_it or plan.threshold:
        of_slots = of_all_slots(engine, memory, scene, of_slots, key)
    # To leave a slot out raises the loss by its weight times its influence.
    memory = mem.evict(memory, np.exp(memory.log_weight) * of_slots, n_evict)
    rng = np.random.default_rng((number, *np.asarray(jax.random.key_data(key))))
    strength = mem.ADDRESSING[plan.address_by](of_slots, rng)
    writable = mem.address(strength, memory.valid, plan.write_share)
    writable &= mem.matter(of_slots, memory.valid, plan.threshold)
    return at._replace(memory=memory, writable=writable), chosen


def widen(
    plan: Plan, at: Halfway, fresh: Taught, scene: Scene, chosen: np.ndarray, number: int
) -> Halfway:
    """With slots of the chosen rows, which may be written."""
    grown = grow(plan, at.memory, fresh, scene, chosen, number)
    writable = at.writable | (grown.valid & ~at.memory.valid)
    learned = {name: getattr(grown, name) for name in plan.learn}
    return Halfway(grown, writable, at.outer._replace(learned=learned))


Pause = tuple[Halfway, Progress]  # where a stage goes on from
SafePoint = Callable[[Callable[[], Pause]], None]


def go_past(pause: Callable[[], Pause]) -> None:
    """A safe point at which nothing is saved."""


def blank_halfway(plan: Plan, memory: Memory) -> Halfway:
    """One with the structure, shapes and dtypes that a stage of this memory has."""
    learned = {name: getattr(memory, name) for name in plan.learn}
    return Halfway(memory, np.zeros(len(memory.valid), bool), start_outer(plan, learned))


def distill_stage(
    engine: Engine,
    memory: Memory,
    fresh: Taught,
    n_new: int,
    n_steps: int,
    number: int,
    key: Array,
    report: Callable[[int, float], None] = lambda step, loss: None,
    start: Params = None,
    rows: np.ndarray | None = None,
    n_evict: int = 0,
    at_safe_point: SafePoint = go_past,
    paused: Pause | None = None,
) -> tuple[Memory, dict]:
    """Take the memory (numpy leaves) through one stage.

    n_new: slots to add, each of as many rows as the memory mixes, or `plan.own`. n_steps: outer
    steps, rounded up to whole chunks. number: the stage's, 1-based, written into `born`.
    report(step, loss) is told of every chunk but the last, one chunk late, so that the device never
    waits for it. start: see `set_scene`.
    rows: int, those of the stage to add, in order; if none are given, the most influential of each
    round. n_evict: old slots to give up first, those whose loss would cost this stage least.
    at_safe_point(pause) is called before every chunk, and may raise; pause() returns (numpy) where
    the stage is, so that it can go on from there. paused: what pause() returned then.
    Returns the new memory and facts: "written" (old slots that could be rewritten), "outer" (step,
    loss) pairs, "outer_steps", "skipped" (of them, as loss or gradient was not finite), "overshoot"
    (median and largest of `metagrad.overshoot`, a pair for each proxy), "seconds_influence",
    "seconds_outer" (compilation included).
    Raises InputError when no outer step of the stage could be taken.
    """
    place, plan, clock = engine.place, engine.plan, time.perf_counter
    past, n_old = memory, int(memory.valid.sum())
    share = plan.anchor * n_old / (n_old + n_new)
    laid = lay_out(engine, fresh)
    scene = set_scene(engine, past, memory, laid, share, start)
    key_score, key_outer = jax.random.split(jax.random.fold_in(key, number))
    key_steps = place.replicate(key_outer)
    rounds = growth(plan, n_new, n_steps)
    n_steps = plan.chunk * sum(chunks for _, chunks in rounds)
    at, before = paused or (blank_halfway(plan, memory), Progress(-1, 0, [], [0.0, 0.0]))
    losses, seconds = list(before.losses), list(before.seconds)

    def pause(at: Halfway, state: OuterState, progress: Progress, began: float) -> Pause:
        so_far = [seconds[0], seconds[1] + clock() - began]
        progress = progress._replace(losses=means(losses), seconds=so_far)
        return at._replace(outer=place.fetch(state)), progress

    taken = 0
    for r, (size, chunks) in enumerate(rounds):
        size *= plan.own or mem.mixed(memory)  # rows from here on
        taken += size
        if r < before.round:
            continue
        began = clock()
        if r > before.round:
            given = None if rows is None else rows[taken - size : taken]
            key_round = jax.random.fold_in(key_score, r)
            if r == 0:
                at, chosen = make_room(engine, at, fresh, scene, size, number, key_round, n_evict)
            elif given is None:
                chosen, _ = choose_rows(engine, at.memory, fresh, scene, size, key_round)
            if r and plan.swap_share:
                swapped = swap(engine, at.memory, fresh, scene, at.writable, key_round)
                at = at._replace(memory=swapped)
            at = widen(plan, at, fresh, scene, chosen if given is None else given, number)
        scene = set_scene(engine, past, at.memory, laid, share, start)
        seconds[0] += clock() - began

        began = clock()
        state, slots, mask = place.replicate(
            (at.outer, to_slots(at.memory, scene.compact), at.writable)
        )
        for k in range(before.chunks if r == before.round else 0, chunks):
            at_safe_point(partial(pause, at, state, Progress(r, k, [], []), began))
            first = len(losses) * plan.chunk
            span = np.int32(first), np.int32(n_steps)
            state, loss = engine.outer_steps(
                state, slots, mask, key_steps, *span, scene.stage, scene.anchor
            )
            if losses:
                report(first, means(losses[-1:])[0])
            losses.append(loss)
        learned = {name: np.array(leaf) for name, leaf in state.learned.items()}
        at = at._replace(memory=at.memory._replace(**learned), outer=state)
        seconds[1] += clock() - began
    if int(at.outer.skipped) == len(losses) * plan.chunk:
        raise InputError(f"no outer loss of stage {number} is finite: {DIVERGES}")
    end = place.replicate((to_slots(at.memory, scene.compact), key_score))
    over = np.asarray(engine.overshoot(*end, scene.stage))
    facts = what_was_done(plan, at, number, losses, seconds)
    return at.memory, facts | {"overshoot": [[float(np.median(x)), float(x.max())] for x in over]}


def what_was_done(plan: Plan, at: Halfway, number: int, losses: list, seconds: list[float]) -> dict:
    """The facts of a finished stage that the stage itself tells, JSON values."""
    steps = [(i + 1) * plan.chunk for i in range(len(losses))]
    return {
        "written": int((at.writable & (at.memory.born < number)).sum()),
        "outer": list(zip(steps, means(losses), strict=True)),
        "outer_steps": steps[-1],
        "skipped": int(at.outer.skipped),
        "seconds_influence": seconds[0],
        "seconds_outer": seconds[1],
    }


def means(losses: list) -> list[float]:
    """The mean of each chunk: of float32 [chunk], or what is one already."""
    return [float(np.mean(np.asarray(loss))) for loss in losses]
