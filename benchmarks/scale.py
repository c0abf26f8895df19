"""How the outer update scales over devices and processes of this machine, and what they send.

    python -m benchmarks.scale --out=benchmarks/results/scale.json [--short]
    python -m benchmarks.scale --dry_run --out=benchmarks/results/scale_dry_run.json

weak: a trajectory for each device. strong: eight trajectories, however many devices there are.
Devices are simulated (XLA's host platform) and share the machine's cores, so the times tell what
sharing costs, not what more hardware gains. The dry run compiles the programs of full size for 256
simulated devices and says what each of them would have to hold; nothing of it is run.
"""

import json
import os
import socket
import subprocess
import sys
import time

import jax
import numpy as np
from absl import app, flags, logging

from benchmarks.collectives import bytes_sent, collectives
from benchmarks.record import write
from diet_jax import sharding, train
from diet_jax.bilevel import (
    Anchor,
    Plan,
    StageData,
    make_influence,
    make_outer_steps,
    start_outer,
)
from diet_jax.compact import capacity
from diet_jax.metagrad import Inner, Slots
from diet_jax.models import make_model
from diet_jax.optim import Optimizer
from diet_jax.record import software_versions
from diet_jax.sharding import Placement, make_place
from diet_jax.trial import Recipe, make_trials
from diet_jax.types import InputError

OUT = flags.DEFINE_string("out", None, "Result file.")
SHORT = flags.DEFINE_bool("short", False, "Fewer cells and repetitions, to see that it runs.")
DRY = flags.DEFINE_bool("dry_run", False, "Compile the programs of full size.")
CELL = flags.DEFINE_string("cell", None, "What one process measures, as JSON.")
COORDINATOR = flags.DEFINE_string("coordinator", None, "Of a cell of several processes.")
NUMBER = flags.DEFINE_integer("process_id", None, "Of a cell of several processes.")

# What cells have in common. slots, compact: rows of the memory, and table rows that it touches.
SMALL = {"slots": 2048, "compact": 8192, "stage": 16384, "fields": 16, "dim": 8, "batch": 128}
SMALL |= {"outer_batch": 1024, "steps": 20, "window": 10, "optimizer": "adam"}
# 10^7 slots of a table of 10^8 rows x 64. A row of Criteo has 26 fields; how many distinct values
# 10^7 of them hold decides the compact table.
LARGE = {"slots": 10**7, "stage": 10**7, "fields": 26, "dim": 63, "batch": 8192}
LARGE |= {"outer_batch": 65536, "steps": 60, "window": 30, "pool": 4096, "block": 2048}
TABLE = 10**8
DEVICES = 256


def make(cell: dict, place: Placement, mebibytes: int = 1024):
    """The program of a cell, and the shapes and dtypes of its arguments."""
    c = cell
    model = make_model("DeepFM", c["dim"], (32,))
    optimizer = Optimizer(c["optimizer"])
    inner = Inner(
        model, optimizer, 1e-2, c["steps"], c["batch"], c["window"], budget=mebibytes << 20
    )
    plan = Plan(
        learn=("label_logit", "log_weight"),
        lr=1e-2,
        trajectories=c["trajectories"],
        batch=c["outer_batch"],
        anchor_batch=256,
        anchor=0.5,
        label_share=0.0,
        max_logit=3.0,
        rounds=1,
        final_share=1.0,
        chunk=1,
        write_share=1.0,
        pool=c.get("pool", 1),
        block=c.get("block", 1),
        spread_field=-1,
        spread_cap=1,
        columns=tuple(range(c["fields"])),
    )
    n, f, rows, u = c["slots"], c["fields"], c["stage"], c["compact"]
    influence = c.get("program") == "influence"

    def arguments():
        i32, f32 = np.int32, np.float32
        zeros = jax.numpy.zeros
        slots = Slots(zeros((n, f), i32), zeros(n, bool), zeros((n, 0)), zeros(n), zeros(n))
        learned = {name: getattr(slots, name) for name in plan.learn}
        data = StageData(
            zeros(u, i32),
            zeros(c.get("fixed", u), i32),
            zeros(u + c.get("fixed", u), i32),
            train.Examples(zeros((rows, f), i32), zeros((rows, 0)), zeros(rows), zeros(rows)),
            zeros((), i32),
        )
        anchor = Anchor(slots, zeros((), i32), zeros((), f32))
        state, key = start_outer(plan, learned), jax.random.key(0)
        if influence:
            ids, one = zeros((plan.pool, f), i32), zeros(plan.pool)
            return slots, key, data, anchor, train.Examples(ids, zeros((plan.pool, 0)), one, one)
        return state, slots, zeros(n, bool), key, zeros((), i32), zeros((), i32), data, anchor

    program = make_influence if influence else make_outer_steps
    return program((inner,), plan, place), jax.eval_shape(arguments)


