"""From a config and a log to the parts of a run; each is checked against the other here."""

from typing import NamedTuple

import jax
import numpy as np

from diet_jax import baselines, fed, trials
from diet_jax import memory as mem
from diet_jax.bilevel import Plan
from diet_jax.compact import capacity
from diet_jax.data import load_stream
from diet_jax.data.prepare import Report
from diet_jax.data.vocabulary import as_known
from diet_jax.limits import check
from diet_jax.metagrad import Inner
from diet_jax.models import Model, make_model
from diet_jax.optim import Optimizer
from diet_jax.scene import Engine, make_engine
from diet_jax.sharding import Placement, make_place
from diet_jax.teacher import Teacher, make_teacher, together
from diet_jax.train import key_for
from diet_jax.trial import Recipe, make_trials
from diet_jax.types import Config, InputError, Memory, Params, Rows, Schema, Stage, Stream


class Step(NamedTuple):
    """One turn of the stream: the stage that is distilled, and the rows that judge it.

    unmet: int, table rows known by then of values that only rows which judge have shown.
    """

    train: Stage
    test: Stage
    unmet: np.ndarray = np.zeros(0, int)


class State(NamedTuple):
    """What goes from stage to stage, and into the checkpoint."""

    memory: Memory
    teacher: Params
    baselines: dict[str, tuple[Memory, ...]]  # by name, one memory for each evaluation seed


def steps_of(stream: Stream, on: str, share: float) -> list[Step]:
    """The turns of a run: each stage but the last, and the rows that judge it.

    on: "next" stage, or "validation": the last `share` of a stage judges it and is used for no
    other end.
    Raises InputError for such rows that have not both labels.
    """
    if on == "next":
        return [Step(a, b) for a, b in zip(stream.stages[:-1], stream.stages[1:], strict=True)]

    def part(stage: Stage, where: slice) -> Stage:
        rows = Rows(*(a[where] for a in stage.rows))
        return stage._replace(
            rows=rows,
            user=stage.user[where],
            time=stage.time[where],
            source=stage.source[where],
        )

    cuts = [round(len(s.user) * (1 - share)) for s in stream.stages[:-1]]
    pairs = list(zip(stream.stages[:-1], cuts, strict=True))
    for number, (stage, cut) in enumerate(pairs, 1):
        label = stage.rows.label[cut:]
        if not 0 < label.sum() < len(label):
            raise InputError(
                f"the last {len(label)} of {len(stage.user)} rows of stage {number}, which judge it"
                ", have not both labels; set eval.validation_share higher, or make stages longer"
            )
    steps, met = [], np.zeros(pairs[-1][0].vocab_size + 1, bool)  # the last one: of no value, -1
    for stage, cut in pairs:
        met[stage.rows.ids[:cut]] = True
        unmet = np.flatnonzero(~met[: stage.vocab_size])
        steps.append(Step(part(stage, slice(None, cut)), part(stage, slice(cut, None)), unmet))
    return steps


def make_proxies(config: Config, schema: Schema, copies: int) -> tuple[Inner, ...]:
    """The inner loop that the config describes, with each of the proxy architectures.

    copies: trajectories that a device runs side by side, which share its bytes with the proxies.
    """
    i = config.inner
    compute = "" if i.compute == "float32" else i.compute
    common = {n: i[n] for n in ("mode", "offload", "unroll", "mixed", "damping", "solves")}
    common["budget"] = (i.mebibytes << 20) // (copies * len(i.archs))
    made = []
    for arch in i.archs:
        model = model_of(config, arch, i.hidden, schema)._replace(compute=compute)
        lr, l2 = (by_arch(values, arch) for values in (i.lr, i.l2))
        made.append(
            Inner(model, optimizer(config), lr, i.steps, i.batch, i.window, l2=l2, **common)
        )
        made[-1].tx()  # refuses a bad optimizer here, before anything is written
    return tuple(made)


def model_of(config: Config, arch: str, hidden: tuple[int, ...], schema: Schema) -> Model:
    """The architecture `arch` for a log's columns, with the embeddings of the config."""
    i = config.inner
    columns = schema.pool, schema.vocab, tuple(schema.tasks.values())
    return make_model(arch, i.dim, hidden, i.init_scale, *columns)


def by_arch(values: Config, arch: str) -> float:
    """What a table of the config says of an architecture: by its name, as written or without
    settings ("DCNv2:n_cross=3" as DCNv2), or its default."""
    return values.get(arch, values.get(arch.partition(":")[0], values.default))


def optimizer(config: Config) -> Optimizer:
    """The optimizer of everything that trains on a memory."""
    i = config.inner
    return Optimizer(i.optimizer, i.momentum, i.eps_root, i.decay)


