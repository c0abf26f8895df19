"""Which rows belong in one slot: an order in which neighbours are alike."""

import numpy as np

DIRECTIONS = 16  # principal components that are looked at


def alike(x: np.ndarray, size: int) -> np.ndarray:
    """An order of points x (float [n, X], n a multiple of `size`) in which every `size` are alike.

    Points are halved, and the halves again, across the direction in which they differ most, until
    `size` are left (principal direction divisive partitioning, Boley, Data Mining and Knowledge
    Discovery 1998, with parts of equal size). All parts of one level, which have one of two sizes,
    are cut at once. Returns int64 [n].
    """
    if x.shape[1] == 1:  # which is to sort
        return np.argsort(x[:, 0], kind="stable")
    x = x - x.mean(0)
    x = x @ np.linalg.eigh(x.T @ x)[1][:, -DIRECTIONS:]
    order, cuts = np.arange(len(x)), np.array([0, len(x) // size])
    while (sizes := np.diff(cuts)).max() > 1:
        for parts in np.unique(sizes[sizes > 1]):
            first = cuts[:-1][sizes == parts]
            at = size * first[:, None] + np.arange(size * parts)
            part = x[order[at]]
            part -= part.mean(1, keepdims=True)
            widest = np.linalg.eigh(part.swapaxes(1, 2) @ part)[1][..., -1:]
            along = np.argsort((part @ widest)[..., 0], axis=1, kind="stable")
            order[at] = np.take_along_axis(order[at], along, 1)
        cuts = np.unique(np.concatenate([cuts, cuts[:-1] + sizes // 2]))
    return order


def weigh(label_logit: np.ndarray, embedding: np.ndarray) -> np.ndarray:
    """Labels [n] and embeddings [n, X] as points [n, 1 + X], of which the label varies as much as
    all other columns together."""

    def scaled(a):
        spread = np.sqrt(a.var(0).sum())
        return a / spread if spread > 0 else a

    return np.concatenate([scaled(label_logit[:, None]), scaled(embedding)], 1)


# What the rows of a slot have in common: f(logits of their labels [n], embed) -> points [n, ..],
# where embed() gives the embeddings that the teacher has of them [n, X].
MIX_BY = {
    "label": lambda label_logit, embed: label_logit[:, None],
    "teacher": lambda label_logit, embed: weigh(label_logit, embed()),
}
