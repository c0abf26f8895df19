"""A problem small enough to compile in a second: 3 fields, 1 dense feature, 12 slots, 6 steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from configs import default
from diet_jax import memory as mem
from diet_jax.bilevel import Plan, start_outer
from diet_jax.distill import distill_stage
from diet_jax.metagrad import Inner, Slots, Trajectory
from diet_jax.models import make_model
from diet_jax.optim import Optimizer
from diet_jax.scene import Engine, Scene, lay_out, make_engine, set_scene, to_slots
from diet_jax.sharding import Placement, make_place
from diet_jax.train import Examples
from diet_jax.types import Memory, Params, Rows, Taught

FIELDS = (5, 7, 4)  # distinct values of each field
VOCAB = len(FIELDS) + sum(FIELDS)  # first the unknown row of each field, as in a real log
SLOTS, VALID = 12, 10
LEARNED = ("label_logit", "log_weight", "dense")


def inner(**change) -> Inner:
    known = {
        "model": make_model("DeepFM", dim=2, hidden=(4,), init_scale=0.3),
        "optimizer": Optimizer("adam"),
        "lr": 0.05,
        "steps": 6,
        "batch": 4,
        "window": 6,
        "l2": 0.03,
    }
    return Inner(**(known | change))


def rows(rng: np.random.Generator, n: int) -> Rows:
    """Rows whose label the second field decides, but for one in ten."""
    offset = np.cumsum((len(FIELDS), *FIELDS[:-1]))
    ids = np.stack([rng.integers(0, size, n) for size in FIELDS], axis=1)
    label = (ids[:, 1] % 2 == 0) ^ (rng.random(n) < 0.1)
    dense = rng.normal(size=(n, 1))
    ids, one = (ids + offset).astype(np.int32), np.ones(len(label), np.float32)
    return Rows(ids, dense.astype(np.float32), label.astype(np.float32), one)


def examples(rng: np.random.Generator, n: int) -> Examples:
    """Rows with soft targets and weights."""
    ids, dense, *_ = rows(rng, n)
    target, weight = rng.uniform(0.1, 0.9, n), rng.uniform(0.5, 2.0, n)
    return Examples(ids, dense, target.astype(np.float32), weight.astype(np.float32))


def slots(rng: np.random.Generator) -> Slots:
    ids, dense, *_ = rows(rng, SLOTS)
    label_logit, log_weight = rng.normal(size=(2, SLOTS)).astype(np.float32)
    return Slots(ids, np.arange(SLOTS) < VALID, dense, label_logit, 0.5 * log_weight)


def trajectory(seed: int = 0, end: int = 6) -> Trajectory:
    """A run on the whole table."""
    rows = np.arange(VOCAB, dtype=np.int32)
    return Trajectory(rows, rows[:0], jax.random.key(seed), np.int32(end))


def in_double(tree):
    """JAX arrays, with float64 for float32."""
    return jax.tree.map(
        lambda a: jnp.asarray(a, np.float64 if a.dtype == np.float32 else a.dtype), tree
    )


def inner_in_double(**change) -> Inner:
    """`inner` with every parameter in float64 (flax makes float32 even where float64 is on)."""
    one = inner(**change)
    init = one.model.init
    wide = one.model._replace(
        init=lambda *args: jax.tree.map(lambda a: a.astype(np.float64), init(*args))
    )
    return one._replace(model=wide)


# --- Whole stages -------------------------------------------------------------------------------

ROWS_A_STAGE = 60
CAPACITY = 32


def smooth_proxy(arch: str = "FM") -> Inner:
    """The inner loop of `engine`."""
    model = make_model(arch, dim=2, hidden=(), init_scale=0.3)
    # Smooth inner training (a large eps_root): rounding is not enlarged from step to step.
    return inner(model=model, optimizer=Optimizer("adam", eps_root=1e-3), lr=0.1, batch=8, window=4)


def engine(place: Placement | None = None, proxies: tuple[Inner, ...] = (), **change) -> Engine:
    """Eight trajectories, one outer step a call: as many devices can share it as there are.

    `change` is of the plan.
    """
    plan = Plan(
        learn=LEARNED,
        lr=0.1,
        trajectories=8,
        batch=16,
        anchor_batch=8,
        anchor=0.5,
        label_share=1.0,
        max_logit=2.0,
        rounds=2,
        final_share=0.5,
        chunk=1,
        write_share=0.3,
        pool=32,
        block=16,
        spread_field=1,
        spread_cap=2,
        columns=(0, 1, 2),
    )
    plan = plan._replace(**change)
    place = place or make_place(plan.trajectories)
    return make_engine(proxies or (smooth_proxy(),), plan, place, min_rows=32, n_stage=64)


def stage(number: int, seed: int = 0) -> Taught:
    """Stage `number` (1-based) of a log, with a teacher who knows nothing and the user hidden."""
    n = ROWS_A_STAGE
    rng = np.random.default_rng((seed, number))
    source = np.arange(n, dtype=np.int64) + n * (number - 1)
    some, logit = rows(rng, n), rng.normal(scale=0.1, size=n).astype(np.float32)
    ahead = np.where(np.arange(len(FIELDS)) == 0, 0, some.ids)
    return Taught(some, source, logit, ahead, logit)


def empty() -> Memory:
    return mem.empty(CAPACITY, len(FIELDS), 1)


def stream(engine: Engine, stages: int, n_new: int = 8, n_steps: int = 6, seed: int = 0):
    """The memory before the first stage and after each, and the facts of each stage."""
    memories, facts = [empty()], []
    for number in range(1, stages + 1):
        memory, fact = distill_stage(
            engine,
            memories[-1],
            stage(number),
            n_new,
            n_steps,
            number,
            jax.random.key(seed),
        )
        memories.append(memory)
        facts.append(fact)
    return memories, facts


def first_turn(engine: Engine, start: Params = None) -> tuple[Scene, Slots]:
    """16 rows of stage 1 as the memory with which stage 2 begins; start: as in `set_scene`."""
    (ids, dense, *_), source, logit, *_ = stage(1)
    memory = mem.append(empty(), ids[:16], dense[:16], logit[:16], 0.2, 1, source[:16])
    laid = lay_out(engine, stage(2))
    scene = set_scene(engine, memory, memory, laid, share=0.3, start=start)
    return scene, to_slots(memory, scene.compact)


def outer_gradient(engine: Engine, scene: Scene, slots: Slots):
    """The outer loss and its gradient by all slots, read from one outer step with key 7.

    After one step Adam's first moment holds a tenth of the gradient.
    """
    learned = {name: getattr(slots, name) for name in LEARNED}
    state = start_outer(engine.plan, learned)
    state, slots, writable = engine.place.replicate((state, slots, slots.valid))
    key = engine.place.replicate(jax.random.key(7))
    args = (key, np.int32(0), np.int32(1), scene.stage, scene.anchor)
    state, loss = engine.outer_steps(state, slots, writable, *args)
    moment = optax.tree_utils.tree_get(state.opt, "mu")
    return float(loss[0]), {name: 10 * np.asarray(leaf) for name, leaf in moment.items()}


# --- Whole logs ---------------------------------------------------------------------------------


def log(seed: int = 0, stages: int = 4) -> dict[str, np.ndarray]:
    """Columns of a log in time order, for `config`."""
    rng = np.random.default_rng(seed)
    n = ROWS_A_STAGE * stages
    ids, dense, label, _ = rows(rng, n)
    user, item, place = ids.T
    time = 1_700_000_000 + 60 * np.arange(n)
    columns = {"user": user, "item": item, "place": place, "price": dense[:, 0]}
    return columns | {"label": label.astype(int), "time": time}


def config(path: str, **change):
    """The config of a run on `log` that compiles fast; `change` is by dotted key."""
    c = default.get_config()
    c.update_from_flattened_dict(
        {
            "data.source": "table",
            "data.path": path,
            "data.threshold": -1.0,
            "data.categorical": ("user", "item", "place"),
            "data.dense": ("price",),
            "stages.count": 4,
            "memory.rate": 0.1,
            "inner.archs": ("LR",),
            "inner.dim": 2,
            "inner.hidden": (4,),
            "inner.steps": 4,
            "inner.window": 3,
            "inner.batch": 8,
            "outer.steps": 4,
            "outer.chunk": 2,
            "outer.batch": 16,
            "outer.anchor_batch": 8,
            "growth.rounds": 2,
            "growth.pool": 32,
            "growth.block": 16,
            "teacher.batch": 16,
            "eval.archs": ("LR",),
            "eval.seeds": (0, 1),
            "eval.full_batch": 16,
            **change,
        }
    )
    return c