def make_plan(config: Config, stream: Stream) -> Plan:
    """The distillation of a stage that the config describes."""
    o, g = config.outer, config.growth
    schema, fields = stream.schema, stream.schema.fields
    if g.spread_field and g.spread_field not in fields:
        raise InputError(
            f"growth.spread_field {g.spread_field!r} is no categorical field: choose from "
            f"{', '.join(fields)}, or '' for no cap"
        )
    return Plan(
        learn=tuple(x for x in o.learn if x != "mix" or config.memory.mix > 1),
        lr=o.lr,
        trajectories=o.trajectories,
        batch=o.batch,
        anchor_batch=o.anchor_batch,
        anchor=o.anchor,
        label_share=o.label_share,
        chunk=o.chunk,
        max_logit=g.max_logit,
        rounds=g.rounds,
        final_share=g.final_share,
        write_share=config.addressing.share,
        pool=g.pool,
        block=g.block,
        spread_field=schema.pool.index(fields.index(g.spread_field)) if g.spread_field else -1,
        spread_cap=g.spread_cap,
        columns=schema.pool,
        swap_share=config.addressing.swap_share,
        clip=o.clip,
        schedule=o.schedule,
        start=config.inner.start,
        rotate=config.inner.rotate,
        address_by=config.addressing.by,
        objective=o.objective,
        own=config.memory.own,
        mix_by=config.memory.mix_by,
        threshold=config.addressing.threshold,
    )


def rows_per_slot(config: Config) -> int:
    """Rows of the log that a slot adds to those that the memory names already."""
    return config.memory.own or config.memory.mix


