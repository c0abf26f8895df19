"""The command line of a run: flags, one run, and where its report is."""

import os
import sys
from pathlib import Path

import jax
from absl import app, flags

from diet_jax import command
from diet_jax.record import software_versions
from diet_jax.run import run

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; the same folder resumes it.")


def main(argv: list[str]) -> None:
    def action():
        workdir = str(WORKDIR.value)
        if not jax.config.values["jax_compilation_cache_dir"]:
            # What a resumed run need not compile again.
            jax.config.update("jax_compilation_cache_dir", str(Path(workdir) / "compiled"))
        env = software_versions() | {"devices": [device.device_kind for device in jax.devices()]}
        return run(command.CONFIG.value, workdir, env)

    print(f"Report: {command.told(action)}")


def parse(argv: list[str]) -> list[str]:
    rest = command.parse(argv)
    if command.CONFIG.value is None or not WORKDIR.value:
        command.fail(
            "give both --config=FILE, for example configs/quickstart.py, and --workdir=FOLDER"
        )
    return rest


def entry() -> None:
    """The console command, run from the folder that holds configs/."""
    sys.path.insert(0, os.getcwd())  # configs import one another; `python -m` does this by itself
    app.run(main, flags_parser=parse)


if __name__ == "__main__":
    entry()
