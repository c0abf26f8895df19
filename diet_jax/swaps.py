"""Discrete rewriting: slots take single values of other rows, by the first-order gain of a swap.

A slot whose value of one field is another one is a candidate like any other: its influence is the
derivative of the outer loss by its weight, at weight zero. So to move the slot's weight w from what
it is to what it may become lowers the loss by w (influence of the latter - that of the former), to
first order, and one backward pass judges as many swaps as a round has candidates.
"""

import jax
import numpy as np

from diet_jax import memory as mem
from diet_jax.scene import Engine, Scene, as_candidates, influences, of_all_slots
from diet_jax.types import Array, Memory, Taught


def swap(
    engine: Engine, memory: Memory, fresh: Taught, scene: Scene, writable: np.ndarray, key: Array
) -> Memory:
    """With the best of `plan.pool` random swaps, one a slot, in `plan.swap_share` of the slots that
    may be written (bool [N]) and gain by it.

    A swap gives one of the rows that a slot mixes all values that a row of the stage has in one
    field. Labels, weights and shares stay, and so does `source`, the row that it started from.
    """
    plan, n = engine.plan, engine.plan.pool
    rng = np.random.default_rng((1, *np.asarray(jax.random.key_data(key))))
    at = rng.choice(np.flatnonzero(writable & memory.valid), n)
    ids, fields = memory.ids[at], np.array(plan.columns)
    rows = ids.reshape(n, mem.mixed(memory), -1)  # a view
    which = np.arange(n), rng.integers(rows.shape[1], size=n)
    donors = fresh.rows.ids[rng.integers(len(fresh.source), size=n)]
    change = fields == rng.integers(fields.max() + 1, size=(n, 1))
    rows[which] = np.where(change, donors, rows[which])
    candidates = as_candidates(memory, at)._replace(ids=ids)
    of_slots, of_swaps = influences(engine, memory, scene, candidates, key)
    of_slots = of_all_slots(engine, memory, scene, of_slots, key)
    gain = np.exp(memory.log_weight[at]) * (of_swaps - of_slots[at])
    most = int(plan.swap_share * (writable & memory.valid).sum())
    ranked = np.argsort(-gain, kind="stable")
    ranked = ranked[gain[ranked] > 0]
    first = np.sort(np.unique(at[ranked], return_index=True)[1])  # of a slot the best
    chosen = ranked[first][:most]
    swapped = memory.ids.copy()
    swapped[at[chosen]] = ids[chosen]
    return memory._replace(ids=swapped)
