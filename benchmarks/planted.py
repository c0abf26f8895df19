"""Are the rows that the simulator plants as influential found by their influence? Their precision.

    python -m benchmarks.planted --config=configs/simulator.py --config.data.options.n_rows=100000 \
        --config.inner.archs="('LR','DeepFM')" --config.inner.lr.LR=0.02 \
        --config.inner.lr.default=0.005 --config.inner.steps=600

The simulator launches items of which a stage has a few rows and the next stage very many (see
diet_jax/data/simulator.py), so what a model learns of those few decides many answers. A model is
trained on all rows of the first stage but these; all rows of the stage are candidates, and the
outer rows are of the next stage, with their labels. Of as many candidates as were planted, those of
the largest absolute influence, the share that was planted is the precision; by chance it would be
that of all rows. --config.inner.* chooses the training; each choice has its entry in --out.
"""

import time

import jax
import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

from benchmarks.entries import tell
from benchmarks.windows import unlocked
from diet_jax.baselines import SURE
from diet_jax.compact import compact, cut
from diet_jax.data import simulator
from diet_jax.influence import influence
from diet_jax.job import make_proxies, make_test, prepare
from diet_jax.metagrad import Slots, Trajectory
from diet_jax.train import Examples
from diet_jax.types import Config

CONFIG = config_flags.DEFINE_config_file("config", None, "A config of the simulator.")
RUNS = flags.DEFINE_integer("runs", 4, "Inner runs averaged.")
flags.DEFINE_list("seeds", "0,1,2", "Seeds of everything, the log too.")
flags.DEFINE_string("out", "benchmarks/results/planted.json", "Result file; others are kept.")

OUTER = 16384  # real rows of the outer loss
MODES = {"exact": "full", "window": "random", "one step": "one_step"}


def main(_) -> None:
    logging.set_verbosity(logging.WARNING)
    keys = "precision", "chance", "seconds", "candidates"
    tell(lambda seed: one_seed(CONFIG.value, seed), keys, ["runs"])


def one_seed(config: Config, seed: int) -> list[dict]:
    """By proxy and score: the precision, the share of planted rows, and the seconds."""
    config = unlocked(config)
    config.seed = config.data.options.seed = seed
    job, rng = prepare(config), np.random.default_rng(seed)
    stage = job.steps[0].train
    world = simulator.World(**config.data.options)
    planted, rows = simulator.truth(world).influential[stage.source], stage.rows
    test = make_test(job, 1)
    at = rng.permutation(np.flatnonzero(test.part == 0))[:OUTER]
    block, n = config.growth.block, len(planted)
    table = compact(rows.ids[~planted], np.concatenate([rows.ids, test.ids[at]]), n)
    trained, fixed = cut(table.rows, table.n_trained)

    def examples(ids, dense, label):
        return Examples(table.positions(ids), dense, label, np.ones(len(label), np.float32))

    padded = np.resize(np.arange(n), -(-n // block) * block)
    candidates = examples(rows.ids[padded], rows.dense[padded], rows.label[padded])
    outer = examples(test.ids[at], test.dense[at], test.label[at])
    others = examples(*(column[~planted] for column in rows[:3]))
    sure = np.where(others.target > 0.5, SURE, -SURE).astype(np.float32)
    slots = Slots(others.ids, np.ones(len(sure), bool), others.dense, sure, np.zeros_like(sure))
    keys = jax.random.split(jax.random.key(seed), RUNS.value)
    run = Trajectory(trained, fixed, keys, np.int32(config.inner.steps))

    found = []
    for proxy in make_proxies(config, job.stream.schema, RUNS.value):
        for name, mode in MODES.items():
            some = proxy._replace(mode=mode)

            @jax.jit
            def score(slots, some=some):
                def one(key):
                    alone = run._replace(key=key)
                    return influence(some, slots, alone, outer, candidates, block)[1]

                return jax.lax.map(one, run.key).mean(0)

            jax.block_until_ready(score(slots))
            start = time.perf_counter()
            strength = np.abs(np.asarray(score(slots)))[:n]
            best = np.argsort(-strength, kind="stable")[: planted.sum()]
            found.append(
                {
                    "name": f"{proxy.model.name}, {name}",
                    "precision": float(planted[best].mean()),
                    "chance": float(planted.mean()),
                    "candidates": n,
                    "seconds": time.perf_counter() - start,
                }
            )
    return found


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
