"""Where the time of a meta-gradient goes on an accelerator, against what the chip can do.

    python -m benchmarks.accelerator --out=benchmarks/results/accelerator.json

For sizes of the problem of benchmarks/metagrad_problem.py and settings of the engine: seconds of a
meta-gradient, XLA's temporary memory, how long kernels of each kind run (from the profiler's trace
of one call) and how long none does. Beside it what benchmarks/cost.py reckons with: the bytes that
must be moved by the bandwidth of a copy, and the operations of matrix products by the rate of a
large one, both measured here, in float32. XLA_FLAGS of the environment are recorded. Without a GPU
there are no shares. Smoke test: --sizes=small --calls=1
"""

import contextlib
import os
import re
import tempfile
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
from absl import app, flags

from benchmarks.cost import ADAM, BACKWARD, FLOAT
from benchmarks.metagrad_problem import BASE, FIELDS, Cell, make_problem, ours
from benchmarks.record import write
from diet_jax.types import InputError

SIZES = flags.DEFINE_list("sizes", "small,middle,large", "Of CELLS.")
CALLS = flags.DEFINE_integer("calls", 5, "Timed calls.")
OUT = flags.DEFINE_string("out", "", "Result file; empty: none.")

CELLS = {
    "small": BASE,
    "middle": Cell(V=1_000_000, N=16_384, b=1024, d=32),
    "large": Cell(V=4_000_000, N=65_536, b=8192, d=64),
}
BUDGET = 32 << 30  # bytes: so much that states of all steps are kept


class Setting(NamedTuple):
    """Changes of `metagrad.Inner`; trajectories at once; whether steps keep all they need."""

    inner: dict = {}
    runs: int = 1
    keep: bool = False
    compute: str = ""


SETTINGS = {
    "default": Setting(),
    "all kept": Setting(keep=True),
    "not unrolled": Setting({"unroll": 1}),
    "unrolled by 8": Setting({"unroll": 8}),
    "mixed": Setting({"mixed": True}),
    "bfloat16": Setting(compute="bfloat16"),
    "128 MiB": Setting({"budget": 128 << 20}),
    "8 trajectories": Setting(runs=8),
}
CASES = {
    "small": tuple(SETTINGS),
    "middle": ("default", "not unrolled", "mixed", "8 trajectories"),
    "large": ("default", "not unrolled", "mixed"),
}
# Of kernels, by what XLA and cuBLAS call them; the first that fits.
KINDS = {
    "matrix products": r"gemm|cutlass|nvjet|xmma|dot|wgmma|splitk",
    "look-ups": r"gather|scatter|sort|radix|dynamic",
    "copies": r"memcpy|memset|copy|transpose",
    "the rest": r"",
}


def main(_) -> None:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    bandwidth, rate = copy_bandwidth(), product_rate()
    print(
        f"copy {bandwidth / 1e12:.2f} TB/s, float32 product {rate / 1e12:.1f} TFLOP/s", flush=True
    )
    result = {
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "bytes_per_second": bandwidth,
        "float32_operations_per_second": rate,
        "cells": {size: CELLS[size]._asdict() for size in SIZES.value},
        "table": [],
    }
    for size in SIZES.value:
        result["table"] += of_size(size, bandwidth, rate)
        if OUT.value:  # what a short lease cuts off is the rest alone
            write(OUT.value, result)


def of_size(size: str, bandwidth: float, rate: float) -> list[dict]:
    """The rows of a size: all programs are compiled side by side, then run one by one."""
    table, todo = [], []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name in CASES[size]:
            row = {"size": size, "setting": name}
            table.append(row)
            try:
                it = lower(CELLS[size], SETTINGS[name])
                todo.append((row, it, pool.submit(it.program.compile)))
            except InputError as error:  # does not fit the setting's budget
                row["error"] = str(error)
    for row, it, program in todo:
        try:
            row |= measure(it, program.result(), bandwidth, rate)
        except jax.errors.JaxRuntimeError as error:  # does not fit the device
            row["error"] = str(error).splitlines()[0][:200]
    print("\n".join(map(line, table)), flush=True)
    return table


def seconds_of(f, args, calls: int) -> float:
    jax.block_until_ready(f(*args))
    spent = []
    for _ in range(calls):
        begin = time.perf_counter()
        jax.block_until_ready(f(*args))
        spent.append(time.perf_counter() - begin)
    return median(spent)


def copy_bandwidth() -> float:
    """Bytes read and written a second by x + 1, of a gigabyte."""
    x = jnp.zeros(1 << 28)
    return 2 * x.nbytes / seconds_of(jax.jit(lambda x: x + 1), (x,), 10)


