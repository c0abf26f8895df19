"""Results say how they were made, and no short command takes the place of a committed one."""

import json
import os
import subprocess
import sys
from importlib.metadata import version

import cli

from benchmarks.record import command, save, versions, write

SMALL = cli.SMALL | {"stages.count": 2, "eval.archs": ("LR",)}


def test_a_result_names_its_command_software_and_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/there/lds.py", "--runs=2"])
    file = tmp_path / "new" / "result.json"
    write(file, {"table": [1]})
    result = json.loads(file.read_text())
    assert list(result) == ["command", "env", "machine", "table"]
    assert result["command"] == "python -m benchmarks.lds --runs=2"
    assert result["env"]["jax"] == version("jax") and result["env"]["devices"]
    assert result["machine"]["cores"] > 0
    write(file, {"env": {"jax": "1"}})
    assert json.loads(file.read_text())["env"] == {"jax": "1"}
    save(file, {"a": 1})
    assert json.loads(file.read_text()) == {"a": 1} and len(list(file.parent.iterdir())) == 1


def test_a_command_is_told_without_the_place_of_the_log():
    told = command(["x/lds.py", "--config.data.path=/home/me", "--lrs=1,2", "--a=(0,)"])
    assert told == "python -m benchmarks.lds --lrs=1,2 '--a=(0,)'"
    told = command(["x/lds.py", "--config.data.path", "/home/me", "--", "--config.data.path=/x"])
    assert told == "python -m benchmarks.lds --"


def test_versions_are_those_of_the_environment_asked():
    assert versions(sys.executable, "numpy") == {"numpy": version("numpy")}


def test_peers_without_a_memory_are_refused():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.torch_consumer"], cwd=cli.ROOT, capture_output=True
    )
    assert done.returncode and b"give the folder of a run" in done.stderr


def test_recovery_keeps_its_runs_and_its_result_together(tmp_path):
    command = [sys.executable, "-m", "benchmarks.recovery", "--seeds=0"]
    command += [f"--config={cli.ROOT}/configs/quickstart.py", "--"]
    command += [f"--config.{key}={value}" for key, value in SMALL.items()]
    env = os.environ | {"PYTHONPATH": cli.PATHS}
    subprocess.run(command, check=True, cwd=tmp_path, env=env, capture_output=True)
    folder = tmp_path / "runs" / "recovery" / "quickstart"
    assert {path.name for path in folder.iterdir()} == {"seed_0", "recovery.json"}
    result = json.loads((folder / "recovery.json").read_text())
    assert 0.5 < result["rows"]["LR"]["memory"]["mean"] < 1 and "machine" in result
