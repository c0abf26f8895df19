"""Many runs of the job from one file of axes, on Ray Tune or as a SLURM array; then one table.

    python -m launch.sweep --sweep=configs/sweeps/ablation.py --workdir=runs/ablation

with, if wanted,

    --address=ray://HEAD:10001  on a Ray cluster, whose machines share the folder
    --slurm                     run nothing: write trials.txt and say how to submit it
    --table                     run nothing: only the table of what is there
    -- --config.data.path=...   flags of all runs

A trial is one process of the main program in a folder of its own, named by what it changes, so the
same command resumes a sweep: finished trials are not run again, others go on. A trial that fails,
but not for bad input (status 2), is tried again `retries` times; what it said is then in its
folder, and the table says so. The exit status is 1 if a trial did not finish, or of a halving none.
"""

import itertools
import json
import math
import subprocess
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from absl import app, flags
from ml_collections import config_flags

from diet_jax import command
from diet_jax.files import replace_file, replace_text
from diet_jax.metrics import mean_known
from diet_jax.record import read_records
from diet_jax.summary import aggregate, summarize
from diet_jax.types import Config, InputError

SWEEP = config_flags.DEFINE_config_file("sweep", None, "The file of axes, see configs/sweeps/.")
WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the sweep; the same one resumes it.",
    allow_override=True,  # the main program, which may be loaded too, has one of that name
)
ADDRESS = flags.DEFINE_string("address", None, "Of a Ray cluster; without one, this machine.")
SLURM = flags.DEFINE_bool("slurm", False, "Write the trials for launch/slurm.sbatch.")
TABLE = flags.DEFINE_bool("table", False, "Run nothing.")

MODES = ("one_at_a_time", "grid", "random", "halving")
METRICS = ("R", "R_soft", "auc")
SPREAD = (*METRICS, "past", "seconds")  # what the table has with its spread over seeds
AS_IT_IS = "as configured"
POLL_S = 0.5


class Trial(NamedTuple):
    """One run. change: dotted key of the config -> value. seed: of everything in it."""

    change: dict[str, Any]
    seed: int

    @property
    def label(self) -> str:
        return ", ".join(f"{k}={shown(v)}" for k, v in self.change.items()) or AS_IT_IS

    @property
    def name(self) -> str:
        """Of its folder: the same for the same change, whatever else the sweep holds."""
        said = json.dumps(self.change, sort_keys=True).encode()
        return f"{zlib.crc32(said):08x}_seed_{self.seed}"


def shown(value: Any) -> str:
    """As the command line takes it, without blanks."""
    return repr(value).replace(" ", "") if isinstance(value, (tuple, list)) else str(value)


def expand(sweep: Config) -> list[Trial]:
    """The trials of a sweep, in order, each once.

    axes: pairs of a dotted key and a tuple of values, or for the mode random of bounds, a dict with
    low and high, and log=True to draw their logarithms evenly. one_at_a_time: the
    config as it is, then every value alone; grid and halving: all combinations; random: `samples`
    draws. Each with every seed.
    Raises InputError for what it cannot read.
    """
    for key, value, known in (("mode", sweep.mode, MODES), ("metric", sweep.metric, METRICS)):
        if value not in known:
            raise InputError(f"{key} is {value!r}; set it to one of {', '.join(known)}")
    axes = dict(sweep.axes)
    for key, values in axes.items():
        bounds = isinstance(values, dict) and set(values) <= {"low", "high", "log"}
        if not (isinstance(values, (tuple, list)) or (bounds and sweep.mode == "random")):
            raise InputError(f"axes[{key!r}] is {values!r}; give a tuple of values")
    if sweep.mode == "one_at_a_time":
        changes = [{}, *({k: v} for k, values in axes.items() for v in values)]
    elif sweep.mode == "random":
        rng = np.random.default_rng(0)
        changes = [{k: draw(v, rng) for k, v in axes.items()} for _ in range(sweep.samples)]
    else:
        changes = [
            dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())
        ]
    trials = [Trial(change, seed) for change in changes for seed in sweep.seeds]
    return list({trial.name: trial for trial in trials}.values())


def draw(values: Any, rng: np.random.Generator) -> Any:
    if not isinstance(values, dict):
        return values[rng.integers(len(values))]
    low, high = values["low"], values["high"]
    if values.get("log"):
        return float(f"{np.exp(rng.uniform(np.log(low), np.log(high))):.4g}")
    return float(f"{rng.uniform(low, high):.4g}")


def arguments(sweep: Config, trial: Trial, workdir: Path, more: list[str]) -> list[str]:
    """The flags of the trial's run."""
    changed = [f"--config.{key}={shown(value)}" for key, value in trial.change.items()]
    folder = workdir / "trials" / trial.name
    where = [f"--config={sweep.config}", f"--workdir={folder}", f"--config.seed={trial.seed}"]
    return [*where, *changed, *more]


