"""The story: for each stage teach, grow and rewrite the memory, save it, judge it on the next.

Every process of a job runs this; only the first one reads and writes the folder, and speaks.
"""

import time
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, nullcontext
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from diet_jax import checkpoint, console, fed, outlook, preemption, sharding, trials
from diet_jax import memory as mem
from diet_jax.baselines import find
from diet_jax.data.prepare import Report
from diet_jax.distill import (
    Pause,
    Progress,
    SafePoint,
    blank_halfway,
    distill_stage,
    go_past,
)
from diet_jax.export import export_memory
from diet_jax.job import (
    Job,
    State,
    make_test,
    prepare,
    rows_per_slot,
    slots_after,
    slots_of_stage,
    so_far,
)
from diet_jax.preemption import Preempted
from diet_jax.record import Recorder, evaluated_stages, is_finished, open_workdir
from diet_jax.report import build_report
from diet_jax.resume import digest, marks, nothing_to_do
from diet_jax.same_log import known_log
from diet_jax.select import SELECTORS, Look
from diet_jax.teacher import alone
from diet_jax.train import key_for
from diet_jax.types import Config, InputError, Memory, Params, Stage, Taught


def outer_steps(config: Config, number: int) -> int:
    """Outer steps of stage `number` (1-based)."""
    factor = config.outer.first_factor if number == 1 else 1.0
    return max(1, round(config.outer.steps * factor))


def teach(job: Job, teacher: Params, number: int) -> tuple[Params, np.ndarray]:
    """Train the teacher on through stage `number`; returns it and which fields (bool [F]) are to be
    hidden from the outer loss."""
    config, schema, stage = job.config, job.stream.schema, job.steps[number - 1].train
    rng = np.random.default_rng((config.seed, number))
    epochs = config.teacher.first_epochs if number == 1 else config.teacher.epochs
    teacher = job.teacher.advance(teacher, stage.rows, epochs, rng)
    known = job.steps[number - 2].train.vocab_size if number > 1 else len(schema.fields)
    share = outlook.churn(stage.rows.ids, schema.pool, known, config.outer.tail)
    return teacher, share > config.outer.hide_above


def view(job: Job, teacher: Params, stages: list[Stage], hidden: np.ndarray) -> Taught:
    """The rows of some stages as distillation may use them."""
    rows, source = fed.read(so_far(job, stages)), np.concatenate([s.source for s in stages])
    ahead = outlook.hide(rows.ids, hidden, job.stream.schema.pool, job.stream.schema.vocab)
    logit = job.teacher.predict(teacher, rows.ids, rows.dense)
    ahead_logit = job.teacher.predict(teacher, ahead, rows.dense) if hidden.any() else logit

    def embed(at):
        return job.teacher.embed(teacher, rows.ids[at], rows.dense[at])

    return Taught(rows, source, logit, ahead, ahead_logit, embed)


class Turn(NamedTuple):
    """A stage as the memory and its baselines meet it."""

    number: int  # 1-based
    rows_so_far: int
    n_slots: int  # of the memory once the stage is done
    n_new: int  # slots that are the stage's share by the rate, and the budget
    hidden: np.ndarray  # bool [F], fields hidden from the outer loss
    look: Look  # the stage, and the teacher trained through it


def begin(job: Job, state: State, number: int) -> Turn:
    """Train the teacher through stage `number` and look at the stage with its eyes.

    Raises InputError where its training diverges.
    """
    train = [step.train for step in job.steps[:number]]
    teacher, hidden = teach(job, state.teacher, number)
    look = Look(view(job, teacher, train[-1:], hidden), job.teacher, teacher)
    if not np.isfinite(look.stage.teacher_logit).all():
        raise InputError(
            f"the teacher's answers to stage {number} are not finite: its training diverges;"
            f" set --config.teacher.lr lower than {job.config.teacher.lr:g}"
        )
    rows_so_far = sum(len(stage.user) for stage in train)
    n_slots, before = slots_after(job.config, rows_so_far), rows_so_far - len(train[-1].user)
    n_new = slots_of_stage(job.config, before, rows_so_far)
    return Turn(number, rows_so_far, n_slots, n_new, hidden, look)


def never() -> bool:
    return False


