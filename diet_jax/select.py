"""Which rows of a stage to keep: the scores and coresets that influence is compared with.

A selector is f(look, n, rng) -> int64 [n], the rows chosen, best first. It sees one stage, and the
teacher trained through it. `reservoir` and `window` also say which old slots are given up.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.special import expit

from diet_jax.compact import in_blocks
from diet_jax.models import Model, logits
from diet_jax.models.base import exact_products, look_up, read
from diet_jax.teacher import Teacher, alone
from diet_jax.types import Array, Params, Taught

BLOCK = 2048  # rows whose gradients are held at once
DROPPED = 0.3  # share of the hardest rows that pruning leaves out as noise
PASSES = 5  # of the proxy whose forgetting is counted


class Look(NamedTuple):
    """What a selector may look at."""

    stage: Taught
    teacher: Teacher
    params: Params  # the teacher's, trained through the stage


def embeddings(look: Look) -> np.ndarray:
    """float32 [n, X]: what the teacher's tower is given for each row, every column standardised."""
    rows = look.stage.rows
    x = look.teacher.embed(look.params, rows.ids, rows.dense)
    sd = x.std(0)
    return (x - x.mean(0)) / np.where(sd > 0, sd, 1)


@partial(jax.jit, static_argnums=0)
def _slopes(model: Model, params: Params, ids, dense, label, weight) -> tuple[Array, Array]:
    """By row, in blocks [k, B, ..]: the norm of its gradient, by the net and what each field looks
    up (of several values their mean), and the product of its gradient with the mean one."""

    def loss(net, emb, history, row, label):
        row = row._replace(emb=emb, history=history)
        with exact_products():
            z = model.apply(net, jax.tree.map(lambda a: a[None], row))[0]
        return optax.sigmoid_binary_cross_entropy(z, label)

    def norms(block):
        ids, dense, label, _ = block
        rows = read(model, look_up(params, ids), ids, dense)
        slope = jax.vmap(jax.grad(loss, (0, 1, 2)), (None, 0, 0, 0, 0))
        grads = slope(params["net"], rows.emb, rows.history, rows, label)
        squares = [jnp.square(g).reshape(len(ids), -1).sum(1) for g in jax.tree.leaves(grads)]
        return jnp.sqrt(sum(squares))

    def losses(params, block):
        ids, dense, label, _ = block
        return optax.sigmoid_binary_cross_entropy(logits(model, params, ids, dense), label)

    def total(params):
        parts = jax.lax.map(lambda b: (losses(params, b) * b[3]).sum(), (ids, dense, label, weight))
        return parts.sum() / weight.sum()

    mean = jax.grad(total)(params)
    blocks = (ids, dense, label, weight)
    slope = jax.lax.map(lambda b: jax.jvp(lambda p: losses(p, b), (params,), (mean,))[1], blocks)
    return jax.lax.map(norms, blocks), slope


