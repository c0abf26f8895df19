"""The command line: flags, one run, and what a person reads when the input is bad."""

import sys

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from diet_jax.record import software_versions
from diet_jax.run import run
from diet_jax.types import InputError

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The config file, for example configs/quickstart.py.", lock_config=True
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; the same folder resumes it.")


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}: all options start with --")
    logging.set_verbosity(logging.WARNING)  # libraries narrate every checkpoint at INFO
    devices = [device.device_kind for device in jax.devices()]
    env = software_versions() | {"devices": devices}
    try:
        report = run(CONFIG.value, str(WORKDIR.value), env)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"Report: {report}")


def entry() -> None:
    """The console command."""
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)


if __name__ == "__main__":
    entry()
