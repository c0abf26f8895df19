"""Train every architecture from scratch on the memory, its baselines and all rows; score each."""

import time
from collections.abc import Callable, Collection
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from diet_jax import touched, train
from diet_jax.compact import Compact, compact, pad_rows, pad_to
from diet_jax.metrics import auc, gauc, mean_known, score
from diet_jax.models import Model, init_params, logits
from diet_jax.optim import Optimizer, make
from diet_jax.sharding import ONE_DEVICE, Placement
from diet_jax.train import Examples
from diet_jax.types import Memory, Rows


class Recipe(NamedTuple):
    """How a trial trains: the optimizer, and the rows of a step."""

    optimizer: Optimizer
    batch: int


class Test(NamedTuple):
    """The rows that a trial is scored on: what of them is known, their labels and users.

    part: int32 [E], 0 for the rows that judge, else the number of the stage, so far, they are of.
    """

    ids: np.ndarray  # int32 [E, F]
    dense: np.ndarray  # float32 [E, G]
    label: np.ndarray  # float32 [E]
    user: np.ndarray  # int32 [E]
    part: np.ndarray


class Trials(NamedTuple):
    """The compiled trials of one architecture, vmapped over S seeds that train side by side."""

    # keys [S], lr, l2, rows [U], Examples [S, ..] or [..], order [S, T, b], n -> params
    fit: Callable
    predict: (
        Callable  # params, ids [blocks, .., F], dense [blocks, .., G] -> logits [S, blocks, ..]
    )


PREDICT_BLOCK = 4096  # rows scored at once; bounds device memory
PAST_ROWS = 2048  # rows that stand for a stage so far


def make_trials(
    model: Model, recipe: Recipe, shared_data: bool, place: Placement = ONE_DEVICE
) -> Trials:
    """Trials of `model`; with `shared_data` all seeds train on the same rows (the full log), whose
    table is whole: by touched rows, if the optimizer allows it.

    Seeds are spread over the devices, and of the full log the rows of a batch and of the table too.
    """
    by_touched = shared_data and touched.is_local(recipe.optimizer)

    def lay(state, batch):
        return (tables(state), place.rows(batch)) if shared_data else (state, batch)

    def tables(tree):
        return place.tables(tree) if shared_data else tree

    def fit(key, lr, l2, rows, data, order, n_steps):
        tx = make(recipe.optimizer, lr)
        n_fields, n_dense = data.ids.shape[-1], data.dense.shape[-1]
        params = tables(init_params(model, key, rows, n_fields, n_dense))
        state = train.start(tx, params)
        if by_touched:
            args = recipe.optimizer, lr, state, data, order, n_steps, l2
            return touched.fit(model, *args).params
        return train.fit(model, tx, state, data, order, n_steps, l2, lay).params

    def predict(params, ids, dense):
        return jax.lax.map(lambda x: logits(model, params, *x), (ids, dense))

    axes = (0, None, None, None, None if shared_data else 0, 0, None)
    each_predict = place.each(predict, (0, None, None))
    return Trials(jax.jit(place.each(fit, axes)), jax.jit(each_predict, out_shardings=place.whole))


class Plan(NamedTuple):
    """The evaluation of a run: who is trained, how, and how often."""

    models: dict[str, Model]
    subset: Recipe
    full: Recipe
    subset_trials: dict[str, Trials]
    full_trials: dict[str, Trials]
    seed: int  # of the run; with each of `seeds` it makes a trial's own
    seeds: tuple[int, ...]
    steps: int  # of every subset trial
    epochs: float  # of a full-data trial
    rates: Callable[[str, str], tuple[float, float]]  # (method, architecture) -> learning rate, l2
    n_rows: int  # capacity for all rows so far
    n_table: int  # rows of the whole table
    min_rows: int  # capacity that both parts of a compact table start with
    n_blocks: int  # blocks of PREDICT_BLOCK rows that hold any Test
    tasks: dict[str, int] = {}  # of the log's schema
    place: Placement = ONE_DEVICE


class Task(NamedTuple):
    """What all trials of one method train on after one stage."""

    trials: dict[str, Trials]  # by architecture
    table: Compact
    data: Examples
    order: np.ndarray  # int32 [S, T, b]
    steps: int
    rows: int


def run_trials(
    plan: Plan, task: Task, arch: str, rates: tuple[float, float], test: Test
) -> tuple[list[dict], dict[str, float]]:
    """Train one architecture with every seed at `rates` (learning rate, l2) and score it.

    Returns one dict of figures per seed, and the seconds of training per seed (`seconds`) and of
    compiling it for all (`seconds_compile`; next to none where it is compiled already).
    """
    trials, table = task.trials[arch], task.table
    key = train.key_for(plan.seed, "trial")
    keys = jax.vmap(lambda seed: jax.random.fold_in(key, seed))(jnp.asarray(plan.seeds))
    data = task.data._replace(ids=table.positions(task.data.ids))
    rows = pad_rows(table.rows, plan.place.even(len(table.rows)))
    args = (keys, *map(np.float32, rates), rows, data, task.order)
    args = plan.place.replicate(args)
    # A run of no steps compiles, which leaves the timed one to training alone.
    begun = time.perf_counter()
    jax.block_until_ready(trials.fit(*args, np.int32(0)))
    start = time.perf_counter()
    params = jax.block_until_ready(trials.fit(*args, np.int32(task.steps)))
    cost = {
        "seconds": (time.perf_counter() - start) / len(plan.seeds),
        "seconds_compile": start - begun,
    }

    ids, dense = (
        pad_to(a, plan.n_blocks * PREDICT_BLOCK).reshape(plan.n_blocks, PREDICT_BLOCK, a.shape[1])
        for a in (table.positions(test.ids), test.dense)
    )
    blocks = plan.place.replicate((ids, dense))
    z = np.asarray(trials.predict(params, *blocks)).reshape(len(plan.seeds), -1)
    return [scores(test, row[: len(test.label)], plan.tasks) for row in z], cost


