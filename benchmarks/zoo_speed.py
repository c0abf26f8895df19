"""Training rows per second of the zoo on a large table, beside PyTorch peers on the same work.

    python -m benchmarks.zoo_speed --out=benchmarks/results --peers_python=PEERS/bin/python

The work: one pass over `steps` batches of 4,096 rows with 10 fields that share a table of V = 10^6
rows, Zipf within each field; embeddings of 16 columns, towers of 64 and 32. PEERS is an environment
with benchmarks/zoo-peers-requirements.txt. Engines take turns, pass by pass, so that what else the
machine does meets all of them; the first pass of each (which compiles) is not counted.

touched: lazy Adam on touched rows (diet_jax.touched). dense: Adam over the whole table, as
evaluation trains on full data by default. torch, deepctr: see zoo_speed_peers.py.
"""

import os
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

from benchmarks import record
from diet_jax import touched, train
from diet_jax.models import init_params, make_model
from diet_jax.optim import Optimizer, make

OUT = flags.DEFINE_string("out", "benchmarks/results", "Folder of zoo_speed.json.")
PEERS = flags.DEFINE_string("peers_python", "", "The peers' Python; empty: without them.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Passes of each engine and model.")
STEPS = flags.DEFINE_integer("steps", 8, "Batches of a pass.")
TABLE = flags.DEFINE_integer("table", 1_000_000, "Rows of the table.")

BATCH, FIELDS, DIM, HIDDEN = 4096, 10, 16, (64, 32)
# As the peers build them: two cross layers, two attention layers of two heads.
MODELS = {"MLP": "MLP", "DeepFM": "DeepFM", "DCNv2": "DCNv2", "AutoInt": "AutoInt:heads=2,size=8"}
OURS, THEIRS = ("touched", "dense"), ("torch", "deepctr")


def problem(n_table: int, steps: int) -> dict[str, np.ndarray]:
    """Ids are Zipf (exponent one) within each field's share of the table."""
    rng = np.random.default_rng(0)
    n, share = steps * BATCH, n_table // FIELDS
    ids = (share ** rng.random((n, FIELDS))).astype(np.int64) - 1 + share * np.arange(FIELDS)
    sizes = {"V": share * FIELDS, "batch": BATCH, "dim": DIM, "hidden": HIDDEN}
    label = rng.integers(0, 2, n).astype(np.float32)
    return {"ids": ids.astype(np.int32), "label": label, **{k: np.array(sizes[k]) for k in sizes}}


def ours(engine: str, name: str, p: dict[str, np.ndarray]):
    """run() -> None trains one pass; the state goes on from pass to pass."""
    model, lr = make_model(MODELS[name], DIM, HIDDEN), 1e-3
    optimizer = Optimizer("lazy_adam" if engine == "touched" else "adam")
    n = len(p["label"])
    data = train.Examples(
        jnp.asarray(p["ids"]), jnp.zeros((n, 0)), jnp.asarray(p["label"]), jnp.ones(n)
    )
    order = jnp.arange(n).reshape(-1, BATCH)
    tx = make(optimizer, lr)

    def fit(state, data, order):
        if engine == "touched":
            return touched.fit(model, optimizer, lr, state, data, order, len(order))
        return train.fit(model, tx, state, data, order, len(order))

    def begin(key):
        return train.start(tx, init_params(model, key, jnp.arange(p["V"]), FIELDS, 0))

    one_pass = jax.jit(fit, donate_argnums=0)
    state = [jax.jit(begin)(jax.random.key(0))]

    def run():
        state[0] = jax.block_until_ready(one_pass(state[0], data, order))

    run()
    return run


def main(argv: list[str]) -> None:
    del argv
    load = os.getloadavg()
    p = problem(TABLE.value, STEPS.value)
    spent: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problem.npz"
        np.savez(path, **p)  # pyright: ignore[reportArgumentType]
        peer = None
        if PEERS.value:
            script = str(Path(__file__).parent / "zoo_speed_peers.py")
            peer = subprocess.Popen(
                [PEERS.value, script, str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        for name in MODELS:
            runs = {engine: ours(engine, name, p) for engine in OURS}
            for turn in range(ROUNDS.value):
                for engine in (*OURS, *(THEIRS if peer else ())):
                    if engine in runs:
                        start = time.perf_counter()
                        runs[engine]()
                        seconds = time.perf_counter() - start
                    else:
                        seconds = ask(peer, engine, name)
                    spent.setdefault((name, engine), []).append(seconds)
                    logging.info("%s %s, round %d: %.2f s", name, engine, turn + 1, seconds)
        if peer:
            peer.stdin.close()  # pyright: ignore[reportOptionalMemberAccess]
            peer.wait()
    write(spent, len(p["label"]), load)


def ask(peer, engine: str, name: str) -> float:
    print(engine, name, file=peer.stdin, flush=True)
    answer = peer.stdout.readline()
    if not answer:
        raise RuntimeError(f"the peers' process ended at {engine} {name}: see its output above")
    return float(answer)


def write(spent: dict[tuple[str, str], list[float]], n: int, load: tuple) -> None:
    """zoo_speed.json: rows per second, and how many times those of each other engine ours are.

    Ratios are of turns that were neighbours in time: median, least and most.
    """
    rows = []
    for (name, engine), seconds in spent.items():
        rate = [n / s for s in seconds]
        ratio = [s / t for s, t in zip(seconds, spent[name, "touched"], strict=True)]
        rows.append(
            {
                "model": name,
                "engine": engine,
                "rows_per_second": {"median": median(rate), "least": min(rate), "most": max(rate)},
                "times": {"median": median(ratio), "least": min(ratio), "most": max(ratio)},
            }
        )
    about = {
        "table": TABLE.value,
        "batch": BATCH,
        "fields": FIELDS,
        "dim": DIM,
        "hidden": HIDDEN,
        "steps": STEPS.value,
        "rounds": ROUNDS.value,
        "load": load,  # of the machine, before
    }
    peers = record.versions(PEERS.value, "deepctr-torch", "torch") if PEERS.value else {}
    result = {"peers": peers, "about": about, "table": rows}
    record.write(Path(OUT.value) / "zoo_speed.json", result)
    for row in rows:
        rate, times = row["rows_per_second"], row["times"]
        print(
            f"{row['model']:8} {row['engine']:8} {rate['median']:10,.0f} rows/s "
            f"({rate['least']:,.0f} to {rate['most']:,.0f}); ours is {times['median']:.1f} times "
            f"as fast ({times['least']:.1f} to {times['most']:.1f})"
        )


if __name__ == "__main__":
    app.run(main)
