"""A stage and a memory on the devices, laid out for the compiled parts that distil it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import expit, softmax
from scipy.special import logit as to_logit

from diet_jax.bilevel import (
    Anchor,
    Plan,
    StageData,
    make_influence,
    make_outer_steps,
    make_overshoot,
)
from diet_jax.compact import Compact, compact, cut, distinct, pad_to
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
    draws: int  # of slots in the differentiated steps of a trajectory; 0: each sees them all


def make_engine(
    proxies: tuple[Inner, ...], plan: Plan, place: Placement, min_rows: int, n_stage: int
) -> Engine:
    return Engine(
        plan,
        place,
        make_outer_steps(proxies, plan, place),
        make_influence(proxies, plan, place),
        make_overshoot(proxies, place),
        min_rows,
        n_stage,
        proxies[0].unrolled * proxies[0].batch,
    )


class Laid(NamedTuple):
    """A stage on the devices, where it stays while the memory grows."""

    table_rows: np.ndarray  # int32 [D], that it looks up, ascending
    rows: Examples  # [C], ids counted by `table_rows`; target: the outer target
    n: np.ndarray  # int32 [], rows in use
    start_logit: np.ndarray  # float32 [n], where the label of a new slot starts


def lay_out(engine: Engine, fresh: Taught) -> Laid:
    """Put a stage on the devices: the rows of the outer loss, as the next stage would show them."""
    plan, rows = engine.plan, fresh.rows

    def known(teacher_logit):  # what the outer loss takes for the truth
        return plan.label_share * rows.label + (1 - plan.label_share) * expit(teacher_logit)

    logit = fresh.teacher_logit
    if plan.label_share:  # nor may a new slot know more than that
        with np.errstate(divide="ignore"):
            logit = to_logit(known(logit))
    logit = np.clip(logit, -plan.max_logit, plan.max_logit).astype(np.float32)
    table_rows = distinct(rows.ids, fresh.ahead_ids)
    own = Compact(table_rows, 0).positions(fresh.ahead_ids)
    target = known(fresh.ahead_logit).astype(np.float32)
    columns = own, rows.dense, target, rows.weight
    padded = Examples(*(pad_to(column, engine.n_stage) for column in columns))
    placed, n = engine.place.replicate((padded, np.int32(len(rows.label))))
    return Laid(table_rows, placed, n, logit)


class Scene(NamedTuple):
    """A stage and the memory it found, on the devices, in the compact rows of a round."""

    compact: Compact
    stage: StageData
    anchor: Anchor
    start_logit: np.ndarray  # as in Laid


def set_scene(
    engine: Engine, past: Memory, now: Memory, laid: Laid, share: float, start: Params = None
) -> Scene:
    """A stage, and the memory `past` that it found, for training on the memory `now`.

    share: the past's share of the outer loss. `now` holds the rows of `past` and maybe more.
    start: parameters on the whole table (numpy; only the rows needed reach the devices), from which
    trajectories may start.
    """
    # `past` too: its free slots look up rows that a full memory no longer holds.
    parts = engine.place.size("table")
    table = compact(np.stack([past.ids, now.ids]), laid.table_rows, engine.min_rows, parts)
    where = pad_to(table.positions(laid.table_rows), len(table.rows))
    start = start and {**start, "table": start["table"][table.rows]}
    anchor = Anchor(to_slots(past, table), np.int32(past.valid.sum()), np.float32(share))
    trained, fixed = cut(table.rows, table.n_trained, parts)
    sent = engine.place.replicate((trained, fixed, where, start, anchor))
    trained, fixed, where, start, anchor = sent
    stage = StageData(trained, fixed, where, laid.rows, laid.n, start)
    return Scene(table, stage, anchor, laid.start_logit)


def to_slots(memory: Memory, table: Compact) -> Slots:
    m = memory
    return Slots(
        table.positions(m.ids), m.valid, m.dense, m.label_logit, m.log_weight, m.mix, m.rates
    )


def as_candidates(memory: Memory, at: np.ndarray) -> Examples:
    """Slots `at` (int [C]) as rows that `influences` judges, with ids that are table rows."""
    return Examples(
        memory.ids[at],
        memory.dense[at],
        expit(memory.label_logit[at]),
        np.ones(len(at), np.float32),
        None if memory.mix is None else softmax(memory.mix[at], axis=1),
    )


def influences(
    engine: Engine, memory: Memory, scene: Scene, candidates: Examples, key: Array
) -> tuple[np.ndarray, np.ndarray]:
    """Influence of every slot, float32 [N], and of the candidates, whose ids are table rows: [C].

    Raises InputError where one is not finite.
    """
    candidates = candidates._replace(ids=scene.compact.positions(candidates.ids))
    slots = to_slots(memory, scene.compact)
    slots, key, candidates = engine.place.replicate((slots, key, candidates))
    found = engine.scores(slots, key, scene.stage, scene.anchor, candidates)
    of_slots, of_rows = (np.array(a) for a in found)
    if not (np.isfinite(of_slots).all() and np.isfinite(of_rows).all()):
        raise InputError(f"an influence is not finite: {DIVERGES}")
    return of_slots, of_rows


def of_all_slots(
    engine: Engine, memory: Memory, scene: Scene, of_slots: np.ndarray, key: Array
) -> np.ndarray:
    """The influence of every slot in use, float32 [N]: `of_slots`, if what was differentiated drew
    them all.

    If not, those that it did not draw have none there, and would be told apart by nothing but their
    place. Then all are judged as candidates are, which count in every step.
    """
    used, size = np.flatnonzero(memory.valid), engine.plan.pool
    if not 0 < engine.draws < len(used):
        return of_slots
    found = np.zeros(len(memory.valid), np.float32)
    for start in range(0, len(used), size):
        some = used[start : start + size]
        padded = as_candidates(memory, np.resize(some, size))
        found[some] = influences(engine, memory, scene, padded, key)[1][: len(some)]
    return found
