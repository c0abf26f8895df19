"""A sweep is one list of runs, whatever runs them; its table says what finished and what not."""

import importlib.util
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from operator import attrgetter
from types import SimpleNamespace

import cli
import fakes
import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

from configs.sweeps import ablation, rate, rates
from diet_jax.limits import check
from diet_jax.record import read_records
from diet_jax.summary import summarize
from launch import sweep
from launch.sweep import Trial, arguments, draw_figure, expand, markdown, merge


def a_sweep(mode: str, **change) -> ConfigDict:
    c = ablation.get_config()
    c.update(
        {"mode": mode, "seeds": (0, 1), "axes": (("a.b", (1, 2)), ("c", ("x", "y"))), **change}
    )
    return c


def test_modes_expand_to_the_changes_they_promise():
    found = {mode: expand(a_sweep(mode, samples=3)) for mode in sweep.MODES}
    alone = [{}, {"a.b": 1}, {"a.b": 2}, {"c": "x"}, {"c": "y"}]
    assert [t.change for t in found["one_at_a_time"] if t.seed == 1] == alone
    assert len(found["grid"]) == 8 and Trial({"a.b": 2, "c": "x"}, 1) in found["grid"]
    assert found["grid"] == found["halving"]
    assert found["random"] == expand(a_sweep("random", samples=3))  # so that it can resume
    bounds = (("lr", {"low": 0.1, "high": 10.0, "log": True}),)
    drawn = [t.change["lr"] for t in expand(a_sweep("random", samples=40, seeds=(0,), axes=bounds))]
    assert min(drawn) < 0.5 and max(drawn) > 2 and all(0.1 <= x <= 10 for x in drawn)


@pytest.mark.parametrize(
    ("change", "named"), [({"axes": (("a", 3),)}, "tuple of values"), ({"mode": "all"}, "one_at_")]
)
def test_a_sweep_that_cannot_be_read_is_refused(change, named):
    with pytest.raises(sweep.InputError, match=named):
        expand(a_sweep(**({"mode": "grid"} | change)))


@pytest.mark.parametrize("module", [ablation, rate, rates])
def test_what_the_sweeps_change_comes_back_from_the_command_line(module, tmp_path, monkeypatch):
    config = module.get_config()
    trials = [trial for trial in expand(config) if trial.seed == 0]
    assert len({trial.name for trial in trials}) == len(trials) > 3
    monkeypatch.chdir(cli.ROOT)
    for trial in trials:
        file, workdir, *words = arguments(config, trial, tmp_path, [])
        assert workdir.startswith("--workdir=") and not any(" " in word for word in words)
        monkeypatch.setattr(sys, "argv", ["", file, *words])  # ml_collections looks there
        values = flags.FlagValues()
        parsed = config_flags.DEFINE_config_file("config", flag_values=values, lock_config=True)
        values(sys.argv)
        for key, want in trial.change.items():
            assert attrgetter(key)(parsed.value) == want
        check(parsed.value)  # it is one that a run can work with


@pytest.fixture
def ran(tmp_path):
    """A sweep of which one trial of two finished; the other one failed."""
    trials = [Trial({"outer.lr": lr}, 0) for lr in (0.1, 0.2)]
    for trial, text in zip(trials, ("", "one\nerror: no | room\n"), strict=True):
        folder = tmp_path / "trials" / trial.name
        folder.mkdir(parents=True)
        (folder / "said.txt").write_text(text)
    records = fakes.run_records(stages=4)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "trials" / trials[0].name / "metrics.jsonl").write_text(lines)
    return trials, tmp_path


def test_one_table_and_one_figure_hold_what_finished_and_what_failed(ran):
    trials, folder = ran
    good, bad = merge(trials, folder)
    summary = summarize(read_records(folder / "trials" / trials[0].name / "metrics.jsonl"))
    assert good["R"]["mean"] == summary["overall"]["R"]["ratio_of_means"]
    assert [stage["stage"] for stage in sweep.measures(summary)] == summary["stages"] == [1, 2, 3]
    assert good["finished"] == [trials[0].name] and "R" not in bad
    table = markdown([good, bad]).splitlines()
    assert table[2].startswith("| outer.lr=0.1 | ") and table[3].endswith("| 1: error: no / room |")
    draw_figure([good, bad], "R", folder / "figure.svg")
    assert "outer.lr=0.1" in ET.tostring(ET.parse(folder / "figure.svg").getroot(), "unicode")


def test_a_change_is_judged_by_pairs_of_seed_and_stage(ran):
    """Its gain is what both have, and its error that of the mean of so many pairs."""
    (trial, _), folder = ran
    as_it_is, change = ([Trial(c, seed) for seed in (0, 1)] for c in ({}, trial.change))
    records = read_records(folder / "trials" / trial.name / "metrics.jsonl")
    for trials, more in ((as_it_is, (0, 0, 0)), (change[:1], (0.03, 0.01, 0.02))):
        for one in trials:
            file = folder / "trials" / one.name / "metrics.jsonl"
            file.parent.mkdir(exist_ok=True)
            moved = [
                r | {"auc": r["auc"] + more[r["stage"] - 1], "auc_past": 0.6 + 0.01 * r["stage"]}
                if r["kind"] == "eval" and r["method"] == "memory"
                else r
                for r in records
            ]
            file.write_text("".join(json.dumps(r) + "\n" for r in moved))
    plain, gained = merge([*as_it_is, *change], folder)
    assert gained["gain"] == pytest.approx({"mean": 0.02, "se": 0.01 / 3**0.5})
    assert "gain" not in plain and len(plain["finished"]) == 2 and len(gained["unfinished"]) == 1
    assert gained["past"]["mean"] == pytest.approx(0.63)
    assert "| +0.0200 ± 0.0058 | 0.6300 |" in markdown([plain, gained])


