"""Speed and memory of the data layer: preparation against a bare scan and FuxiCTR's, and feeding.

    python -m benchmarks.data --peer_venv=runs/fuxictr

Everything is measured in fresh processes, in turn, --repeats times over; targets are judged by the
median. Writes all figures to --out and prints them as Markdown. On a machine with more cores,
`taskset -c 0,1` in front gives it two. Smoke test: --rows=20000 --rss_rows= --repeats=1
--workdir=/tmp/data --out=/tmp/data.json
"""

import os
import shutil
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from absl import app, flags

from benchmarks.processes import measure
from benchmarks.record import environment, write
from diet_jax.files import replace_file

# What a task needs is imported in the task: the rest must not count as its memory.

ROWS = flags.DEFINE_integer("rows", 1_000_000, "Rows of the log that speed is measured on.")
RSS_ROWS = flags.DEFINE_list(
    "rss_rows", "1000000,5000000,20000000,50000000", "Rows of the logs that memory is measured on."
)
UNSORTED = flags.DEFINE_list("unsorted_rows", None, "The same, of logs that are not in time order.")
REPEATS = flags.DEFINE_integer("repeats", 3, "How often everything is measured.", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the logs.")
WORKDIR = flags.DEFINE_string("workdir", "runs/data", "Folder of the logs, kept, and of the rest.")
PEER = flags.DEFINE_string("peer_venv", "runs/fuxictr", "Virtual environment that has FuxiCTR.")
OUT = flags.DEFINE_string("out", "benchmarks/results/data.json", "Result file.")

INTEGERS = {f"int_{k}": round(10 ** (1 + 5 * k / 13)) for k in range(14)}  # name -> values
TEXTS = {f"text_{k}": round(10 ** (1 + 4 * k / 5)) for k in range(6)}
DENSE = tuple(f"dense_{k}" for k in range(5))
USERS = 1_000_000
ZIPF = 1.1  # exponent: the k-th most frequent value is seen in proportion to k ** -ZIPF
ROW_GROUP = 1 << 18
BLOCK = 100_000  # rows that FuxiCTR transforms at once
MILLISECONDS = 50  # between two rows
VERSION = 1  # of the logs; a change makes them anew

BATCH = 4096
TABLE = 1_000_000  # rows at least
ROUNDS = 5  # epochs


class Row(NamedTuple):
    """A line of the table. values: one for each repeat. target: what the median is to be."""

    name: str
    unit: str
    values: list[float]
    target: str = ""


def main(_) -> None:
    workdir = Path(WORKDIR.value)
    log, scratch = make(ROWS.value, "sorted"), workdir / "scratch"
    python, root, cache = sys.executable, str(scratch / "fuxictr"), str(scratch / "cache")
    peer, columns = Path(PEER.value) / "bin" / "python", ([*INTEGERS], [*TEXTS], [*DENSE])
    tasks = [
        ("scan", python, scan, (log, "streaming")),
        ("read", python, scan, (log, "read_parquet")),
        ("codes", python, codes, (log, [*INTEGERS, *TEXTS, "user"])),
        ("prepare", python, prepare, (log, cache)),
        ("hit", python, prepare, (log, cache)),
        ("peer", str(peer), fuxictr, (log, root, *columns, 0)),
        ("peer_blocks", str(peer), fuxictr, (log, root, *columns, min(BLOCK, ROWS.value))),
        ("feed", python, feeding, (log, str(workdir / "feed"), SEED.value)),
    ]
    sizes = [(int(rows), "sorted") for rows in RSS_ROWS.value]
    unsorted = UNSORTED.value if UNSORTED.value is not None else RSS_ROWS.value[-2:-1]
    sizes += [(int(rows), "unsorted") for rows in unsorted]
    tasks += [(size, python, prepare, (make(*size), cache)) for size in sizes]
    missing = ""
    if not peer.exists():
        missing = (
            f"skipped, no virtual environment at {PEER.value}; make one: python3.11 -m venv "
            f"{PEER.value} && {PEER.value}/bin/pip install fuxictr"
        )
        tasks = [task for task in tasks if task[2] is not fuxictr]
    runs: dict[Any, list[dict]] = defaultdict(list)
    for repeat in range(REPEATS.value):
        for name, binary, task, args in tasks:
            if name != "hit":
                shutil.rmtree(scratch, ignore_errors=True)
            print(f"repeat {repeat + 1} of {REPEATS.value}: {name}", file=sys.stderr, flush=True)
            warm(args[0])
            runs[name].append(measure(binary, task, args, alone=task is fuxictr))
    shutil.rmtree(scratch, ignore_errors=True)
    rows = speeds(runs, ROWS.value)
    memory = {size: runs[size] for size in sizes}
    print(markdown(rows, missing))
    if memory:
        print("", memory_markdown(memory), sep="\n")
    shown = [{**row._asdict(), "median": median(row.values)} for row in rows]
    result = {
        "env": environment() | {n: metadata.version(n) for n in ("polars", "pyarrow")},
        "log": {"rows": ROWS.value, "seed": SEED.value, "bytes": os.path.getsize(log)}
        | {"integers": INTEGERS, "texts": TEXTS, "dense": DENSE, "users": USERS, "zipf": ZIPF},
        "fuxictr": missing or runs["peer"][0]["versions"],
        "table": shown,
        "memory": [{"rows": n, "order": order, "runs": memory[n, order]} for n, order in sizes],
        "runs": {name: made for name, made in runs.items() if isinstance(name, str)},
    }
    write(OUT.value, result)


def make(rows: int, order: str) -> str:
    """The Parquet file of a log, made now unless the folder holds it."""
    file = Path(WORKDIR.value) / f"log-{VERSION}-{rows}-{order}-{SEED.value}.parquet"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        print(f"making {file}", file=sys.stderr, flush=True)
        measure(sys.executable, write_log, (str(file), rows, order, SEED.value))
    return str(file)


def warm(file: str) -> None:
    """Brings a file into the page cache, so that disks do not decide what is faster."""
    with open(file, "rb", buffering=0) as content:
        while content.read(1 << 24):
            pass


def write_log(file: str, rows: int, order: str, seed: int) -> dict:
    """Writes a click log, a row group at a time."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    sizes = {**INTEGERS, **TEXTS, "user": USERS}
    draw = np.random.default_rng(seed)
    values = {name: pa.array(draw.permutation(size)) for name, size in sizes.items()}
    for name in TEXTS:
        values[name] = pa.array(
            [f"{name[-1]}{v * 0x9E3779B1 % 2**32:08x}" for v in values[name].to_pylist()]
        )
    shares = {size: np.cumsum(np.arange(1, size + 1) ** -ZIPF) for size in sizes.values()}
    kinds = {**{name: array.type for name, array in values.items()}, "time": pa.int64()}
    kinds |= {**dict.fromkeys(DENSE, pa.float32()), "label": pa.int8()}

    def write(draft: Path) -> None:
        with pq.ParquetWriter(draft, pa.schema(kinds)) as out:
            for start in range(0, rows, ROW_GROUP):
                n = min(ROW_GROUP, rows - start)
                columns = {}
                for name, size in sizes.items():
                    rank = np.searchsorted(shares[size], draw.random(n) * shares[size][-1])
                    columns[name] = values[name].take(pa.array(rank))
                at = np.arange(start, start + n) if order == "sorted" else draw.integers(0, rows, n)
                columns["time"] = 1_700_000_000_000 + MILLISECONDS * at
                columns |= {name: draw.lognormal(size=n).astype(np.float32) for name in DENSE}
                columns["label"] = (draw.random(n) < 0.2).astype(np.int8)
                out.write_table(pa.table(columns, out.schema))

    replace_file(Path(file), write)
    return {}


def scan(file: str, how: str) -> dict:
    """Reads every value of every column and makes nothing of it but each column's maximum."""
    import polars as pl

    start = time.perf_counter(), time.process_time()
    if how == "streaming":
        pl.scan_parquet(file).select(pl.all().max()).collect(engine="streaming")
    else:
        pl.read_parquet(file)
    return since(*start)


def codes(file: str, columns: list[str]) -> dict:
    """Reads the log and numbers the values of these columns, the least that a vocabulary needs: in
    one piece, in no order, and nothing is checked or written."""
    import pyarrow.parquet as pq

    start = time.perf_counter(), time.process_time()
    table = pq.read_table(file)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda name: table[name].combine_chunks().dictionary_encode(), columns):
            pass
    return since(*start)


