"""Processes of one job, over loopback, make the memory that one makes; if one dies, all stop."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cli
import four
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import toy

from diet_jax import checkpoint, sharding
from diet_jax.sharding import ONE_DEVICE
from diet_jax.types import InputError

PATIENCE_S = 120  # with what others do on this machine
CONFIG = """
import toy
def get_config():
    return toy.config({path!r}, **{change!r})
"""
CHANGE = {
    "stages.count": 2,
    "teacher.arch": "LR",
    "eval.seeds": (0,),
    "memory.mix": 2,
    "growth.rounds": 1,
    "inner.steps": 3,
    "inner.window": 2,
    "inner.eps_root": 1e-3,  # smooth inner training: rounding is not enlarged
    "outer.trajectories": 4,
    "outer.chunk": 1,
    "checkpoint.every": 1e-9,  # at every safe point
}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def members(n: int, *command, **env: str) -> list[subprocess.Popen]:
    """n processes of `python COMMAND`, each told of the others by the flags of the program."""
    coordinator = f"--coordinator=127.0.0.1:{free_port()}"
    return [
        subprocess.Popen(
            [sys.executable, *command, coordinator, f"--num_processes={n}", f"--process_id={i}"],
            cwd=cli.ROOT,
            env=os.environ | {"PYTHONPATH": cli.PATHS, "JAX_PLATFORMS": "cpu", **env},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for i in range(n)
    ]


def wait_for(path: Path, process: subprocess.Popen) -> None:
    while process.poll() is None and not path.exists():
        time.sleep(0.01)


def ended(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


def test_four_processes_train_on_one_sharded_table_as_one_does(tmp_path):
    for process in members(4, four.__file__, tmp_path / "four.npy", **cli.devices(2)):
        status, _, err = ended(process)
        assert status == 0, err
    together, want = np.load(tmp_path / "four.npy"), four.taught(ONE_DEVICE)
    assert np.abs(want).max() > 0.1
    np.testing.assert_allclose(together, want, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """f(workdir) -> the arguments of a run on a small log."""
    folder = tmp_path_factory.mktemp("job")
    pl.DataFrame(toy.log(stages=2)).write_csv(folder / "log.csv")
    text = CONFIG.format(path=str(folder / "log.csv"), change=CHANGE)
    (folder / "small.py").write_text(text)
    return lambda workdir: ("-m", "diet_jax.main", f"--config={folder / 'small.py'}", workdir)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_first_signal_leaves_a_note_and_a_second_ends_the_process(sent):
    program = (
        "import os; from diet_jax.preemption import watch; stop = watch(); print(stop());"
        f"os.kill(os.getpid(), {sent:d}); print(stop(), flush=True); os.kill(os.getpid(), {sent:d})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (-sent, ["False", "True"])
    assert ("a second Ctrl-C does not wait" in done.stderr) == (sent == signal.SIGINT)


def test_if_one_process_dies_all_stop_and_one_alone_goes_on(job, tmp_path):
    """And a run that is told to stop in its stage, by SIGTERM, goes on with the same command."""
    two, one = tmp_path / "two", tmp_path / "one"
    # Trajectories lie over the two processes, the table over the two devices of each.
    args = "--heartbeat_s=10", "--config.mesh.table=2"
    first, second = members(2, *job(f"--workdir={two}"), *args, **cli.devices(2))
    wait_for(two / "checkpoints" / "1", first)
    second.kill()
    began = time.monotonic()
    status, _, err = ended(first)
    assert status not in (0, 2) and time.monotonic() - began < 60
    assert "another process of the job has ended" in err or "another task died" in err
    second.communicate()

    # Without a cache, compiling alone keeps the stage busy for longer than the wait.
    (process,) = members(1, *job(f"--workdir={one}"), JAX_ENABLE_COMPILATION_CACHE="false")
    wait_for(one / "config.json", process)
    time.sleep(1)  # to the first steps of the stage, or to what is compiled for them
    process.send_signal(signal.SIGTERM)
    status, _, err = ended(process)
    assert (status, checkpoint.stages(one)) == (143, []), err
    assert err.endswith("the same command goes on.\n") and (one / "paused").is_dir()
    for workdir in (two, one):
        (process,) = members(1, *job(f"--workdir={workdir}"))
        status, out, err = ended(process)
        assert status == 0, err
        assert f"Report: {workdir / 'report.html'}" in out
    assert not (one / "paused").exists()
    got, want = (pq.read_table(w / "export" / "memory.parquet") for w in (two, one))
    for name in want.column_names:
        if name in ("label", "weight", "share"):
            np.testing.assert_allclose(got[name].to_numpy(), want[name].to_numpy(), atol=1e-5)
        else:
            assert got[name].equals(want[name]), name


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"coordinator": "here:1"}, "give all of --coordinator, --num_processes and --process_id"),
        ({"coordinator": "here:1", "processes": 2, "number": 2}, "--process_id is 2; set it to 0"),
    ],
)
def test_flags_that_cannot_be_right_are_refused(flags, named):
    with pytest.raises(InputError, match=named):
        sharding.join(**flags)


@pytest.mark.parametrize(
    ("env", "several"),
    [
        ({}, False),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4"}, False),  # in salloc, not in srun
        ({"SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"SLURM_STEP_NUM_TASKS": "1", "OMPI_COMM_WORLD_SIZE": "1"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"MEGASCALE_NUM_SLICES": "2", "TPU_WORKER_HOSTNAMES": "a"}, True),
    ],
)
def test_what_launchers_say_of_the_number_of_processes_is_heard(env, several, monkeypatch):
    for name in (*sharding.COUNTS, "TPU_WORKER_HOSTNAMES", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    joined = []
    monkeypatch.setattr(sharding.jax.distributed, "initialize", lambda *a, **k: joined.append(a))
    sharding.join()
    assert joined == [(None, None, None)] * several
