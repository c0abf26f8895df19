"""The whole job through its command line: what it leaves, and that no crash changes the result."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cli
import pyarrow.parquet as pq
import pytest

from diet_jax.checkpoint import PAUSED, stages
from diet_jax.command import BUSY
from diet_jax.record import alone, read_records

LOG_ROWS = 100_836
METHODS = {"full", "memory", "random_hard", "random_soft"}
EVAL = (
    "kind stage method arch seed auc gauc logloss ece ctr_ratio auc_current auc_past steps rows "
    "seconds seconds_compile"
).split()
STAGE = (
    "kind stage stages rows_stage rows_so_far slots mix new evicted written born label_hist "
    "weight_quantiles outer_steps skipped overshoot hidden teacher_auc seconds seconds_teacher "
    "seconds_influence seconds_outer"
).split()


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """f(workdir) -> the arguments and the environment of a run; what is compiled is kept."""
    cache = str(tmp_path_factory.mktemp("compiled"))
    env = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    env |= cli.PLAIN
    changes = [f"--config.{key}={value}" for key, value in cli.SMALL.items()]

    def command(workdir):
        return ["--config=configs/quickstart.py", f"--workdir={workdir}", *changes], env

    return command


@pytest.fixture(scope="module")
def whole(tmp_path_factory, command):
    """The workdir of a run that nothing disturbed, and its exit status, stdout and stderr."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    args, env = command(workdir)
    return workdir, cli.run(*args, **env)


def measurements(workdir):
    """The records of a run without what the clock said."""
    records = read_records(workdir / "metrics.jsonl")
    return [{k: v for k, v in r.items() if not k.startswith("seconds")} for r in records]


def test_it_ends_well_and_says_only_what_a_person_needs(whole):
    workdir, (status, out, err) = whole
    assert status == 0, err
    progress = re.compile(r"stage \d/3: step \d+/10, outer loss \d\.\d+, .* left")
    assert all(progress.fullmatch(line) for line in err.splitlines()), err
    assert out.endswith(f"Report: {workdir / 'report.html'}\n")
    for words in ("Stage 1 of 3", "Stage 2 of 3", "Kendall tau", "regret", "R_soft"):
        assert words in out
    assert max(map(len, out.splitlines()[:-1])) <= 80


def test_everything_that_is_promised_is_in_the_workdir(whole):
    workdir, _ = whole
    names = ".lock checkpoints config.json env.json export log.json metrics.jsonl report.html tb"
    assert sorted(path.name for path in workdir.iterdir()) == names.split()
    key = json.loads((workdir / "log.json").read_text())["key"]
    assert (Path(os.environ["DIET_JAX_CACHE"]) / key / "manifest.json").exists()
    assert stages(workdir) == [1, 2]
    exported = sorted(path.name for path in (workdir / "export").iterdir())
    assert exported == ["README.md", "memory.parquet", "recipe.json"]
    assert [path.name[:6] for path in (workdir / "tb").iterdir()] == ["events"]
    config = json.loads((workdir / "config.json").read_text())
    assert config["outer"]["steps"] == 10
    assert json.loads((workdir / "export" / "recipe.json").read_text())["steps"] == 10
    report = (workdir / "report.html").read_text()
    assert "Kendall" in report and "memory.rate" in report


