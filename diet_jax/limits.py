"""What values a config may have, and what to set a key to instead."""

import math
import re
from collections.abc import Iterable
from operator import attrgetter

from ml_collections import ConfigDict

from diet_jax import memory as mem
from diet_jax.alike import MIX_BY
from diet_jax.bilevel import SCHEDULES
from diet_jax.matching import OBJECTIVES
from diet_jax.metagrad import MODES
from diet_jax.select import SELECTORS
from diet_jax.types import Config, InputError


def check(config: Config) -> None:
    """Raise InputError for a missing key, or the first value that no run can work with."""
    try:
        wanted = requirements(config)
    except AttributeError as error:  # of ml_collections, whose message is a repr with the key
        raise InputError(
            f"the config has no key {re.findall(r'[a-z_0-9]+', str(error))[0]!r}: start it from "
            "configs/default.py, which has them all; a run of another version of diet_jax keeps "
            "its config in config.json, where a key can be added"
        ) from None
    for name, good, want in wanted:
        if not good:
            value = attrgetter(name)(config)
            said = value.to_dict() if isinstance(value, ConfigDict) else value
            raise InputError(f"{name} is {said!r}; set it to {want}")


def requirements(config: Config) -> list[tuple[str, bool, str]]:
    """By key: whether its value is one that a run can work with, and which are."""
    c, o, g, e = config, config.outer, config.growth, config.eval
    i, starts = c.inner, ("fresh", "teacher", "mixed")
    floats, full_by = ("float32", "bfloat16"), ("adam", "lazy_adam")
    # Rates of inner training have a derivative where its steps have, and that loss is asked for.
    by_steps = i.mode in ("full", "random", "adaptive") and o.objective == "loss"
    from_start = o.objective not in ("distribution", "trajectory")
    twins = tuple(i.archs) == (c.teacher.arch,) and i.hidden == c.teacher.hidden
    more = c.teacher.more
    others = len({c.teacher.arch, *more}) == 1 + len(more)
    leaves = ("label_logit", "log_weight", "dense", "mix", "rates")
    grow_by, ways = ("influence", *SELECTORS), tuple(mem.ADDRESSING)
    tables = {"inner.lr": i.lr, "inner.l2": i.l2}
    tables |= {f"eval.lr.{name}": table for name, table in e.lr.items()}
    tables |= {f"eval.l2.{name}": table for name, table in e.l2.items()}
    return [
        ("seed", c.seed >= 0, "0 or more"),
        ("resident_mebibytes", c.resident_mebibytes >= 0, "0 or more"),
        ("memory.rate", 0 < c.memory.rate < 1, "between 0 and 1"),
        ("memory.budget", c.memory.budget >= 0, "0 or more"),
        ("memory.mix", c.memory.mix >= 1, "1 or more"),
        ("memory.own", 0 <= c.memory.own <= c.memory.mix, "0 to memory.mix"),
        ("memory.mix_by", c.memory.mix_by in MIX_BY, f"one of {', '.join(MIX_BY)}"),
        ("memory.mix", c.memory.mix == 1 or o.objective == "loss", "1 here: loss only"),
        ("inner.hidden", whole(i.hidden, 1), "whole numbers of 1 or more"),
        ("inner.dim", i.dim >= 1, "1 or more"),
        ("inner.window", 1 <= i.window <= i.steps, "1 to inner.steps"),
        ("inner.batch", i.batch >= 1, "1 or more"),
        ("inner.archs", len(set(i.archs)) == len(i.archs) > 0, "distinct names, at least one"),
        ("inner.mode", i.mode in MODES, f"one of {', '.join(MODES)}"),
        ("inner.decay", i.decay >= 0, "0 or more"),
        ("inner.compute", i.compute in floats, " or ".join(floats)),
        ("inner.start", i.start in starts, " or ".join(starts)),
        ("inner.start", i.start == "fresh" or twins, "fresh, or archs and hidden to the teacher's"),
        ("inner.start", i.start == "fresh" or from_start, f"fresh: {o.objective} has its own"),
        ("inner.mebibytes", i.mebibytes >= 1, "1 or more"),
        ("inner.unroll", i.unroll >= 1, "1 or more"),
        ("inner.damping", i.damping >= 0, "0 or more"),
        ("inner.solves", i.solves >= 1, "1 or more"),
        ("outer.clip", o.clip >= 0, "0 or more"),
        ("outer.schedule", o.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
        ("outer.objective", o.objective in OBJECTIVES, f"one of {', '.join(OBJECTIVES)}"),
        ("outer.learn", o.learn and set(o.learn) <= set(leaves), f"some of {', '.join(leaves)}"),
        ("outer.learn", c.memory.mix > 1 or {*o.learn} != {"mix"}, "more than mix"),
        (
            "outer.learn",
            "rates" not in o.learn or by_steps,
            "leaves without rates, or inner.mode to full, random or adaptive, objective to loss",
        ),
        ("outer.lr", o.lr >= 0, "0 or more"),
        ("outer.steps", o.steps >= 1, "1 or more"),
        ("outer.first_factor", o.first_factor > 0, "above 0"),
        ("outer.chunk", o.chunk >= 1, "1 or more"),
        ("outer.trajectories", o.trajectories >= 1, "1 or more"),
        ("outer.batch", o.batch >= 1, "1 or more"),
        ("outer.anchor_batch", o.anchor_batch >= 1, "1 or more"),
        ("outer.anchor", 0 <= o.anchor <= 1, "0 to 1"),
        ("outer.label_share", 0 <= o.label_share <= 1, "0 to 1"),
        ("outer.hide_above", 0 <= o.hide_above <= 1, "0 to 1"),
        ("outer.tail", 0 < o.tail < 1, "between 0 and 1"),
        ("growth.rounds", g.rounds >= 1, "1 or more"),
        ("growth.final_share", 0 <= g.final_share <= 1, "0 to 1"),
        ("growth.block", g.block >= 1, "1 or more"),
        ("growth.pool", g.pool >= g.block and not g.pool % g.block, "a multiple of growth.block"),
        ("growth.spread_cap", g.spread_cap >= 1, "1 or more"),
        ("growth.max_logit", g.max_logit > 0, "above 0"),
        ("growth.select", g.select in grow_by, f"one of {', '.join(grow_by)}"),
        ("memory.scratch", c.memory.scratch in ("", "stage", "stream"), "'', stage or stream"),
        ("addressing.by", c.addressing.by in ways, f"one of {', '.join(ways)}"),
        ("addressing.swap_share", 0 <= c.addressing.swap_share <= 1, "0 to 1"),
        ("addressing.threshold", c.addressing.threshold >= 0, "0 or more"),
        ("addressing.share", 0 <= c.addressing.share <= 1, "0 to 1"),
        ("teacher.hidden", whole(c.teacher.hidden, 1), "whole numbers of 1 or more"),
        ("teacher.more", others, "distinct names, teacher.arch not among them"),
        ("teacher.lr", c.teacher.lr > 0, "above 0"),
        ("teacher.epochs", c.teacher.epochs > 0, "above 0"),
        ("teacher.first_epochs", c.teacher.first_epochs > 0, "above 0"),
        ("teacher.batch", c.teacher.batch >= 1, "1 or more"),
        ("eval.on", e.on in ("next", "validation"), "next or validation"),
        ("eval.validation_share", 0 < e.validation_share < 1, "between 0 and 1"),
        ("eval.archs", len(set(e.archs)) == len(e.archs) > 0, "distinct names, at least one"),
        ("eval.seeds", len(set(e.seeds)) == len(e.seeds) > 0, "distinct numbers, at least one"),
        ("eval.seeds", whole(e.seeds, 0, 1 << 30), "whole numbers from 0 to 2^30"),
        ("eval.hidden", whole(e.hidden, 1), "whole numbers of 1 or more"),
        ("eval.full_epochs", e.full_epochs > 0, "above 0"),
        ("eval.full_batch", e.full_batch >= 1, "1 or more"),
        ("eval.full_optimizer", e.full_optimizer in full_by, f"one of {', '.join(full_by)}"),
        *((key, "default" in table, "a table with `default`") for key, table in tables.items()),
        *(
            (key, all(rate > 0 for rate in table.values()), "numbers above 0")
            for key, table in tables.items()
            if ".lr" in key
        ),
        *(
            (key, all(l2 >= 0 for l2 in table.values()), "numbers of 0 or more")
            for key, table in tables.items()
        ),
        ("checkpoint.every", c.checkpoint.every >= 0, "0 or more"),
        ("mesh.trajectory", c.mesh.trajectory >= 0, "0 or more"),
        ("mesh.data", c.mesh.data >= 0, "0 or more"),
        ("mesh.table", c.mesh.table >= 1, "1 or more"),
    ]


def whole(numbers: Iterable, least: int, most: float = math.inf) -> bool:
    return all(isinstance(number, int) and least <= number <= most for number in numbers)
