"""Trains a zoo of models on memories, on their baselines and on all rows: do they rank alike?

    python -m diet_jax.evaluate --memory=runs/quickstart --zoo=configs/zoo.py

--memory names finished runs of `diet_jax.main`; several, of one config with other seeds, are told
apart in the spread. Every variant of the zoo is trained from scratch on the last stage's memories
and their baselines with the runs' evaluation seeds, and once, on all rows, with twice as many, so
that two full boards say how far a ranking can agree at all. Rates are those of the run's recipe for
the architecture, or, with --rates=FOLDER[,FOLDER], those that earlier comparisons found best for
each method and variant, and so are settings of the architecture (`zoo.settings`). To choose on rows
that judge nothing, let these be of runs with --config.eval.on=validation, and
--zoo=configs/zoo.py:tune and :tune_full, which try a grid; several such runs, of other seeds,
choose more steadily than one.

The results go to --out (default: zoo/ in the first run): trials.jsonl, which is also what a second
call resumes from, and zoo.md with its figures.
"""

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from diet_jax import checkpoint, command, console, sharding
from diet_jax.job import Job, State, prepare
from diet_jax.models import make_model
from diet_jax.record import evaluated_stages, read_records, software_versions
from diet_jax.report import zoo as report
from diet_jax.report.zoo import Choice, Choices, at
from diet_jax.run import judge
from diet_jax.trial import make_trials
from diet_jax.types import Config, InputError

MEMORY = flags.DEFINE_list("memory", None, "Folders of finished runs.")
ZOO = config_flags.DEFINE_config_file("zoo", None, "The models, for example configs/zoo.py.")
RATES = flags.DEFINE_list("rates", [], "Folders of comparisons whose best rates are used.")
OUT = flags.DEFINE_string("out", "", "Folder of the results.")


class Memory(NamedTuple):
    """A finished run: its parts, its last state, and the number of that stage."""

    folder: Path
    job: Job
    state: State
    stage: int


def compare() -> Path:
    """The whole comparison; returns the path of its page."""
    folders: list[str] = MEMORY.value or []
    out = Path(OUT.value or Path(folders[0]) / "zoo")
    file = out / "trials.jsonl"
    zoo: Config = ZOO.value
    chosen = best([r for folder in RATES.value or [] for r in read_records(known_file(folder))])
    if len({Path(folder).name for folder in folders}) < len(folders):
        raise InputError("two of --memory have one name, by which results are kept; rename one")
    memories = [open_run(Path(folder)) for folder in folders]
    for memory in memories[1:]:
        if others_than_seed(memory) != others_than_seed(memories[0]):
            raise InputError(
                f"{memory.folder} is a run of another config than {memories[0].folder}; "
                "compare runs that differ in their seed alone"
            )
    out.mkdir(parents=True, exist_ok=True)
    if not jax.config.values["jax_compilation_cache_dir"]:
        jax.config.update("jax_compilation_cache_dir", str(out / "compiled"))
    for line in measure(memories, zoo, chosen, read_records(file)):
        with open(file, "a") as done:
            done.write("".join(json.dumps(record) + "\n" for record in line))
        first = line[0]
        print(f"{first['run']}: {first['variant']}, {first['method']}", flush=True)
    lines = read_records(file)
    shown = {
        (method, name): chosen.get((method, name)) or usual(memories[0], method, spec.arch)
        for method in zoo.methods
        for name, spec in zoo.variants.items()
    }
    env = software_versions() | {"device": ", ".join(sorted(set(sharding.device_kinds())))}
    return report.write(out, lines, {name: dict(s) for name, s in zoo.variants.items()}, shown, env)


def known_file(folder: str) -> Path:
    file = Path(folder) / "trials.jsonl"
    if not file.exists():
        raise InputError(f"{file} does not exist; give --rates the --out of a comparison")
    return file


def open_run(folder: Path) -> Memory:
    """A finished run. Raises InputError if the folder holds none."""
    stages = evaluated_stages(read_records(folder / "metrics.jsonl"))
    if not stages:
        raise InputError(f"{folder} holds no run with a finished stage; give --memory a --workdir")
    config = ConfigDict(json.loads((folder / "config.json").read_text()))
    with console.preparation() as progress:
        job = prepare(config, progress)
    state, _ = checkpoint.load(folder, stages[-1], job.first)
    return Memory(folder, job, state, stages[-1])


