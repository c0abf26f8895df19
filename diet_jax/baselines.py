"""What the memory must beat: as many rows, chosen without distillation."""

import numpy as np

from diet_jax import memory as mem
from diet_jax.types import Memory, Taught


def random_rows(
    memory: Memory, stage: Taught, n_new: int, number: int, rng: np.random.Generator
) -> Memory:
    """Append n_new random rows of stage `number`, with the teacher's labels and weight one.

    Each stage gives the same share of its rows, so that the subset is a random one of all rows so
    far, and it is as little allowed to look back as the memory is.
    """
    chosen = np.sort(rng.choice(len(stage.source), n_new, replace=False))
    return mem.append(
        memory,
        stage.rows.ids[chosen],
        stage.rows.dense[chosen],
        stage.teacher_logit[chosen],
        np.log(stage.rows.weight[chosen]),
        number,
        stage.source[chosen],
    )
