"""Does influence predict what dropping rows does? The linear datamodeling score of every influence.

    python -m benchmarks.lds --config=configs/movielens_100k.py --config.data.path=FOLDER

Rows of the first stage with the teacher's labels are the training set, as many as the memory would
have slots. In each of --subsets 5 % of them are dropped (weight zero) and every proxy is trained
again with the same --runs keys; the score is Spearman's correlation over subsets between the change
of the outer loss and the sum of the influence of what was dropped (Park et al., TRAK, ICML 2023).
Compared are the full unroll, windows and one step, and their seconds. --config.inner.* chooses the
training; each choice has its entry in --out.
"""

import time

import jax
import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags
from scipy.stats import spearmanr

from benchmarks.entries import tell
from benchmarks.windows import unlocked
from diet_jax.baselines import find
from diet_jax.job import make_proxies, prepare
from diet_jax.metagrad import Trajectory, outer_loss
from diet_jax.run import begin
from diet_jax.scene import lay_out, set_scene, to_slots
from diet_jax.types import Config

CONFIG = config_flags.DEFINE_config_file("config", None, "The config of log and proxies.")
SUBSETS = flags.DEFINE_integer("subsets", 100, "Subsets that are dropped.")
DROP = flags.DEFINE_float("drop", 0.05, "Share of the rows in a subset.")
RUNS = flags.DEFINE_integer("runs", 8, "Inner runs averaged, the same in all trainings.")
flags.DEFINE_list("seeds", "0,1,2", "Seeds of everything.")
flags.DEFINE_string("out", "benchmarks/results/lds.json", "Result file; others are kept.")

AT_ONCE = 10  # subsets trained side by side
OUTER = 4096  # real rows of the outer loss


def main(_) -> None:
    logging.set_verbosity(logging.WARNING)
    keys = "lds", "to_exact", "seconds"
    tell(lambda seed: one_seed(CONFIG.value, seed), keys, ["subsets", "drop", "runs"])


def one_seed(config: Config, seed: int) -> list[dict]:
    """By proxy and score: the LDS, the rank correlation to the exact score, and the seconds."""
    config = unlocked(config)
    config.seed, config.outer.trajectories = seed, RUNS.value
    config.memory.mix = 1  # single rows are dropped
    job = prepare(config)
    turn = begin(job, job.first, 1)
    blank, rng = job.first.memory, np.random.default_rng(seed)
    memory = find("random_soft")(blank, turn.look, turn.n_slots, turn.n_new, 1, rng)
    scene = set_scene(job.engine, blank, memory, lay_out(job.engine, turn.look.stage), 0.0)
    slots, stage = jax.device_put(to_slots(memory, scene.compact)), scene.stage
    at = rng.choice(int(stage.n), OUTER, replace=False)
    outer = stage.examples(at)
    keys = jax.random.split(jax.random.key(seed), RUNS.value)
    run = Trajectory(stage.trained, stage.fixed, keys, np.int32(config.inner.steps))
    axes = Trajectory(trained=None, fixed=None, key=0, end=None)
    used = np.flatnonzero(memory.valid)
    drops = [rng.choice(used, round(DROP.value * len(used)), False) for _ in range(SUBSETS.value)]
    kept = np.ones((len(drops), len(memory.valid)), np.float32)
    for row, drop in zip(kept, drops, strict=True):
        row[drop] = 0

    found = []
    for proxy in make_proxies(config, job.stream.schema, RUNS.value):

        @jax.jit
        def loss(weight, proxy=proxy):
            # exp(log_weight) is 1 for random rows.
            now = slots._replace(log_weight=slots.log_weight + jax.numpy.log(weight + 1e-30))
            return jax.vmap(lambda r: outer_loss(proxy, now, r, outer), (axes,))(run).mean()

        many = jax.jit(jax.vmap(loss))
        parts = [many(kept[k : k + AT_ONCE]) for k in range(0, len(kept), AT_ONCE)]
        change = np.concatenate(parts) - float(loss(np.ones_like(kept[0])))
        scores, took = {}, {}
        for name, mode in (("exact", "full"), ("window", "random"), ("one step", "one_step")):
            some = proxy._replace(mode=mode)

            @jax.jit
            def score(slots, some=some):
                def mean(w):
                    now = slots._replace(log_weight=w)
                    return jax.vmap(lambda r: outer_loss(some, now, r, outer), (axes,))(run).mean()

                return -jax.grad(mean)(slots.log_weight) / jax.numpy.exp(slots.log_weight)

            jax.block_until_ready(score(slots))
            start = time.perf_counter()
            scores[name] = np.asarray(jax.block_until_ready(score(slots)))
            took[name] = time.perf_counter() - start
        for name, each in scores.items():
            told = [each[drop].sum() for drop in drops]  # a positive influence lowers the loss
            rank = spearmanr(each[used], scores["exact"][used])[0]
            row = {"name": f"{proxy.model.name}, {name}", "seconds": took[name]}
            found.append(row | {"lds": spearmanr(told, change)[0], "to_exact": rank})
    return found


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
