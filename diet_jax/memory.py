"""The memory's own moves: append rows, pick the best candidates, address the slots to rewrite."""

import numpy as np

from diet_jax.types import Memory


def empty(
    capacity: int, n_columns: int, n_dense: int, n_mixed: int = 1, n_rates: int = 0
) -> Memory:
    """A memory of `capacity` slots, none in use, that mix `n_mixed` rows each; numpy arrays.

    n_rates: proxies whose inner learning rates are learned.
    """
    each = (capacity, n_mixed) if n_mixed > 1 else (capacity,)
    return Memory(
        ids=np.zeros((*each, n_columns), np.int32),
        dense=np.zeros((capacity, n_dense), np.float32),
        label_logit=np.zeros(capacity, np.float32),
        log_weight=np.zeros(capacity, np.float32),
        born=np.zeros(capacity, np.int32),
        source=np.full(each, -1, np.int64),
        valid=np.zeros(capacity, bool),
        mix=np.zeros(each, np.float32) if n_mixed > 1 else None,
        rates=np.zeros((n_rates, 2), np.float32) if n_rates else None,
    )


def mixed(memory: Memory) -> int:
    """M, the rows that a slot mixes; 1 without mixtures."""
    return 1 if memory.mix is None else memory.mix.shape[1]


def append(memory: Memory, ids, dense, label_logit, log_weight, born: int, source) -> Memory:
    """Fill the first free slots with rows (ids [k, K], dense [k, G], label_logit [k], source [k]).

    They start at `log_weight` (one for all, or [k]) and carry the stage `born`. Mixtures (ids
    [k, M, K], source [k, M]) start at equal shares. Raises ValueError when fewer than k slots are
    free.
    """
    free = np.flatnonzero(~memory.valid)
    if len(free) < len(ids):
        raise ValueError(f"{len(ids)} rows do not fit the {len(free)} free slots of the memory")
    at = free[: len(ids)]
    new = Memory(ids, dense, label_logit, log_weight, born, source, True, 0.0)
    filled = Memory(*(None if leaf is None else leaf.copy() for leaf in memory))
    for leaf, value in zip(filled, new, strict=True):
        if leaf is not None and value is not None:
            leaf[at] = value
    return filled


def evict(memory: Memory, importance: np.ndarray, k: int) -> Memory:
    """The memory without the k slots in use of least `importance` (float [N])."""
    ranked = np.argsort(np.where(memory.valid, importance, np.inf), kind="stable")
    valid = memory.valid.copy()
    valid[ranked[:k]] = False
    return memory._replace(valid=valid)


def pick(score: np.ndarray, k: int, group: np.ndarray, per_group: int) -> np.ndarray:
    """The k rows of highest `score` (float [C]) with at most `per_group` of one `group` (int [C]).

    Ties go to the earlier row; rows with a score of -inf are never picked. When the cap leaves
    fewer than k rows, the best of the others fill up. Returns int64 [<= k], best first.
    """
    ranked = np.argsort(-score, kind="stable")
    ranked = ranked[np.isfinite(score[ranked])]
    by_group = np.argsort(group[ranked], kind="stable")
    sorted_group = group[ranked][by_group]
    first = np.searchsorted(sorted_group, sorted_group)
    nth = np.empty(len(ranked), np.int64)
    nth[by_group] = np.arange(len(ranked)) - first
    allowed = nth < per_group
    return np.concatenate([ranked[allowed], ranked[~allowed]])[:k]


# How slots are addressed: f(influence on the loss of the current stage [N], rng) -> strength [N].
ADDRESSING = {
    "influence": lambda influence, rng: np.abs(influence),
    # Without replacement, each as likely as it is influential (Gumbel top-k).
    "sampled": lambda influence, rng: (
        np.log(np.abs(influence) + 1e-30) + rng.gumbel(size=len(influence))
    ),
    "random": lambda influence, rng: rng.random(len(influence)),
}


def address(strength: np.ndarray, valid: np.ndarray, share: float) -> np.ndarray:
    """The slots that this stage may rewrite: bool [N].

    The `share` (0 .. 1) of the valid slots with the largest strength; the others stay bit for bit
    as they are.
    """
    n = int(np.ceil(share * valid.sum()))
    strength = np.where(valid, strength, -np.inf)
    writable = np.zeros(len(valid), bool)
    writable[np.argsort(-strength, kind="stable")[:n]] = True
    return writable & valid


def matter(influence: np.ndarray, valid: np.ndarray, times: float) -> np.ndarray:
    """The slots in use whose |influence| (float [N]) is at least `times` the mean of theirs: bool
    [N]. `address` says how many slots are rewritten, this what it takes to be one."""
    strength = np.where(valid, np.abs(influence), 0)
    return valid & (strength * valid.sum() >= times * strength.sum())
