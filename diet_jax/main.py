"""The command line of a run: flags, one run, and where its report is."""

import os
import sys
import traceback
from pathlib import Path

import jax
from absl import app, flags

from diet_jax import command, preemption, sharding
from diet_jax.record import software_versions
from diet_jax.run import run

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; the same folder resumes it.")
STATUS = flags.DEFINE_integer(
    "preempted_status", preemption.STATUS, "Exit status of a run that was told to stop and saved."
)
# Of a job of several processes. SLURM, Open MPI, JobSets and TPU VMs need none of these.
COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of the first process.")
PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes of the job.", lower_bound=1)
NUMBER = flags.DEFINE_integer("process_id", None, "Which of them this one is, from 0.")
CLUSTER = flags.DEFINE_enum(
    "cluster",
    None,
    ["slurm", "ompi", "k8s", "gcetpu", "gketpu", "mpi4py"],
    "Where JAX has to find the processes, if it does not by itself.",
)
HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_s", 100, "Seconds of silence after which a process is dead.", lower_bound=1
)


def start(argv: list[str]) -> None:
    """`main`, as one process of the job that the flags or a launcher make it part of."""
    given = COORDINATOR.value, PROCESSES.value, NUMBER.value, CLUSTER.value, HEARTBEAT.value
    command.told(lambda: sharding.join(*given))
    main(argv)


def main(argv: list[str]) -> None:
    def action():
        workdir = str(WORKDIR.value)
        if not jax.config.values["jax_compilation_cache_dir"]:
            # What a resumed run need not compile again.
            jax.config.update("jax_compilation_cache_dir", str(Path(workdir) / "compiled"))
        env = software_versions() | {"devices": sharding.device_kinds()}
        return run(command.CONFIG.value, workdir, env, preemption.watch)

    try:
        report = command.told(action)
    except preemption.Preempted:
        print("Stopped as told; what was done is saved, the same command goes on.", file=sys.stderr)
        sys.exit(STATUS.value)
    except KeyboardInterrupt:  # before there was anything to save
        sys.exit("Interrupted.")
    except (Exception, SystemExit) as error:
        if not sharding.several():
            raise
        end_of_one(error)
    if sharding.is_first():
        print(f"Report: {report}")


def end_of_one(error: Exception | SystemExit) -> None:
    """Ends a process of several that cannot go on, so that the others find out soon."""
    if isinstance(error, SystemExit):  # it has said why
        sharding.leave(int(error.code or 0))
    if sharding.lost_contact(error):
        why = str(error).splitlines()[0]
        print(
            f"error: another process of the job has ended or cannot be reached ({why}); "
            "see what it said, and start the job again to resume it",
            file=sys.stderr,
        )
    else:
        traceback.print_exception(error)
    sharding.leave(1)


def parse(argv: list[str]) -> list[str]:
    rest = command.parse(argv)
    if command.CONFIG.value is None or not WORKDIR.value:
        command.fail(
            "give both --config=FILE, for example configs/quickstart.py, and --workdir=FOLDER"
        )
    return rest


def entry() -> None:
    """The console command."""
    sys.path.insert(0, os.getcwd())  # as `python -m` does
    app.run(start, flags_parser=parse)


if __name__ == "__main__":
    entry()
