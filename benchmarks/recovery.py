"""Gap recovery of a config over several seeds of everything: data choice, distillation, training.

    python -m benchmarks.recovery --config=configs/movielens_100k.py --seeds=0,1,2,3,4 \
        --out=benchmarks/results/recovery_100k.json -- --config.data.path=FOLDER

Each seed is one run of the main job in a folder of its own (finished ones are not run again); what
follows `--` goes to every run. Writes every cell, the means and their spread, and prints a table.
The past that it ends with is what full data is trained on, but for --config.eval.on=validation.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from absl import app, flags
from scipy import stats

from benchmarks.record import write
from diet_jax.record import read_records
from diet_jax.summary import BASELINES, gap_recovery, summarize

CONFIG = flags.DEFINE_string("config", None, "The config file.", required=True)
SEEDS = flags.DEFINE_list("seeds", "0,1,2,3,4", "Seeds, one run each.")
WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the runs; runs/recovery/CONFIG if empty.")
OUT = flags.DEFINE_string("out", "", "Result file; recovery.json with the runs if empty.")

COLUMNS = ("full", "memory", "random_hard", "random_soft", "R", "R_soft")


def main(argv: list[str]) -> None:
    folder = Path(WORKDIR.value or f"runs/recovery/{Path(CONFIG.value).stem}")
    runs = [folder / f"seed_{seed}" for seed in SEEDS.value]
    for seed, run in zip(SEEDS.value, runs, strict=True):
        command = [sys.executable, "-m", "diet_jax.main", f"--config={CONFIG.value}"]
        command += [f"--workdir={run}", f"--config.seed={seed}", *argv[1:]]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    by_run = [summarize(read_records(run / "metrics.jsonl")) for run in runs]
    rows = {arch: table([cells(s, arch) for s in by_run]) for arch in by_run[0]["by_arch"]}
    rows["mean"] = table([cells(s, None) for s in by_run])
    if len(by_run[0]["stages"]) > 1:
        rows["past stages, after the last"] = table([past(s) for s in by_run])
    print(markdown(rows))
    result = {
        "env": json.loads((runs[0] / "env.json").read_text()),
        "config": json.loads((runs[0] / "config.json").read_text()),
        "rows": rows,
        "records": [
            {"run_seed": seed, **r}
            for seed, run in zip(SEEDS.value, runs, strict=True)
            for r in read_records(run / "metrics.jsonl")
            if r["kind"] in ("eval", "run")
        ],
    }
    # The path is this machine's own and says nothing about the result.
    result["config"]["data"]["path"] = Path(result["config"]["data"]["path"]).name
    write(OUT.value or folder / "recovery.json", result)


def markdown(rows: dict[str, dict]) -> str:
    """The table as docs/results.md shows it: mean +- standard deviation over the runs."""
    lines = ["| | full data | memory | random | random + teacher | R | R_soft |", "|---" * 7 + "|"]
    for arch, row in rows.items():
        digits = {c: 2 if c in ("R", "R_soft") else 4 for c in COLUMNS}
        texts = [f"{row[c]['mean']:.{digits[c]}f} ± {row[c]['sd']:.{digits[c]}f}" for c in COLUMNS]
        lines.append(f"| {arch} | {' | '.join(texts)} |")
    return "\n".join(lines)


def cells(summary: dict, arch: str | None) -> dict[str, float]:
    """One run's means over stages (of one architecture, or of all)."""
    if arch is None:
        overall = summary["overall"]
        ratios = {name: overall[name]["mean_of_ratios"] for name in ("R", "R_soft")}
        return {**overall["auc"], **ratios}
    row = summary["by_arch"][arch]
    return {**row["auc"], "R": row["R"], "R_soft": row["R_soft"]}


def past(summary: dict) -> dict[str, float]:
    """One run's means over architectures on the stages before the last, once that is done."""
    last = [cell for cell in summary["cells"] if cell["stage"] == summary["stages"][-1]]
    auc = {m: float(np.mean([cell["auc_past"][m]["mean"] for cell in last])) for m in COLUMNS[:4]}
    ratios = {
        name: gap_recovery(auc["full"], auc["memory"], auc[baseline])
        for name, baseline in BASELINES.items()
    }
    return {**auc, **ratios}


def table(runs: list[dict[str, float]]) -> dict[str, dict]:
    """Mean, standard deviation and 95 % interval (Student's t) over the runs, column by column."""
    out = {}
    for column in COLUMNS:
        x = np.array([run[column] for run in runs])
        half = stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / len(x) ** 0.5 if len(x) > 1 else 0
        out[column] = {
            "mean": float(x.mean()),
            "sd": float(x.std(ddof=1)) if len(x) > 1 else 0.0,
            "ci95": [float(x.mean() - half), float(x.mean() + half)],
            "runs": x.tolist(),
        }
    return out


if __name__ == "__main__":
    app.run(main)
