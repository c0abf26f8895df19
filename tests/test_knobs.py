"""Every knob of the config reaches the part that it is of, and no other."""

from types import SimpleNamespace

import pytest
from ml_collections import ConfigDict

from configs import default
from diet_jax.bilevel import Plan
from diet_jax.data.features import Scale
from diet_jax.job import make_plan, make_proxies
from diet_jax.metagrad import Inner
from diet_jax.optim import Optimizer
from diet_jax.run import outer_steps, recipe
from diet_jax.types import Schema

SCHEMA = Schema(("user", "item", "tags"), (), (0, 1, 2, 2), (0, 1, 2, 2))

# By field of Plan, where the config says it and another value than the default.
PLAN = {
    "learn": ("outer.learn", ("log_weight", "dense")),
    "lr": ("outer.lr", 0.5),
    "trajectories": ("outer.trajectories", 3),
    "batch": ("outer.batch", 77),
    "anchor_batch": ("outer.anchor_batch", 33),
    "anchor": ("outer.anchor", 0.11),
    "label_share": ("outer.label_share", 0.22),
    "max_logit": ("growth.max_logit", 1.5),
    "rounds": ("growth.rounds", 5),
    "final_share": ("growth.final_share", 0.66),
    "chunk": ("outer.chunk", 7),
    "write_share": ("addressing.share", 0.77),
    "pool": ("growth.pool", 8192),
    "block": ("growth.block", 512),
    "spread_field": ("growth.spread_field", "tags"),
    "spread_cap": ("growth.spread_cap", 9),
    "swap_share": ("addressing.swap_share", 0.3),
    "address_by": ("addressing.by", "random"),
    "objective": ("outer.objective", "kernel"),
    "clip": ("outer.clip", 2.5),
    "schedule": ("outer.schedule", "constant"),
    "start": ("inner.start", "mixed"),
    "threshold": ("addressing.threshold", 0.7),
    "own": ("memory.own", 2),
    "mix_by": ("memory.mix_by", "label"),
    "rotate": ("inner.rotate", True),
}
# The same of Inner.
INNER = {
    "steps": ("inner.steps", 90),
    "batch": ("inner.batch", 64),
    "window": ("inner.window", 11),
    "mode": ("inner.mode", "adaptive"),
    "offload": ("inner.offload", True),
    "unroll": ("inner.unroll", 4),
    "mixed": ("inner.mixed", True),
    "damping": ("inner.damping", 0.5),
    "solves": ("inner.solves", 6),
}


def config(**change):
    """By dotted key."""
    c = default.get_config()
    c.update_from_flattened_dict(change)
    return c


def plan(**change) -> Plan:
    return make_plan(config(**change), SimpleNamespace(schema=SCHEMA))


def test_no_field_of_the_plan_is_left_out():
    assert set(PLAN) == set(Plan._fields) - {"columns"}
    assert plan().columns == SCHEMA.pool


@pytest.mark.parametrize("field", PLAN)
def test_a_knob_changes_its_field_of_the_plan(field):
    key, value = PLAN[field]
    before, after = plan(), plan(**{key: value})
    want = 2 if field == "spread_field" else value  # the column of the field
    assert getattr(before, field) != want
    assert after == before._replace(**{field: want})


def test_shares_of_mixtures_are_learned_where_there_are_mixtures():
    assert plan(**{"memory.mix": 4}).learn == ("label_logit", "log_weight", "mix")
    assert plan(**{"memory.mix": 1}).learn == ("label_logit", "log_weight")
    assert plan(**{"growth.spread_field": ""}).spread_field == -1


@pytest.mark.parametrize("field", INNER)
def test_a_knob_changes_its_field_of_the_inner_loop(field):
    def inner(**change):
        (made,) = make_proxies(config(**change), SCHEMA, 1)
        return made._replace(model=None)

    key, value = INNER[field]
    assert getattr(inner(), field) != value
    assert inner(**{key: value}) == inner()._replace(**{field: value})


def test_each_proxy_has_its_own_architecture_rate_and_penalty():
    """By its name without settings, too; what is not named has the default."""
    archs = "LR", "FM", "DCNv2:n_cross=3", "MLP"
    change = {
        "inner.archs": archs,
        "inner.dim": 3,
        "inner.init_scale": 0.5,
        "inner.compute": "bfloat16",
        "inner.mebibytes": 96,
        "inner.optimizer": "adamw",
        "inner.momentum": 0.7,
        "inner.eps_root": 1e-3,
        "inner.decay": 0.3,
    }
    c = config(**change)
    c.inner.lr = ConfigDict({"default": 0.1, "LR": 0.2, "FM": 0.3, "DCNv2": 0.4})
    c.inner.l2 = ConfigDict({"default": 0.01, "FM": 0.03, "DCNv2:n_cross=3": 0.04})
    made = make_proxies(c, SCHEMA, copies=2)
    assert [p.model.name for p in made] == list(archs)
    assert [p.lr for p in made] == [0.2, 0.3, 0.4, 0.1]
    assert [p.l2 for p in made] == [0.01, 0.03, 0.04, 0.01]
    for p in made:
        assert p.optimizer == Optimizer("adamw", 0.7, 1e-3, 0.3)
        assert p.budget == 96 * 2**20 // (2 * 4)  # of both trajectories and all four
        assert (p.model.init_scale, p.model.compute) == (0.5, "bfloat16")
        assert p.model.pool == SCHEMA.pool
    assert made[-1].model.width == 3
    others = {"model", "lr", "l2", "optimizer", "budget", "place"}
    assert set(Inner._fields) == set(INNER) | others


def test_the_first_stage_has_its_own_number_of_outer_steps():
    c = config(**{"outer.steps": 50, "outer.first_factor": 2.5})
    assert [outer_steps(c, number) for number in (1, 2, 3)] == [125, 50, 50]
    assert outer_steps(config(**{"outer.steps": 1, "outer.first_factor": 0.1}), 1) == 1


def test_the_recipe_is_how_models_are_trained_on_the_memory():
    c = default.get_config()
    for k, method in enumerate(c.eval.lr, 1):
        c.eval.lr[method] = ConfigDict({"default": 0.1 * k, "FM": 0.01 * k})
        c.eval.l2[method] = ConfigDict({"default": 1.0 * k, "LR": 2.0 * k})
    stream = SimpleNamespace(schema=SimpleNamespace(dense=()), scales=())
    said = recipe(SimpleNamespace(config=c, stream=stream), SimpleNamespace(rates=None))
    assert said["lr"] == c.eval.lr.memory.to_dict() != c.eval.lr.full.to_dict()
    assert said["l2"] == c.eval.l2.memory.to_dict() != c.eval.l2.full.to_dict()
    assert said["hidden"] == list(c.eval.hidden) != list(c.inner.hidden)
    for name in ("optimizer", "momentum", "eps_root", "decay", "steps", "batch", "dim"):
        assert said[name] == c.inner[name], name
    assert "rates" not in said and "dense" not in said
    scale = Scale(log=True, mean=1.0, sd=2.0, knots=())
    stream = SimpleNamespace(schema=SimpleNamespace(dense=("price",)), scales=(scale,))
    said = recipe(SimpleNamespace(config=c, stream=stream), SimpleNamespace(rates=None))
    assert said["dense"] == {"price": {"log": True, "mean": 1.0, "sd": 2.0, "knots": ()}}