def filled(cell: dict, shapes):
    """Arguments with random rows, all slots in use."""
    rng = np.random.default_rng(0)
    state, slots, writable, _, first, total, data, anchor = jax.tree.map(
        lambda a: np.zeros(a.shape, a.dtype) if a.dtype != shapes[3].dtype else a, shapes
    )
    u = cell["compact"]
    slots = slots._replace(
        ids=rng.integers(0, u, slots.ids.shape, np.int32),
        valid=np.ones_like(slots.valid),
        label_logit=rng.normal(size=slots.label_logit.shape).astype(np.float32),
    )
    rows = data.rows._replace(
        ids=rng.integers(0, 2 * u, data.rows.ids.shape, np.int32),
        target=rng.random(data.rows.target.shape).astype(np.float32),
        weight=np.ones_like(data.rows.weight),
    )
    data = data._replace(
        trained=np.arange(u, dtype=np.int32),
        fixed=np.arange(u, 2 * u, dtype=np.int32),
        where=np.arange(2 * u, dtype=np.int32),
        rows=rows,
        n=np.int32(len(rows.target)),
    )
    anchor = Anchor(slots, np.int32(len(slots.valid)), np.float32(0.5))
    learned = {name: getattr(slots, name) for name in ("label_logit", "log_weight")}
    state = state._replace(learned=learned)
    some = state, slots, np.ones_like(writable), jax.random.key(0)
    return *some, first, total, data, anchor


def measure(cell: dict) -> dict | None:
    """Seconds of an outer step, to compile, and the bytes sent; None but in the first process."""
    place = make_place(cell["trajectories"], trajectory=cell["spread"])
    step, shapes = make(cell, place)
    state, *rest = place.replicate(filled(cell, shapes))
    rest[3] = np.int32(0)
    began = time.perf_counter()
    sent = collectives(step.lower(state, *rest).compile().as_text())
    compiled = time.perf_counter() - began
    times = []
    for k in range(cell["repeat"] + 1):
        began = time.perf_counter()
        rest[3] = np.int32(k)
        state, loss = step(state, *rest)
        float(np.asarray(loss)[0])
        times.append(time.perf_counter() - began)
    if not sharding.is_first():
        return None
    gradient = sum(leaf.nbytes for leaf in jax.tree.leaves(state.learned))
    return {
        "step_s": float(np.median(times[1:])),
        "step_s_all": times[1:],
        "compile_s": compiled,
        "sent_bytes": sum(one.bytes for one in sent),
        "sent": [one.kind for one in sent],
        "gradient_bytes": gradient,
        "table_bytes": cell["compact"] * (1 + cell["dim"]) * 4,
        "mesh": dict(place.mesh.shape) if place.mesh else {},
        "load": os.getloadavg()[0],
    }


