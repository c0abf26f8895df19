"""Full-data quality of the zoo beside deepctr-torch: test AUC with the same split and budget.

    python -m benchmarks.zoo_quality --config=configs/movielens_100k.py \
        --config.data.path=FOLDER --peers_python=PEERS/bin/python --out=benchmarks/results

The first stages train, but for their last tenth, which chooses learning rate and epoch; the last
stage tests. Both sides have the same embeddings, towers, batches, optimizer (Adam on everything,
no L2), grid and seeds. PEERS is an environment with benchmarks/zoo-peers-requirements.txt. The log
must have single-valued fields alone. Writes zoo_quality.json, with the target of a difference of
at most 0.002.
"""

import itertools
import json
import subprocess
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from benchmarks.record import versions, write
from diet_jax import command, train
from diet_jax.compact import pad_to
from diet_jax.data import load_stream
from diet_jax.metrics import auc
from diet_jax.models import init_params, logits, make_model
from diet_jax.trials import PREDICT_BLOCK
from diet_jax.types import InputError

OUT = flags.DEFINE_string("out", "benchmarks/results", "Folder of zoo_quality.json.")
PEERS = flags.DEFINE_string("peers_python", "", "The peers' Python; empty: without them.")
LRS = flags.DEFINE_list("lrs", "0.001,0.003", "Learning rates to choose from.")
EPOCHS = flags.DEFINE_integer("epochs", 4, "Passes; the best of them is chosen.")
SEEDS = flags.DEFINE_integer("seeds", 2, "Trainings of each model and learning rate.")
BATCH = flags.DEFINE_integer("batch", 1024, "Rows of a step.")

DIM, HIDDEN, TARGET = 16, (64, 32), 0.002
KNOWN = "MLP WideDeep DeepFM IPNN NFM AFM DCN DCNv2 DCNv2Mix xDeepFM AutoInt FiBiNET".split()
MODELS = flags.DEFINE_list("models", KNOWN, "Models to compare.")


def problem() -> dict[str, np.ndarray]:
    """ids: of the table, int32 [n, F]; part: 0 to train, 1 to choose, 2 to test."""
    stream = load_stream(command.CONFIG.value)
    pool = stream.schema.pool
    if pool != tuple(range(len(pool))) or stream.schema.dense:
        raise InputError("zoo_quality compares single-valued fields alone: choose another log")
    sizes = [len(stage.user) for stage in stream.stages]
    n, n_test = sum(sizes), sizes[-1]
    n_valid = (n - n_test) // 10
    part = np.repeat([0, 1, 2], [n - n_test - n_valid, n_valid, n_test])
    ids, label = (
        np.concatenate([getattr(stage.rows, name) for stage in stream.stages])
        for name in ("ids", "label")
    )
    return {"ids": ids, "label": label, "part": part}


