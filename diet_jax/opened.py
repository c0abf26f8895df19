"""A run on disk in the hands of a program: its log, its memory after a stage, what was measured."""

from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from diet_jax import checkpoint, console, fed
from diet_jax.job import Job, State, make_test, prepare, so_far
from diet_jax.record import evaluated_stages, is_finished, read_records
from diet_jax.report import read_config
from diet_jax.same_log import refuse_another_log
from diet_jax.train import Examples
from diet_jax.trials import Test, examples, that_judge
from diet_jax.types import InputError, Rows


class Run(NamedTuple):
    """A run: its folder, its parts, its state after stage number `stage` (1-based)."""

    folder: Path
    job: Job
    state: State
    stage: int


def open_run(folder: str | Path, stage: int | None = None) -> Run:
    """A run as it was after a stage; if none is named, after its last one, once it has finished.

    The files of its log have to be where they were. The devices at hand are used.
    Raises InputError if the folder holds no such run, or its log is another one now.
    """
    folder = Path(folder)
    records = read_records(folder / "metrics.jsonl")
    if stage is None:
        if not is_finished(records):
            raise InputError(f"{folder} holds no finished run; let it go on, or name a stage")
        stage = evaluated_stages(records)[-1]
    config = ConfigDict(read_config(folder))
    config.mesh = ConfigDict({"trajectory": 0, "data": 0, "table": 1})  # of the devices at hand
    saved = checkpoint.stages(folder)
    if stage not in saved:
        raise InputError(
            f"{folder} has no checkpoint of stage {stage}, but of {saved}; name one of "
            "these, let the run go on, or copy the folder whole"
        )
    with console.preparation() as progress:
        job = prepare(config, progress)
    refuse_another_log(folder, job.stream.key, "let the run go on with what has grown")
    state, _ = checkpoint.load(folder, stage, job.first)
    return Run(folder, job, state, stage)


def slots_in_use(run: Run) -> Examples:
    """The memory's slots with their soft labels and weights, NumPy arrays of `valid` ones alone."""
    memory = run.state.memory
    return jax.tree.map(lambda column: column[memory.valid], examples(memory))


def rows_so_far(run: Run) -> Rows:
    """All rows of the log up to the run's stage, as full-data training uses them."""
    return fed.read(so_far(run.job, [step.train for step in run.job.steps[: run.stage]]))


def rows_that_judge(run: Run) -> Test:
    """The rows that judge the memory: the stage after, whose new values are unknown ones.

    Of a run with eval.on=validation it is the tail of the stage.
    """
    return that_judge(make_test(run.job, run.stage))
