"""What a preparation holds for each distinct value: peak memory by how many one column has.

    python -m benchmarks.vocabulary

Logs of --rows rows, in order of time, whose column `item` has as many distinct values as --values
says, of 20 characters. Each is prepared in a process of its own. Writes --out and prints a table.
Smoke test: --rows=20000 --values=10,20000 --out=/tmp/vocabulary.json
"""

import shutil
import sys
from pathlib import Path

from absl import app, flags

from benchmarks.processes import measure
from benchmarks.record import write

ROWS = flags.DEFINE_integer("rows", 10_000_000, "Rows of a log.")
VALUES = flags.DEFINE_list("values", "1000,1000000,10000000", "Distinct values, the fewest first.")
WORKDIR = flags.DEFINE_string("workdir", "runs/vocabulary", "Folder of the logs, removed.")
OUT = flags.DEFINE_string("out", "benchmarks/results/vocabulary.json", "Result file.")


def write_log(file: str, rows: int, values: int) -> dict:
    """Every value once, in no order, and then again and again."""
    import numpy as np
    import polars as pl

    draw = np.random.default_rng(0)
    # Odd, so that it numbers all values of 64 bits anew.
    item = draw.permutation(rows).astype(np.uint64) % values * np.uint64(0x9E3779B97F4A7C15)
    columns = {
        "item": pl.Series(item).cast(pl.String).str.zfill(20),
        "user": np.arange(rows) % 1000,
        "time": 1_700_000_000 + np.arange(rows),
        "label": (draw.random(rows) < 0.3).astype(np.int8),
    }
    pl.DataFrame(columns).write_parquet(file, row_group_size=1 << 18)
    return {}


def prepare(file: str, cache: str) -> dict:
    """A preparation into four stages."""
    from diet_jax.data import prepare as make
    from diet_jax.data import store
    from diet_jax.data.readers import table_parts
    from diet_jax.data.source import Field, Roles, Source
    from diet_jax.data.stages import Cuts

    roles = Roles("label", "time", "user", (Field("item"), Field("user")), ())
    folder = make(Source("log", table_parts(file), roles), Cuts(4), 1, 0.0, Path(cache))
    return {"values": len(store.read(folder).values)}


def main(_) -> None:
    folder, rows = Path(WORKDIR.value), ROWS.value
    lines = []
    for values in map(int, VALUES.value):
        folder.mkdir(parents=True, exist_ok=True)
        log = str(folder / "log.parquet")
        measure(sys.executable, write_log, (log, rows, values))
        held = measure(sys.executable, prepare, (log, str(folder / "cache")))["peak_held"]
        shutil.rmtree(folder)
        first = lines[0] if lines else {"held": held, "distinct": values}
        more = (held - first["held"]) / max(1, values - first["distinct"])
        lines.append({"distinct": values, "held": held, "bytes_a_value": round(more)})
    print("| distinct values | memory without file pages | for each value more |\n|---|---|---|")
    for line in lines:
        print(f"| {line['distinct']:,} | {line['held'] / 1e6:.0f} MB | {line['bytes_a_value']} B |")
    write(OUT.value, {"rows": rows, "table": lines})


if __name__ == "__main__":
    app.run(main)
