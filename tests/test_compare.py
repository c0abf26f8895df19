"""A comparison over a zoo trains every variant on every subset once, and says how ranks agree."""

import numpy as np
import polars as pl
import pytest
import toy
from ml_collections import ConfigDict

from configs import zoo as published_zoo
from diet_jax import evaluate
from diet_jax.job import State, prepare
from diet_jax.models import MODELS
from diet_jax.report import zoo as page
from diet_jax.report.zoo import Choice
from diet_jax.run import begin, extend, judge
from diet_jax.types import InputError

ENV = {"jax": "1", "device": "toy"}


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    """What one stage of a run of two evaluation seeds might leave: random rows as its memory."""
    root = tmp_path_factory.mktemp("runs")
    pl.DataFrame(toy.log()).write_parquet(root / "log.parquet")
    job = prepare(
        toy.config(str(root / "log.parquet"), **{"eval.seeds": (0, 4), "teacher.arch": "LR"})
    )
    turn = begin(job, job.first, 1)
    rivals = extend(job, job.first, turn)
    state = State(rivals["random_soft"][0], turn.look.params, rivals)
    return evaluate.Memory(root / "run", job, state, 1)


def grid(lrs=(), settings=()) -> ConfigDict:
    variants = {
        "LR": {"arch": "LR", "dim": 1, "hidden": ()},
        "FM": {"arch": "FM", "dim": 2, "hidden": ()},
    }
    methods = ("full", "memory", "random_soft")
    found = {"methods": methods, "lrs": lrs, "l2s": (), "settings": settings}
    return ConfigDict(found | {"variants": variants})


def test_every_variant_is_trained_once_and_full_data_with_twice_the_seeds(memory):
    records = sum(evaluate.measure([memory], grid(), {}, []), [])
    seeds = {"full": {0, 4, 5, 6}, "memory": {0, 4}, "random_soft": {0, 4}}
    assert len(records) == 2 * (4 + 2 + 2)
    for method, wanted in seeds.items():
        for name in ("LR", "FM"):
            mine = [r for r in records if (r["method"], r["variant"]) == (method, name)]
            assert {r["seed"] for r in mine} == wanted
            assert {(r["lr"], r["l2"]) for r in mine} == {memory.job.evaluation.rates(method, name)}
    own = [r["auc"] for r in judge(memory.job, memory.state, 1, ("memory",))]
    assert [r["auc"] for r in records if place(r) == ("memory", "LR")] == pytest.approx(own)
    assert not [*evaluate.measure([memory], grid(), {}, records)]
    more = sum(
        evaluate.measure([memory], grid(lrs=(0.5,)), {("full", "FM"): Choice(0.3, 0)}, records), []
    )
    assert {r["lr"] for r in more if place(r) == ("full", "FM")} == {0.3, 0.5}
    assert {r["lr"] for r in more if place(r) != ("full", "FM")} == {0.5}


def place(record):
    return record["method"], record["variant"]


def test_settings_are_tried_at_every_rate_and_obeyed_when_chosen(memory):
    zoo = grid(lrs=(0.5,), settings=("", "init_scale=3.0"))
    records = sum(evaluate.measure([memory], zoo, {}, []), [])
    mine = [r for r in records if place(r) == ("memory", "FM") and r["lr"] == 0.5]
    small, large = ({r["auc"] for r in mine if r["setting"] == s} for s in zoo.settings)
    assert len(small) == len(large) == 2 and not small & large
    best = {("memory", "FM"): Choice(0.5, 0.0, "init_scale=3.0")}
    again = sum(evaluate.measure([memory], grid(), best, []), [])
    assert {r["auc"] for r in again if place(r) == ("memory", "FM")} == large


def test_the_best_rates_are_those_of_the_highest_mean():
    aucs = {(0.1, 0.0): (0.6, 0.9), (0.2, 0.0): (0.7, 0.7), (0.2, 0.5): (0.8, 0.75)}
    records = [
        {"method": "memory", "variant": "FM", "lr": lr, "l2": l2, "auc": auc}
        for (lr, l2), two in aucs.items()
        for auc in two
    ]
    assert evaluate.best(records) == {("memory", "FM"): Choice(0.2, 0.5)}
    records.append(records[0] | {"auc": 0.95, "setting": "init_scale=0.1"})
    assert evaluate.best(records) == {("memory", "FM"): Choice(0.1, 0.0, "init_scale=0.1")}