def start(cell: dict, processes: int, devices: int) -> dict:
    """The cell's measurement, in processes of its own, each with `devices` simulated devices."""
    command = [sys.executable, "-m", "benchmarks.scale", f"--cell={json.dumps(cell)}"]
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    env["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    more = [[]]
    if processes > 1:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            where = f"--coordinator=127.0.0.1:{one.getsockname()[1]}"
        more = [[where, f"--process_id={i}"] for i in range(processes)]
    started = [
        subprocess.Popen([*command, *flags_of], env=env, stdout=subprocess.PIPE, text=True)
        for flags_of in more
    ]
    said = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError(f"a cell failed: {cell}")
    found = json.loads(said[0].splitlines()[-1])
    return {"devices": processes * devices, "processes": processes, "cell": cell, **found}


def cells() -> list[tuple[str, int, int, int]]:
    """(kind, trajectories, processes, devices of each)."""
    wanted = []
    for kind in ("weak", "strong"):
        for n in (1, 8) if SHORT.value else (1, 2, 4, 8):
            wanted.append((kind, n if kind == "weak" else 8, 1, n))
        for n in (2,) if SHORT.value else (2, 4):
            wanted.append((kind, n if kind == "weak" else 8, n, 1))
    return wanted


# (program, bits of the touched rows, inner optimizer, window, devices that share the table) of the
# dry run; as many trajectories as there are devices for each.
PROGRAMS = (
    ("outer step", 22, "adam", 30, 1),
    ("outer step", 24, "adam", 30, 1),
    ("outer step", 22, "rowwise_adagrad", 30, 1),
    ("outer step", 24, "rowwise_adagrad", 30, 1),
    ("outer step", 26, "rowwise_adagrad", 30, 1),
    ("outer step", 27, "rowwise_adagrad", 30, 1),
    ("outer step", 24, "lazy_adam", 30, 1),
    ("outer step", 22, "adam", 30, 8),
    ("outer step", 24, "adam", 30, 32),
    ("outer step", 27, "adam", 30, 128),
    ("outer step", 27, "adam", 30, 256),
    ("influence", 20, "adam", 30, 1),
    ("influence", 21, "adam", 30, 1),
    ("influence", 22, "adam", 30, 1),
    ("influence", 22, "rowwise_adagrad", 30, 1),
    ("influence", 24, "rowwise_adagrad", 30, 1),
    ("influence", 22, "adam", 30, 8),
    ("influence", 24, "adam", 30, 32),
    ("influence", 27, "adam", 30, 128),
    ("influence", 27, "adam", 30, 256),
)


def dry_run() -> list[dict]:
    """What each of 256 devices would hold, by program, as XLA's CPU compiler lays it out."""
    found = []
    for program, bits, optimizer, window, table in PROGRAMS:
        u = 1 << bits
        # The stage looks up as many other rows, as far as the table has them.
        fixed = min(u, capacity(TABLE - u, 4096))
        cell = LARGE | {"program": program, "compact": u, "fixed": fixed, "optimizer": optimizer}
        cell |= {"window": window, "table": table, "trajectories": DEVICES // table}
        place = make_place(DEVICES // table, table=table)
        step, shapes = make(cell, place, mebibytes=48 << 10)
        whole = jax.tree.map(
            lambda a, s=place.whole: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), shapes
        )
        try:
            held = holds(step, whole, (cell["steps"] - window) / 2)
        except InputError as error:  # the program refuses before it compiles
            held = {"refused": str(error)}
        found.append({**cell, **held})
        print(found[-1])
    model = make_model("DeepFM", LARGE["dim"], (32,))
    for table in (1, DEVICES):
        place = make_place(1, data=DEVICES // table, table=table)
        fit = make_trials(model, Recipe(Optimizer("adam"), LARGE["batch"]), True, place).fit
        n, f, rows = 1 << 20, LARGE["fields"], place.even(TABLE)

        def arguments(n=n, f=f, rows=rows):
            zeros = jax.numpy.zeros
            data = train.Examples(
                zeros((n, f), np.int32), zeros((n, 0)), zeros(n), jax.numpy.ones(n)
            )
            order = zeros((1, 128, LARGE["batch"]), np.int32)
            keys = jax.random.split(jax.random.key(0), 1)
            rates = jax.numpy.float32(1e-3), jax.numpy.float32(0)
            tables = zeros(rows, np.int32), zeros(0, np.int32)
            return (keys, *rates, *tables, data, order, jax.numpy.int32(128))

        whole = jax.tree.map(
            lambda a, s=place.whole: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
            jax.eval_shape(arguments),
        )
        mesh = {"data": DEVICES // table, "table": table}
        found.append({"program": "full-data training", **mesh, **holds(fit, whole, 1)})
        print(found[-1])
    return found


def holds(program, arguments, passes: float) -> dict:
    """GiB of a device for a compiled program, and the bytes that it sends.

    passes: those of a loop that XLA cannot count.
    """
    began = time.perf_counter()
    compiled = program.lower(*arguments).compile()
    m = compiled.memory_analysis()
    parts = {"arguments": m.argument_size_in_bytes, "work": m.temp_size_in_bytes}
    parts["results"] = m.output_size_in_bytes - m.alias_size_in_bytes
    gib = {name: round(size / 2**30, 3) for name, size in parts.items()}
    sent = bytes_sent(compiled.as_text(), passes)
    return {
        **gib,
        "total": round(sum(parts.values()) / 2**30, 3),
        "sent_bytes": sent,
        "compile_s": round(time.perf_counter() - began, 1),
    }


def markdown(rows: list[dict]) -> str:
    """The table of docs/scale.md: of cells, or of the dry run."""
    if "kind" not in rows[0]:
        lines = ["| program | devices a table | arguments | work | results | total | sent, GB |"]
        lines.append("|---" * 7 + "|")
        for row in rows:
            name = row["program"]
            if "compact" in row:
                name += f", 2^{row['compact'].bit_length() - 1} rows touched"
                name += f", {row['optimizer']}, window {row['window']}"
            parts = [row.get(part) for part in ("arguments", "work", "results", "total")]
            cells = [f"{part:.1f}" for part in parts if part is not None]
            needs = row.get("refused", "").partition(" need ")[2].partition(" MiB")[0]
            cells = cells or ["", f"unrolled steps alone {int(needs) / 1024:.0f}", "", "refused"]
            sent = f"{row['sent_bytes'] / 1e9:.2f}" if "sent_bytes" in row else ""
            lines.append(f"| {name} | {row['table']} | {' | '.join(cells)} | {sent} |")
        return "\n".join(lines)
    lines = ["| | trajectories | processes | devices | step, s | sent, bytes | gradient | table |"]
    lines.append("|---" * 8 + "|")
    for r in rows:
        cells = (r["cell"]["trajectories"], r["processes"], r["devices"], f"{r['step_s']:.3f}")
        cells += tuple(f"{r[name]:,}" for name in ("sent_bytes", "gradient_bytes", "table_bytes"))
        lines.append(f"| {r['kind']} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main(_) -> None:
    logging.set_verbosity(logging.WARNING)
    if CELL.value:
        cell = json.loads(CELL.value)
        sharding.join(
            COORDINATOR.value, cell["processes"] if COORDINATOR.value else None, NUMBER.value
        )
        print(json.dumps(measure(cell)))
        return
    if DRY.value and f"device_count={DEVICES}" not in os.environ.get("XLA_FLAGS", ""):
        # JAX has as many devices as it starts with.
        env = os.environ | {"JAX_PLATFORMS": "cpu"}
        env["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={DEVICES}"
        sys.exit(
            subprocess.run(
                [sys.executable, "-m", "benchmarks.scale", *sys.argv[1:]], env=env
            ).returncode
        )
    rows = []
    for kind, n, processes, devices in [] if DRY.value else cells():
        spread = min(n, processes * devices)
        cell = SMALL | {"trajectories": n, "spread": spread, "processes": processes}
        rows.append(
            {"kind": kind, **start(cell | {"repeat": 3 if SHORT.value else 10}, processes, devices)}
        )
        print(kind, *(f"{k}={rows[-1][k]}" for k in ("devices", "processes", "step_s")))
    rows = dry_run() if DRY.value else rows
    print(markdown(rows))
    if OUT.value:
        write(OUT.value, {"env": software_versions(), "rows": rows})  # devices are simulated


if __name__ == "__main__":
    app.run(main)