def start(*words, **env: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "launch.sweep", *map(str, words)]
    return subprocess.run(
        command, cwd=cli.ROOT, env=os.environ | env, capture_output=True, text=True
    )


def test_a_slurm_array_has_a_line_for_each_trial_and_needs_no_ray(tmp_path):
    words = "--sweep=configs/sweeps/rates.py", "--slurm", f"--workdir={tmp_path}"
    words += ("--sweep.resources.gpu=0.5",)
    done = start(*words, "--", "--config.data.path=log.csv")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "trials.txt").read_text().splitlines()
    assert f"--array=0-{len(lines) - 1}" in done.stdout and len(set(lines)) == 12
    assert "--cpus-per-task=2 --gpus-per-node=1 launch/slurm.sbatch" in done.stdout
    assert all(line.endswith(" --config.data.path=log.csv") for line in lines)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--workdir=a b",), "a b/trials/"),
        (("--workdir=w", "--", "--config.data.path=my log.csv"), "my log.csv"),
    ],
)
def test_a_slurm_array_refuses_what_its_lines_cannot_hold(tmp_path, words, named):
    words = [word.replace("--workdir=", f"--workdir={tmp_path}/") for word in words]
    done = start("--sweep=configs/sweeps/rates.py", "--slurm", *words)
    assert done.returncode == 2 and not list(tmp_path.rglob("trials.txt"))
    assert done.stderr.count("\n") == 1 and named in done.stderr and "blank" in done.stderr


def test_a_config_beside_the_sweep_file_is_refused(tmp_path):
    words = "--sweep=configs/sweeps/rates.py", "--config=configs/quickstart.py", "--table"
    done = start(*words, f"--workdir={tmp_path}")
    assert done.returncode == 2 and not any(tmp_path.iterdir())
    assert done.stderr.startswith("error: --config is not read") and done.stderr.count("\n") == 1


def test_a_trial_runs_where_the_sweep_began_and_fails_but_for_bad_input(tmp_path, monkeypatch):
    program = tmp_path / "program"
    program.write_text('#!/bin/sh\npwd\nexit "$3"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    for status in (0, 2):
        sweep.run_trial([str(status)], tmp_path / "t", tmp_path, print)
    with pytest.raises(RuntimeError, match=f"exit status 3: {tmp_path}"):
        sweep.run_trial(["3"], tmp_path / "t", tmp_path, print)
    assert (tmp_path / "t" / "said.txt").read_text() == f"{tmp_path}\n" * 3


@pytest.mark.parametrize(
    ("mode", "unfinished", "status"),
    [("grid", 0, 0), ("grid", 1, 1), ("halving", 1, 0), ("halving", 2, 1)],
)
def test_the_exit_status_tells_whether_trials_are_missing(
    ran, monkeypatch, mode, unfinished, status
):
    trials, folder = ran
    good, bad = (folder / "trials" / trial.name / "metrics.jsonl" for trial in trials)
    if unfinished == 0:
        bad.write_text(good.read_text())
    if unfinished == 2:
        good.unlink()
    monkeypatch.setattr(sweep, "on_ray", lambda *_: None)
    monkeypatch.setattr(sweep, "SLURM", SimpleNamespace(value=False))
    monkeypatch.setattr(sweep, "TABLE", SimpleNamespace(value=False))
    config = a_sweep(mode, axes=(("outer.lr", (0.1, 0.2)),), seeds=(0,))
    assert sweep.sweep_through(config, folder, []) == status


@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="Ray is an extra: [sweep]")
@pytest.mark.parametrize(
    ("env", "named", "once", "times"),
    [
        ({}, "seed is -", "error: ", 1),
        ({"JAX_PLATFORMS": "none"}, "Unable to initialize backend", "app.run(start", 2),
    ],
)
def test_ray_tries_again_what_fails_but_for_bad_input(tmp_path, env, named, once, times):
    """With runs that end at once; each says `once` once."""
    text = "from configs.sweeps import ablation\ndef get_config():\n    c = ablation.get_config()\n"
    more = "    c.update(dict(axes=(), retries=1, seeds=(-1, -2)))\n    return c\n"
    (tmp_path / "s.py").write_text(text + more)
    done = start(f"--sweep={tmp_path / 's.py'}", f"--workdir={tmp_path}", **env)
    assert done.returncode == 1, done.stderr
    (row,) = json.loads((tmp_path / "table.json").read_text())
    assert len(row["unfinished"]) == 2 and all(named in said for said in row["said"])
    said = (tmp_path / "trials" / row["unfinished"][0] / "said.txt").read_text()
    assert said.count(once) == times
