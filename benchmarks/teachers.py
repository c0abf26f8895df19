"""Choose the teacher: how well it answers on validation rows, by architecture, rate and passes.

    python -m benchmarks.teachers --config=configs/movielens_100k.py --config.data.path=FOLDER \
        --windows=0.7,0.8,0 --archs=MLP,DCNv2 --lrs=0.0005,0.001 --passes=2,3 --seeds=0,1

Windows are those of benchmarks.explore: the first stage is the log up to each of these shares, and
the next tenth judges; 0: every stage of the config, judged by its own last tenth. Two figures,
means over windows, stages and seeds: the AUC of the teacher's answers to the rows, and to the rows
as the next stage would show them (`outlook`), which is what the memory is distilled from. --passes
are over the first stage; over later ones the config's. Writes OUT/teachers_NAME.json and prints a
table.
"""

import itertools
from pathlib import Path

import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

from benchmarks.record import write
from benchmarks.windows import windowed
from diet_jax import outlook
from diet_jax.job import make_test, prepare
from diet_jax.metrics import auc
from diet_jax.run import teach
from diet_jax.types import Config

CONFIG = config_flags.DEFINE_config_file("config", None, "The config to choose for.")
WINDOWS = flags.DEFINE_list("windows", ["0"], "Shares of the log, or 0.")
ARCHS = flags.DEFINE_list("archs", "MLP,DeepFM,DCNv2", "Architectures.")
LRS = flags.DEFINE_list("lrs", "0.00025,0.0005,0.001", "Learning rates.")
PASSES = flags.DEFINE_list("passes", "2,3,5", "Passes over the first stage.")
SEEDS = flags.DEFINE_list("seeds", "0,1", "Seeds.")
OUT = flags.DEFINE_string("out", "benchmarks/results", "Folder of the result file.")


def main(_) -> None:
    logging.set_verbosity(logging.WARNING)
    table = []
    for arch, lr, passes in itertools.product(ARCHS.value, LRS.value, PASSES.value):
        runs = [
            aucs
            for seed, window in itertools.product(map(int, SEEDS.value), map(float, WINDOWS.value))
            for aucs in judged(CONFIG.value, seed, window, arch, float(lr), float(passes))
        ]
        known, ahead = np.mean(runs, axis=0).round(4).tolist()
        line = {"arch": arch, "lr": float(lr), "passes": float(passes), "n": len(runs)}
        table.append(line | {"auc": known, "auc_ahead": ahead})
        print(table[-1], flush=True)
    name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    options = {"windows": WINDOWS.value, "seeds": SEEDS.value}
    write(Path(OUT.value) / f"teachers_{name}.json", {"options": options, "table": table})


def judged(config: Config, seed: int, window: float, arch: str, lr: float, passes: float):
    """For each stage judged: the AUC on its validation rows, as they are and as they will be."""
    config = windowed(config, seed, window)
    config.teacher.update(arch=arch, lr=lr, first_epochs=passes)
    job = prepare(config)
    teacher, pool, vocab = job.first.teacher, job.stream.schema.pool, job.stream.schema.vocab
    for number in range(1, 2 if window else len(job.steps) + 1):
        teacher, hidden = teach(job, teacher, number)
        test = make_test(job, number)
        rows = test.part == 0
        views = test.ids[rows], outlook.hide(test.ids[rows], hidden, pool, vocab)
        logits = (job.teacher.predict(teacher, ids, test.dense[rows]) for ids in views)
        yield [auc(test.label[rows], z) for z in logits]


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
