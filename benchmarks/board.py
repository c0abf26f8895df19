"""The board: the memory beside every rival, with the same rows, steps and trials of tuning.

    python -m benchmarks.board --config=configs/movielens_100k.py --config.data.path=FOLDER

For each --rates (slots per row) and method, learning rate and L2 are chosen for every architecture
on validation slices (the last tenth of each stage, kept from everything) from one grid, that of all
that is there already, with --tune_seeds; then --seeds are judged on the next stage. A method is a
baseline (SELECTOR_hard or SELECTOR_soft, see diet_jax/baselines.py), a variant of the distillation
(benchmarks/board_methods.py), or VARIANT_hard, its memory with labels rounded and weights one. What
is done is kept in benchmarks/results/board/NAME.jsonl and not done again; the table goes to
docs/board/NAME.md.
"""

import itertools
import json
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

from benchmarks.board_methods import ANY, VARIANTS, configured, digest, names_of
from benchmarks.board_page import render
from benchmarks.record import environment
from diet_jax.baselines import SURE
from diet_jax.job import prepare
from diet_jax.run import begin, judge, rewrite, settle
from diet_jax.types import Config, Memory

CONFIG = config_flags.DEFINE_config_file("config", None, "The config of the log.")
RATES = flags.DEFINE_list("rates", "0.01,0.02", "Slots per row.")
SEEDS = flags.DEFINE_list("seeds", "0,1,2,3,4", "Seeds of everything.")
TUNE = flags.DEFINE_list("tune_seeds", "0", "Seeds with which rates are chosen.")
METHODS = flags.DEFINE_list("methods", [*ANY, *VARIANTS], "Baselines and variants.")
LRS = flags.DEFINE_list("lrs", "0.00125,0.0025,0.005,0.01,0.02,0.04,0.08,0.16", "Their grid.")
L2 = flags.DEFINE_list("l2", "0,0.03,0.1,0.3,1", "That of L2 on embeddings.")
MEASURE = flags.DEFINE_bool("measure", True, "--nomeasure only renders the cells that are there.")
ROOT = flags.DEFINE_string("root", ".", "Folder that holds benchmarks/ and docs/.")

# On the next stage; on the stage just seen, and the mean over those before.
FIGURES = ("auc", "logloss", "auc_current", "auc_past")

Rates = dict[tuple[str, str], tuple[float, float]]  # (method, architecture) -> learning rate, L2


def main(_) -> None:
    logging.set_verbosity(logging.WARNING)
    name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    file = Path(ROOT.value) / "benchmarks" / "results" / "board" / f"{name}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    baselines = tuple(m for m in METHODS.value if m not in VARIANTS)
    groups = [baselines] * bool(baselines) + [(m,) for m in METHODS.value if m in VARIANTS]
    phases = [("tune", int(s)) for s in TUNE.value] + [("test", int(s)) for s in SEEDS.value]
    for rate, group, (phase, seed) in itertools.product(map(float, RATES.value), groups, phases):
        config = configured(CONFIG.value, name, rate, group[0])
        about = {"rate": rate, "config": digest(config), "phase": phase, "seed": seed}
        config.seed, config.eval.on = seed, "validation" if phase == "tune" else "next"
        known = [x for x in read(file) if x["rate"] == rate]
        mine = [x for x in known if x["config"] == about["config"]]
        done = {x["method"] for x in mine if (x["phase"], x["seed"]) == (phase, seed)}
        todo = [method for method in names_of(group, phase) if method not in done]
        if todo and MEASURE.value:
            refuse_another_grid(file, known)
            lines = tune(config, todo) if phase == "tune" else test(config, todo, choose(mine))
            about["env"] = environment()
            with open(file, "a") as out:
                out.write("".join(json.dumps(about | line) + "\n" for line in lines))
            print(f"{name}: {rate:g} {phase} {seed}: {', '.join(todo)[:60]}", flush=True)
    lines = [line for line in read(file) if line["phase"] == "test"]
    docs = Path(ROOT.value) / "docs" / "board"
    mixes = {m: v.get("memory.own", v.get("memory.mix", 1)) for m, v in VARIANTS.items()}
    render(docs, name, [*map(float, RATES.value)], METHODS.value, mixes, lines)