def run_trial(
    flags_of_run: list[str], folder: Path, root: Path, told: Callable[[dict], None]
) -> None:
    """One process of the main program, run in `root`; told(measure) of every stage that is done.

    Raises RuntimeError with its last line if it fails, but for bad input, which no retry cures; all
    that it said is in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    command_line = [sys.executable, "-m", "diet_jax.main", *flags_of_run]
    done = 0
    with open(folder / "said.txt", "a") as said:
        with subprocess.Popen(command_line, cwd=root, stdout=said, stderr=said) as process:
            try:
                while True:
                    ended = process.poll() is not None
                    stages = measures(summarize(read_records(folder / "metrics.jsonl")))
                    for stage in stages[done:]:
                        told(stage)
                    done = len(stages)
                    if ended:
                        break
                    time.sleep(POLL_S)
            finally:  # a trial that is stopped early stops its process, which saves
                process.terminate()
    if process.returncode not in (0, command.BAD_INPUT):
        raise RuntimeError(f"exit status {process.returncode}: {last_line(folder)}")


def last_line(folder: Path) -> str:
    said = folder / "said.txt"
    lines = said.read_text().strip().splitlines() if said.exists() else []
    return lines[-1] if lines else "not run yet"


def measures(summary: dict) -> list[dict]:
    """After each stage so far: R and R_soft (of the mean gaps), the memory's AUC on the rows that
    judge and on past stages (NaN where there are none), and seconds."""
    found = []
    for record in summary["stage_records"]:
        cells = [cell for cell in summary["cells"] if cell["stage"] == record["stage"]]
        auc, past = (
            mean_known([cell[measure]["memory"]["mean"] for cell in cells])
            for measure in ("auc", "auc_past")
        )
        ratios = {name: aggregate(cells, name)["ratio_of_means"] for name in ("R", "R_soft")}
        about = {"seconds": record["seconds"], "stage": record["stage"]}
        found.append({**ratios, "auc": auc, "past": past, **about})
    return found


def on_ray(sweep: Config, trials: list[Trial], workdir: Path, more: list[str]) -> None:
    """Runs what is not finished on Ray Tune; its halving stops trials that lag behind by stage."""
    try:
        # Of the extra [sweep], which not all have who check types.
        import ray  # pyright: ignore[reportMissingImports]
        from ray import tune  # pyright: ignore[reportMissingImports]
        from ray.tune.schedulers import (  # pyright: ignore[reportMissingImports]
            AsyncHyperBandScheduler,
        )
    except ImportError:
        cure = "pip install -e '.[sweep]', or use --slurm"
        raise InputError(f"Ray Tune is not installed; {cure}") from None
    by_name = {trial.name: trial for trial in trials}
    root = Path.cwd()  # where relative paths begin; Ray runs a trial in a folder of its own

    def one(space: dict) -> None:
        flags_of_run = arguments(sweep, by_name[space["trial"]], workdir, more)
        run_trial(flags_of_run, workdir / "trials" / space["trial"], root, tune.report)

    halving = {"time_attr": "stage", "grace_period": 1, "reduction_factor": sweep.reduction}
    scheduler = AsyncHyperBandScheduler(**halving) if sweep.mode == "halving" else None
    paths = f"{root}:${{PYTHONPATH}}"  # Ray fills in what a machine has
    ray.init(ADDRESS.value, runtime_env={"env_vars": {"PYTHONPATH": paths}})
    try:
        tune.Tuner(
            tune.with_resources(one, dict(sweep.resources)),
            param_space={"trial": tune.grid_search(list(by_name))},
            tune_config=tune.TuneConfig(metric=sweep.metric, mode="max", scheduler=scheduler),
            run_config=tune.RunConfig(
                name="ray",
                storage_path=str(workdir),
                failure_config=tune.FailureConfig(max_failures=sweep.retries),
                verbose=1,
            ),
        ).fit()
    finally:
        ray.shutdown()


def merge(trials: list[Trial], workdir: Path) -> list[dict]:
    """A row for each change: figures over the finished seeds, and what is missing.

    R, R_soft (of the mean gaps of all stages), auc (mean over stages), past (after the last stage)
    and seconds (their sum): mean and sd over seeds. gain, where the config as it is was run too:
    what the change adds to its auc, mean and standard error (`se`) over the pairs of seed and stage
    that both have.
    """
    rows = defaultdict(lambda: defaultdict(list))
    aucs = defaultdict(dict)  # by change, then by seed and stage
    for trial in trials:
        row, folder = rows[trial.label], workdir / "trials" / trial.name
        summary = summarize(read_records(folder / "metrics.jsonl"))
        row["finished" if summary["finished"] else "unfinished"].append(trial.name)
        if not summary["finished"]:
            row["said"].append(last_line(folder))
            continue
        overall, stages = summary["overall"], measures(summary)
        for name in ("R", "R_soft"):
            row[name].append(overall[name]["ratio_of_means"])
        row["auc"].append(overall["auc"]["memory"])
        row["past"].append(stages[-1]["past"])
        row["seconds"].append(sum(stage["seconds"] for stage in stages))
        aucs[trial.label] |= {(trial.seed, stage["stage"]): stage["auc"] for stage in stages}
    merged = []
    for label, row in rows.items():
        means = {
            c: {"mean": float(np.mean(row[c])), "sd": spread(row[c])} for c in SPREAD if row[c]
        }
        pairs = aucs[AS_IT_IS].keys() & aucs[label].keys() if label != AS_IT_IS else ()
        if pairs:
            gains = [aucs[label][pair] - aucs[AS_IT_IS][pair] for pair in pairs]
            error = spread(gains) / math.sqrt(len(gains))
            means["gain"] = {"mean": float(np.mean(gains)), "se": error}
        states = {state: row[state] for state in ("finished", "unfinished", "said")}
        merged.append({"change": label, **means, **states})
    return merged


def spread(values: list[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def markdown(rows: list[dict]) -> str:
    lines = [
        "| | R | R_soft | AUC | gain | past stages | seconds | seeds | not finished |",
        "|---" * 9 + "|",
    ]
    digits = {"R": ".2f", "R_soft": ".2f", "gain": "+.4f", "seconds": ".0f"}
    for row in rows:
        cells = []
        for column in (*METRICS, "gain", "past", "seconds"):
            shape, known = digits.get(column, ".4f"), row.get(column)
            values = list(known.values()) if known else [math.nan]
            cells.append("-" if math.isnan(values[0]) else number(shape, *values))
        said = row["said"][-1].replace("|", "/") if row["said"] else ""
        left = f"{len(row['unfinished'])}: {said}" if said else ""
        lines.append(f"| {row['change']} | {' | '.join(cells)} | {len(row['finished'])} | {left} |")
    lines += [
        "",
        "gain: of AUC, beside the config as it is, ± standard error over pairs of seed and stage;"
        " of all others ± is the standard deviation over seeds.",
    ]
    return "\n".join(lines) + "\n"


def number(shape: str, mean: float, spread: float) -> str:
    return f"{mean:{shape}} ± {spread:{shape.strip('+')}}" if spread else f"{mean:{shape}}"


def draw_figure(rows: list[dict], metric: str, path: Path) -> None:
    """The metric of every change, mean and standard deviation over seeds."""
    rows = [row for row in rows if metric in row][::-1]
    plt.rcParams["svg.fonttype"] = "none"  # text stays text
    figure, axes = plt.subplots(figsize=(7, 1 + 0.3 * len(rows)), layout="constrained")
    means, spreads = ([row[metric][part] for row in rows] for part in ("mean", "sd"))
    axes.errorbar(means, range(len(rows)), xerr=spreads, fmt="o", color="#0072b2", capsize=3)
    axes.set_yticks(range(len(rows)), [row["change"] for row in rows])
    axes.set_xlabel(metric)
    axes.grid(axis="x", alpha=0.3)
    replace_file(path, lambda draft: figure.savefig(draft, format="svg"))
    plt.close(figure)


def write_array(lines: list[list[str]], resources: dict, workdir: Path) -> None:
    """The trials for launch/slurm.sbatch, which parts a line at its blanks."""
    for word in itertools.chain(*lines):
        if word.split() != [word]:
            raise InputError(f"{word!r} holds a blank, which --slurm cannot pass on; take it out")
    replace_text(workdir / "trials.txt", "".join(" ".join(line) + "\n" for line in lines))
    print(f"TRIALS={workdir / 'trials.txt'} sbatch --array=0-{len(lines) - 1} --nodes=1 \\")
    cpus, gpus = (math.ceil(resources.get(kind, 0)) for kind in ("cpu", "gpu"))
    each = f"--cpus-per-task={max(1, cpus)} --gpus-per-node={gpus}"
    print(f"    --ntasks-per-node=1 {each} launch/slurm.sbatch")


def sweep_through(sweep: Config, workdir: Path, more: list[str]) -> int:
    """Returns the exit status."""
    trials = expand(sweep)
    workdir.mkdir(parents=True, exist_ok=True)
    if SLURM.value:
        lines = [arguments(sweep, trial, workdir, more) for trial in trials]
        write_array(lines, dict(sweep.resources), workdir)
        return 0
    if not TABLE.value:
        on_ray(sweep, trials, workdir, more)
    rows = merge(trials, workdir)
    replace_text(workdir / "table.json", json.dumps(rows, indent=1) + "\n")
    replace_text(workdir / "table.md", markdown(rows))
    draw_figure(rows, sweep.metric, workdir / "figure.svg")
    print(markdown(rows))
    if sweep.mode == "halving":  # which stops trials on purpose, but never all
        good = any(row["finished"] for row in rows)
    else:
        good = not any(row["unfinished"] for row in rows)
    return 0 if good or TABLE.value else 1


def main(argv: list[str]) -> int:
    workdir = Path(str(WORKDIR.value)).absolute()
    return command.told(lambda: sweep_through(SWEEP.value, workdir, argv[1:]))


def parse(argv: list[str]) -> list[str]:
    rest = command.parse(argv, SWEEP, more=True)
    if command.CONFIG.value is not None:
        command.fail("--config is not read here; set `config` in the file that --sweep names")
    if SWEEP.value is None or not WORKDIR.value:
        command.fail("give both --sweep=configs/sweeps/NAME.py and --workdir=FOLDER")
    return rest


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
