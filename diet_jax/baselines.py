"""What the memory must beat: as many rows, chosen by a selector and not distilled.

A baseline is named SELECTOR_LABELS and is f(memory, look, n, share, number, rng) -> memory with n
rows, `share` of them or more of stage `number`. It sees one stage at a time, so it is as little
allowed to look back as the memory is. Labels are

    hard   the rows as they are with their own labels;
    soft   the rows as the next stage would show them with the teacher's labels for that, which is
           the view that distillation has of the stage (`outlook`). It serves baselines better than
           the teacher's labels for the rows as they are.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.special import logit

from diet_jax import memory as mem
from diet_jax.select import SELECTORS, Look
from diet_jax.types import InputError, Memory

SURE = 30.0  # a logit whose sigmoid is 0 or 1 but for 1e-13
DEFAULT = ("random_hard", "random_soft")


def extend(
    memory: Memory,
    look: Look,
    n: int,
    share: int,
    number: int,
    rng: np.random.Generator,
    selector: str,
    soft: bool,
) -> Memory:
    """Keep some slots and fill up with rows of the stage."""
    memory = memory._replace(valid=memory.valid & keep(memory, look, n, share, rng, selector))
    stage, n_new = look.stage, n - int(memory.valid.sum())
    name = {"reservoir": "random", "window": "recent"}.get(selector, selector)
    chosen = np.sort(SELECTORS[name](look, n_new, rng))
    if soft:
        ids, z = stage.ahead_ids, stage.ahead_logit[chosen]
    else:
        with np.errstate(divide="ignore"):
            ids, z = stage.rows.ids, np.clip(logit(stage.rows.label[chosen]), -SURE, SURE)
    return mem.append(
        memory,
        ids[chosen],
        stage.rows.dense[chosen],
        z,
        np.log(stage.rows.weight[chosen]),
        number,
        stage.source[chosen],
    )


def keep(
    memory: Memory, look: Look, n: int, share: int, rng: np.random.Generator, selector: str
) -> np.ndarray:
    """Which slots stay: bool [N].

    All that the stage's share leaves room for, at random; for `window` as few as the stage could
    fill; for `reservoir` as many as a uniform sample of n of all rows so far has of the past.
    """
    n_stage, used = len(look.stage.source), np.flatnonzero(memory.valid)
    stays = min(len(used), n - share)
    if selector == "window":
        stays = min(stays, max(0, n - n_stage))
        used = used[np.argsort(memory.source[used], kind="stable")]  # the latest last
    if selector == "reservoir":
        past = int(look.stage.source[0])  # rows of the log before the stage
        stays = min(len(used), rng.hypergeometric(past, n_stage, n)) if past else 0
    if selector == "reservoir" or (selector != "window" and stays < len(used)):
        used = rng.permutation(used)
    return np.isin(np.arange(len(memory.valid)), used[len(used) - stays :])


def find(name: str) -> Callable[..., Memory]:
    """The baseline of that name; raises InputError if there is none."""
    selector, _, labels = name.rpartition("_")
    known = [*SELECTORS, "reservoir", "window"]
    if selector not in known or labels not in ("hard", "soft"):
        raise InputError(
            f"there is no baseline {name!r}; name one of {', '.join(known)}, and _hard or _soft"
        )
    return partial(extend, selector=selector, soft=labels == "soft")