def test_the_measurements_have_the_promised_keys(whole):
    records = read_records(whole[0] / "metrics.jsonl")
    evals = [r for r in records if r["kind"] == "eval"]
    cells = {(r["stage"], r["method"], r["arch"], r["seed"]) for r in evals}
    assert cells == {(s, m, a, 0) for s in (1, 2) for m in METHODS for a in ("LR", "FM")}
    assert len(evals) == len(cells)
    so_far = {1: LOG_ROWS // 3, 2: LOG_ROWS // 3 * 2}
    for r in evals:
        assert list(r) == [key for key in EVAL if key != "auc_past" or r["stage"] > 1]
        assert all(0.4 < r[key] <= 1 for key in r if key.startswith("auc_"))
        assert 0.4 < r["auc"] < 1 and 0.4 < r["gauc"] < 1 and 0 < r["logloss"] < 1
        if r["method"] == "full":
            assert r["rows"] == so_far[r["stage"]]
        else:  # all that train on a subset have as many rows and steps
            assert (r["rows"], r["steps"]) == (round(0.005 * so_far[r["stage"]]), 10)
    closing = [r for r in records if r["kind"] == "stage"]
    assert [r["stage"] for r in closing] == [1, 2]
    assert all(set(r) == set(STAGE) for r in closing)
    assert [r["written"] for r in closing] == [0, 84]  # half of 168
    assert [r["step"] for r in records if r["kind"] == "outer"] == [5, 10, 5, 10]
    assert [r["kind"] for r in records][-1] == "run"


def test_a_zoo_is_compared_on_the_memory_by_a_command_that_does_nothing_twice(whole, tmp_path):
    (tmp_path / "zoo.py").write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config():\n"
        "    one = {'FM': {'arch': 'FM', 'dim': 2, 'hidden': ()}}\n"
        "    return ConfigDict({'methods': ('full', 'memory'), 'lrs': (), 'l2s': ()}\n"
        "                      | {'variants': one})\n"
    )
    out, args = tmp_path / "out", [sys.executable, "-m", "diet_jax.evaluate"]
    args += [f"--memory={whole[0]}", f"--zoo={tmp_path / 'zoo.py'}", f"--out={out}"]
    env = os.environ | cli.PLAIN
    for _ in range(2):
        said = subprocess.run(args, cwd=cli.ROOT, env=env, capture_output=True, text=True)
        assert (said.returncode, said.stdout.splitlines()[-1]) == (0, f"Results: {out / 'zoo.md'}")
    records = [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]
    assert [(r["method"], r["seed"]) for r in records] == [("full", 0), ("full", 1), ("memory", 0)]
    own = read_records(whole[0] / "metrics.jsonl")
    (auc,) = (
        r["auc"]
        for r in own
        if [r.get(k) for k in ("stage", "method", "arch")] == [2, "memory", "FM"]
    )
    assert records[2]["auc"] == pytest.approx(auc, abs=1e-6)


