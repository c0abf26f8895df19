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

The results go to --out (default: a folder in the first run with the name of the zoo's file and its
argument, zoo or zoo_tune): trials.jsonl, which is also what a second call resumes from, and zoo.md
with its figures. The file may hold other runs and other zoos as well,
none of which the page shows.
"""

import itertools
import json
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
from absl import app, flags
from ml_collections import config_flags

from diet_jax import command, sharding
from diet_jax.models import make_model
from diet_jax.opened import Run, open_run
from diet_jax.record import (
    alone,
    append_records,
    asked,
    read_records,
    software_versions,
)
from diet_jax.report import zoo as report
from diet_jax.report.zoo import Choice, Choices, at
from diet_jax.run import judge
from diet_jax.summary import METHODS
from diet_jax.trial import make_trials
from diet_jax.types import Config, InputError

MEMORY = flags.DEFINE_list("memory", None, "Folders of finished runs.")
ZOO = config_flags.DEFINE_config_file("zoo", None, "The models, for example configs/zoo.py.")
RATES = flags.DEFINE_list("rates", [], "Folders of comparisons whose best rates are used.")
OUT = flags.DEFINE_string("out", "", "Folder of the results.")


def compare() -> Path:
    """The whole comparison; returns the path of its page."""
    folders: list[str] = MEMORY.value or []
    out = Path(OUT.value or Path(folders[0]) / name_of(ZOO.name))
    file = out / "trials.jsonl"
    zoo: Config = ZOO.value
    for method in zoo.methods:
        if method not in METHODS:
            raise InputError(f"zoo.methods has {method!r}; choose from {', '.join(METHODS)}")
    specs = {name: spec_of(spec) for name, spec in zoo.variants.items()}
    rates = [latest(read_records(known_file(folder))) for folder in RATES.value or []]
    chosen = best(itertools.chain(*rates), specs)
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
    chosen = with_usual(chosen, memories[0], zoo)
    with alone(out):
        records = read_records(file)
        done = ours(records, memories, specs)
        for found in measure(memories, zoo, chosen, done):
            records += append_records(file, found)
            first = found[0]
            print(f"{first['run']}: {first['variant']}, {first['method']}", flush=True)
        env = software_versions() | {"device": ", ".join(sorted(set(sharding.device_kinds())))}
        return report.write(out, ours(records, memories, specs), specs, chosen, env)


def name_of(flag: str) -> str:
    """That of the file a flag names, with its argument: zoo_tune of configs/zoo.py:tune."""
    path, _, argument = config_flags.get_config_filename(flags.FLAGS[flag]).partition(".py:")
    return "_".join(filter(None, (Path(path).name.removesuffix(".py"), argument)))


def known_file(folder: str) -> Path:
    file = Path(folder) / "trials.jsonl"
    if not file.exists():
        raise InputError(f"{file} does not exist; give --rates the --out of a comparison")
    return file


def config_of(memory: Run, **change: Any) -> str:
    """What its run was asked for, and of which log, as text."""
    log = {"log": memory.job.stream.key}
    return json.dumps(asked(memory.job.config.to_dict()) | log | change)


def others_than_seed(memory: Run) -> str:
    """All that runs have to share to be compared, as text."""
    return config_of(memory, seed=0, stage=memory.stage)


def run_of(memory: Run) -> dict[str, Any]:
    """What a record says of its run; config: 32 bits that tell apart others, but not all."""
    mark = zlib.crc32(config_of(memory).encode())
    return {"run": memory.folder.name, "config": mark, "stage": memory.stage}


def spec_of(spec: Config) -> dict[str, Any]:
    """As it is read back from a record."""
    return {**spec, "hidden": list(spec.hidden)}


def latest(records: Iterable[dict]) -> list[dict]:
    """Without the lines of a training that was cut off while written, and done anew."""
    return list({(key(r), r["seed"]): r for r in records}.values())


def ours(records: list[dict], memories: list[Run], specs: dict[str, dict]) -> list[dict]:
    """Those of these runs' last stages and of these variants; older ones name no config."""
    found = []
    for memory in memories:
        run, first = run_of(memory), memory is memories[0]
        known = [run | r for r in records if first or r["method"] != "full"]
        found += [r for r in known if r | run == r and r["spec"] == specs.get(r["variant"])]
    return latest(found)


