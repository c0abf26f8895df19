"""The problem whose meta-gradient is measured, and the engines of JAX that solve it.

The work: the derivative of a loss on OUTER rows by the labels and weights of N slots, through T
training steps of a DeepFM (FIELDS fields, d embedding columns, tower 64-32) on batches of b slots.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diet_jax import train
from diet_jax.compact import compact
from diet_jax.metagrad import Inner, Slots, Trajectory, outer_loss
from diet_jax.models import init_params, logits, make_model
from diet_jax.optim import Optimizer

FIELDS, OUTER = 20, 2048


def turns() -> int:
    """Steps of every JAX engine that are compiled as one turn of its loop: an accelerator waits
    between small kernels, of which it then has fewer; a CPU would only compile longer."""
    return 1 if jax.default_backend() == "cpu" else 4


class Cell(NamedTuple):
    """A size of the problem: table rows, steps, slots, rows a batch, embedding columns.

    live: table rows that occur at all; 0 for every row. mebibytes: for the unrolled steps.
    """

    V: int = 100_000
    T: int = 64
    N: int = 1024
    b: int = 128
    d: int = 16
    optimizer: str = "adam"
    live: int = 0
    mebibytes: int = 128


BASE = Cell()


class Problem(NamedTuple):
    """A cell's inner loop, slots, key and outer rows; ids are rows of the whole table."""

    inner: Inner
    slots: Slots
    key: jax.Array
    outer: train.Examples


def make_problem(cell: Cell) -> Problem:
    """Ids are Zipf within each field's share of the table, as in a log, spread evenly over it."""
    rng = np.random.default_rng(0)
    share, live = cell.V // FIELDS, (cell.live or cell.V) // FIELDS

    def rows(n):
        rank = (live ** rng.random((n, FIELDS))).astype(np.int64) - 1
        return (rank * (share // live) + share * np.arange(FIELDS)).astype(np.int32)

    none = np.zeros((cell.N, 0), np.float32)
    z, w = rng.normal(size=(2, cell.N)).astype(np.float32)
    slots = Slots(rows(cell.N), np.ones(cell.N, bool), none, z, 0.3 * w)
    label = rng.integers(0, 2, OUTER).astype(np.float32)
    outer = train.Examples(
        rows(OUTER), np.zeros((OUTER, 0), np.float32), label, np.ones(OUTER, np.float32)
    )
    model = make_model("DeepFM", cell.d, (64, 32))
    inner = Inner(
        model,
        Optimizer(cell.optimizer, momentum=0.9),
        1e-2,
        cell.T,
        cell.b,
        cell.T,
        mode="full",
        budget=cell.mebibytes << 20,
        unroll=turns(),
    )
    return Problem(inner, slots, jax.random.key(0), outer)


def start(problem: Problem, cell: Cell) -> tuple[dict, jax.Array]:
    """Parameters with the whole table, and the batches [T, b]: what every engine trains with."""
    key_init, key_order = jax.random.split(problem.key)
    params = init_params(problem.inner.model, key_init, jnp.arange(cell.V), FIELDS, 0)
    return params, train.cyclic_order(key_order, problem.slots.valid, cell.T, cell.b)


def ours(problem: Problem, cell: Cell):
    """(f, arguments): f(labels, weights, *rest) -> loss, on compact tables."""
    slots, outer = problem.slots, problem.outer
    table = compact(slots.ids, outer.ids, 1024)
    slots = slots._replace(ids=table.positions(slots.ids))
    outer = outer._replace(ids=table.positions(outer.ids))
    n = table.n_trained
    run = Trajectory(table.rows[:n], table.rows[n:], problem.key, np.int32(cell.T))

    def f(z, w, slots, run, outer):
        now = slots._replace(label_logit=z, log_weight=w)
        return outer_loss(problem.inner, now, run, outer)

    return f, (slots, run, outer)


def dense(problem: Problem, cell: Cell, remat: bool):
    """The same on the whole table, as one writes it with optax and `lax.scan`, whose turns are
    compiled as many at once as ours."""
    model, (params, order) = problem.inner.model, start(problem, cell)
    tx = optax.adam(1e-2, eps_root=1e-8) if cell.optimizer == "adam" else optax.sgd(1e-2, 0.9)

    def entropy(params, ids, dense, target, weight):
        z = logits(model, params, ids, dense)
        return jnp.mean(weight * optax.sigmoid_binary_cross_entropy(z, target))

    def f(z, w, slots, params, order, outer):
        def step(carry, index):
            params, state = carry
            batch = slots.ids[index], slots.dense[index], jax.nn.sigmoid(z[index])
            grads = jax.grad(entropy)(params, *batch, jnp.exp(w[index]))
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        step = jax.checkpoint(step) if remat else step
        state = params, tx.init(params)
        (params, _), _ = jax.lax.scan(step, state, order, unroll=turns())
        return entropy(params, *outer[:4])

    return f, (problem.slots, params, order, problem.outer)