def refuse_another_grid(file: Path, lines: list[dict]) -> None:
    """Ends the program where rivals were tuned on another grid than the flags have."""
    asked = set(itertools.product(map(float, LRS.value), map(float, L2.value)))
    for line in lines:
        tried = {(lr, l2) for _, lr, l2, _ in line.get("grid", [])}
        if tried and tried != asked:
            lrs, l2 = (",".join(f"{x:g}" for x in sorted({*xs})) for xs in zip(*tried, strict=True))
            sys.exit(f"error: {file} has methods tuned with --lrs={lrs} --l2={l2}; give that grid")


def read(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def turns(config: Config, names: list[str]):
    """The job, and after each stage its number, the state to judge and the seconds so far."""
    variant = next((name for name in names if name.removesuffix("_hard") in VARIANTS), "")
    job = prepare(config, rivals=() if variant else tuple(n for n in names if n != "full"))
    state, seconds = job.first, 0.0
    for number in range(1, len(job.steps) + 1):
        began = time.perf_counter()
        turn = begin(job, state, number)
        memory = state.memory
        if variant:
            memory, _ = rewrite(job, state, turn, lambda step, loss: None)
        state = judged = settle(job, state, turn, memory)
        seconds += time.perf_counter() - began
        if variant:
            shown = {name: harden(memory) if name not in VARIANTS else memory for name in names}
            copies = len(config.eval.seeds)
            judged = state._replace(baselines={n: (m,) * copies for n, m in shown.items()})
        yield job, number, judged, seconds


def harden(memory: Memory) -> Memory:
    """Labels rounded, weights one."""
    logit = np.where(memory.label_logit > 0, SURE, -SURE).astype(np.float32)
    return memory._replace(label_logit=logit, log_weight=np.zeros_like(memory.log_weight))


def tune(config: Config, names: list[str]) -> list[dict]:
    """For each method a line with the grid: [architecture, lr, l2, mean AUC over stages]."""
    found = defaultdict(list)
    for job, number, state, _ in turns(config, names):
        for lr, l2 in itertools.product(map(float, LRS.value), map(float, L2.value)):
            plan = job.evaluation._replace(rates=lambda method, arch, lr=lr, l2=l2: (lr, l2))
            for r in judge(job._replace(evaluation=plan), state, number, names):
                found[r["method"], r["arch"], lr, l2].append(r["auc"])
    grids = defaultdict(list)
    for (method, arch, lr, l2), aucs in found.items():
        grids[method].append([arch, lr, l2, round(float(np.mean(aucs)), 6)])
    return [{"method": method, "grid": grid} for method, grid in grids.items()]


def choose(lines: list[dict]) -> Rates:
    """The rates of the highest mean AUC over the tuning seeds, of equals the first."""
    found = defaultdict(lambda: defaultdict(list))
    for line in lines:
        for arch, lr, l2, auc in line.get("grid", []):
            found[line["method"], arch][lr, l2].append(auc)
    return {key: max(grid, key=lambda r: float(np.mean(grid[r]))) for key, grid in found.items()}


def test(config: Config, names: list[str], best: Rates) -> list[dict]:
    """For each method a line: by architecture the rates and, by stage, the figures of FIGURES."""
    lines: dict[str, dict] = {
        n: {"method": n, "rates": {}, **{what: {} for what in FIGURES}} for n in names
    }
    for job, number, state, seconds in turns(config, names):

        def rates(method, arch, job=job):
            return best.get((method, arch)) or job.evaluation.rates(method, arch)

        found = defaultdict(list)
        plan = job.evaluation._replace(rates=rates)
        for r in judge(job._replace(evaluation=plan), state, number, names):
            found[r["method"], r["arch"]].append(r)
        for (method, arch), records in found.items():
            line = lines[method]
            line["rates"][arch], line["seconds"] = rates(method, arch), round(seconds, 1)
            for what in FIGURES:
                if what in records[0]:  # of past stages there are none at first
                    mean = round(float(np.mean([r[what] for r in records])), 6)
                    line[what].setdefault(arch, []).append(mean)
    return list(lines.values())


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