def scores(test: Test, logit: np.ndarray, tasks: dict[str, int]) -> dict[str, float]:
    """The figures of one model: on the rows that judge, and its AUC on stages that it has seen.

    auc_current: on the latest stage, auc_past: the mean over those before; left out without rows.
    tasks: of the log's schema. Each AUC and GAUC is the mean over them, as to order the rows of one
    label before those of another is no merit; auc:LABEL is each one's own, on the rows that judge.
    """
    judged, n_stages = test.part == 0, int(test.part.max())
    figures = score(test.label[judged], logit[judged], test.user[judged])
    asked = [test.ids[:, column] >= 0 for column in tasks.values()]

    def area(rows: np.ndarray) -> list[float]:
        """By task."""
        return [auc(test.label[rows & mine], logit[rows & mine]) for mine in asked or [rows]]

    if tasks:
        areas = area(judged)
        within = [
            gauc(test.label[judged & mine], logit[judged & mine], test.user[judged & mine])
            for mine in asked
        ]
        figures |= {"auc": mean_known(areas), "gauc": mean_known(within)}
        figures |= {f"auc:{name}": a for name, a in zip(tasks, areas, strict=True)}
    by_stage = [mean_known(area(test.part == k)) for k in range(1, n_stages + 1)]
    if by_stage:
        figures["auc_current"] = by_stage[-1]
    if by_stage[:-1]:
        figures["auc_past"] = float(np.mean(by_stage[:-1]))
    return figures


def epochs(rng: np.random.Generator, n: int, steps: int, batch: int) -> np.ndarray:
    """Batches int32 [steps, batch] of row numbers below n, in whole random passes."""
    passes = [rng.permutation(n) for _ in range(-(-steps * batch // n))]
    return np.concatenate(passes)[: steps * batch].reshape(steps, batch).astype(np.int32)


def examples(memory: Memory) -> Examples:
    """A memory at full capacity; batches must leave unused slots out."""
    m = memory
    mix = None if m.mix is None else softmax(m.mix, axis=1)
    return Examples(m.ids, m.dense, soft_label(m), np.exp(m.log_weight), mix)


def soft_label(memory: Memory) -> np.ndarray:
    """float32 [N], the sigmoid of the label logits."""
    return (1 / (1 + np.exp(-memory.label_logit))).astype(np.float32)


def tasks(
    plan: Plan, stage: int, subsets: dict[str, list[Examples]], n: int, so_far: Rows, test: Test
) -> dict[str, Task]:
    """By method: all rows so far for the full-data reference, and each method's own subset."""
    rngs = [np.random.default_rng((plan.seed, seed, stage)) for seed in plan.seeds]
    n_full = len(so_far.label)
    everything = Examples(*(pad_to(a, plan.n_rows) for a in so_far))
    per_batch = plan.epochs / plan.full.batch
    steps, capacity = (max(1, int(per_batch * k)) for k in (n_full, plan.n_rows))
    order = [pad_to(epochs(rng, n_full, steps, plan.full.batch), capacity) for rng in rngs]
    table = Compact(np.arange(plan.n_table, dtype=np.int32), plan.n_table)
    found = {"full": Task(plan.full_trials, table, everything, np.stack(order), steps, n_full)}

    trained = np.concatenate([e.ids.ravel() for each in subsets.values() for e in each])
    table = compact(trained, test.ids, plan.min_rows)
    order = np.stack([epochs(rng, n, plan.steps, plan.subset.batch) for rng in rngs])
    for method, per_seed in subsets.items():
        data = jax.tree.map(lambda *leaves: np.stack(leaves), *per_seed)
        found[method] = Task(plan.subset_trials, table, data, order, plan.steps, n)
    return found


def evaluate_stage(
    plan: Plan,
    stage: int,
    subsets: dict[str, list[Examples]],
    n: int,
    so_far: Rows,
    test: Test,
    methods: Collection[str] = (),
    between: Callable[[], None] = lambda: None,
) -> list[dict]:
    """All measurements after one stage.

    subsets: by method, one memory-shaped Examples per seed, its first `n` rows in use.
    so_far: all rows up to this stage. methods: the ones to measure, all if empty.
    between: is called before the trials of every architecture, and may raise.
    Returns the `eval` records.
    """
    records = []
    for method, task in tasks(plan, stage, subsets, n, so_far, test).items():
        if methods and method not in methods:
            continue
        for arch in plan.models:
            between()
            figures, seconds = run_trials(plan, task, arch, plan.rates(method, arch), test)
            cost = {"steps": task.steps, "rows": task.rows, **seconds}
            for seed, figure in zip(plan.seeds, figures, strict=True):
                about = {"stage": stage, "method": method, "arch": arch, "seed": seed}
                records.append({"kind": "eval", **about, **figure, **cost})
    return records