def product_rate() -> float:
    """Operations a second of a product of square matrices in full float32."""
    n = 8192 if jax.default_backend() == "gpu" else 1024
    x = jax.random.normal(jax.random.key(0), (n, n))
    product = jax.jit(lambda x: jnp.matmul(x, x, precision="float32"))
    return 2 * n**3 / seconds_of(product, (x,), 5)


class Lowered(NamedTuple):
    """A program that is still to be compiled, its arguments, and what it has to do."""

    program: jax.stages.Lowered
    args: tuple
    runs: int  # trajectories
    rows: int  # of the compact table that are trained
    bytes: float
    operations: float
    steps: int


def lower(cell: Cell, setting: Setting) -> Lowered:
    problem = make_problem(cell)
    inner = problem.inner._replace(**{"budget": BUDGET, **setting.inner})
    inner = inner._replace(model=inner.model._replace(compute=setting.compute))
    f, (slots, run, outer) = ours(problem._replace(inner=inner), cell)
    run = run._replace(key=jax.random.split(run.key, setting.runs))

    def mean(z, w, slots, run, outer):
        one = jax.vmap(lambda key: f(z, w, slots, run._replace(key=key), outer))
        return one(run.key).mean()

    args = jax.device_put((slots.label_logit, slots.log_weight, slots, run, outer))
    never = mock.patch("diet_jax.metagrad.choose_level", lambda *_: 0)  # a level it never takes
    with never if setting.keep else contextlib.nullcontext():
        program = jax.jit(jax.grad(mean, (0, 1))).lower(*args)
    rows, steps = len(run.trained), cell.T * setting.runs
    products = 2 * cell.b * (FIELDS * cell.d * 64 + 64 * 32 + 32)
    return Lowered(
        program,
        args,
        setting.runs,
        rows,
        steps * BACKWARD * ADAM * FLOAT * rows * (cell.d + 1),
        steps * BACKWARD * 3 * products,  # of a training step: forward, and by both factors
        steps,
    )


def measure(it: Lowered, program, bandwidth: float, rate: float) -> dict:
    seconds = seconds_of(program, it.args, CALLS.value)
    memory = program.memory_analysis()
    return {
        "seconds": seconds / it.runs,  # of one trajectory
        "temp_mib": memory.temp_size_in_bytes / 2**20 if memory else None,
        "rows": it.rows,
        "bytes": it.bytes,
        "operations": it.operations,
        "of_bandwidth": it.bytes / bandwidth / seconds,
        "of_products": it.operations / rate / seconds,
        **shares(program, it.args, it.steps),
    }


def shares(program, args, steps: int) -> dict:
    """Of one call: by kind the share of time that kernels run, what is left, and kernels a step."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(program(*args))
        (file,) = Path(folder).rglob("*.xplane.pb")
        data = jax.profiler.ProfileData.from_file(str(file))
        events = [
            (e.start_ns, e.start_ns + e.duration_ns, e.name)
            for plane in data.planes
            if plane.name.startswith("/device:GPU")
            for stream in plane.lines
            if stream.name.startswith("Stream")
            for e in stream.events
        ]
    if not events:
        return {}
    events.sort()
    whole = max(end for _, end, _ in events) - events[0][0]
    spent, longest, now = defaultdict(float), defaultdict(float), events[0][0]
    for start, end, name in events:
        kind = next(k for k, pattern in KINDS.items() if re.search(pattern, name.lower()))
        alone = max(0.0, end - max(start, now))  # what overlaps counts once
        now = max(now, end)
        spent[kind] += alone
        longest[re.sub(r"[._]*\d+", "", name)[:60]] += alone
    top = sorted(longest.items(), key=lambda item: -item[1])[:12]
    return {
        "shares": {kind: spent[kind] / whole for kind in KINDS}
        | {"no kernel": 1 - sum(spent.values()) / whole},
        "kernels_a_step": len(events) / steps,
        "longest": {name: time / whole for name, time in top},
    }


def line(row: dict) -> str:
    head = f"{row['size']:7} {row['setting']:15}"
    if "error" in row:
        return f"{head} {row['error']}"
    parts = [f"{1e3 * row['seconds']:9.2f} ms", f"{row['temp_mib'] or 0:9.0f} MiB"]
    parts += [f"memory {row['of_bandwidth']:.1%}", f"products {row['of_products']:.1%}"]
    if "shares" in row:
        parts += [f"{kind} {share:.0%}" for kind, share in row["shares"].items()]
        parts += [f"{row['kernels_a_step']:.0f} kernels a step"]
    return f"{head} {' | '.join(parts)}"


if __name__ == "__main__":
    app.run(main)
