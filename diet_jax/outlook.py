"""A stage's rows as the next stage would show them: fields that will mostly be unknown are hidden.

Where most rows come from values never seen before (new users, say), a model meets their unknown
row, and what it learned about the old values is of no use. The outer loss is to ask what the next
stage will ask, so it hides such fields, and has the teacher answer for the row with them hidden:
the teacher has seen the values, so its answer is not confounded by who happened to rate what.
"""

import numpy as np


def churn(ids: np.ndarray, pool: tuple[int, ...], known: int, tail: float) -> np.ndarray:
    """By field, the share of values in the last `tail` of a stage that were unseen before: [F].

    ids: int32 [n, K] in order of time, -1 for no value. pool: the field of each column. known:
    table rows that were known before the stage. A field without values there counts as 0.
    """
    cut = len(ids) - max(1, round(tail * len(ids)))
    seen = np.zeros(max(int(ids.max()) + 1, known), bool)
    seen[:known] = True
    seen[ids[:cut][ids[:cut] >= 0]] = True
    late = ids[cut:]
    here = late >= 0
    new = here & ~seen[late]
    field = np.broadcast_to(pool, late.shape)
    n_fields = max(pool) + 1
    total = np.bincount(field[here], minlength=n_fields)
    return np.bincount(field[new], minlength=n_fields) / np.maximum(total, 1)


def hide(ids: np.ndarray, fields: np.ndarray, pool: tuple[int, ...], vocab: tuple[int, ...]):
    """`ids` with every value of `fields` (bool [F]) replaced by the unknown row of its vocabulary.

    vocab: the field whose rows each column holds, as in `types.Schema`.
    """
    hidden = np.asarray(fields)[np.array(pool)] & (ids >= 0)
    return np.where(hidden, np.array(vocab, ids.dtype), ids)
