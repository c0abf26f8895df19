"""Train every architecture from scratch on the memory, its baselines and all rows; score each."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diet_jax import train
from diet_jax.compact import pad_rows, pad_to, to_local, touched_rows
from diet_jax.metrics import score
from diet_jax.models import Model, init_params, logits
from diet_jax.optim import make_inner
from diet_jax.train import Examples
from diet_jax.types import Memory, Rows


class Recipe(NamedTuple):
    """How a trial trains: the optimizer, its constants, and the rows of a step."""

    optimizer: str
    momentum: float
    eps_root: float
    batch: int


class Test(NamedTuple):
    """The rows that a trial is scored on: what of them is known, their labels and users."""

    ids: np.ndarray  # int32 [E, F]
    dense: np.ndarray  # float32 [E, G]
    label: np.ndarray  # float32 [E]
    user: np.ndarray  # int32 [E]


class Trials(NamedTuple):
    """The compiled trials of one architecture, vmapped over S seeds that train side by side."""

    fit: Callable  # keys [S], lr, rows [U], Examples [S, ..] or [..], order [S, T, b], n -> params
    predict: (
        Callable  # params, ids [blocks, .., F], dense [blocks, .., G] -> logits [S, blocks, ..]
    )


PREDICT_BLOCK = 4096  # rows scored at once; bounds device memory


def make_trials(model: Model, recipe: Recipe, shared_data: bool) -> Trials:
    """Trials of `model`; with `shared_data` all seeds train on the same rows (the full log)."""

    def fit(key, lr, rows, data, order, n_steps):
        tx = make_inner(recipe.optimizer, lr, recipe.momentum, recipe.eps_root)
        n_fields, n_dense = data.ids.shape[-1], data.dense.shape[-1]
        state = train.start(tx, init_params(model, key, rows, n_fields, n_dense))
        return train.fit(model, tx, state, data, order, n_steps).params

    def predict(params, ids, dense):
        return jax.lax.map(lambda x: logits(model, params, *x), (ids, dense))

    axes = (0, None, None, None if shared_data else 0, 0, None)
    return Trials(jax.jit(jax.vmap(fit, axes)), jax.jit(jax.vmap(predict, (0, None, None))))


def run_trials(
    trials: Trials,
    seeds: tuple[int, ...],
    lr: float,
    table: np.ndarray,
    data: Examples,
    order: np.ndarray,
    n_steps: int,
    test: Test,
    n_blocks: int,
) -> tuple[list[dict], float]:
    """Train one architecture with every seed and score it.

    table: int32 [U], the sorted table rows of the compact table; the ids of `data` and `test` are
    table rows. order: int32 [S, T, b], of which `n_steps` are run. n_blocks: test capacity.
    Returns one dict of figures per seed, and the seconds of training per seed, without compiling.
    """
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    data = data._replace(ids=to_local(table, np.asarray(data.ids)))
    args = (keys, np.float32(lr), table, data, order, np.int32(n_steps))
    args = jax.device_put(args)
    # A run of no steps compiles and leaves the timed one to training alone.
    jax.block_until_ready(trials.fit(*args[:-1], np.int32(0)))
    start = time.perf_counter()
    params = jax.block_until_ready(trials.fit(*args))
    seconds = (time.perf_counter() - start) / len(seeds)

    ids, dense = (
        pad_to(a, n_blocks * PREDICT_BLOCK).reshape(n_blocks, PREDICT_BLOCK, a.shape[1])
        for a in (to_local(table, test.ids), test.dense)
    )
    z = np.asarray(trials.predict(params, ids, dense)).reshape(len(seeds), -1)
    return [score(test.label, row[: len(test.label)], test.user) for row in z], seconds


def epochs(rng: np.random.Generator, n: int, steps: int, batch: int) -> np.ndarray:
    """Batches int32 [steps, batch] of row numbers below n, in whole random passes."""
    passes = [rng.permutation(n) for _ in range(-(-steps * batch // n))]
    return np.concatenate(passes)[: steps * batch].reshape(steps, batch).astype(np.int32)


def examples(memory: Memory, target: np.ndarray) -> Examples:
    """A memory at full capacity with targets [N]; batches must leave unused slots out."""
    return Examples(memory.ids, memory.dense, target, np.exp(memory.log_weight))


def soft_label(memory: Memory) -> np.ndarray:
    """float32 [N], the sigmoid of the label logits."""
    return (1 / (1 + np.exp(-memory.label_logit))).astype(np.float32)


def stack(examples: list[Examples]) -> Examples:
    return Examples(*(np.stack(leaves) for leaves in zip(*examples, strict=True)))


class Plan(NamedTuple):
    """The evaluation of a run: who is trained, how, and how often."""

    models: dict[str, Model]
    subset: Recipe
    full: Recipe
    subset_trials: dict[str, Trials]
    full_trials: dict[str, Trials]
    seeds: tuple[int, ...]
    steps: int  # of every subset trial
    epochs: float  # of a full-data trial
    lr: Callable[[str, str], float]  # (method, architecture) -> learning rate
    n_rows: int  # capacity for all rows so far
    n_table: int  # rows of the whole table
    n_compact: int  # rows of a compact table of a subset trial
    n_blocks: int  # blocks of PREDICT_BLOCK rows that hold any test stage


def evaluate_stage(
    plan: Plan, stage: int, subsets: dict[str, list[Examples]], n: int, so_far: Rows, test: Test
) -> list[dict]:
    """All measurements after one stage.

    subsets: by method, one memory-shaped Examples per seed, its first `n` rows in use.
    so_far: all rows up to this stage. Returns the `eval` records.
    """
    records = []
    in_use = [e.ids for per_seed in subsets.values() for e in per_seed]
    compact = pad_rows(touched_rows(test.ids, *in_use), plan.n_compact)
    table = np.arange(plan.n_table, dtype=np.int32)
    n_so_far = len(so_far.label)
    full_steps = int(plan.epochs * n_so_far) // plan.full.batch
    ids, dense, label = (pad_to(a, plan.n_rows) for a in so_far)
    everything = Examples(ids, dense, label, np.ones(plan.n_rows, np.float32))
    max_steps = int(plan.epochs * plan.n_rows) // plan.full.batch
    for arch in plan.models:
        rngs = [np.random.default_rng((seed, stage)) for seed in plan.seeds]
        order = np.stack(
            [pad_to(epochs(r, n_so_far, full_steps, plan.full.batch), max_steps) for r in rngs]
        )
        runs = {"full": (plan.full_trials[arch], table, everything, order, full_steps, n_so_far)}
        for method, per_seed in subsets.items():
            order = np.stack([epochs(r, n, plan.steps, plan.subset.batch) for r in rngs])
            runs[method] = (
                plan.subset_trials[arch],
                compact,
                stack(per_seed),
                order,
                plan.steps,
                n,
            )
        for method, (trials, rows, data, order, steps, n_rows) in runs.items():
            figures, seconds = run_trials(
                trials,
                plan.seeds,
                plan.lr(method, arch),
                rows,
                data,
                order,
                steps,
                test,
                plan.n_blocks,
            )
            records += [
                {
                    "kind": "eval",
                    "stage": stage,
                    "method": method,
                    "arch": arch,
                    "seed": seed,
                    **figure,
                    "steps": steps,
                    "rows": n_rows,
                    "seconds": seconds,
                }
                for seed, figure in zip(plan.seeds, figures, strict=True)
            ]
    return records