def make_evaluation(
    config: Config, stream: Stream, steps: list[Step], place: Placement
) -> trials.Plan:
    """The trials of every architecture, with capacities that hold for the whole run."""
    e, i = config.eval, config.inner
    models = {n: model_of(config, n, e.hidden, stream.schema) for n in e.archs}
    subset = Recipe(optimizer(config), i.batch)
    full = Recipe(Optimizer(e.full_optimizer, eps_root=1e-12), e.full_batch)
    n_test = max(len(step.test.user) for step in steps) + trials.PAST_ROWS * len(steps)
    n_table, n_rows = len(stream.values), sum(len(step.train.user) for step in steps)
    budget = config.resident_mebibytes << 20
    at_once = max(1, budget // (trials.PREDICT_BLOCK * fed.row_bytes(stream.rows)))

    def rates(method: str, arch: str) -> tuple[float, float]:
        known = method if method in e.lr else f"random_{method.rpartition('_')[2]}"
        return by_arch(e.lr[known], arch), by_arch(e.l2[known], arch)

    return trials.Plan(
        models=models,
        subset=subset,
        full=full,
        subset_trials={n: make_trials(m, subset, False, place) for n, m in models.items()},
        full_trials={n: make_trials(m, full, True, place) for n, m in models.items()},
        seed=config.seed,
        seeds=tuple(e.seeds),
        steps=i.steps,
        epochs=e.full_epochs,
        rates=rates,
        n_rows=n_rows,
        n_table=n_table,
        min_rows=i.min_rows,
        n_blocks=min(-(-n_test // trials.PREDICT_BLOCK), at_once),
        tasks=stream.schema.tasks,
        place=place,
        chunk=fed.chunk_steps(
            stream.rows, n_rows, e.full_epochs, e.full_batch, len(e.seeds), budget
        ),
    )


class Job(NamedTuple):
    """All that a run needs, made once."""

    config: Config
    stream: Stream
    steps: list[Step]
    engine: Engine
    teacher: Teacher
    evaluation: trials.Plan
    first: State


def prepare(
    config: Config,
    report: Report = Report(),  # noqa: B008 (immutable)
    rivals: tuple[str, ...] = baselines.DEFAULT,
) -> Job:
    """Read the log, check the config against it, and build every part (nothing is compiled yet).

    report: is told how the preparation of the log gets on. rivals: names of baselines.
    """
    check(config)
    stream = load_stream(config, report)
    if len(stream.stages) < 2:
        raise InputError(
            "the log has one stage: a memory is judged on the next, so set stages.count to two or "
            "more, or stages.interval shorter"
        )
    if stream.schema.tasks and config.memory.mix > 1:
        raise InputError(
            f"memory.mix is {config.memory.mix}, but a slot of a log with several labels answers "
            "for one of them: set it to 1"
        )
    steps = steps_of(stream, config.eval.on, config.eval.validation_share)
    schema = stream.schema
    n_columns, n_dense = len(schema.pool), len(schema.dense)
    # In the rows of how many stages a distillation looks, and how many of them it adds at most.
    sizes = [len(step.train.user) for step in steps]
    n_stage = sum(sizes) if config.memory.scratch == "stream" else max(sizes)
    n_new = slots_after(config, sum(sizes) if config.memory.scratch else max(sizes))
    n_slots = capacity(slots_after(config, sum(sizes)))
    plan = make_plan(config, stream)
    a_round = -(-n_new // plan.rounds) * rows_per_slot(config)
    if plan.pool < 2 * a_round:
        raise InputError(
            f"growth.pool is {plan.pool}, too few candidates for rounds of {a_round} rows; "
            f"set it to {2 * a_round} or more, or growth.rounds higher (a run under way "
            "needs another --workdir then)"
        )
    check_lengths(config, sizes)
    place = make_place(plan.trajectories, **config.mesh.to_dict())
    proxies = make_proxies(config, schema, plan.trajectories // place.size("trajectory"))
    engine = make_engine(proxies, plan, place, config.inner.min_rows, n_stage)
    t, budget = config.teacher, config.resident_mebibytes << 20
    most = max(t.epochs, t.first_epochs)
    chunk = fed.chunk_steps(stream.rows, n_stage, most, t.batch, 1, budget)
    n_table = len(stream.values)
    teacher = together(
        tuple(
            make_teacher(model, t.lr, t.batch, n_table, n_columns, n_dense, n_stage, place, chunk)
            for model in (model_of(config, arch, t.hidden, schema) for arch in (t.arch, *t.more))
        )
    )
    blank = mem.empty(n_slots, n_columns, n_dense)
    n_rates = len(config.inner.archs) if "rates" in config.outer.learn else 0
    of_rivals = {name: (blank,) * len(config.eval.seeds) for name in rivals}
    key = key_for(config.seed, "teacher")
    first = State(
        mem.empty(n_slots, n_columns, n_dense, config.memory.mix, n_rates),
        jax.tree.map(np.asarray, teacher.init(key)),
        of_rivals,
    )
    return Job(
        config,
        stream,
        steps,
        engine,
        teacher,
        make_evaluation(config, stream, steps, place),
        first,
    )


def so_far(job: Job, stages: list[Stage]) -> fed.Log:
    return fed.Log(job.stream.rows, tuple(stage.source for stage in stages))


def make_test(job: Job, number: int) -> trials.Test:
    """What judges after stage `number`: the next stage, and some rows of every stage so far.

    Where the tails of stages judge, which nothing is trained on, the past is that of earlier tails.
    A value that the rows so far do not have is an unknown one.
    """
    config, steps = job.config, job.steps[:number]
    test, seen = steps[-1].test, [step.train for step in steps]
    known = np.arange(job.evaluation.n_table + 1) < steps[-1].train.vocab_size
    known[steps[-1].unmet] = False
    known[-1] = True  # what -1 asks for: no value is none anywhere
    if config.eval.on == "validation":
        seen = [step.test for step in steps[:-1]]
    zero = np.zeros(len(test.user), int)
    parts = [(test.rows.ids, test.rows.dense, test.rows.label, test.user, zero)]
    for s, stage in enumerate(seen, 1):
        rng = np.random.default_rng((config.seed, s, 1 << 30))
        n = len(stage.user)
        at = np.sort(rng.choice(n, min(n, trials.PAST_ROWS), replace=False))
        ids, dense, label, _ = (column[at] for column in stage.rows)
        parts.append((ids, dense, label, stage.user[at], np.full(len(at), s)))
    ids, *others = (np.concatenate(part) for part in zip(*parts, strict=True))
    return trials.Test(as_known(ids, known, job.stream.schema.vocab), *others, stage=number)


def check_lengths(config: Config, sizes: list[int]) -> None:
    """Raise InputError for the first stage that has fewer rows than its new slots take.

    sizes: rows of each stage.
    """
    for number, size in enumerate(sizes, 1):
        so_far, again = sum(sizes[:number]), config.memory.scratch
        slots = slots_after(config, so_far)
        if not again:
            slots = slots_of_stage(config, so_far - size, so_far)
        rows = slots * rows_per_slot(config)
        if rows > (so_far if again == "stream" else size):
            raise InputError(
                f"stage {number} has {size} rows, too few for {slots} new slots, which take "
                f"{rows}; set memory.rate, memory.mix or memory.own lower, or make stages longer"
            )


def slots_after(config: Config, rows_so_far: int) -> int:
    """Slots in use once so many rows have been seen: the rate's share of them, up to the budget."""
    slots, budget = slots_by_rate(config, rows_so_far), config.memory.budget
    return min(slots, budget) if budget else slots


def slots_by_rate(config: Config, rows: int) -> int:
    return max(1, round(config.memory.rate * rows))


def slots_of_stage(config: Config, before: int, rows_so_far: int) -> int:
    """A stage's share of the slots: what its rows add to those by the rate, up to the budget."""
    share = slots_by_rate(config, rows_so_far) - (slots_by_rate(config, before) if before else 0)
    return min(share, slots_after(config, rows_so_far))