def test_the_published_zoo_has_two_dozen_variants_of_known_architectures():
    for how in ("", "tune", "tune_full"):
        variants = published_zoo.get_config(how).variants
        assert len(variants) >= 24 and {v.arch for v in variants.values()} <= set(MODELS)


def test_what_is_no_run_is_an_error_that_says_so(tmp_path):
    with pytest.raises(InputError, match="holds no run with a finished stage"):
        evaluate.open_run(tmp_path)
    with pytest.raises(InputError, match="trials.jsonl does not exist"):
        evaluate.known_file(str(tmp_path))


def synthetic(order, noise):
    """Records of three variants on full data, and on a memory that ranks them by `order`."""
    rng = np.random.default_rng(0)
    records = []
    for run_name in ("a", "b"):
        for method, base, seeds in (
            ("full", 0.70, 4),
            ("memory", 0.65, 2),
            ("random_hard", 0.6, 2),
        ):
            for k, name in enumerate(("x", "y", "z")):
                at = order[k] if method == "memory" else k
                for lr, loss in ((0.1, 0.0), (0.2, 0.005)):
                    for seed in range(seeds):
                        auc = base + 0.01 * at - loss + noise * rng.normal()
                        record = {"auc": auc, "gauc": auc, "logloss": 0.5, "ece": 0.1}
                        record |= {"seconds": 9.0 if method == "full" else 1.0, "lr": lr, "l2": 0.0}
                        record |= {"seconds_compile": float(run_name == "a"), "ctr_ratio": 1.0}
                        about = {"seed": seed, "run": run_name, "method": method, "variant": name}
                        about |= {"arch": name, "stage": 1}
                        records.append(record | about)
    return records


@pytest.mark.parametrize(
    ("order", "tau"), [((0, 1, 2), "1.00 ± 0.00"), ((2, 1, 0), "-1.00 ± 0.00")]
)
def test_the_page_says_how_the_ranks_agree_and_what_it_cost(tmp_path, order, tau):
    records = synthetic(order, 1e-6)
    chosen = {(m, n): Choice(0.1, 0.0) for m in ("full", "memory", "random_hard") for n in "xyz"}
    variants = {name: {"arch": "LR"} for name in "xyz"}
    text = page.write(tmp_path, records, variants, chosen, ENV).read_text()
    rows = {tuple(line.split(" | "))[0]: line for line in text.splitlines() if line.startswith("|")}
    ranks = next(line for line in text.splitlines() if line.startswith(f"| memory | {tau}"))
    assert "| 1.00 |" in ranks  # the ceiling
    assert ("100 % of 3" in ranks) == (order == (0, 1, 2))
    assert "| full data | 0.7100 |  |  |  | 27.0 |  | 3 |" in text
    # Half of the way from random rows; of those with the teacher's labels there are none.
    assert "| memory | 0.6600 | 0.0500 | 0.50 |  | 3.0 | 9 x | 3 |" in text
    assert "| memory | 100 % | 0.0000 |" in text  # the best rate carries over
    assert rows["| x"].startswith("| x | 0.7000 ± 0.0000 |")
    assert (tmp_path / "zoo.svg").stat().st_size > 1000
    assert "died" not in text and "Set, as" not in text
    set_so = chosen | {("memory", "x"): Choice(0.1, 0.0, "dim=4")}
    assert "- dim=4 on memory: x\n" in "\n".join([*page.settings(set_so), ""])
    one = next(i for i, r in enumerate(records) if (r["method"], r["lr"]) == ("memory", 0.1))
    records[one] |= {"auc": 0.5, "gauc": 0.5}
    text = page.write(tmp_path, records, variants, chosen, ENV).read_text()
    assert "died, their model answering all rows alike: 1." in text
    assert "x on memory, stage 1, seed 0 of a." in text