def rewrite(
    job: Job,
    state: State,
    turn: Turn,
    report,
    at_safe_point: SafePoint = go_past,
    paused: Pause | None = None,
) -> tuple[Memory, dict]:
    """The memory after the stage, and the facts of its distillation."""
    config, number, look, past = job.config, turn.number, turn.look, state.memory
    if config.memory.scratch:
        past = past._replace(valid=np.zeros_like(past.valid))
    if config.memory.scratch == "stream":
        train = [step.train for step in job.steps[:number]]
        look = look._replace(stage=view(job, look.params, train, turn.hidden))
    used, rows = int(past.valid.sum()), None
    n_new = turn.n_new if used else turn.n_slots
    n_evict = max(0, used + n_new - turn.n_slots)
    if config.growth.select != "influence":
        rng = np.random.default_rng((config.seed, number, 1 << 31))
        rows = SELECTORS[config.growth.select](look, n_new * rows_per_slot(config), rng)
    start = None if config.inner.start == "fresh" else alone(state.teacher)
    key, n_steps = key_for(config.seed, "stage"), outer_steps(config, number)
    stage = (past, look.stage, n_new, n_steps, number, key)
    rest = report, start, rows, n_evict, at_safe_point, paused
    memory, facts = distill_stage(job.engine, *stage, *rest)
    return memory, facts | {"new": n_new, "evicted": n_evict}


def extend(job: Job, state: State, turn: Turn) -> dict[str, tuple[Memory, ...]]:
    """The baselines after the stage."""
    seed, seeds = job.config.seed, job.config.eval.seeds
    rngs = [partial(np.random.default_rng, (seed, turn.number, 1 + s)) for s in seeds]
    return {
        name: tuple(
            find(name)(memory, turn.look, turn.n_slots, turn.n_new, turn.number, rng())
            for memory, rng in zip(memories, rngs, strict=True)
        )
        for name, memories in state.baselines.items()
    }


def settle(job: Job, state: State, turn: Turn, memory: Memory) -> State:
    """The state after the stage: this memory, the teacher, and the baselines."""
    teacher = jax.tree.map(np.asarray, turn.look.params)
    return State(memory, teacher, extend(job, state, turn))


def distill(
    job: Job,
    state: State,
    number: int,
    report,
    at_safe_point: SafePoint = go_past,
    paused: Pause | None = None,
) -> tuple[State, dict]:
    """Take the state through stage `number` (1-based); returns it and the facts of the stage.

    at_safe_point, paused: as in `distill_stage`.
    """
    start = time.perf_counter()
    turn = begin(job, state, number)
    seconds_teacher = time.perf_counter() - start
    memory, facts = rewrite(job, state, turn, report, at_safe_point, paused)
    state = settle(job, state, turn, memory)
    used = memory.valid
    labels, weights = trials.soft_label(memory)[used], np.exp(memory.log_weight[used])
    fields = job.stream.schema.fields
    facts |= {
        "stage": number,
        "stages": len(job.steps) + 1,
        "rows_stage": len(turn.look.stage.source),
        "rows_so_far": turn.rows_so_far,
        "slots": int(used.sum()),
        "mix": mem.mixed(memory),
        "hidden": [name for name, h in zip(fields, turn.hidden, strict=True) if h],
        "seconds_teacher": seconds_teacher,
        "born": np.bincount(memory.born[used], minlength=number + 1)[1:].tolist(),
        "label_hist": np.histogram(labels, 20, (0, 1))[0].tolist(),
        "weight_quantiles": np.quantile(weights, (0, 0.25, 0.5, 0.75, 1)).tolist(),
    }
    return state, facts


def judge(job: Job, state: State, number: int, methods: Collection[str] = ()) -> list[dict]:
    """Train and score every architecture on the memory, its baselines and all rows so far.

    methods: those to measure, all if empty. Returns the `eval` records.
    """
    return list(chain.from_iterable(judging(job, state, number, methods)))


def judging(
    job: Job,
    state: State,
    number: int,
    methods: Collection[str] = (),
    between: Callable[[], None] = lambda: None,
    known: Collection[tuple[str, str]] = (),
) -> Iterator[list[dict]]:
    """`judge`, one method and architecture after another; see `trials.evaluate_stage`."""
    train = [step.train for step in job.steps[:number]]
    test = make_test(job, number)
    subsets = {"memory": (state.memory,) * len(job.evaluation.seeds), **state.baselines}
    return trials.evaluate_stage(
        job.evaluation,
        number,
        {name: [trials.examples(memory) for memory in each] for name, each in subsets.items()},
        slots_after(job.config, sum(len(stage.user) for stage in train)),
        so_far(job, train),
        test,
        methods,
        between,
        known,
    )


def teacher_auc(job: Job, state: State, number: int) -> float:
    """The AUC of the teacher's own answers to the rows that judge after stage `number`."""
    test = trials.that_judge(make_test(job, number))
    logit = job.teacher.predict(state.teacher, test.ids, test.dense)
    return trials.scores(test, logit, job.stream.schema.tasks)["auc"]