def slopes(look: Look) -> tuple[np.ndarray, np.ndarray]:
    """float32 [n] each: the norm of a row's gradient (GraNd), and that gradient's inner product
    with the stage's mean gradient (TracIn with one checkpoint, the teacher)."""
    rows = look.stage.rows
    n, blocks = len(rows.label), -(-len(rows.label) // BLOCK)
    here = np.ones(n, np.float32)
    padded = (in_blocks(a, blocks, BLOCK) for a in (rows.ids, rows.dense, rows.label, here))
    found = _slopes(look.teacher.model, alone(look.params), *padded)
    norm, slope = (np.asarray(a).reshape(-1)[:n] for a in found)
    return norm, slope


def best(score: np.ndarray, n: int) -> np.ndarray:
    """The n rows of the highest scores; ties go to the earlier row."""
    return np.argsort(-score, kind="stable")[:n]


def pruned(score: np.ndarray, n: int) -> np.ndarray:
    """The n hardest rows that are left without the very hardest, which are mostly noise.

    Paul et al., Deep Learning on a Data Diet, NeurIPS 2021.
    """
    ranked = np.argsort(-score, kind="stable")
    skipped = min(round(DROPPED * len(ranked)), len(ranked) - n)
    return ranked[skipped : skipped + n]


def error(look: Look) -> np.ndarray:
    """EL2N: the distance of the teacher's answer from the label (Paul et al. 2021)."""
    return np.abs(expit(look.stage.teacher_logit) - look.stage.rows.label)


def random(look: Look, n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(len(look.stage.source), n, replace=False)


def recent(look: Look, n: int, rng: np.random.Generator) -> np.ndarray:
    """The last rows of the stage."""
    return np.arange(len(look.stage.source))[::-1][:n]


def by_label(look: Look, n: int, choose: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
    """choose(rows, k) from the positive and the other rows, each in proportion to the stage."""
    positive = look.stage.rows.label > 0
    k = min(round(n * positive.mean()), n)
    parts = [(np.flatnonzero(positive), k), (np.flatnonzero(~positive), n - k)]
    return np.concatenate([choose(rows, k) for rows, k in parts])


def stratified(look: Look, n: int, rng: np.random.Generator) -> np.ndarray:
    """Rows that cover the values of the fields, in the labels' proportions.

    In random order, a row comes the later the more rows before it share one of its values.
    """

    def cover(rows: np.ndarray, k: int) -> np.ndarray:
        rows = rng.permutation(rows)
        turn = np.zeros(len(rows), int)
        for values in look.stage.rows.ids[rows].T:
            order = np.argsort(values, kind="stable")
            ordered = values[order]
            nth = np.arange(len(rows)) - np.searchsorted(ordered, ordered)
            turn[order] = np.maximum(turn[order], np.where(ordered < 0, 0, nth))
        return rows[np.argsort(turn, kind="stable")[:k]]

    return by_label(look, n, cover)


def herding(look: Look, n: int, rng: np.random.Generator) -> np.ndarray:
    """Rows whose mean embedding follows that of their class (Welling, ICML 2009)."""
    features = embeddings(look)

    def herd(rows: np.ndarray, k: int) -> np.ndarray:
        x = features[rows]
        mean = x.mean(0)
        w, chosen, free = mean.copy(), [], np.ones(len(x), bool)
        for _ in range(k):
            i = int(np.argmax(np.where(free, x @ w, -np.inf)))
            chosen.append(i)
            free[i] = False
            w += mean - x[i]
        return rows[chosen]

    return by_label(look, n, herd)


def k_center(look: Look, n: int, rng: np.random.Generator) -> np.ndarray:
    """Each row the farthest from those of its class before it (Sener & Savarese, ICLR 2018)."""
    features = embeddings(look)

    def spread(rows: np.ndarray, k: int) -> np.ndarray:
        x, far = features[rows], np.full(len(rows), np.inf)
        chosen = [int(rng.integers(len(rows)))] if k else []
        for _ in range(k - 1):
            far = np.minimum(far, np.square(x - x[chosen[-1]]).sum(1))
            far[chosen[-1]] = -1  # nor again where all others are as near
            chosen.append(int(np.argmax(far)))
        return rows[chosen]

    return by_label(look, n, spread)


def forgetting(look: Look, n: int, rng: np.random.Generator) -> np.ndarray:
    """The rows that a proxy forgot most often on its way, among equals the worst known.

    A row is forgotten when it was answered right after one pass and wrong after the next (Toneva et
    al., ICLR 2019); SVP-CF (Sachdeva et al., WSDM 2022) scores by such a proxy's passes too.
    """
    rows, teacher = look.stage.rows, look.teacher
    params, right, wrong = teacher.init(jax.random.key(rng.integers(1 << 31))), None, 0
    forgot = np.zeros(len(rows.label))
    for _ in range(PASSES):
        params = teacher.advance(params, rows, 1.0, rng)
        now = (teacher.predict(params, rows.ids, rows.dense) > 0) == (rows.label > 0)
        forgot += 0 if right is None else right & ~now
        right, wrong = now, wrong + ~now
    return best(forgot + wrong / (1 + PASSES), n)


SELECTORS: dict[str, Callable[[Look, int, np.random.Generator], np.ndarray]] = {
    "random": random,
    "recent": recent,
    "stratified": stratified,
    "herding": herding,
    "k_center": k_center,
    "el2n": lambda look, n, rng: best(error(look), n),
    "el2n_pruned": lambda look, n, rng: pruned(error(look), n),
    "grand": lambda look, n, rng: best(slopes(look)[0], n),
    "grand_pruned": lambda look, n, rng: pruned(slopes(look)[0], n),
    "tracin": lambda look, n, rng: best(slopes(look)[1], n),
    "forgetting": forgetting,
}
