"""Optimizers by name, safe to differentiate through."""

import optax

from diet_jax.types import Array, InputError

INNER = ("adam", "sgd", "adagrad")


def make_inner(name: str, lr: float | Array, momentum: float, eps_root: float):
    """The optimizer that trains a model; `lr` may be traced, so one compilation serves a grid.

    adam: `eps_root` sits inside the square root and must be positive: with 0 a table row that has
    had no gradient makes every meta-gradient NaN (its value changes training too, so it is part of
    the recipe). sgd: heavy-ball `momentum`. adagrad: accumulator from 0.1.
    Raises InputError for an unknown name or eps_root <= 0 with adam.
    """
    if name == "adam":
        if not eps_root > 0:
            raise InputError(f"inner.eps_root must be positive for adam, got {eps_root}")
        return optax.adam(lr, eps_root=eps_root)
    if name == "sgd":
        return optax.sgd(lr, momentum=momentum)
    if name == "adagrad":
        return optax.adagrad(lr)
    raise InputError(f"unknown inner optimizer {name!r}: choose from {', '.join(INNER)}")