def test_the_exported_memory_is_what_was_asked_for(whole):
    table = pq.read_table(whole[0] / "export" / "memory.parquet")
    slots = round(0.005 * (LOG_ROWS // 3 * 2))
    assert set(table["slot"].to_pylist()) == set(range(slots))
    rows = 4 * slots  # of the log, as each slot mixes four
    label, weight = table["label"].to_numpy(), table["weight"].to_numpy()
    assert 0 < label.min() < label.max() < 1 and weight.min() > 0
    assert set(table["born_stage"].to_pylist()) == {1, 2}
    assert len(set(table["source_row"].to_pylist())) == len(table) == rows
    assert table["source_row"].to_numpy().max() < LOG_ROWS // 3 * 2  # the last stage only tests


def test_a_second_run_only_makes_the_report_anew(whole, command):
    workdir, _ = whole
    (workdir / "report.html").unlink()
    before = {p: p.read_bytes() for p in sorted(workdir.rglob("*")) if p.is_file()}
    args, env = command(workdir)
    status, out, err = cli.run(*args, **env)
    assert (status, err) == (0, "")
    assert "finished" in out and "Kendall tau" in out
    assert "Its log is as it was" in out
    assert (workdir / "report.html").stat().st_size > 1000
    after = {p: p.read_bytes() for p in sorted(workdir.rglob("*")) if p.is_file()}
    after.pop(workdir / "report.html")
    assert after == before


def kill_when(ready, process):
    """kill -9 as soon as `ready()`."""
    while process.poll() is None and not ready():
        time.sleep(0.01)
    process.kill()
    process.communicate()


def test_kill_9_twice_changes_nothing(whole, command, tmp_path):
    """Killed between a checkpoint and its evaluation, and again in the middle of a stage."""
    workdir = tmp_path / "killed"
    args, env = command(workdir)
    kill_when((workdir / "checkpoints" / "1").exists, cli.start(*args, **env))
    assert stages(workdir) == [1]
    assert "stage" not in {r["kind"] for r in measurements(workdir)}
    log = workdir / "metrics.jsonl"
    kill_when(
        lambda: log.exists() and '"kind": "stage"' in log.read_text(), cli.start(*args, **env)
    )
    assert not (workdir / "export").exists()
    with log.open("a") as file:
        file.write('{"kind": "eval", "stage": 2, "au')  # as a crash in the middle of a line does
    status, out, err = cli.run(*args, **env)
    assert status == 0, err
    assert "finished run" not in out
    assert measurements(workdir) == measurements(whole[0])
    got, want = (pq.read_table(w / "export" / "memory.parquet") for w in (workdir, whole[0]))
    assert got.equals(want)
    assert got.schema.metadata == want.schema.metadata


DIES = """
import os, signal
from configs.quickstart import get_config
from diet_jax import checkpoint
plain = checkpoint.save
def save(workdir, number, state, facts, folder=checkpoint.FOLDER):
    plain(workdir, number, state, facts, folder)
    with (workdir / "saves").open("a") as file:
        print(folder, number, file=file)
    if folder == checkpoint.PAUSED and facts["stage"] == 2 and number == 1 and "DIES" in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint.save = save
"""


def test_kill_9_within_a_stage_goes_on_from_its_last_save(whole, command, tmp_path):
    """Killed half way through stage 2, of which both chunks were saved before they began."""
    workdir, dies = tmp_path / "killed", tmp_path / "dies.py"
    dies.write_text(DIES)
    (_, *args), env = command(workdir)
    args = [f"--config={dies}", *args, "--config.checkpoint.every=1e-9"]
    status, _, err = cli.run(*args, DIES="", **env)
    assert (status, stages(workdir), stages(workdir, PAUSED)) == (-signal.SIGKILL, [1], [1]), err
    status, out, err = cli.run(*args, **env)
    assert status == 0, err
    assert out.startswith("Going on with stage 2 of 3.\n")
    saves = ["paused 0", "paused 1", "checkpoints 1", "paused 0", "paused 1", "checkpoints 2"]
    assert (workdir / "saves").read_text().splitlines() == saves
    assert not (workdir / "paused").exists()
    assert measurements(workdir) == measurements(whole[0])
    got, want = (pq.read_table(w / "export" / "memory.parquet") for w in (workdir, whole[0]))
    assert got.equals(want)


def test_what_is_gone_from_a_workdir_is_asked_for_or_made_anew(whole, command, tmp_path):
    """Without its records all is judged again on the memories that were saved; without the
    checkpoint that the next stage goes on from, the run is refused, and loses nothing."""
    workdir = tmp_path / "copy"
    shutil.copytree(whole[0], workdir)
    args, env = command(workdir)
    log = workdir / "metrics.jsonl"
    log.unlink()
    status, _, err = cli.run(*args, **env)
    assert status == 0, err
    assert measurements(workdir) == measurements(whole[0])

    lines = log.read_text().splitlines(keepends=True)
    ends = [k for k, line in enumerate(lines, 1) if '"kind": "stage"' in line]
    for gone, text in (("checkpoints/1", ""), ("checkpoints", "".join(lines[: ends[0]]))):
        shutil.rmtree(workdir / gone)
        log.write_text(text)
        status, _, err = cli.run(*args, **env)
        assert status == 2 and "the checkpoint of stage 1" in err and "is gone" in err
        assert str(workdir) in err and log.read_text() == text


def test_a_workdir_is_for_one_run_at_a_time(command, tmp_path):
    args, env = command(tmp_path)
    with alone(tmp_path):
        status, _, err = cli.run(*args, **env)
    assert status == BUSY and "another process" in err
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_tensorflow_stays_out():
    code = (
        "import sys, diet_jax.main; "
        "print([m for m in sys.modules if m.split('.')[0] in ('tensorflow', 'keras', 'torch')])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=cli.ROOT, capture_output=True, text=True
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "[]\n", "")
