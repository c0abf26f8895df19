"""Choose the learning rate of every method and architecture on validation slices, never on a test.

    python -m benchmarks.recipes --config=configs/movielens_100k.py --out=benchmarks/results

The last tenth of each stage is held out of everything and judges. All methods get the same grid and
the same steps; the memory is distilled once and every rate of the grid is tried on it. Prints the
lines for the config and writes all figures to OUT/recipes_NAME.json.
"""

import json
from collections import defaultdict
from pathlib import Path

import jax
import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

from diet_jax.files import replace_text
from diet_jax.job import prepare
from diet_jax.record import software_versions
from diet_jax.run import distill, judge

CONFIG = config_flags.DEFINE_config_file("config", None, "The config to choose for.")
OUT = flags.DEFINE_string("out", "benchmarks/results", "Folder of the result file.")
SUBSET = flags.DEFINE_list("lrs", "0.0025,0.005,0.01,0.02,0.04,0.08", "Rates for subset methods.")
FULL = flags.DEFINE_list("full_lrs", "0.0005,0.001,0.002,0.004,0.008", "Rates for full data.")


def main(_) -> None:
    logging.set_verbosity(logging.WARNING)
    config = CONFIG.value
    config.eval.on = "validation"
    job, found = prepare(config), defaultdict(list)
    state = job.first
    for number in range(1, len(job.steps) + 1):
        state, _ = distill(job, state, number, lambda step, loss: None)
        # One grid for all methods of a kind; the shorter one is filled up with its last value.
        for subset, full in zip(*padded(SUBSET.value, FULL.value), strict=True):
            rates = job._replace(evaluation=job.evaluation._replace(lr=pick(subset, full)))
            for r in judge(rates, state, number):
                lr = full if r["method"] == "full" else subset
                found[r["method"], r["arch"], lr].append(r["auc"])
        print(f"stage {number} of {len(job.steps)} done", flush=True)
    table = [
        {"method": m, "arch": a, "lr": lr, "auc": float(np.mean(x)), "n": len(x)}
        for (m, a, lr), x in sorted(found.items())
    ]
    best = {}
    for row in table:
        key = row["method"], row["arch"]
        best[key] = max(row, best.get(key, row), key=lambda r: r["auc"])
    for (method, arch), row in sorted(best.items()):
        print(f"c.eval.lr.{method}.{arch} = {row['lr']:g}  # AUC {row['auc']:.4f}")
    env = software_versions() | {"devices": [d.device_kind for d in jax.devices()]}
    result = {"config": json.loads(config.to_json()), "env": env, "table": table}
    result["config"]["data"]["path"] = Path(config.data.path).name  # the rest is this machine's
    name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    Path(OUT.value).mkdir(parents=True, exist_ok=True)
    replace_text(Path(OUT.value) / f"recipes_{name}.json", json.dumps(result, indent=1) + "\n")


def padded(a: list[str], b: list[str]) -> tuple[list[float], list[float]]:
    n = max(len(a), len(b))
    a, b = ([*x, *[x[-1]] * (n - len(x))] for x in (a, b))
    return [float(x) for x in a], [float(x) for x in b]


def pick(subset: float, full: float):
    return lambda method, arch: full if method == "full" else subset


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
