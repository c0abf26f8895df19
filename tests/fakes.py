"""Records of a run that never was: small, plausible and the same every time."""

import math
import random

ARCHS = ("LR", "FM", "MLP", "DeepFM", "DCNv2")
METHODS = ("full", "memory", "random_hard", "random_soft")

CONFIG = {
    "data": {"source": "movielens", "name": "latest-small", "path": "/srv/logs/ml.zip"},
    "memory": {"rate": 0.02},
    "seed": 0,
}


def eval_record(stage, method, arch, seed, auc, **more):
    """One measurement, with the rest made up from the AUC."""
    record = {"kind": "eval", "stage": stage, "method": method, "arch": arch, "seed": seed}
    record |= {"auc": auc, "gauc": auc - 0.05, "logloss": 1.3 - auc, "steps": 60}
    return record | {"rows": 100, "seconds": 0.5} | more


def stage_record(stage, stages, slots_per_stage=252, rows=12604):
    """The closing record of a stage; slots of each earlier stage thin out by 10 % a stage."""
    born = [round(slots_per_stage * 0.9 ** (stage - s)) for s in range(1, stage + 1)]
    histogram = [round(40 * (math.exp(-(((b - 12) / 4) ** 2)) + 0.1)) for b in range(20)]
    return {
        "kind": "stage",
        "stage": stage,
        "stages": stages,
        "rows_stage": rows,
        "rows_so_far": rows * stage,
        "slots": sum(born),
        "new": slots_per_stage,
        "written": 403,
        "seconds_teacher": 1.5 + stage,
        "seconds_influence": 2.5,
        "seconds_outer": 9.0 + 0.5 * stage,
        "teacher_auc": 0.7 + 0.01 * stage,
        "outer_steps": 200,
        "seconds": 30.0,
        "born": born,
        "label_hist": histogram,
        "weight_quantiles": [0.05 / stage, 0.6, 1.0, 1.5, 4.0 + stage],
    }


def outer_records(stage, steps=200, every=10, seed=0):
    """An outer loss that falls with noise."""
    rng = random.Random(100 * stage + seed)
    return [
        {"kind": "outer", "stage": stage, "step": step}
        | {"loss": 0.6 + 0.09 * math.exp(-step / 60) - 0.005 * stage + rng.gauss(0, 0.003)}
        for step in range(every, steps + 1, every)
    ]


def stage_records(stage, stages=8, archs=ARCHS, seeds=(0, 1, 2)):
    """All that one stage leaves, in the order in which it is written."""
    level = {"full": 0.1, "memory": 0.07, "random_hard": 0.0, "random_soft": 0.04}
    rng = random.Random(stage)
    rows = {m: 12604 * stage if m == "full" else 252 * stage for m in METHODS}
    return [
        *outer_records(stage),
        *(
            eval_record(
                stage,
                method,
                arch,
                seed,
                0.58 + 0.006 * stage + 0.004 * k + level[method] + rng.gauss(0, 0.006),
                rows=rows[method],
                seconds=0.4 + (1.1 * stage if method == "full" else 0) + 0.1 * k,
            )
            for k, arch in enumerate(archs)
            for method in METHODS
            for seed in seeds
        ),
        stage_record(stage, stages),
    ]


def beside_the_past(records):
    """As where the next stage judges: those so far are scored beside it."""
    return [r | {"auc_current": 0.6} if r["kind"] == "eval" else r for r in records]


def run_records(stages=8, done=None, archs=ARCHS, seeds=(0, 1, 2)):
    """A run over a log of `stages` stages, of which the last is only scored on."""
    done = stages - 1 if done is None else done
    records = [r for s in range(1, done + 1) for r in stage_records(s, stages, archs, seeds)]
    if done == stages - 1:
        records.append({"kind": "run", "seconds": 212.5, "final_slots": 1200})
    return records