def best(records: Iterable[dict], specs: dict[str, dict]) -> Choices:
    """By method and variant, those of the highest mean AUC, of equals the first.

    Raises InputError where a variant was compared with another spec alone.
    """
    found = defaultdict(lambda: defaultdict(list))
    others = set()
    for r in records:
        pair = r["method"], r["variant"]
        if r["spec"] == specs.get(r["variant"]):
            found[pair][at(r)].append(r["auc"])
        elif r["variant"] in specs:
            others.add(pair)
    for method, name in sorted(others - found.keys()):
        raise InputError(
            f"--rates has rates of {name} on {method} for another spec than {specs[name]}; "
            "give the zoo that they were found with, or name the variant otherwise"
        )
    return {
        key: max(grid, key=lambda choice: sum(grid[choice]) / len(grid[choice]))
        for key, grid in found.items()
    }


def with_usual(chosen: Choices, memory: Run, zoo: Config) -> Choices:
    """By every method and variant of the zoo, what was chosen, or the rates of the run's recipe."""
    usual = memory.job.evaluation.rates
    return {
        (method, name): chosen.get((method, name)) or Choice(*usual(method, spec.arch))
        for method in zoo.methods
        for name, spec in zoo.variants.items()
    }


def measure(
    memories: list[Run], zoo: Config, chosen: Choices, done: list[dict]
) -> Iterator[list[dict]]:
    """The records of every training that is not done yet, all seeds of one at a time.

    chosen: of each method and variant, what is trained besides the zoo's grid.
    """
    have = defaultdict(set)
    for r in done:
        have[key(r)].add(r["seed"])
    for name, spec in zoo.variants.items():
        compiled = {}  # by setting: serves all memories and methods
        for memory, method in ((memory, method) for memory in memories for method in zoo.methods):
            if method == "full" and memory is not memories[0]:
                continue  # all rows are the same for all
            l2s = zoo.l2s or [memory.job.evaluation.rates(method, spec.arch)[1]]
            tried = itertools.product(zoo.lrs, l2s, zoo.get("settings") or [""])
            grid = [chosen[method, name], *map(Choice._make, tried)]
            for choice in dict.fromkeys(grid):
                about = {
                    **run_of(memory),
                    "method": method,
                    "variant": name,
                    "spec": spec_of(spec),
                    **choice._asdict(),
                }
                seeds = memory.job.evaluation.seeds
                seeds = twice(seeds) if method == "full" else seeds
                if have[key(about)] >= set(seeds):
                    continue
                if choice.setting not in compiled:
                    compiled[choice.setting] = variant(memories[0], name, spec, choice.setting)
                plan = memory.job.evaluation._replace(**compiled[choice.setting])
                plan = plan._replace(rates=lambda *_, both=choice[:2]: both, seeds=seeds)
                job = memory.job._replace(evaluation=plan)
                records = judge(job, memory.state, memory.stage, (method,))
                yield [about | {k: v for k, v in r.items() if k != "kind"} for r in records]


def key(record: dict) -> str:
    about = [record.get(k) for k in ("run", "config", "stage", "method", "variant", "spec")]
    return json.dumps([*about, *at(record)])


def twice(seeds: tuple[int, ...]) -> tuple[int, ...]:
    """The seeds, and as many new ones."""
    return (*seeds, *(max(seeds) + 1 + k for k in range(len(seeds))))


def variant(memory: Run, name: str, spec: Config, setting: str) -> dict[str, Any]:
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
    rest = command.parse(argv, ZOO)
    if command.CONFIG.value is not None:
        command.fail("--config has no part in this: runs have theirs, and the models are in --zoo")
    if not MEMORY.value or ZOO.value is None:
        command.fail("give both --memory=FOLDER of a finished run and --zoo=configs/zoo.py")
    return rest


def entry() -> None:
    app.run(main, flags_parser=parse)


if __name__ == "__main__":
    entry()
