"""Cost of a meta-gradient: this engine beside dense JAX and PyTorch peers, on the same work.

    python -m benchmarks.metagrad --out=benchmarks/results --peers_python=PEERS/bin/python

The work is that of benchmarks/metagrad_problem.py, on the device that JAX finds; where it is a GPU,
peers use it too. PEERS is an environment with benchmarks/peers-requirements.txt; without it peers
are left out.

Each measurement is a process of its own; engines take turns, so that what else the machine does
meets all of them. With --jobs, so many processes start and compile side by side, for machines of
many cores; while one is timed none of the others starts or compiles.

"naive" is optax in a `lax.scan` on the whole table under `jax.grad`, which is also how optax's
documentation differentiates through training; "remat" checkpoints every step.
"""

import fcntl
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from math import nan
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging

from benchmarks import record
from benchmarks.metagrad_problem import (
    BASE,
    FIELDS,
    OUTER,
    Cell,
    dense,
    make_problem,
    ours,
    start,
)
from diet_jax import train
from diet_jax.compact import compact
from diet_jax.influence import influence
from diet_jax.metagrad import Trajectory

OUT = flags.DEFINE_string("out", "benchmarks/results", "Folder of metagrad*.json and metagrad.svg.")
PEERS = flags.DEFINE_string("peers_python", "", "The peers' Python; empty: without them.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "Measurements of each engine and cell.")
JOBS = flags.DEFINE_integer("jobs", 1, "Processes side by side, of which one is timed.")
ONLY = flags.DEFINE_list("groups", None, "Of GROUPS, to a file of their own; else all.")
QUICK = flags.DEFINE_bool("quick", False, "Tiny cells: does it all work?")
CHILD = flags.DEFINE_string("child", "", "One measurement, as JSON (how the program calls itself).")

CANDIDATES = 100_000  # of exact influence
EXACT_PEERS = ("higher", "higher, sparse embeddings", "torchopt")
PEER_ENGINES = (*EXACT_PEERS, "betty")

JAX = ("ours", "naive", "remat")
ALL = (*JAX, *PEER_ENGINES)
GROUPS = {
    # Who agrees with whom: few steps, so that rounding has no time to grow.
    "agreement": {
        Cell(V=2_000, T=8, optimizer="sgd"): ALL,
        Cell(V=2_000, T=8): (*JAX, "torchopt"),
    },
    "peers": {
        BASE: ALL,
        BASE._replace(T=256): JAX,
        Cell(V=1_000_000, T=20): (*JAX, "torchopt"),
    },
    # The same rows in a larger table: what does not occur must cost nothing.
    "vocabulary": {
        **{BASE._replace(V=V, live=10**4): ("ours", "naive") for V in (10**4, 10**5, 10**6)},
        **{BASE._replace(V=V, live=10**4): ("ours",) for V in (10**7, 10**8)},
    },
    "axes": {
        **{BASE._replace(T=T): ("ours",) for T in (16, 1024)},
        **{BASE._replace(N=N): ("ours",) for N in (256, 4096)},
        **{BASE._replace(b=b): ("ours",) for b in (32, 512)},
        **{BASE._replace(d=d): ("ours",) for d in (8, 32)},
    },
    # As the memory grows, by touched rows (lazy Adam) and by passes over all that it touches.
    "memory": {
        Cell(V=V, N=N, optimizer=optimizer, mebibytes=8192): ("ours",)
        for V, N in ((10**5, 1024), (10**6, 16_384), (10**7, 131_072))
        for optimizer in ("lazy_adam", "adam")
    },
    "influence": {},  # is a measurement of its own
}
TINY = {Cell(V=2_000, T=8, N=64, b=16, d=4, optimizer=o): JAX for o in ("sgd", "adam")}


def measure(engine: str, cell: Cell, calls: int, result: str) -> dict:
    """Compile, then time `calls` calls of one JAX engine; the gradient goes to `result`."""
    problem = make_problem(cell)
    f, rest = ours(problem, cell) if engine == "ours" else dense(problem, cell, engine == "remat")
    args = jax.device_put((problem.slots.label_logit, problem.slots.log_weight, *rest))
    begin = time.perf_counter()
    program = jax.jit(jax.grad(f, (0, 1))).lower(*args).compile()
    seconds = [time.perf_counter() - begin]
    fcntl.flock(0, fcntl.LOCK_EX)  # alone from here on, see in_a_process
    for _ in range(calls + 1):
        begin = time.perf_counter()
        grads = jax.block_until_ready(program(*args))
        seconds.append(time.perf_counter() - begin)
    np.savez(result, g0=grads[0], g1=grads[1])
    memory = program.memory_analysis().temp_size_in_bytes  # pyright: ignore[reportOptionalMemberAccess]
    return {"first": sum(seconds[:2]), "seconds": seconds[2:], "temp_bytes": memory}


def candidates_per_second() -> float:
    """Exact influence of 100,000 candidates, trained 60 steps of which 30 are differentiated."""
    problem = make_problem(BASE)
    inner = problem.inner._replace(steps=60, mode="random", window=30)
    rng, block = np.random.default_rng(1), 2048
    n = CANDIDATES // block * block
    pool = problem.outer.ids[rng.integers(0, OUTER, (n, FIELDS)), np.arange(FIELDS)]
    table = compact(problem.slots.ids, problem.outer.ids, 1024)
    rows = train.Examples(
        table.positions(pool), np.zeros((n, 0), np.float32), *np.full((2, n), 0.5, np.float32)
    )
    slots = problem.slots._replace(ids=table.positions(problem.slots.ids))
    outer = problem.outer._replace(ids=table.positions(problem.outer.ids))
    cut = table.n_trained
    run = Trajectory(table.rows[:cut], table.rows[cut:], problem.key, np.int32(60))
    f = jax.jit(lambda *args: influence(inner, *args, block=block))
    args = jax.device_put((slots, run, outer, rows))
    jax.block_until_ready(f(*args))
    begin = time.perf_counter()
    jax.block_until_ready(f(*args))
    return n / (time.perf_counter() - begin)


def in_a_process(engine: str, cell: Cell, calls: int, turns: str) -> dict:
    """One measurement; an engine that fails gives its last line of error.

    `turns` is a file that all have locked, shared, from before they start; the process has it as
    its standard input, and makes the lock its own alone to be timed, until it has ended.
    """
    with tempfile.TemporaryDirectory() as folder, open(turns) as turn:
        fcntl.flock(turn, fcntl.LOCK_SH)
        result, problem = str(Path(folder, "gradient.npz")), Path(folder, "problem.npz")
        if engine in PEER_ENGINES:
            export(cell, 1, problem)  # nothing is compiled: one call tells enough
            script = str(Path(__file__).parent / "metagrad_peers.py")
            argv = [PEERS.value, script, engine, str(problem), result]
        else:
            what = json.dumps([engine, cell, calls, result])
            argv = [sys.executable, "-m", "benchmarks.metagrad", f"--child={what}"]
        done = subprocess.run(argv, stdin=turn, capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip() or f"exit status {done.returncode}"
            return {"error": said.splitlines()[-1]}
        gradient = np.concatenate(list(np.load(result).values()))
        return json.loads(done.stdout.splitlines()[-1]) | {"gradient": gradient}


def export(cell: Cell, calls: int, path: Path) -> None:
    """The problem for a peer."""
    problem = make_problem(cell)
    params, order = start(problem, cell)
    layers = params["net"]["tower"]["params"]
    tower = {
        f"{kind}{k}": layers[f"Dense_{k}"][kind]
        for k in range(len(layers))
        for kind in ("kernel", "bias")
    }
    inner, slots, outer = problem.inner, problem.slots, problem.outer
    np.savez(
        path,
        table=params["table"],
        bias=params["net"]["bias"],
        order=order,
        slot_ids=slots.ids,
        label_logit=slots.label_logit,
        log_weight=slots.log_weight,
        outer_ids=outer.ids,
        outer_target=outer.target,
        lr=inner.lr,
        calls=calls,
        optimizer=cell.optimizer,
        momentum=inner.optimizer.momentum,
        eps_root=inner.optimizer.eps_root,
        **tower,
    )


def run(cells: Mapping[Cell, tuple[str, ...]], rounds: int, calls: int) -> Iterator[list[dict]]:
    """By cell, a row for each engine; the engines of a cell take turns."""
    tasks = [
        (engine, cell)
        for cell, engines in cells.items()
        for _ in range(rounds)
        for engine in engines
        if PEERS.value or engine not in PEER_ENGINES
    ]
    with tempfile.NamedTemporaryFile() as turns, ThreadPoolExecutor(JOBS.value) as pool:
        made = [pool.submit(in_a_process, *task, calls, turns.name) for task in tasks]
        for cell in cells:
            found: dict[str, list[dict]] = {}
            for (engine, c), measured in zip(tasks, made, strict=True):
                if c == cell:
                    found.setdefault(engine, []).append(measured.result())
            yield [{**cell._asdict(), "engine": engine, **row} for engine, row in rows(found)]


def rows(found: dict[str, list[dict]]) -> Iterator[tuple[str, dict]]:
    """What the runs of each engine say of a cell: those that failed say so, and count no more."""
    done = {engine: [r for r in runs if "error" not in r] for engine, runs in found.items()}
    for engine, runs in found.items():
        row = next(({"error": r["error"]} for r in runs if "error" in r), {})
        if good := done[engine]:
            seconds = [s for r in good for s in r["seconds"]]
            row["seconds"] = float(np.median(seconds))
            row["spread"] = [min(seconds), max(seconds)]
            row["first"] = float(np.median([r["first"] for r in good]))
            row["temp_mib"] = good[0].get("temp_bytes", 0) / 2**20 or None
            row["peak_rss_mib"] = max(r["peak_rss_mib"] for r in good)
        if good and done["ours"]:
            want = done["ours"][0]["gradient"]
            gap = np.linalg.norm(good[0]["gradient"] - want) / np.linalg.norm(want)
            row["difference"] = float(gap)
        yield engine, row


def draw(table: list[dict], path: Path) -> None:
    """Seconds and memory of this engine along each axis, and of the others where they were run."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    axes = ("V", "T", "N", "b", "d")
    figure, plots = plt.subplots(2, len(axes), figsize=(14, 5), sharey="row", squeeze=False)
    for column, axis in enumerate(axes):
        same = [a for a in axes if a != axis]
        here = [
            r
            for r in table
            if "seconds" in r and (r["optimizer"], r["mebibytes"]) == ("adam", BASE.mebibytes)
            if all(r[a] == getattr(BASE, a) for a in same) and bool(r["live"]) == (axis == "V")
        ]
        for engine in dict.fromkeys(r["engine"] for r in here):
            rows = sorted((r for r in here if r["engine"] == engine), key=lambda r: r[axis])
            for line, key in enumerate(("seconds", "temp_mib")):
                points = [(r[axis], r[key]) for r in rows if r[key]]
                if points:
                    plots[line, column].loglog(*zip(*points, strict=True), "o-", label=engine)
        plots[1, column].set_xlabel(axis)
    plots[0, 0].set_ylabel("s a meta-gradient")
    plots[1, 0].set_ylabel("temporary MiB (XLA)")
    plots[0, 1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)


def verdicts(table: list[dict]) -> list[str]:
    """The targets, each with what was measured."""

    def cell_of(row):
        return Cell(*(row[name] for name in Cell._fields))

    def at(cell, engine):
        return next((r for r in table if r["engine"] == engine and cell_of(r) == cell), {})

    def ratio(cell, engine, key):
        one, other = at(cell, "ours").get(key), at(cell, engine).get(key)
        return other / one if one and other else nan

    long, wide = BASE._replace(T=256), Cell(V=1_000_000, T=20)
    mine = [r for r in table if r["engine"] == "ours"]
    flat = [r["seconds"] for r in mine if r["live"] and "seconds" in r]
    peers = [x for e in EXACT_PEERS if (x := ratio(BASE, e, "seconds")) == x]
    exact = [
        r["difference"]
        for r in table
        if r["T"] == 8 and r["engine"] != "betty" and "difference" in r
    ]
    lines = [
        ("memory of naive JAX, V = 1e5, T = 256", ratio(long, "naive", "temp_mib"), ">=", 50),
        ("time of naive JAX, V = 1e5, T = 256", ratio(long, "naive", "seconds"), ">=", 5),
        ("time of naive JAX, V = 1e6, T = 20", ratio(wide, "naive", "seconds"), ">=", 50),
        ("time of the fastest peer, V = 1e5, T = 64", min(peers, default=nan), ">=", 50),
        ("time of torchopt, V = 1e6, T = 20", ratio(wide, "torchopt", "seconds"), ">=", 50),
        (
            "slowest over fastest, V = 1e4 to 1e8",
            max(flat, default=nan) / min(flat, default=nan),
            "<=",
            1.1,
        ),
        ("largest difference of gradients, T = 8", max(exact, default=nan), "<=", 1e-5),
    ]
    met = {">=": lambda x, y: x >= y, "<=": lambda x, y: x <= y}
    return [
        f"{name}: {x:.3g} (target {sign} {y:g}: {'met' if met[sign](x, y) else 'MISSED'})"
        for name, x, sign, y in lines
        if x == x  # it was measured
    ]


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # processes share a device
    if CHILD.value:
        engine, cell, *more = json.loads(CHILD.value)
        found = measure(engine, Cell(*cell), *more)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(found | {"peak_rss_mib": peak}))
        return
    groups = ONLY.value or [*GROUPS]
    cells = {cell: engines for group in groups for cell, engines in GROUPS[group].items()}
    name = "_".join(["metagrad", *(["quick"] if QUICK.value else ONLY.value or [])])
    folder = Path(OUT.value)
    result: dict[str, Any] = {"rounds": ROUNDS.value, "jobs": JOBS.value, "table": []}
    if PEERS.value:
        result["peers"] = record.versions(PEERS.value, "torch", "higher", "torchopt", "betty-ml")
    for more in run(TINY, 1, 1) if QUICK.value else run(cells, ROUNDS.value, 3):
        print("\n".join(map(json.dumps, more)), flush=True)
        result["table"] += more
        record.write(folder / f"{name}.json", result)
    if not QUICK.value:
        result["targets"] = verdicts(result["table"])
        print("\n".join(result["targets"]))
        if "influence" in groups:
            result["candidates_per_second"] = candidates_per_second()
            print(f"exact influence: {result['candidates_per_second']:,.0f} candidates/s")
        if not ONLY.value:
            draw(result["table"], folder / "metagrad.svg")
    record.write(folder / f"{name}.json", result)


if __name__ == "__main__":
    app.run(main)
