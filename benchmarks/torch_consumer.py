"""A memory in the hands of people who use PyTorch: deepctr-torch models on the exported Parquet.

    python -m benchmarks.torch_consumer --memory=runs/quickstart --peer_venv=runs/deepctr

The peer reads export/memory.parquet and recipe.json, trains DeepFM, FM and DCN-V2 as the recipe
says, and answers for the rows that judge the last stage; ours are trained on the memory itself with
the same rates. Make its environment with benchmarks/torch-consumer-requirements.txt. Prints a table
and writes --result.
"""

import subprocess
import tempfile
from pathlib import Path

import numpy as np
from absl import app, flags, logging

from benchmarks.record import versions, write
from diet_jax.evaluate import MEMORY
from diet_jax.metrics import auc
from diet_jax.models import make_model
from diet_jax.opened import open_run, rows_that_judge
from diet_jax.run import judge
from diet_jax.trial import make_trials

PEER = flags.DEFINE_string("peer_venv", "runs/deepctr", "Environment that has deepctr-torch.")
RESULT = flags.DEFINE_string("result", "benchmarks/results/torch_consumer.json", "Result file.")

ARCHS = ("FM", "DeepFM", "DCNv2")


def main(_) -> None:
    logging.set_verbosity(logging.WARNING)
    python = Path(PEER.value) / "bin" / "python"
    found = {arch: {"ours": [], "deepctr-torch": []} for arch in ARCHS}
    for folder in map(Path, MEMORY.value or []):
        memory = open_run(folder)
        job, config = memory.job, memory.job.config
        e, i, pool = config.eval, config.inner, job.stream.schema.pool
        models = {a: make_model(a, i.dim, tuple(e.hidden), i.init_scale, pool) for a in ARCHS}
        trials = {
            a: make_trials(m, job.evaluation.subset, False, job.evaluation.place)
            for a, m in models.items()
        }
        plan = job.evaluation._replace(models=models, subset_trials=trials)
        for r in judge(job._replace(evaluation=plan), memory.state, memory.stage, ("memory",)):
            found[r["arch"]]["ours"].append(r["auc"])
        test = rows_that_judge(memory)
        with tempfile.TemporaryDirectory() as scratch:
            rows, answer = Path(scratch) / "test.npz", Path(scratch) / "answer.npz"
            np.savez(rows, ids=test.ids, dense=test.dense)
            script = Path(__file__).with_name("torch_consumer_peer.py")
            seeds = ",".join(map(str, e.seeds))
            command = [python, script, folder / "export", rows, answer, ",".join(ARCHS), seeds]
            subprocess.run([str(part) for part in command], check=True)
            answers = np.load(answer)
            for arch in ARCHS:
                for logit in answers[arch]:
                    found[arch]["deepctr-torch"].append(auc(test.label, logit))
    table = {
        arch: {
            who: {"mean": float(np.mean(aucs)), "sd": float(np.std(aucs, ddof=1)), "n": len(aucs)}
            for who, aucs in both.items()
        }
        for arch, both in found.items()
    }
    for arch, both in table.items():
        shown = " | ".join(f"{x['mean']:.4f} ± {x['sd']:.4f}" for x in both.values())
        gap = both["deepctr-torch"]["mean"] - both["ours"]["mean"]
        print(f"| {arch} | {shown} | {gap:+.4f} |")
    peers = versions(str(python), "deepctr-torch", "torch")
    write(RESULT.value, {"peers": peers, "table": table, "auc": found})


if __name__ == "__main__":
    flags.register_validator("memory", bool, "give the folder of a run")
    app.run(main)