def since(wall: float, processor: float) -> dict[str, float]:
    """Seconds by the clock, and of all threads together."""
    return {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - processor,
    }


def source(file: str):
    """The log with the roles of its columns."""
    from diet_jax.data.readers import table_parts
    from diet_jax.data.source import Dense, Field, Roles, Source

    fields = tuple(map(Field, (*INTEGERS, *TEXTS)))
    return Source(
        "log", table_parts(file), Roles("label", "time", "user", fields, tuple(map(Dense, DENSE)))
    )


def prepare(file: str, cache: str) -> dict:
    """Our preparation into eight stages, or a look into the cache."""
    from diet_jax.data import prepare as make
    from diet_jax.data import store
    from diet_jax.data.stages import Cuts

    start = time.perf_counter(), time.process_time()
    folder = make(source(file), Cuts(8), 1, 0.0, Path(cache))
    spent = since(*start)
    # The unknown value of each field is nothing that the log holds.
    return {**spent, "values": len(store.read(folder).values) - len(INTEGERS) - len(TEXTS)}


def fuxictr(
    file: str, root: str, integers: list[str], texts: list[str], dense: list[str], block: int
) -> dict:
    """FuxiCTR's preparation of the same columns; it runs alone, in FuxiCTR's environment.

    block: rows of an output file, 0 for a single one.
    """
    import os
    import time
    from importlib import metadata

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from fuxictr.preprocess import (  # pyright: ignore[reportMissingImports]
        FeatureProcessor,
        build_dataset,
    )
    from fuxictr.preprocess.build_dataset import (  # pyright: ignore[reportMissingImports]
        init_ray,
    )

    on = {"active": True}
    features = [
        {"name": integers, "dtype": "int", "type": "categorical", **on},
        {"name": texts, "dtype": "str", "type": "categorical", **on},
        {"name": dense, "dtype": "float", "type": "numeric", "normalizer": "StandardScaler", **on},
        {"name": "user", "dtype": "int", "type": "meta", **on},
        {"name": "time", "dtype": "int", "type": "meta", "remap": False, **on},
    ]
    start = time.perf_counter()
    init_ray()
    started = time.perf_counter()
    encoder = FeatureProcessor(features, {"name": "label", "dtype": "float"}, "log", root)
    build_dataset(encoder, file, data_format="parquet", min_categr_count=1, data_block_size=block)
    ended = time.perf_counter()
    sizes = [f.get("vocab_size", 2) for f in encoder.feature_map.features.values()]
    packages = ("fuxictr", "polars", "ray", "pandas", "pyarrow")
    return {
        "seconds": ended - started,
        "ray_seconds": started - start,  # to start its workers
        "values": sum(sizes) - 2 * len(sizes),  # without padding and the unknown
        "versions": {name: metadata.version(name) for name in packages},
    }


