"""Rates are chosen on validation rows, by trials that a run would make, none of them twice."""

import subprocess
import sys

import cli
import polars as pl
import pytest
import toy

from diet_jax import run
from diet_jax.rates import Grid, lines, table, tried
from diet_jax.record import read_records
from diet_jax.types import InputError

GRID = Grid(((0.01, 0.001), (0.05, 0.004)), (0.0, 0.1), (0,), ("full", "memory", "random_soft"))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Of a run that trains with rates of the grid and is judged on validation rows."""
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    pl.DataFrame(toy.log(stages=3)).write_parquet(path)
    rates = {"memory": 0.05, "random_soft": 0.01, "full": 0.004}
    change = {f"eval.lr.{method}.default": lr for method, lr in rates.items()}
    change |= {f"eval.l2.{method}.default": 0.1 for method in rates}
    return toy.config(str(path), **change | {"stages.count": 3})


def test_every_trial_is_that_of_a_run_and_none_is_done_twice(config, tmp_path, monkeypatch):
    folder = tmp_path / "tune"
    found = tried(config, folder, GRID, {})
    assert len(found) == 2 * 2 * 3 * 4  # stages, evaluation seeds, methods, points
    assert config.eval.on == "next"
    validation = toy.config(config.data.path, **{"stages.count": 3, "eval.on": "validation"})
    validation.eval.update(lr=config.eval.lr, l2=config.eval.l2)
    run.run(validation, str(tmp_path / "run"), {})
    whole = {
        (r["stage"], r["method"], r["seed"]): r["auc"]
        for r in read_records(tmp_path / "run" / "metrics.jsonl")
        if r["kind"] == "eval" and r["method"] in GRID.methods
    }
    rates = {"memory": (0.05, 0.1), "random_soft": (0.01, 0.1), "full": (0.004, 0.1)}
    same = {
        (r["stage"], r["method"], r["eval_seed"]): r["auc"]
        for r in found
        if (r["lr"], r["l2"]) == rates[r["method"]]
    }
    assert same == pytest.approx(whole, abs=1e-6) and len(same) == 12

    file = folder / "trials.jsonl"
    text = file.read_text()
    file.write_text("".join(text.splitlines(keepends=True)[:-1]) + '{"seed"')  # cut in a write
    monkeypatch.delattr(run, "distill_stage")  # the memories are there
    again = tried(config, folder, GRID, {})
    assert table(again) == table(found)
    wider = GRID._replace(l2s=(0.0, 0.1, 1.0), methods=("memory",))
    more = tried(config, folder, wider, {})
    assert len(again) == len(found) + 1  # the other evaluation seed of that cell, too
    assert more[: len(again)] == again and {r["l2"] for r in more[len(again) :]} == {1.0}
    assert len(more) - len(again) == 2 * 2 * 2


def test_of_another_log_or_method_nothing_is_tried(config, tmp_path):
    with pytest.raises(InputError, match="--methods has 'memry'; choose from full, memory"):
        tried(config, tmp_path / "tune", GRID._replace(methods=("memry",)), {})
    assert not (tmp_path / "tune").exists()


def trial(auc, seed=0, lr=0.1, arch="FM", l2=0.0):
    about = {"seed": seed, "stage": 1, "method": "memory", "arch": arch, "lr": lr, "l2": l2}
    return about | {"eval_seed": 0, "auc": auc}


def test_the_best_mean_is_chosen_and_a_choice_at_the_edge_is_named():
    records = [trial(0.5), trial(0.7, 1), trial(0.65, lr=0.2), trial(0.6, 1, lr=0.2)]
    records += [trial(0.9, lr=0.4), trial(0.61, lr=0.3), trial(0.62, 1, lr=0.3)]  # 0.4: one seed
    records += [trial(None, arch="LR"), trial(0.8, arch="MLP"), trial(None, arch="MLP", lr=0.2)]
    records += [trial(0.5), trial(0.7, arch="MLP:hidden=(8,)")]  # the first once more
    assert lines(table(records)) == [
        "c.eval.lr.memory.FM, c.eval.l2.memory.FM = 0.2, 0  # AUC 0.6250",
        "# memory, LR: no training came to an end; give lower rates",
        "c.eval.lr.memory.MLP, c.eval.l2.memory.MLP = 0.1, 0  # AUC 0.8000, the grid's edge",
        'c.eval.lr.memory["MLP:hidden=(8,)"], c.eval.l2.memory["MLP:hidden=(8,)"] = 0.1, 0'
        "  # AUC 0.7000",
    ]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--lrs=0.1,0.2",), "--lrs has 2 rates and --full_lrs 8"),
        (("--l2=x",), "--l2 is 'x'; give numbers"),
    ],
)
def test_a_bad_command_line_ends_with_one_line(tmp_path, args, words):
    given = [*args, "--config=configs/quickstart.py", f"--workdir={tmp_path / 'w'}"]
    command = [sys.executable, "-m", "diet_jax.tune", *given]
    done = subprocess.run(command, cwd=cli.ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert words in done.stderr and not (tmp_path / "w").exists()