def run(
    config: Config,
    workdir: str,
    env: dict,
    watch: Callable[[], Callable[[], bool]] = lambda: never,
) -> Path:
    """The whole job; resumes what the workdir holds. Returns the path of the report.

    watch: is called once there is work that could be lost, see `preemption.watch`.
    Raises InputError for bad input, before anything is written, and Preempted.
    """
    folder, first = Path(workdir), sharding.is_first()

    if why := sharding.told_by_first(lambda: nothing_to_do(folder, config)):
        if first:
            print(f"{folder} holds a finished run of this config; only its report is made anew.")
            print(why)
    else:
        with console.preparation() if first else nullcontext(Report()) as report:
            job = prepare(config, report)
        if first and job.stream.rejected:
            print(*console.said_of(job.stream.rejected), sep="\n")
        sharding.same_everywhere("config and log", digest(job), "start all with the same ones")
        recorder = Recorder(folder, enabled=False)
        with ExitStack() as stack:

            def take() -> None:
                nonlocal recorder
                before = known_log(folder)
                opened = open_workdir(folder, config, env, job.stream.key, lambda: marks(job))
                recorder = stack.enter_context(opened)
                if before["key"] and before.get("stages") != known_log(folder)["stages"]:
                    print("The log has grown. Stages that are done stay as they are.")

            sharding.told_by_first(take)
            if sharding.any_process(not (folder / "config.json").exists()):
                raise InputError(f"not all hosts see {folder}; give a --workdir that they share")
            # One whose log only lies elsewhere now is finished still.
            if not sharding.told_by_first(lambda: is_finished(recorder.records())):
                stream_through(job, folder, recorder, watch())
    path = folder / "report.html"
    if first:
        console.print_summary(Recorder(folder, enabled=False).records())
        build_report(folder)
    return path


def stream_through(
    job: Job, folder: Path, recorder: Recorder, stop: Callable[[], bool] = never
) -> None:
    """Do every stage that is not done yet: distill, save, judge; at the end export the memory.

    To resume: (1) the checkpoint of the last stage evaluated gives the state; (2) a stage that has
    a checkpoint but no evaluation is only evaluated; (3) one that was saved under way goes on; (4)
    records of a stage that was cut off are dropped, but for trials that a memory which is saved has
    been through.

    Raises InputError as `where_to_go_on`.
    """
    start, last = time.perf_counter(), len(job.steps)
    first, state, saved = where_to_go_on(job, folder, recorder)
    n_seeds = len(job.evaluation.seeds) if first in saved else 0
    known = sharding.told_by_first(lambda: recorder.drop_from(first, n_seeds))
    trials_before = [r for r in recorder.records() if known and r.get("stage") == first]
    seconds_before = sum(
        r["seconds"] + r["seconds_compile"] / n_seeds for r in trials_before if r["kind"] == "eval"
    )

    def between() -> None:
        if stop():
            raise Preempted

    for number in range(first, last + 1):
        if number in saved:
            state, facts = checkpoint.load(folder, number, job.first)
            facts["stages"] = last + 1  # the log may have grown since
        else:
            state, facts = go_on(job, folder, state, number, stop)
            checkpoint.save(folder, number, state, facts)
        checkpoint.clear(folder)  # where the stage was paused
        began = time.perf_counter()
        outer = [
            {"kind": "outer", "stage": number, "step": k, "loss": loss}
            for k, loss in facts.pop("outer")
        ]
        if not known:
            recorder.append(outer)
        for trials_of_one in judging(job, state, number, (), between, {*map(tuple, known)}):
            recorder.append(trials_of_one)
        facts["teacher_auc"] = teacher_auc(job, state, number)
        parts = ("teacher", "influence", "outer")
        seconds = time.perf_counter() - began + sum(facts[f"seconds_{p}"] for p in parts)
        seconds, seconds_before, known = seconds + seconds_before, 0.0, []
        recorder.append([{"kind": "stage", **facts, "seconds": seconds}])
        if recorder.enabled:
            console.print_stage(recorder.records(), number)
    if not recorder.enabled:
        return
    export_memory(
        folder / "export", state.memory, job.stream, recipe(job, state.memory), origin(job)
    )
    slots = int(state.memory.valid.sum())
    seconds = time.perf_counter() - start
    recorder.append([{"kind": "run", "seconds": seconds, "final_slots": slots}])


