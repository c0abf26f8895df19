"""The board and its neighbours run as commands, keep what is done, and print what they found."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import cli
import pytest

from benchmarks.board_methods import configured, digest
from benchmarks.board_page import made_with

BOARDS = Path(cli.ROOT, "benchmarks", "results", "board")
SMALL = cli.SMALL | {"stages.count": 2, "eval.archs": ("LR",)}
FLAGS = [f"--config.{key}={value}" for key, value in SMALL.items()]


def command(module: str, *args: str) -> None:
    done = start(module, *args)
    assert done.returncode == 0, done.stderr


def start(module: str, *args: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", f"benchmarks.{module}", "--config=configs/quickstart.py"]
    return subprocess.run([*command, *FLAGS, *args], cwd=cli.ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["quickstart", "movielens_100k", "transfer", "simulator"])
def test_every_cell_of_the_boards_is_still_known_by_its_config(name):
    # A key of the config that SINCE, BASE or BEGUN lack would have them all measured again.
    config = import_module(f"configs.{name}").get_config()
    if name == "simulator":
        config.eval.seeds = (0,)
    lines = map(json.loads, (BOARDS / f"{name}.jsonl").read_text().splitlines())
    cells = {(line["rate"], line["method"].removesuffix("_hard"), line["config"]) for line in lines}
    for rate, method, known in cells:
        assert digest(configured(config, name, rate, method)) == known, (rate, method)


def test_a_page_tells_the_environments_of_its_cells():
    gpu, cpu = (
        {"env": {"jax": "0.9", "devices": devices}} for devices in (["H100", "H100"], ["cpu"])
    )
    assert made_with([{}, {}]) == "CPU, versions not kept"
    assert made_with([gpu, cpu, gpu]) == "JAX 0.9, H100; JAX 0.9, cpu"
    assert made_with([{}, gpu]) == "JAX 0.9, H100; older cells: CPU, versions not kept"


def test_the_board_judges_by_rates_that_validation_chose_and_does_nothing_twice(tmp_path):
    args = ["--rates=0.005", "--methods=random_hard,random_soft,diet", "--tune_seeds=0"]
    args += ["--seeds=1", "--lrs=0.001,0.05", "--l2=0", f"--root={tmp_path}"]
    command("board", *args)
    file = tmp_path / "benchmarks" / "results" / "board" / "quickstart.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    methods = {"random_hard", "random_soft", "diet", "diet_hard"}
    keys = [(line["phase"], line["seed"], line["method"]) for line in lines]
    assert len(keys) == len(set(keys))
    assert set(keys) == {("tune", 0, m) for m in methods} | {
        ("test", 1, m) for m in (*methods, "full")
    }
    grids = {line["method"]: line["grid"] for line in lines if line["phase"] == "tune"}
    for line in lines:
        if line["phase"] == "test":
            assert all(len(aucs) == 1 and 0.4 < min(aucs) for aucs in line["auc"].values())
            for arch, (lr, _) in line["rates"].items():
                tried = {row[1]: row[3] for row in grids.get(line["method"], []) if row[0] == arch}
                assert not tried or lr == max(tried, key=lambda rate: tried[rate])
    table = (tmp_path / "docs" / "board" / "quickstart.md").read_text()
    assert all(f"`{name}`" in table for name in (*methods, "full"))
    assert next(row for row in table.splitlines() if "`full`" in row).split(" | ")[2] == "1.00"
    before = file.read_text()
    command("board", *args)
    assert file.read_text() == before
    assert all(line["env"]["jax"] and line["env"]["devices"] for line in lines)
    other = [*args, "--methods=random_hard,herding_hard", "--lrs=0.001,0.1"]
    refused = start("board", *other)
    assert refused.returncode and "--lrs=0.001,0.05 --l2=0;" in refused.stderr.splitlines()[-1]
    command("board", *other, "--nomeasure")
    assert file.read_text() == before


def test_an_exploration_is_one_line(tmp_path):
    out = tmp_path / "lines.jsonl"
    command("explore", "--windows=0.5", "--name=small", f"--out={out}")
    (line,) = map(json.loads, out.read_text().splitlines())
    assert line["name"] == "small" and line["values"]["outer"]["steps"] == 10
    assert set(line["by_arch"]) == {"LR"} and len(line["runs"]) == 1
    assert 0.4 < line["auc"] < 1 and line["auc"] == line["by_arch"]["LR"]


def test_teachers_are_compared_in_one_table(tmp_path):
    args = ["--windows=0.5", "--archs=LR", "--lrs=0.0001,0.01", "--passes=1", "--seeds=0"]
    command("teachers", *args, f"--out={tmp_path}")
    slow, fast = json.loads((tmp_path / "teachers_quickstart.json").read_text())["table"]
    assert slow["auc"] < fast["auc"] < 1 and fast["auc_ahead"] > 0.5


def test_planted_rows_are_found_by_their_influence(tmp_path):
    out = tmp_path / "planted.json"
    change = {"data.options.n_rows": 16_000, "inner.archs": "('LR',)", "inner.lr.LR": 0.02}
    change |= {"inner.steps": 30, "inner.batch": 128, "growth.block": 512}
    args = ["--config=configs/simulator.py", "--seeds=0", "--runs=1", f"--out={out}"]
    args += [f"--config.{key}={value}" for key, value in change.items()]
    subprocess.run([sys.executable, "-m", "benchmarks.planted", *args], check=True, cwd=cli.ROOT)
    (entry,) = json.loads(out.read_text()).values()
    exact, one_step = (entry["table"][f"LR, {score}"] for score in ("exact", "one step"))
    assert exact["precision"] >= 0.5 > 100 * exact["chance"] > one_step["precision"]


def test_influence_predicts_drops_where_training_is_smooth(tmp_path):
    out = tmp_path / "lds.json"
    command(
        "lds",
        "--seeds=0",
        "--subsets=20",
        "--runs=2",
        "--config.inner.optimizer=adagrad",
        "--config.inner.lr.LR=0.1",
        f"--out={out}",
    )
    ((name, entry),) = json.loads(out.read_text()).items()
    assert name.startswith("quickstart ")
    assert all(f" {option}" in name for option in ("--seeds=0", "--subsets=20", "--runs=2"))
    assert "--drop" not in name and "--drop=0.05" in entry["options"]
    assert entry["table"]["LR, exact"]["lds"] > 0.9
    assert entry["table"]["LR, exact"]["to_exact"] == pytest.approx(1)
