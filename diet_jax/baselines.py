"""What the memory must beat: as many rows, chosen without distillation.

A baseline is f(memory, stage, n_new, number, rng) -> memory with n_new rows more. It sees one stage
at a time, so it is as little allowed to look back as the memory is.
"""

import numpy as np
from scipy.special import logit

from diet_jax import memory as mem
from diet_jax.types import Memory, Taught

SURE = 30.0  # a logit whose sigmoid is 0 or 1 but for 1e-13


def choose(stage: Taught, n_new: int, rng: np.random.Generator) -> np.ndarray:
    """Random rows; each stage gives the same share of its own, so that all rows so far do."""
    return np.sort(rng.choice(len(stage.source), n_new, replace=False))


def random_hard(
    memory: Memory, stage: Taught, n_new: int, number: int, rng: np.random.Generator
) -> Memory:
    """Append random rows of stage `number` as they are, with their own labels."""
    chosen = choose(stage, n_new, rng)
    with np.errstate(divide="ignore"):
        z = np.clip(logit(stage.rows.label[chosen]), -SURE, SURE)
    return _append(memory, stage, chosen, stage.rows.ids, z, number)


def random_soft(
    memory: Memory, stage: Taught, n_new: int, number: int, rng: np.random.Generator
) -> Memory:
    """The same rows as the next stage would show them, with the teacher's labels for that.

    This is the view that distillation has of the stage (`outlook`). It serves the baseline better
    than the rows as they are with the teacher's labels for those.
    """
    chosen = choose(stage, n_new, rng)
    return _append(memory, stage, chosen, stage.ahead_ids, stage.ahead_logit[chosen], number)


def _append(memory, stage, chosen, ids, label_logit, number) -> Memory:
    return mem.append(
        memory,
        ids[chosen],
        stage.rows.dense[chosen],
        label_logit,
        np.log(stage.rows.weight[chosen]),
        number,
        stage.source[chosen],
    )


BASELINES = {"random_hard": random_hard, "random_soft": random_soft}