def feeding(file: str, cache: str, seed: int) -> dict:
    """Training steps per second by where the batches come from, and rows gathered per second.

    zero: the same all-zero batch, on the device. ready: the epoch's batches, all on the device
    beforehand; they look up other table rows at every step, as zeros do not, and nothing has to be
    fed. fed: from memory-mapped columns, prefetched. scan_zero, scan_ready, scan_fed: in one device
    call an epoch, the last from columns on the device.
    """
    import jax
    import jax.numpy as jnp
    import optax

    from diet_jax.data import feed, store
    from diet_jax.data import prepare as make
    from diet_jax.data.stages import Cuts
    from diet_jax.models import Inputs, init_params, make_model
    from diet_jax.models.base import look_up

    stage = store.read(make(source(file), Cuts(1), 1, 0.0, Path(cache))).stages[0]
    columns, (n, n_fields) = stage.rows, stage.rows.ids.shape
    model, rate = make_model("MLP", 8, (64, 32)), 0.01

    def loss(net, emb, batch):
        none = batch.ids[:, :0] >= 0
        z = model.apply(net, Inputs(emb, batch.dense, emb[:, :0], none, none))
        return jnp.mean(batch.weight * optax.sigmoid_binary_cross_entropy(z, batch.label))

    def step(params, batch):
        # Only the rows looked up are touched: a step that passes over the whole table is many
        # times as long, and would hide any feeding.
        net, emb = params["net"], look_up(params, batch.ids)
        change, rows = jax.grad(loss, (0, 1))(net, emb, batch)
        net = jax.tree.map(lambda x, g: x - rate * g, net, change)
        return {"net": net, "table": params["table"].at[batch.ids].add(-rate * rows)}, None

    one_step = jax.jit(lambda params, batch: step(params, batch)[0], donate_argnums=0)
    orders = [feed.Order(seed, 0, epoch, 0, 1, n, BATCH) for epoch in range(1 + ROUNDS)]
    steps = feed.n_batches(orders[0])

    def repeat_epoch(params, batch):
        return jax.lax.scan(lambda p, _: step(p, batch), params, length=steps)[0]

    def ready_epoch(params, batches):
        return jax.lax.scan(step, params, batches)[0]

    def scan_epoch(params, columns, rows):
        return feed.scan_epoch(step, params, columns, rows)[0]

    one_scan, ready_scan, fed_scan = (
        jax.jit(f, donate_argnums=0) for f in (repeat_epoch, ready_epoch, scan_epoch)
    )
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    ready = list(feed.batches(columns, orders[0], sharding=device))
    stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *ready)
    zero, held = jax.tree.map(jnp.zeros_like, ready[0]), feed.resident(columns)

    def stepwise(batches):
        def run(params, order):
            for batch in batches(order):
                params = one_step(params, batch)
            return params

        return run

    def gather(params, order):
        for _ in feed.batches(columns, order, depth=0):
            pass
        return params

    ways = {
        "zero": stepwise(lambda order: (zero for _ in range(steps))),
        "ready": stepwise(lambda order: ready),
        "fed": stepwise(lambda order: feed.batches(columns, order, sharding=device)),
        "scan_zero": lambda params, order: one_scan(params, zero),
        "scan_ready": lambda params, order: ready_scan(params, stacked),
        "scan_fed": lambda params, order: fed_scan(params, held, feed.epoch_order(order)),
        "gather": gather,
    }
    table = jnp.arange(max(TABLE, stage.vocab_size))
    first = init_params(model, jax.random.key(seed), table, n_fields, columns.dense.shape[1])
    spent = {name: [] for name in ways}
    for order in orders:
        for name, run in ways.items():
            params = jax.block_until_ready(jax.tree.map(jnp.copy, first))
            start = time.perf_counter()
            jax.block_until_ready(run(params, order))
            if order.epoch:  # the first one compiles
                spent[name].append(time.perf_counter() - start)
    rates = {name: steps / median(seconds) for name, seconds in spent.items()}
    return {
        "device": jax.devices()[0].device_kind,
        "gathered_rows_per_second": rates.pop("gather") * BATCH,
        "steps_per_second": rates,
    }


