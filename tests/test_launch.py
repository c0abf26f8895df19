"""What launch/ starts: scripts are run dry, the JobSets are held against their schema."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import cli
import pytest
import yaml

from diet_jax import preemption

LAUNCH = cli.ROOT / "launch"
BASE = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
TYPES = {"string": str, "integer": int, "boolean": bool}


def dry(*command, **env: str) -> list[list[str]]:
    """The words of every command that a script would run."""
    done = subprocess.run(
        [str(LAUNCH / command[0]), *command[1:]], env=BASE | env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.splitlines()]


def known_flags(words: list[str]) -> None:
    """Every --flag of the run is one that the program's source defines."""
    sources = (cli.ROOT / "diet_jax" / name for name in ("main.py", "command.py"))
    known = {n for s in sources for n in re.findall(r'DEFINE_\w+\(\s*"(\w+)"', s.read_text())}
    names = [word[2:].partition("=")[0] for word in words if word.startswith("--")]
    assert names and set(names) <= known


def faults(value: Any, schema: Any, where: str = "") -> list[str]:
    """Where a value is not as the schema (see the head of its file) says."""
    if isinstance(schema, str):
        good = type(value) is TYPES[schema] if schema in TYPES else value in schema.split("|")
        return [] if good else [f"{where}: {value!r} is not {schema}"]
    if isinstance(schema, list):
        if not isinstance(value, list):
            return [f"{where}: no list"]
        return [f for i, v in enumerate(value) for f in faults(v, schema[0], f"{where}[{i}]")]
    if not isinstance(value, dict):
        return [f"{where}: no map"]
    kinds = {key.rstrip("!"): kind for key, kind in schema.items()}
    found = [
        f"{where}.{key[:-1]}: missing" for key in schema if key[-1] == "!" and key[:-1] not in value
    ]
    for key, item in value.items():
        kind = kinds.get(key, kinds.get("*"))
        found += faults(item, kind, f"{where}.{key}") if kind else [f"{where}.{key}: unknown"]
    return found


@pytest.fixture(scope="module")
def jobsets():
    texts = yaml.safe_load_all((LAUNCH / "gke_jobset.yaml").read_text())
    return {one["metadata"]["labels"]["accelerator"]: one for one in texts}


@pytest.fixture(scope="module")
def schema():
    return yaml.safe_load((cli.ROOT / "tests" / "jobset_schema.yaml").read_text())


def test_local_starts_each_process_once():
    commands = dry("local.sh", "--dry-run", "3", "--config=a b.py", "--workdir=w")
    assert [words[-1] for words in commands] == [f"--process_id={i}" for i in range(3)]
    assert len({word for words in commands for word in words if "--coordinator" in word}) == 1
    for words in commands:
        assert words[-6:-3] == ["diet_jax.main", "--config=a b.py", "--workdir=w"]
        known_flags(words)
    wrong = subprocess.run([LAUNCH / "local.sh", "none"], env=BASE, capture_output=True, text=True)
    assert wrong.returncode == 2 and "usage" in wrong.stderr


def test_slurm_runs_a_job_or_a_line_of_trials(tmp_path):
    (words,) = dry("slurm.sbatch", "--dry-run", "--config=a.py", "--workdir=w")
    assert words[0] == "srun" and words[-2:] == ["--config=a.py", "--workdir=w"]
    trials = tmp_path / "trials.txt"
    trials.write_text("--config=a.py --workdir=0\n--config=a.py --workdir=1 --config.seed=3\n")
    env = {"TRIALS": str(trials), "SLURM_ARRAY_TASK_ID": "1"}
    (words,) = dry("slurm.sbatch", "--dry-run", **env)
    assert words[-3:] == ["--config=a.py", "--workdir=1", "--config.seed=3"]
    text = (LAUNCH / "slurm.sbatch").read_text()
    assert "#SBATCH --requeue" in text and "#SBATCH --signal=USR1@" in text
    assert f'"$status" -eq {preemption.STATUS}' in text


@pytest.mark.parametrize(("ended", "requeued"), [(143, True), (2, False), (0, False)])
def test_slurm_puts_only_a_job_that_was_told_to_stop_into_the_queue(tmp_path, ended, requeued):
    for name, body in (("srun", f"exit {ended}"), ("scontrol", f'echo "$@" > {tmp_path}/asked')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{BASE['PATH']}", "SLURM_JOB_ID": "7"}
    done = subprocess.run(["bash", LAUNCH / "slurm.sbatch", "--config=a.py"], env=env)
    assert done.returncode == ended
    assert (tmp_path / "asked").exists() == requeued
    if requeued:
        assert (tmp_path / "asked").read_text() == "requeue 7\n"


def test_a_queued_resource_is_asked_for_and_the_job_run_on_all_hosts():
    flags = "--config=a.py --workdir=/mnt/w"
    create, copy, install, run = dry("tpu_vm.sh", "--dry-run", TYPE="v6e-256", FLAGS=flags)
    assert create[:6] == ["gcloud", "compute", "tpus", "queued-resources", "create", "diet-jax"]
    assert {"--accelerator-type=v6e-256", "--spot", "--node-id=diet-jax"} <= set(create)
    assert all("--worker=all" in words for words in (copy, install, run))
    assert any(flags in word for word in run)


@pytest.mark.parametrize("kind", ["tpu", "gpu"])
def test_jobsets_are_as_the_schema_says(jobsets, schema, kind):
    job = jobsets[kind]
    assert faults(job, schema) == []
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    (workers,) = job["spec"]["replicatedJobs"]
    spec = workers["template"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert spec["parallelism"] == spec["completions"] and spec["completionMode"] == "Indexed"
    assert pod["restartPolicy"] == "Never"  # podFailurePolicy wants it
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == [2]  # bad input, and not a job that was told to stop
    mounts, volumes = ([m["name"] for m in x] for x in (container["volumeMounts"], pod["volumes"]))
    assert mounts == volumes
    known_flags(container["args"])
    if kind == "gpu":  # the names that JobSet gives to pods and their network
        name, hosts = job["metadata"]["name"], spec["completions"]
        assert f"--coordinator={name}-workers-0-0.{name}:8476" in container["args"]
        assert f"--num_processes={hosts}" in container["args"]


def test_the_schema_finds_faults(jobsets, schema):
    job = jobsets["gpu"]
    wrong = job | {"spec": {**job["spec"], "failurePolicy": {"maxRestarts": "4", "maxRetries": 1}}}
    found = [".spec.failurePolicy.maxRestarts: '4' is not integer"]
    assert faults(wrong, schema) == [*found, ".spec.failurePolicy.maxRetries: unknown"]
    assert faults({"kind": "Job"}, schema)[:2] == [".apiVersion: missing", ".metadata: missing"]


def test_the_image_has_what_it_copies_and_asks_for_extras_that_there_are():
    text = (LAUNCH / "Dockerfile").read_text()
    extras = tomllib.loads((cli.ROOT / "pyproject.toml").read_text())["project"]
    asked = re.search(r"^ +(cuda \| tpu)\)", text, re.MULTILINE)
    assert asked and set(asked[1].split(" | ")) <= set(extras["optional-dependencies"])
    for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE):
        assert all((cli.ROOT / name).exists() for name in line.split())
    assert '["python", "-m", "diet_jax.main"]' in text
