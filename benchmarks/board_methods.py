"""The methods of a board: what each changes in a config, and by what its cells are known."""

import hashlib
import json

from benchmarks.windows import unlocked
from diet_jax.select import SELECTORS
from diet_jax.types import Config

ANY = [f"{s}_{labels}" for s in (*SELECTORS, "reservoir", "window") for labels in ("hard", "soft")]
LABELS = {"outer.label_share": 1.0, "outer.hide_above": 1.0}  # the outer loss on labels as they are
PLAIN = {"growth.select": "random", "inner.archs": ("DeepFM",), "memory.scratch": "stage"}
# Where a trajectory ends at any step, its mode is one_step.
MATCHING = {
    "gradient": "one_step",
    "distribution": "one_step",
    "trajectory": "random",
    "kernel": "one_step",
}
PROXIES = ("LR", "FM", "MLP", "DeepFM", "DCNv2")
# What all variants share but where they say otherwise, whatever the config has: a slot is one row.
BASE = {
    "memory.mix": 1,
    "memory.mix_by": "label",
    "inner.archs": ("LR", "DeepFM"),
    "outer.schedule": "constant",
}
# What a config had when its board was begun: all methods on it learn from one teacher.
BEGUN = {
    name: {"teacher.arch": "MLP", "teacher.lr": 1e-3, "teacher.first_epochs": 2.0}
    for name in ("movielens_100k", "transfer")
}
COSINE = {"outer.schedule": "cosine"}
MIX4 = {"memory.mix": 4, "inner.archs": ("DeepFM",)}
VARIANTS = {
    "diet": {},
    "diet_cosine": COSINE,
    "diet_on_DeepFM_cosine": COSINE | {"inner.archs": ("DeepFM",)},  # the default, one row a slot
    **{f"diet_mix4_on_{arch}_cosine": MIX4 | COSINE | {"inner.archs": (arch,)} for arch in PROXIES},
    "rat_bptt_teacher_cosine": PLAIN | COSINE,
    "rat_bptt_mix4_teacher_cosine": PLAIN | MIX4 | COSINE,
    "diet_labels": LABELS,
    **{f"diet_on_{arch}": {"inner.archs": (arch,)} for arch in PROXIES},
    "diet_mix4": {"memory.mix": 4},
    "diet_mix4_own1_on_DeepFM_cosine": MIX4 | COSINE | {"memory.own": 1},
    **{f"diet_mix{m}_on_DeepFM": MIX4 | {"memory.mix": m} for m in (4, 8)},
    # Random rows, mixed by their labels, with the teacher's as they are: what mixing alone gives.
    "random_mix4_soft": {
        "memory.mix": 4,
        "growth.select": "random",
        "growth.rounds": 1,
        "outer.steps": 1,
        "outer.lr": 0.0,
    },
    **{f"diet_{name}": {"growth.select": name} for name in ("random", "el2n", "grand", "tracin")},
    "rat_bptt_labels": PLAIN | LABELS,
    "rat_bptt_teacher": PLAIN,
    "bptt_labels": PLAIN | LABELS | {"inner.mode": "full"},
    "bptt_teacher": PLAIN | {"inner.mode": "full"},
    **{
        f"{name}_{target}": change | {"outer.objective": name, "inner.mode": mode}
        for name, mode in MATCHING.items()
        for target, change in (("labels", PLAIN | LABELS), ("teacher", PLAIN))
    },
    "one_step_labels": PLAIN | LABELS | {"inner.mode": "one_step"},
    "one_step_teacher": PLAIN | {"inner.mode": "one_step"},
}
ALSO_HARD = ("diet", "rat_bptt_teacher")

# A value that a key has now, and what stood for it when the first cells were made (None: nothing).
SINCE = {
    "resident_mebibytes": (1024, None),
    "data.more_labels": ([], None),
    "teacher.more": ([], None),
    "memory.mix": (1, None),
    "memory.own": (0, None),
    "memory.mix_by": ("label", None),
    "addressing.threshold": (0.0, None),
    "inner.unroll": (1, None),
    "inner.rotate": (False, None),
    "memory.budget": (0, None),
    "checkpoint.every": (10.0, None),
    "outer.schedule": ("constant", None),
    "addressing.swap_share": (0.0, None),
    "outer.learn": (["label_logit", "log_weight", "mix"], ["label_logit", "log_weight"]),
}


def names_of(group: tuple[str, ...], phase: str) -> tuple[str, ...]:
    """The methods that a group gives: baselines, or a variant and its hard form. The reference on
    all rows comes with baselines; its rates are the config's, from the same grid."""
    if group[0] not in VARIANTS:
        return (*group, "full") if phase == "test" else group
    return (*group, f"{group[0]}_hard") if group[0] in ALSO_HARD else group


def configured(config: Config, board: str, rate: float, method: str) -> Config:
    """A copy of the board's config with what a method changes, of seed 0."""
    config = unlocked(config)
    config.memory.rate, config.seed = rate, 0
    config.update_from_flattened_dict(BASE | BEGUN.get(board, {}) | VARIANTS.get(method, {}))
    return config


def digest(config: Config) -> str:
    """By which a cell is known: what was asked for, but not where the log lies on this machine, and
    not the rates that are chosen here.

    A config that says with newer keys what it once said without them keeps its digest.
    """
    said = json.loads(config.to_json())
    said["data"]["path"] = ""
    for block in ("lr", "l2"):
        said["eval"][block] = {"full": said["eval"][block]["full"]}
    for name, (now, before) in SINCE.items():
        *block, key = name.split(".")
        where = said[block[0]] if block else said
        if where[key] == now:
            where[key] = before
        if where[key] is None:
            del where[key]
    said = {key: value for key, value in said.items() if value != {}}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]
