"""Learning rates and L2 by trial: every method and architecture, on validation rows alone."""

import itertools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from diet_jax import checkpoint, console
from diet_jax.data import prepare_log
from diet_jax.job import Job, State, prepare
from diet_jax.record import Record, append_records, open_workdir, read_records
from diet_jax.run import begin, distill, judging, outer_steps, settle
from diet_jax.summary import METHODS
from diet_jax.types import Config, InputError


class Grid(NamedTuple):
    """What is tried.

    lrs: (learning rate of methods that train on a subset, that of full data), as many for both.
    l2s: weights of the squared length of embeddings. seeds: of all of a run; the mean over them
    chooses. methods: for which.
    """

    lrs: tuple[tuple[float, float], ...]
    l2s: tuple[float, ...]
    seeds: tuple[int, ...]
    methods: tuple[str, ...]


class Point(NamedTuple):
    """One cell: a method and an architecture at its rates, after a stage of a run with a seed."""

    seed: int
    stage: int
    method: str
    arch: str
    lr: float
    l2: float


def tried(config: Config, workdir: Path, grid: Grid, env: dict) -> list[Record]:
    """A record for each trial of the grid, those of `Point` with its `eval_seed` and `auc`.

    The tail of every stage (eval.on=validation) is held out of everything and judges. A memory is
    distilled once a seed and stage, and all points are tried on it. The folder keeps trials, in
    trials.jsonl, and memories, so that what it has is not done again.
    Raises InputError as a run does, and for methods that there are none of.
    """
    for method in grid.methods:
        if method not in METHODS:
            raise InputError(f"--methods has {method!r}; choose from {', '.join(METHODS)}")
    config, file = ConfigDict(config.to_dict()), workdir / "trials.jsonl"
    config.eval.on = "validation"
    with console.preparation() as report:
        key = prepare_log(config, report).name
    with open_workdir(workdir, config, env, key):
        for seed in grid.seeds:
            job = prepare(ConfigDict(config.to_dict() | {"seed": seed}))
            for number, state in states(job, workdir, "memory" in grid.methods):
                known = whole(read_records(file), config.eval.seeds)
                points = list(itertools.product(grid.lrs, grid.l2s))
                for lrs, l2 in console.along(points, f"stage {number}/{len(job.steps) + 1}: rates"):
                    for found in trials_at(job, state, number, grid.methods, lrs, l2, known):
                        append_records(file, found)
                print(f"Seed {seed}: stage {number} of {len(job.steps)} done.", flush=True)
        return read_records(file)


def whole(records: list[Record], eval_seeds: tuple[int, ...]) -> set[Point]:
    """The points of which every trial is there: a crash may have cut the last one's."""
    found = defaultdict(set)
    for r in records:
        found[Point(**{k: r[k] for k in Point._fields})].add(r["eval_seed"])
    return {point for point, seeds in found.items() if seeds >= set(eval_seeds)}


def states(job: Job, workdir: Path, memory: bool) -> Iterator[tuple[int, State]]:
    """The state after every stage, from its checkpoint if there is one; memory: whether to distil,
    which no baseline needs."""
    folder = f"seed_{job.config.seed}{'' if memory else '_without_memory'}"
    saved, state = checkpoint.stages(workdir, folder), job.first
    for number in range(1, len(job.steps) + 1):
        if number in saved:
            state, _ = checkpoint.load(workdir, number, job.first, folder)
        else:
            if memory:
                steps = outer_steps(job.config, number)
                with console.stage_progress(number, len(job.steps) + 1, steps) as report:
                    state, _ = distill(job, state, number, report)
            else:
                state = settle(job, state, begin(job, state, number), state.memory)
            checkpoint.save(workdir, number, state, {}, folder)
        yield number, state


def trials_at(
    job: Job,
    state: State,
    number: int,
    methods: tuple[str, ...],
    lrs: tuple[float, float],
    l2: float,
    known: set[Point],
) -> Iterator[list[Record]]:
    """The records of one point of the grid after a stage that are not `known`, method by method and
    architecture by architecture."""

    def at(method: str, arch: str) -> Point:
        lr = lrs[method == "full"]
        return Point(job.config.seed, number, method, arch, lr, l2)

    plan = job.evaluation._replace(rates=lambda method, arch: at(method, arch)[-2:])
    cells = itertools.product(methods, job.evaluation.models)
    done = {(method, arch) for method, arch in cells if at(method, arch) in known}
    if len(done) == len(methods) * len(job.evaluation.models):
        return
    for found in judging(job._replace(evaluation=plan), state, number, methods, known=done):
        yield [
            at(r["method"], r["arch"])._asdict() | {"eval_seed": r["seed"], "auc": r["auc"]}
            for r in found
        ]


def table(records: list[Record]) -> list[dict[str, Any]]:
    """Of every method, architecture and rate `auc`, the mean of `n` trials of all seeds and stages;
    None where one of them died."""
    found = defaultdict(dict)
    for r in records:  # of a trial that is there twice the last
        trial = r["seed"], r["stage"], r["eval_seed"]
        found[r["method"], r["arch"], r["lr"], r["l2"]][trial] = r["auc"]
    made = []
    for (method, arch, lr, l2), aucs in sorted(found.items()):
        auc = None if None in aucs.values() else float(np.mean(list(aucs.values())))
        about = {"method": method, "arch": arch, "lr": lr, "l2": l2}
        made.append(about | {"auc": auc, "n": len(aucs)})
    return made


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """What to write into a config: for every method and architecture the rates of the highest AUC,
    of equals the first. Only those count that were tried as often as any of it were."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["method"], row["arch"]].append(row)
    said = []
    for (method, arch), group in sorted(groups.items()):
        most = max(row["n"] for row in group)
        rivals = [row for row in group if row["n"] == most and row["auc"] is not None]
        if not rivals:
            said.append(f"# {method}, {arch}: no training came to an end; give lower rates")
            continue
        best, lrs = max(rivals, key=lambda row: row["auc"]), {row["lr"] for row in group}
        edge = "" if min(lrs) < best["lr"] < max(lrs) or len(lrs) == 1 else ", the grid's edge"
        where = f'{method}["{arch}"]' if ":" in arch else f"{method}.{arch}"
        said.append(
            f"c.eval.lr.{where}, c.eval.l2.{where} = {best['lr']:g}, {best['l2']:g}"
            f"  # AUC {best['auc']:.4f}{edge}"
        )
    return said
