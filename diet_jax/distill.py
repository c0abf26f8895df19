"""One stage of DIET: grow the memory by influential rows, then rewrite the addressed slots.

To grow in rounds by the rows of highest exact influence, and to re-learn labels and weights after
each round, is a fully corrective Frank-Wolfe method on the bi-level objective.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from scipy.special import expit
from scipy.special import logit as to_logit

from diet_jax import memory as mem
from diet_jax.bilevel import (
    Anchor,
    Plan,
    StageData,
    make_influence,
    make_outer_steps,
    make_overshoot,
    start_outer,
)
from diet_jax.compact import Compact, compact, pad_to
from diet_jax.metagrad import Inner, Slots
from diet_jax.sharding import Placement
from diet_jax.train import Examples
from diet_jax.types import Array, InputError, Memory, Params, Taught

DIVERGES = "inner training diverges; set --config.inner.lr lower or --config.inner.eps_root higher"


class Engine(NamedTuple):
    """The compiled parts of a stage, made once for all stages, and the static capacities."""

    plan: Plan
    place: Placement
    outer_steps: Callable
    scores: Callable
    overshoot: Callable
    min_rows: int  # capacity that both parts of a compact table start with
    n_stage: int  # rows of a stage


def make_engine(
    proxies: tuple[Inner, ...], plan: Plan, place: Placement, min_rows: int, n_stage: int
) -> Engine:
    return Engine(
        plan,
        place,
        make_outer_steps(proxies, plan, place),
        make_influence(proxies, plan, place),
        make_overshoot(proxies),
        min_rows,
        n_stage,
    )


class Scene(NamedTuple):
    """A stage and the memory it found, on the devices, in the compact rows of a round."""

    compact: Compact
    stage: StageData
    anchor: Anchor
    start_logit: np.ndarray  # float32 [n], where the label of a new slot starts


def set_scene(
    engine: Engine, past: Memory, now: Memory, fresh: Taught, share: float, start: Params = None
) -> Scene:
    """Lay out a stage, and the memory `past` that it found, for training on the memory `now`.

    share: the past's share of the outer loss. `now` holds the rows of `past` and maybe more.
    start: parameters on the whole table (numpy; only the rows needed reach the devices), from which
    trajectories may start.
    """
    plan, rows = engine.plan, fresh.rows
    # `past` too: its free slots look up rows that a full memory no longer holds.
    looked_up = np.concatenate([rows.ids, fresh.ahead_ids])
    table = compact(np.concatenate([past.ids, now.ids]), looked_up, engine.min_rows)

    def known(teacher_logit):  # what the outer loss takes for the truth
        return plan.label_share * rows.label + (1 - plan.label_share) * expit(teacher_logit)

    logit = fresh.teacher_logit
    if plan.label_share:  # nor may a new slot know more than that
        with np.errstate(divide="ignore"):
            logit = to_logit(known(logit))
    logit = np.clip(logit, -plan.max_logit, plan.max_logit).astype(np.float32)
    target = known(fresh.ahead_logit)
    stage = StageData(
        table.rows[: table.n_trained],
        table.rows[table.n_trained :],
        pad_to(table.positions(fresh.ahead_ids), engine.n_stage),
        pad_to(rows.dense, engine.n_stage),
        pad_to(target.astype(np.float32), engine.n_stage),
        pad_to(rows.weight, engine.n_stage),
        np.int32(len(rows.label)),
        start and {**start, "table": start["table"][table.rows]},
    )
    anchor = Anchor(to_slots(past, table), np.int32(past.valid.sum()), np.float32(share))
    stage, anchor = engine.place.replicate((stage, anchor))
    return Scene(table, stage, anchor, logit)


def to_slots(memory: Memory, table: Compact) -> Slots:
    m = memory
    return Slots(table.positions(m.ids), m.valid, m.dense, m.label_logit, m.log_weight)


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
    """The k rows of the stage to add next, and the influence of every slot (zeros without slots).

    An empty memory trains nothing, so nothing can be influential yet: its first rows are random.
    """
    plan, n = engine.plan, len(fresh.source)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    if not memory.valid.any():
        return np.sort(rng.choice(n, k, replace=False)), np.zeros(len(memory.valid))
    pool = np.sort(rng.choice(n, min(plan.pool, n), replace=False))
    padded = np.resize(pool, plan.pool)
    candidates = Examples(
        scene.compact.positions(fresh.rows.ids[padded]),
        fresh.rows.dense[padded],
        expit(scene.start_logit[padded]),
        np.ones(plan.pool, np.float32),
    )
    slots = to_slots(memory, scene.compact)
    args = engine.place.replicate((slots, key, scene.stage, scene.anchor, candidates))
    of_slots, of_rows = (np.array(a) for a in engine.scores(*args))
    if not (np.isfinite(of_slots).all() and np.isfinite(of_rows).all()):
        raise InputError(f"an influence is not finite: {DIVERGES}")
    of_rows = of_rows[: len(pool)]
    of_rows[np.isin(fresh.source[pool], memory.source[memory.valid])] = -np.inf
    alone = np.arange(len(pool))  # every row a group of its own: no cap
    group = fresh.rows.ids[pool, plan.spread_field] if plan.spread_field >= 0 else alone
    return pool[mem.pick(of_rows, k, group, plan.spread_cap)], of_slots


def grow(memory: Memory, fresh: Taught, scene: Scene, chosen: np.ndarray, number: int) -> Memory:
    """Append rows of the stage at the labels of the scene and the memory's mean weight.

    A row of the log that weighs more starts with that much more.
    """
    in_use = memory.log_weight[memory.valid]
    log_weight = np.log(np.exp(in_use).mean()) if len(in_use) else 0.0
    log_weight = log_weight + np.log(fresh.rows.weight[chosen])
    return mem.append(
        memory,
        fresh.rows.ids[chosen],
        fresh.rows.dense[chosen],
        scene.start_logit[chosen],
        log_weight,
        number,
        fresh.source[chosen],
    )


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
) -> tuple[Memory, dict]:
    """Take the memory (numpy leaves) through one stage.

    n_new: slots to add. n_steps: outer steps, rounded up to whole chunks. number: the stage's,
    1-based, written into `born`. report(step, loss) is told of every chunk, one chunk late, so that
    the device never waits for it. start: see `set_scene`. rows: int [n_new], those of the stage to
    add, in order; if none are given, the most influential of each round.
    Returns the new memory and facts: "written" (old slots that could be rewritten), "outer" (step,
    loss) pairs, "outer_steps", "skipped" (of them, as loss or gradient was not finite), "overshoot"
    (median and largest of `metagrad.overshoot`, a pair for each proxy), "seconds_influence",
    "seconds_outer" (compilation included).
    Raises InputError when no outer step of the stage could be taken.
    """
    place, clock = engine.place, time.perf_counter
    past, n_old = memory, int(memory.valid.sum())
    share = engine.plan.anchor * n_old / (n_old + n_new)
    scene = set_scene(engine, past, memory, fresh, share, start)
    key_score, key_outer = jax.random.split(jax.random.fold_in(key, number))
    writable, carried = np.zeros(len(memory.valid), bool), None
    losses, seconds, taken = [], [0.0, 0.0], 0
    for r, (size, chunks) in enumerate(growth(engine.plan, n_new, n_steps)):
        began = clock()
        key_round = jax.random.fold_in(key_score, r)
        if rows is None or r == 0:
            chosen, of_slots = choose_rows(engine, memory, fresh, scene, size, key_round)
        if r == 0:  # the old slots that this stage needs, by their influence before it begins
            rng = np.random.default_rng((number, *np.asarray(jax.random.key_data(key_round))))
            strength = mem.ADDRESSING[engine.plan.address_by](of_slots, rng)
            writable = mem.address(strength, memory.valid, engine.plan.write_share)
            n_written = int(writable.sum())
        if rows is not None:
            chosen = rows[taken : taken + size]
        taken += size
        grown = grow(memory, fresh, scene, chosen, number)
        writable = writable | (grown.valid & ~memory.valid)
        scene = set_scene(engine, past, grown, fresh, share, start)
        seconds[0] += clock() - began

        began = clock()
        slots = to_slots(grown, scene.compact)
        learned = {name: getattr(slots, name) for name in engine.plan.learn}
        carried = carried or start_outer(engine.plan, learned)
        state = carried._replace(learned=learned)
        state, slots, mask = place.replicate((state, slots, writable))
        for _ in range(chunks):
            first = len(losses) * engine.plan.chunk
            state, loss = engine.outer_steps(
                state, slots, mask, key_outer, np.int32(first), scene.stage, scene.anchor
            )
            if losses:
                report(first, float(losses[-1].mean()))
            losses.append(loss)
        carried = state
        memory = grown._replace(**{k: np.array(v) for k, v in state.learned.items()})
        seconds[1] += clock() - began
    assert carried is not None  # a stage has at least one round
    skipped = int(carried.skipped)
    if skipped == len(losses) * engine.plan.chunk:
        raise InputError(f"no outer loss of stage {number} is finite: {DIVERGES}")
    over = np.asarray(engine.overshoot(to_slots(memory, scene.compact), key_score, scene.stage))
    steps = [(i + 1) * engine.plan.chunk for i in range(len(losses))]
    facts = {
        "written": n_written,
        "outer": [(k, float(loss.mean())) for k, loss in zip(steps, losses, strict=True)],
        "outer_steps": steps[-1],
        "skipped": skipped,
        "overshoot": [[float(np.median(x)), float(x.max())] for x in over],
        "seconds_influence": seconds[0],
        "seconds_outer": seconds[1],
    }
    return memory, facts