def others_than_seed(memory: Memory) -> str:
    """All that runs have to share to be compared, as text."""
    return json.dumps(memory.job.config.to_dict() | {"seed": 0, "stage": memory.stage}, default=str)


def usual(memory: Memory, method: str, arch: str) -> Choice:
    """That of the run's recipe."""
    return Choice(*memory.job.evaluation.rates(method, arch))


def best(records: list[dict]) -> Choices:
    """Those of the highest mean AUC, of equals the first."""
    found = defaultdict(lambda: defaultdict(list))
    for r in records:
        found[r["method"], r["variant"]][at(r)].append(r["auc"])
    return {
        key: max(grid, key=lambda choice: sum(grid[choice]) / len(grid[choice]))
        for key, grid in found.items()
    }


def measure(
    memories: list[Memory], zoo: Config, chosen: Choices, done: list[dict]
) -> Iterator[list[dict]]:
    """The records of every training that is not done yet, all seeds of one at a time."""
    keys = {key(record) for record in done}
    for name, spec in zoo.variants.items():
        compiled = {}  # by setting: serves all memories and methods
        for memory, method in ((memory, method) for memory in memories for method in zoo.methods):
            if method == "full" and memory is not memories[0]:
                continue  # all rows are the same for all
            default = usual(memory, method, spec.arch)
            tried = itertools.product(zoo.lrs, zoo.l2s or [default.l2], zoo.get("settings") or [""])
            grid = [chosen.get((method, name), default), *map(Choice._make, tried)]
            for choice in dict.fromkeys(grid):
                about = {
                    "run": memory.folder.name,
                    "stage": memory.stage,
                    "method": method,
                    "variant": name,
                    "spec": {**spec, "hidden": list(spec.hidden)},
                    **choice._asdict(),
                }
                if key(about) in keys:
                    continue
                if choice.setting not in compiled:
                    compiled[choice.setting] = variant(memories[0], name, spec, choice.setting)
                plan = memory.job.evaluation._replace(**compiled[choice.setting])
                seeds = twice(plan.seeds) if method == "full" else plan.seeds
                plan = plan._replace(rates=lambda *_, both=choice[:2]: both, seeds=seeds)
                job = memory.job._replace(evaluation=plan)
                records = judge(job, memory.state, memory.stage, (method,))
                yield [about | {k: v for k, v in r.items() if k != "kind"} for r in records]


def key(record: dict) -> str:
    about = [record[k] for k in ("run", "stage", "method", "spec")]
    return json.dumps([*about, *at(record)])


def twice(seeds: tuple[int, ...]) -> tuple[int, ...]:
    """The seeds, and as many new ones."""
    return (*seeds, *(max(seeds) + 1 + k for k in range(len(seeds))))


def variant(memory: Memory, name: str, spec: Config, setting: str) -> dict[str, Any]:
    """What makes an evaluation (`trials.Plan`) one of this variant, so set, alone."""
    plan, schema = memory.job.evaluation, memory.job.stream.schema
    scale = memory.job.config.inner.init_scale
    columns = schema.pool, schema.vocab, tuple(schema.tasks.values())
    arch = f"{spec.arch}{',' if ':' in spec.arch else ':'}{setting}" if setting else spec.arch
    model = make_model(arch, spec.dim, spec.hidden, scale, *columns)
    return {
        "models": {name: model},
        "subset_trials": {name: make_trials(model, plan.subset, False, plan.place)},
        "full_trials": {name: make_trials(model, plan.full, True, plan.place)},
    }


def main(argv: list[str]) -> None:
    print(f"Results: {command.told(compare)}")


def parse(argv: list[str]) -> list[str]:
    rest = command.parse(argv)
    if not MEMORY.value or ZOO.value is None:
        command.fail("give both --memory=FOLDER of a finished run and --zoo=configs/zoo.py")
    return rest


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