def speeds(runs: dict, n: int) -> list[Row]:
    """The table's lines from what the tasks returned, repeat by repeat."""

    def seconds(name: str) -> list[float]:
        return [run["seconds"] for run in runs[name]]

    def ratios(a: list[float], b: list[float]) -> list[float]:
        return [x / y for x, y in zip(a, b, strict=True)]

    def megabytes(name: str, what: str) -> list[float]:
        return [run[what] / 1e6 for run in runs[name]]

    def rate(way: str) -> list[float]:
        return [run["steps_per_second"][way] for run in runs["feed"]]

    ours = seconds("prepare")
    rows = [
        Row("bare scan (Polars, streaming, max of every column)", "s", seconds("scan")),
        Row("bare read (pl.read_parquet)", "s", seconds("read")),
        Row("read, and values numbered (PyArrow)", "s", seconds("codes")),
        Row("the same / bare scan", "x", ratios(seconds("codes"), seconds("scan"))),
        Row("preparation, empty cache", "s", ours),
        Row("preparation", "rows/s", [n / s for s in ours], ">= 1e6"),
        Row("preparation / bare scan", "x", ratios(ours, seconds("scan")), "<= 2"),
        Row("preparation / bare read", "x", ratios(ours, seconds("read")), "<= 2"),
        Row("preparation, peak RSS", "MB", megabytes("prepare", "peak_rss")),
        Row("preparation, peak RSS without file pages", "MB", megabytes("prepare", "peak_held")),
        Row("preparation, cache hit", "s", seconds("hit")),
    ]
    for name, text in (("peer", "FuxiCTR, one file"), ("peer_blocks", "FuxiCTR, files of blocks")):
        if name in runs:
            rows += [
                Row(text, "s", seconds(name)),
                Row(text, "rows/s", [n / s for s in seconds(name)]),
                Row(f"{text} / preparation", "x", ratios(seconds(name), ours)),
                Row(f"{text}, peak RSS", "MB", megabytes(name, "peak_rss")),
                Row(f"{text}, peak RSS without file pages", "MB", megabytes(name, "peak_held")),
            ]
    names = {"zero": "zeros on the device", "ready": "its batches on the device", "fed": "files"}
    for scanned, how in (("", "step by step"), ("scan_", "scan")):
        fed = rate(f"{scanned}fed")
        for way, name in (names | ({"fed": "columns on the device"} if scanned else {})).items():
            rows.append(Row(f"training, {how}, {name}", "steps/s", rate(scanned + way)))
        rows += [
            Row(
                f"training, {how}, fed / zeros", "x", ratios(fed, rate(f"{scanned}zero")), ">= 0.95"
            ),
            Row(
                f"training, {how}, fed / batches on the device",
                "x",
                ratios(fed, rate(f"{scanned}ready")),
                ">= 0.95",
            ),
        ]
    gathered = [run["gathered_rows_per_second"] for run in runs["feed"]]
    return [*rows, Row("batches gathered from files, one thread", "rows/s", gathered)]