def where_to_go_on(job: Job, folder: Path, recorder: Recorder) -> tuple[int, State, list[int]]:
    """The first stage that is not evaluated, the state before it where it is not saved itself, and
    the stages that are saved.

    Raises InputError if the checkpoint to go on from is gone, or one before a later one.
    """
    last, saved = len(job.steps), checkpoint.stages(folder)
    done = sharding.told_by_first(lambda: evaluated_stages(recorder.records()))
    first = next(number for number in range(1, last + 2) if number not in done)
    state = job.first
    if first > 1 and first not in saved:
        if first - 1 not in saved:
            raise InputError(
                f"{folder / checkpoint.FOLDER}: stage {first} goes on from the checkpoint of stage "
                f"{first - 1}, which is gone; put it back, or give another --workdir"
            )
        state, _ = checkpoint.load(folder, first - 1, job.first)
    gone = [number for number in range(first, max(saved, default=0)) if number not in saved]
    if gone:
        raise InputError(
            f"{folder / checkpoint.FOLDER}: the checkpoint of stage {gone[0]} is gone, and there is"
            " one of a later stage; put it back, or give another --workdir"
        )
    if recorder.enabled and (done or saved) and first <= last:
        print(f"Going on with stage {first} of {last + 1}.")
    return first, state, saved


def go_on(
    job: Job, folder: Path, state: State, number: int, stop: Callable[[], bool]
) -> tuple[State, dict]:
    """`distill`, from where the stage was last saved, and saved again as the config says.

    Raises Preempted once it is saved, when told to stop.
    """
    paused, saved = None, checkpoint.stages(folder, checkpoint.PAUSED)
    if saved:
        like = blank_halfway(job.engine.plan, job.first.memory)
        halfway, said = checkpoint.load(folder, saved[-1], like, checkpoint.PAUSED)
        if said.pop("stage") == number:
            paused = halfway, Progress(**said)
        else:  # of an earlier stage, left by a crash
            checkpoint.clear(folder)
            saved = []
    due = preemption.every(job.config.checkpoint.every)

    def save(pause: Callable[[], Pause]) -> None:
        told = stop()
        if told or due():
            halfway, progress = pause()
            chunks = len(progress.losses)
            if chunks not in saved:
                facts = {"stage": number, **progress._asdict()}
                checkpoint.save(folder, chunks, halfway, facts, checkpoint.PAUSED)
                saved.append(chunks)
        if told:
            raise Preempted

    steps, first = outer_steps(job.config, number), sharding.is_first()
    bar = console.stage_progress(number, len(job.steps) + 1, steps)
    with bar if first else nullcontext(lambda step, loss: None) as report:
        state, facts = distill(job, state, number, report, save, paused)
    memory = zlib.crc32(np.asarray(state.memory.label_logit).tobytes())
    cure = "use machines of one kind, and no process that was started by other flags"
    sharding.same_everywhere(f"memory after stage {number}", memory, cure)
    return state, facts


def recipe(job: Job, memory: Memory) -> dict:
    """How to train on the exported memory: what the evaluation did."""
    config, stream = job.config, job.stream
    inner = config.inner
    more: dict[str, Any] = {}
    if memory.rates is not None:
        each = zip(inner.archs, np.exp(memory.rates).tolist(), strict=True)
        more = {"rates": {arch: dict(zip(("table", "net"), r, strict=True)) for arch, r in each}}
    if stream.schema.dense:
        scales = zip(stream.schema.dense, stream.scales, strict=True)
        more["dense"] = {name: scale._asdict() for name, scale in scales}
        more["dense_means"] = (
            "of x in the units of the log: sign(x) log(1 + |x|) if `log`; then, with `knots`, its "
            "position among them, mapped to -1 .. 1, else (x - mean) / sd"
        )
    names = ("optimizer", "momentum", "eps_root", "decay", "steps", "batch", "dim", "init_scale")
    return {
        **{name: inner[name] for name in names},
        "hidden": list(config.eval.hidden),
        "lr": config.eval.lr.memory.to_dict(),
        "l2": config.eval.l2.memory.to_dict(),
        "loss": "mean over the batch of weight * cross_entropy(logit, label) + l2 * the squared "
        "length of the embeddings that the row looks up, those of mixed rows by their shares, "
        "first-order weights left out",
        "order": "whole random passes over the slots",
        **more,
    }


def origin(job: Job) -> dict:
    """Where the memory comes from, for its card."""
    return {
        "log": job.stream.name,
        "rows": sum(len(step.train.user) for step in job.steps),
        "stages": len(job.steps),
        "seed": job.config.seed,
        "licence": job.stream.licence,
    }
