"""Choose learning rate and L2 of every method and architecture on validation slices, not on a test.

    python -m benchmarks.recipes --config=configs/movielens_100k.py --out=benchmarks/results

The last tenth of each stage is held out of everything and judges. All methods get as large a
grid and the same steps; a memory is distilled once a seed and the whole grid is tried on it. Prints
the lines for the config and writes all figures to OUT/recipes_NAME.json. With --methods only those
are chosen for anew, and the file keeps what it holds of the others.
"""

import itertools
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

from benchmarks.record import write
from diet_jax.job import prepare
from diet_jax.run import begin, distill, judge, settle

CONFIG = config_flags.DEFINE_config_file("config", None, "The config to choose for.")
OUT = flags.DEFINE_string("out", "benchmarks/results", "Folder of the result file.")
SUBSET = flags.DEFINE_list(
    "lrs", "0.00125,0.0025,0.005,0.01,0.02,0.04,0.08,0.16", "Learning rates of subset methods."
)
FULL = flags.DEFINE_list(
    "full_lrs", "0.000125,0.00025,0.0005,0.001,0.002,0.004,0.008,0.016", "Those of full data."
)
SEEDS = flags.DEFINE_list("seeds", "0", "Seeds of everything; the mean over them chooses.")
METHODS = flags.DEFINE_list("methods", "full,memory,random_hard,random_soft", "To choose for.")
L2 = flags.DEFINE_list("l2", "0,0.03,0.1,0.3,1", "Weights of the penalty on embeddings.")


def main(_) -> None:
    logging.set_verbosity(logging.WARNING)
    config, found = CONFIG.value, defaultdict(list)
    config.eval.on = "validation"
    lrs = list(zip(floats(SUBSET.value), floats(FULL.value), strict=True))
    for config.seed in map(int, SEEDS.value):
        job = prepare(config)
        state = job.first
        for number in range(1, len(job.steps) + 1):
            if "memory" in METHODS.value:
                state, _ = distill(job, state, number, lambda step, loss: None)
            else:
                state = settle(job, state, begin(job, state, number), state.memory)
            for (subset, full), l2 in itertools.product(lrs, floats(L2.value)):
                plan = job.evaluation._replace(rates=pick(subset, full, l2))
                records = judge(job._replace(evaluation=plan), state, number, METHODS.value)
                for r in records:
                    lr = full if r["method"] == "full" else subset
                    found[r["method"], r["arch"], lr, l2].append(r["auc"])
            print(f"seed {config.seed}: stage {number} of {len(job.steps)} done", flush=True)
    table = [
        {"method": m, "arch": a, "lr": lr, "l2": l2, "auc": float(np.mean(x)), "n": len(x)}
        for (m, a, lr, l2), x in sorted(found.items())
    ]
    name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    path = Path(OUT.value) / f"recipes_{name}.json"
    if path.exists():
        kept = json.loads(path.read_text())["table"]
        table += [row for row in kept if row["method"] not in METHODS.value]
    best = {}
    for row in table:
        key = row["method"], row["arch"]
        best[key] = max(best.get(key, row), row, key=lambda r: r["auc"])  # of equals the first
    for (method, arch), row in sorted(best.items()):
        where = f"{method}.{arch}"
        print(f"c.eval.lr.{where}, c.eval.l2.{where} = {row['lr']:g}, {row['l2']:g}", end="")
        print(f"  # AUC {row['auc']:.4f}")
    result = {"config": json.loads(config.to_json()), "table": table}
    result["config"]["data"]["path"] = Path(config.data.path).name  # the rest is this machine's
    write(path, result)


def floats(texts: list[str]) -> list[float]:
    return [float(text) for text in texts]


def pick(subset: float, full: float, l2: float):
    return lambda method, arch: (full if method == "full" else subset, l2)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
