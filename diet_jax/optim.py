"""Optimizers of inner training by name, safe to differentiate through.

A compact table holds every row that training touches; of the others it must be known where they
end. For each optimizer here a row without gradient stays where it started, but for the decoupled
decay of adamw, which shrinks it by a known factor (`untouched`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from diet_jax.types import Array, InputError, Params

INNER = ("sgd", "adam", "adamw", "lazy_adam", "adagrad", "rowwise_adagrad")
B1, B2 = 0.9, 0.999  # of the Adam family
ACCUMULATOR = 0.1  # what the accumulators of the Adagrad family start from


class Optimizer(NamedTuple):
    """An inner optimizer but for its learning rate (static).

    name: one of INNER. momentum: of sgd (heavy ball). eps_root: of the Adam family, inside the
    square root; positive, or a row without gradient so far makes every meta-gradient NaN (it is
    part of the recipe, since it changes training too). decay: of adamw, a step's and a rate's.
    """

    name: str
    momentum: float = 0.0
    eps_root: float = 1e-8
    decay: float = 0.0


def make(optimizer: Optimizer, lr: float | Array) -> optax.GradientTransformation:
    """The optimizer of parameters {"table", "net"}; `lr` may be traced: one compilation a grid.

    lr: [], or [2]: the table's and the net's.
    Raises InputError for an unknown name, or for eps_root <= 0 with the Adam family.
    """
    name, momentum, eps_root, decay = optimizer
    if "adam" in name and not eps_root > 0:
        raise InputError(f"inner.eps_root must be positive for {name}, got {eps_root}")
    if jnp.ndim(lr):
        return optax.chain(make(optimizer, 1.0), scale_parts(lr))
    if name == "sgd":
        return optax.sgd(lr, momentum=momentum or None)  # 0 would keep a trace for nothing
    if name == "adam":
        return optax.adam(lr, B1, B2, eps_root=eps_root)
    if name == "adamw":
        return optax.adamw(lr, B1, B2, eps_root=eps_root, weight_decay=decay)
    if name == "adagrad":
        return optax.adagrad(lr, ACCUMULATOR)
    if name == "lazy_adam":
        table, net = scale_by_lazy_adam(eps_root), optax.scale_by_adam(B1, B2, eps_root=eps_root)
    elif name == "rowwise_adagrad":
        table, net = scale_by_rowwise_rss(), optax.scale_by_rss(ACCUMULATOR)
    else:
        raise InputError(f"unknown inner optimizer {name!r}: choose from {', '.join(INNER)}")
    by_part = optax.partition({"table": table, "net": net}, {"table": "table", "net": "net"})
    return optax.chain(by_part, optax.scale_by_learning_rate(lr))


def scale_parts(factors: Array) -> optax.GradientTransformation:
    """Updates of the table times factors[0], those of the net times factors[1]."""

    def scale(updates, params=None):
        net = jax.tree.map(lambda u: u * factors[1], updates["net"])
        return {"table": updates["table"] * factors[0], "net": net}

    return optax.stateless(scale)


def untouched(optimizer: Optimizer, lr: float | Array, steps: int | Array) -> float | Array:
    """What `steps` steps multiply a row by that has never had a gradient. lr: as in `make`."""
    of_table: Array = lr
    if jnp.ndim(lr):
        of_table = of_table[0]
    return (1 - of_table * optimizer.decay) ** steps if optimizer.name == "adamw" else 1.0


def touched(rows: Array) -> Array:
    """Which rows of a table's gradient [U, D] a step touches, as bool [U, 1]: not all zero."""
    return jnp.any(rows != 0, axis=1, keepdims=True)


class RowState(NamedTuple):
    """Of `scale_by_rowwise_rss`: the sum of mean squares, float32 [U, 1] for each table."""

    total: Params


def scale_by_rowwise_rss() -> optax.GradientTransformation:
    """Adagrad with one accumulator a row (FBGEMM's rowwise Adagrad): the mean square over columns.

    Of tables [U, D]. Exact on a compact table: without gradient neither accumulator nor row moves.
    """

    def init(params):
        return RowState(jax.tree.map(lambda t: jnp.full((len(t), 1), ACCUMULATOR, t.dtype), params))

    def update(updates, state, params=None):
        total = jax.tree.map(
            lambda s, g: s + jnp.square(g).mean(1, keepdims=True), state.total, updates
        )
        moves = jax.tree.map(lambda g, s: g * jax.lax.rsqrt(s + 1e-7), updates, total)
        return moves, RowState(total)

    return optax.GradientTransformation(init, update)


class LazyState(NamedTuple):
    """Of `scale_by_lazy_adam`: int32 [] steps so far, and both moments, like the tables."""

    count: Array
    mu: Params
    nu: Params


def scale_by_lazy_adam(eps_root: float, eps: float = 1e-8) -> optax.GradientTransformation:
    """Adam whose moments decay, and whose rows move, only in steps that touch them.

    The definition of PyTorch's SparseAdam and TensorFlow's LazyAdam, of tables [U, D]: the bias
    correction counts all steps; a row whose gradient is all zero counts as not touched. Dense Adam
    moves a row by its momentum for many steps after it was last touched; this one does not.
    """

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return LazyState(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(updates, state, params=None):
        count = state.count + 1

        def average(rate, before, now):
            return jax.tree.map(
                lambda a, g, x: jnp.where(touched(g), rate * a + (1 - rate) * x, a),
                before,
                updates,
                now,
            )

        def move(g, m, v):
            mean, square = m / (1 - B1**count), v / (1 - B2**count)
            return jnp.where(touched(g), mean / (jnp.sqrt(square + eps_root) + eps), 0)

        mu = average(B1, state.mu, updates)
        nu = average(B2, state.nu, jax.tree.map(jnp.square, updates))
        return jax.tree.map(move, updates, mu, nu), LazyState(count, mu, nu)

    return optax.GradientTransformation(init, update)
