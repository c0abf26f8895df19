"""Train every architecture from scratch on the memory, its baselines and all rows; score each."""

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from diet_jax import fed, train
from diet_jax.compact import Compact, compact, cut, in_blocks, pad_rows, pad_to
from diet_jax.fed import epochs
from diet_jax.metrics import auc, gauc, mean_known, score
from diet_jax.models import Model
from diet_jax.sharding import ONE_DEVICE, Placement
from diet_jax.train import Examples
from diet_jax.trial import Recipe, Trials
from diet_jax.types import Array, Memory


class Test(NamedTuple):
    """The rows that a trial is scored on: what of them is known, their labels and users.

    part: int [E], 0 for the rows that judge, else the number of the stage, so far, they are of.
    stage: the number of the latest one.
    """

    ids: np.ndarray  # int32 [E, F]
    dense: np.ndarray  # float32 [E, G]
    label: np.ndarray  # float32 [E]
    user: np.ndarray  # int32 [E]
    part: np.ndarray
    stage: int


PREDICT_BLOCK = 4096  # rows scored at once; bounds device memory
PAST_ROWS = 2048  # rows that stand for a stage so far


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
    n_blocks: int  # blocks of PREDICT_BLOCK rows that are scored in one call
    tasks: dict[str, int] = {}  # of the log's schema
    place: Placement = ONE_DEVICE
    chunk: int = 0  # steps of a chunk, where all rows so far are fed; 0: they lie on the devices


class Task(NamedTuple):
    """What all trials of one method train on after one stage.

    order: int32 [S, T, b], rows of `data`; where they are fed, a function that makes the orders of
    all chunks anew, each [S, T, b].
    """

    trials: dict[str, Trials]  # by architecture
    table: Compact
    data: Examples
    order: np.ndarray | Callable[[], Iterator[np.ndarray]]
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
    rows, rest = cut(table.rows, table.n_trained)
    if callable(task.order):
        seeds, orders = filled_seeds(plan), task.order
        args = plan.place.replicate((keys_of(plan, seeds), *map(np.float32, rates), rows))
        blank = np.zeros((len(seeds), plan.chunk, plan.full.batch), np.int32)

        def fit(n_steps):
            # Two, since what was trained may lie otherwise on the devices than what begins.
            order = orders() if n_steps else iter([blank] * 2)
            return trials.fit_fed(*args, task.data, order, n_steps)
    else:
        data = task.data._replace(ids=table.positions(task.data.ids))
        args = keys_of(plan, plan.seeds), *map(np.float32, rates), rows, rest, data, task.order
        args = plan.place.replicate(args)

        def fit(n_steps):
            return trials.fit(*args, n_steps)

    # A run of no steps compiles, which leaves the timed one to training alone.
    begun = time.perf_counter()
    jax.block_until_ready(fit(np.int32(0)))
    start = time.perf_counter()
    params = jax.block_until_ready(fit(np.int32(task.steps)))
    cost = {
        "seconds": (time.perf_counter() - start) / len(plan.seeds),
        "seconds_compile": start - begun,
    }

    ids, size, logit = table.positions(test.ids), plan.n_blocks * PREDICT_BLOCK, []
    for at in range(0, len(ids), size):
        some = (a[at : at + size] for a in (ids, test.dense))
        blocks = (in_blocks(a, plan.n_blocks, PREDICT_BLOCK) for a in some)
        z = np.asarray(trials.predict(params, *plan.place.replicate(tuple(blocks))))
        logit.append(z.reshape(len(z), -1))
    each = np.concatenate(logit, axis=1)[: len(plan.seeds), : len(ids)]
    return [scores(test, z, plan.tasks) for z in each], cost


def keys_of(plan: Plan, seeds: Sequence[int]) -> Array:
    key = train.key_for(plan.seed, "trial")
    return jax.vmap(lambda seed: jax.random.fold_in(key, seed))(jnp.asarray(seeds))


def filled_seeds(plan: Plan) -> list[int]:
    """The seeds, and the first ones again until the devices share them evenly."""
    return [plan.seeds[k % len(plan.seeds)] for k in range(plan.place.filled(len(plan.seeds)))]