def ours(name: str, lr: float, p: dict[str, np.ndarray]) -> np.ndarray:
    """AUC [seeds, epochs, 2] on the rows that choose and that test."""
    # Adam as PyTorch has it; that of evaluation has an eps_root, which holds rare rows back.
    model, tx = make_model(name, DIM, HIDDEN), optax.adam(lr)
    (n, n_fields), n_table = p["ids"].shape, int(p["ids"].max()) + 1
    fitted = p["part"] == 0
    here = p["ids"][fitted]
    steps = len(here) // BATCH.value
    none = jnp.zeros((len(here), 0))
    data = train.Examples(
        jnp.asarray(here), none, jnp.asarray(p["label"][fitted]), jnp.ones(len(here))
    )
    blocks = -(-n // PREDICT_BLOCK)
    every = pad_to(p["ids"], blocks * PREDICT_BLOCK).reshape(blocks, PREDICT_BLOCK, n_fields)

    def begin(key):
        return train.start(tx, init_params(model, key, jnp.arange(n_table), n_fields, 0))

    def one_epoch(state, order):
        state = train.fit(model, tx, state, data, order, steps)
        nothing = jnp.zeros((PREDICT_BLOCK, 0))
        z = jax.lax.map(lambda ids: logits(model, state.params, ids, nothing), every)
        return state, z.reshape(-1)[:n]

    fit, found = jax.jit(one_epoch, donate_argnums=0), []
    for seed in range(SEEDS.value):
        rng, state = np.random.default_rng(seed), jax.jit(begin)(jax.random.key(seed))
        aucs = []
        for _ in range(EPOCHS.value):
            order = rng.permutation(len(here))[: steps * BATCH.value].reshape(steps, -1)
            state, z = fit(state, jnp.asarray(order))
            z = np.asarray(z)
            parts = [p["part"] == k for k in (1, 2)]
            aucs.append([auc(p["label"][k], z[k]) for k in parts])
        found.append(aucs)
    return np.array(found)


def chosen(by_lr: dict[float, np.ndarray]) -> dict:
    """Test AUC at the learning rate and epoch that are best on validation, by the mean of seeds."""
    best = {lr: aucs.mean(0)[:, 0] for lr, aucs in by_lr.items()}
    lr = max(best, key=lambda lr: best[lr].max())
    epoch = int(best[lr].argmax())
    test = by_lr[lr][:, epoch, 1]
    return {"auc": float(test.mean()), "sd": float(test.std()), "lr": lr, "epoch": epoch + 1}


def theirs(p: dict[str, np.ndarray], lrs: list[float]) -> dict[str, dict[float, np.ndarray]]:
    settings = {"models": MODELS.value, "lrs": lrs, "hidden": HIDDEN, "dim": DIM}
    settings |= {"batch": BATCH.value, "epochs": EPOCHS.value, "seeds": SEEDS.value}
    # Table rows of a field need not be neighbours: its values are numbered anew.
    local = np.stack([np.unique(column, return_inverse=True)[1] for column in p["ids"].T], axis=1)
    with tempfile.TemporaryDirectory() as folder:
        path, result = Path(folder) / "problem.npz", Path(folder) / "result.json"
        np.savez(path, **{**p, "ids": local, **{k: np.array(v) for k, v in settings.items()}})
        script = str(Path(__file__).parent / "zoo_quality_peers.py")
        subprocess.run([PEERS.value, script, str(path), str(result)], check=True)
        found = json.loads(result.read_text())
    return {
        name: {
            lr: np.array([found[f"{name} {lr:g} {seed}"] for seed in range(SEEDS.value)])
            for lr in lrs
        }
        for name in MODELS.value
    }


def run() -> None:
    p, lrs = problem(), [float(lr) for lr in LRS.value]
    mine = {name: {} for name in MODELS.value}
    for name, lr in itertools.product(MODELS.value, lrs):
        mine[name][lr] = ours(name, lr, p)
        print(name, lr, mine[name][lr][:, -1, 1], flush=True)
    peers = theirs(p, lrs) if PEERS.value else {}
    table = []
    for name in MODELS.value:
        row = {"model": name, "ours": chosen(mine[name])}
        if peers:
            row["deepctr"] = chosen(peers[name])
            row["difference"] = row["ours"]["auc"] - row["deepctr"]["auc"]
        table.append(row)
        print(json.dumps(row))
    about = {
        "log": command.CONFIG.value.data.name,
        "rows": np.bincount(p["part"]).tolist(),
        "batch": BATCH.value,
        "dim": DIM,
        "hidden": HIDDEN,
        "lrs": lrs,
        "epochs": EPOCHS.value,
        "seeds": SEEDS.value,
        "target": TARGET,
    }
    asked = versions(PEERS.value, "deepctr-torch", "torch") if PEERS.value else {}
    result = {"peers": asked, "about": about, "table": table}
    write(Path(OUT.value) / "zoo_quality.json", result)


if __name__ == "__main__":
    app.run(lambda _: command.told(run), flags_parser=command.parse)
