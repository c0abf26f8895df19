"""One line of research: how good is the memory of a config on validation rows, over cuts and seeds?

    python -m benchmarks.explore --config=configs/movielens_100k.py --windows=0.6,0.7,0.8 \
        --seeds=0,1 --name="hide nothing" --config.outer.hide_above=1 --config.data.path=FOLDER

With --windows the first stage is the log up to each of these shares, and the next tenth judges; a
window may reach up to 0.8 of the log, whose last tenth is never read. Without, every stage of the
stream is distilled and its own last tenth judges. The learning rate and L2 of every architecture
are chosen from one small grid, the same for all lines. Appends one JSON line to --out.
"""

import itertools
import json
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

from benchmarks.windows import windowed
from diet_jax.job import prepare
from diet_jax.run import distill, judge
from diet_jax.types import Config

CONFIG = config_flags.DEFINE_config_file("config", None, "The config to judge.")
WINDOWS = flags.DEFINE_list("windows", [], "Shares of the log that the first stage reaches to.")
SEEDS = flags.DEFINE_list("seeds", "0", "Seeds of everything.")
NAME = flags.DEFINE_string("name", "", "What the line is called.")
OUT = flags.DEFINE_string("out", "benchmarks/results/explore.jsonl", "File to append to.")
METHOD = flags.DEFINE_string("method", "memory", "The method judged.")

# (learning rate, L2): LR and FM want larger steps than deep models.
WIDE = tuple(itertools.product((0.04, 0.08, 0.16), (0.0,)))
FM = ((0.02, 0.0), (0.04, 0.0), (0.04, 0.1), (0.04, 0.3), (0.08, 0.3), (0.08, 1.0))
DEEP = ((0.0025, 0.0), (0.005, 0.0), (0.005, 0.1), (0.01, 0.1))
PRODUCTS = ((0.005, 0.3), (0.01, 0.1), (0.02, 0.0), (0.02, 0.1), (0.02, 0.3), (0.08, 0.3))
GRID = {"LR": WIDE, "FM": FM} | dict.fromkeys(("FwFM", "FmFM", "FiBiNET", "NFM"), PRODUCTS)


def main(_) -> None:
    logging.set_verbosity(logging.WARNING)
    start, found, seconds = time.perf_counter(), defaultdict(list), 0.0
    for seed, window in itertools.product(map(int, SEEDS.value), map(float, WINDOWS.value or [0])):
        for stage in stages(CONFIG.value, seed, window):
            records, cost = stage
            seconds += cost
            for key, auc in records.items():
                found[key].append(auc)
    chosen = {}
    for (arch, lr, l2), aucs in found.items():
        if arch not in chosen or np.mean(aucs) > np.mean(chosen[arch]["runs"]):
            chosen[arch] = {"lr": lr, "l2": l2, "runs": aucs}
    runs = np.mean([row["runs"] for row in chosen.values()], axis=0)
    values = json.loads(CONFIG.value.to_json())  # defaults change from commit to commit
    values["data"]["path"] = Path(values["data"]["path"]).name
    line = {
        "name": NAME.value,
        "config": config_flags.get_config_filename(flags.FLAGS["config"]),
        "overrides": {
            key: value
            for key, value in config_flags.get_override_values(flags.FLAGS["config"]).items()
            if key != "data.path"
        },
        "values": values,
        "method": METHOD.value,
        "windows": WINDOWS.value,
        "seeds": SEEDS.value,
        "auc": round(float(runs.mean()), 4),
        "by_arch": {arch: round(float(np.mean(row["runs"])), 4) for arch, row in chosen.items()},
        "rates": {arch: [row["lr"], row["l2"]] for arch, row in chosen.items()},
        "runs": np.round(runs, 4).tolist(),
        "distill_s": round(seconds / len(runs), 1),
        "seconds": round(time.perf_counter() - start),
    }
    Path(OUT.value).parent.mkdir(parents=True, exist_ok=True)
    with open(OUT.value, "a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps({key: value for key, value in line.items() if key != "values"}, indent=1))


def stages(config: Config, seed: int, window: float):
    """For each stage judged: {(arch, lr, l2): mean AUC over the seeds of trials}, distilling s."""
    config = windowed(config, seed, window)
    job = prepare(config)
    if window:
        job = job._replace(steps=job.steps[:1])
    state = job.first
    for number in range(1, len(job.steps) + 1):
        state, facts = distill(job, state, number, lambda step, loss: None)
        found = {}
        points = max(len(GRID.get(arch, DEEP)) for arch in config.eval.archs)
        for k in range(points):

            def pick(method, arch, k=k):
                grid = GRID.get(arch, DEEP)
                return grid[min(k, len(grid) - 1)]

            plan = job.evaluation._replace(rates=pick)
            aucs = defaultdict(list)
            for r in judge(job._replace(evaluation=plan), state, number, (METHOD.value,)):
                aucs[r["arch"]].append(r["auc"])
            found |= {(arch, *pick("", arch)): float(np.mean(x)) for arch, x in aucs.items()}
        yield found, facts["seconds_influence"] + facts["seconds_outer"]


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
