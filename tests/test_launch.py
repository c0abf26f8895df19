"""What launch/ starts: scripts are run dry, the JobSets are held against their schema."""

import os
import re
import shlex
import signal
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
    assert "--cpus-per-task=1" in words
    trials = tmp_path / "trials.txt"
    trials.write_text("--config=a.py --workdir=0\n--config=a.py --workdir=1 --config.seed=3\n")
    env = {"TRIALS": str(trials), "SLURM_ARRAY_TASK_ID": "1", "SLURM_CPUS_PER_TASK": "8"}
    (words,) = dry("slurm.sbatch", "--dry-run", **env)
    assert words[-3:] == ["--config=a.py", "--workdir=1", "--config.seed=3"]
    assert "--cpus-per-task=8" in words
    text = (LAUNCH / "slurm.sbatch").read_text()
    assert "#SBATCH --requeue" in text and "#SBATCH --signal=USR1@" in text


def stand_ins(folder: Path, **bodies: str) -> dict[str, str]:
    """An environment in which these commands are scripts."""
    for name, body in bodies.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{BASE['PATH']}"}


@pytest.mark.parametrize(
    ("ended", "status", "requeued"),
    [
        (f"exit {preemption.STATUS}", preemption.STATUS, True),
        ("kill -USR1 $$", 128 + signal.SIGUSR1, True),  # before the job watches signals
        ("exit 2", 2, False),
        ("exit 0", 0, False),
    ],
)
def test_slurm_puts_only_a_job_that_was_told_to_stop_into_the_queue(
    tmp_path, ended, status, requeued
):
    env = stand_ins(tmp_path, srun=ended, scontrol=f'echo "$@" > {tmp_path}/asked')
    command = ["bash", LAUNCH / "slurm.sbatch", "--config=a.py"]
    done = subprocess.run(command, env=env | {"SLURM_JOB_ID": "7"})
    assert done.returncode == status
    assert (tmp_path / "asked").exists() == requeued
    if requeued:
        assert (tmp_path / "asked").read_text() == "requeue 7\n"


def test_a_queued_resource_is_asked_for_and_the_job_run_on_all_hosts():
    flags = "--config=a.py --workdir=/mnt/w"
    archive, create, *rest = dry("tpu_vm.sh", "--dry-run", TYPE="v6e-256", FLAGS=flags)
    root = Path(archive[2]).resolve()  # wherever the script is called from
    assert archive[:2] == ["git", "-C"] and root == cli.ROOT and archive[-1] == "HEAD"
    assert create[:6] == ["gcloud", "compute", "tpus", "queued-resources", "create", "diet-jax"]
    assert {"--accelerator-type=v6e-256", "--spot", "--node-id=diet-jax"} <= set(create)
    assert all("--worker=all" in words for words in rest)
    assert archive[4] == f"--output={rest[0][5]}" and rest[0][4] == "scp"  # what is copied
    (said,) = [word for words in rest for word in words if " venv " in word]
    assert said.endswith(" venv --python 3.12")  # the images have 3.10
    assert any(flags in word for word in rest[-1])


@pytest.mark.parametrize(
    ("states", "status", "last"),
    [
        ("ACCEPTED FAILED", 1, "describe"),
        ("SUSPENDED", 1, "describe"),
        ("ACCEPTED ACTIVE", 0, "ssh"),
    ],
)
def test_the_wait_for_a_queued_resource_ends(tmp_path, states, status, last):
    (tmp_path / "states").write_text(states.replace(" ", "\n") + "\n")
    gcloud = (
        f"cd {tmp_path}; echo $4 >> asked\n"
        "[ $4 != describe ] || { head -n 1 states; sed -i 1d states; }"
    )
    env = stand_ins(tmp_path, gcloud=gcloud, git=":", sleep=":")
    done = subprocess.run(
        [LAUNCH / "tpu_vm.sh"], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == status, done.stderr
    assert (status == 0) != (f"is {states.split()[-1]};" in done.stderr)
    asked = (tmp_path / "asked").read_text().split()
    assert asked[0] == "create" and asked[-1] == last
    assert asked.count("describe") == len(states.split())


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