def markdown(rows: list[Row], missing: str) -> str:
    lines = ["| | unit | median | min | max | target | met |", "|---" * 7 + "|"]
    for row in rows:
        values = [median(row.values), min(row.values), max(row.values)]
        met = ""
        if row.target:
            sign, limit = row.target.split()
            met = "yes" if (values[0] >= float(limit)) == (sign == ">=") else "no"
        shown = " | ".join(map(figure, values))
        lines.append(f"| {row.name} | {row.unit} | {shown} | {row.target} | {met} |")
    return "\n".join([*lines, *([f"| FuxiCTR: {missing}" + " |" * 7] if missing else [])])


def memory_markdown(memory: dict[tuple[int, str], list[dict]]) -> str:
    """Peak memory of preparation against the log's length: medians, and the range over repeats."""
    lines = [
        "| rows | order | distinct values | rows/s | peak RSS, MB | without file pages, MB |",
        "|---" * 6 + "|",
    ]
    for (n, order), runs in memory.items():
        rate = figure(median(n / run["seconds"] for run in runs))
        shown = []
        for what in ("peak_rss", "peak_held"):
            sizes = [run[what] / 1e6 for run in runs]
            shown.append(f"{median(sizes):,.0f} ({min(sizes):,.0f} .. {max(sizes):,.0f})")
        lines.append(f"| {n:,} | {order} | {runs[0]['values']:,} | {rate} | {' | '.join(shown)} |")
    return "\n".join(lines)


def figure(x: float) -> str:
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


if __name__ == "__main__":
    app.run(main)