def scores(test: Test, logit: np.ndarray, tasks: dict[str, int]) -> dict[str, float]:
    """The figures of one model: on the rows that judge, and its AUC on the stages so far.

    auc_current: on the latest stage, auc_past: the mean over those before; left out without rows.
    tasks: of the log's schema. Each AUC and GAUC is the mean over them, as to order the rows of one
    label before those of another is no merit; auc:LABEL is each one's own, on the rows that judge.
    """
    judged = test.part == 0
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
    there = np.unique(test.part[~judged]).tolist()
    by_stage = {k: mean_known(area(test.part == k)) for k in there}
    if test.stage in by_stage:
        figures["auc_current"] = by_stage.pop(test.stage)
    if by_stage:
        figures["auc_past"] = mean_known([*by_stage.values()])
    return figures


def that_judge(test: Test) -> Test:
    """The rows that judge, alone."""
    own = test.part == 0
    return Test(*(column[own] for column in test[:-1]), stage=test.stage)


def examples(memory: Memory) -> Examples:
    """A memory at full capacity; batches must leave unused slots out."""
    m = memory
    mix = None if m.mix is None else softmax(m.mix, axis=1)
    return Examples(m.ids, m.dense, soft_label(m), np.exp(m.log_weight), mix)


def soft_label(memory: Memory) -> np.ndarray:
    """float32 [N], the sigmoid of the label logits."""
    return (1 / (1 + np.exp(-memory.label_logit))).astype(np.float32)


def tasks(
    plan: Plan, stage: int, subsets: dict[str, list[Examples]], n: int, so_far: fed.Log, test: Test
) -> dict[str, Task]:
    """By method: all rows so far for the full-data reference, and each method's own subset."""

    def draw(seed: int) -> np.random.Generator:
        return np.random.default_rng((plan.seed, seed, stage))

    rngs = [draw(seed) for seed in plan.seeds]
    n_full, batch = fed.size(so_far), plan.full.batch
    steps, capacity = (max(1, int(plan.epochs / batch * k)) for k in (n_full, plan.n_rows))
    if plan.chunk:
        everything = Examples(*so_far.columns)

        def orders(rngs):
            return fed.orders(so_far, rngs, steps, batch, plan.chunk)

        deque(orders(rngs), maxlen=0)  # the subsets' orders go on from where these end
        order = lambda: orders(map(draw, filled_seeds(plan)))  # noqa: E731
    else:
        everything = Examples(*(pad_to(a, plan.n_rows) for a in fed.read(so_far)))
        order = np.stack([pad_to(epochs(rng, n_full, steps, batch), capacity) for rng in rngs])
    size = plan.place.even(plan.n_table)
    table = Compact(pad_rows(np.arange(plan.n_table, dtype=np.int32), size), size)
    found = {"full": Task(plan.full_trials, table, everything, order, steps, n_full)}

    trained = np.concatenate([e.ids.ravel() for each in subsets.values() for e in each])
    table = compact(trained, test.ids, plan.min_rows, most=plan.n_table)
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
    so_far: fed.Log,
    test: Test,
    methods: Collection[str] = (),
    between: Callable[[], None] = lambda: None,
    known: Collection[tuple[str, str]] = (),
) -> Iterator[list[dict]]:
    """All measurements after one stage: the `eval` records of each method and architecture in turn.

    subsets: by method, one memory-shaped Examples per seed, its first `n` rows in use.
    so_far: all rows up to this stage. methods: the ones to measure, all if empty.
    between: is called before the trials of every architecture, and may raise.
    known: (method, architecture) whose trials need not be run.
    """
    for method, task in tasks(plan, stage, subsets, n, so_far, test).items():
        if methods and method not in methods:
            continue
        for arch in plan.models:
            if (method, arch) in known:
                continue
            between()
            figures, seconds = run_trials(plan, task, arch, plan.rates(method, arch), test)
            cost = {"steps": task.steps, "rows": task.rows, **seconds}
            about = {"kind": "eval", "stage": stage, "method": method, "arch": arch}
            pairs = zip(plan.seeds, figures, strict=True)
            yield [{**about, "seed": seed, **figure, **cost} for seed, figure in pairs]
