"""The command line: flags, one run, and what a person reads when the input is bad."""

import os
import sys
from typing import NoReturn

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from diet_jax.record import software_versions
from diet_jax.run import run
from diet_jax.types import InputError

BAD_INPUT = 2  # exit status

CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "The config file, for example configs/quickstart.py.",
    lock_config=True,
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; the same folder resumes it.")


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # libraries narrate every checkpoint at INFO
    env = software_versions() | {"devices": [device.device_kind for device in jax.devices()]}
    try:
        report = run(CONFIG.value, str(WORKDIR.value), env)
    except InputError as error:
        fail(str(error))
    else:
        print(f"Report: {report}")


def fail(message: str) -> NoReturn:
    """End the program for bad input: one line on stderr, no traceback."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(BAD_INPUT)


def parse(argv: list[str]) -> list[str]:
    """Parse the flags; a flag or a config that cannot be read ends the program."""
    try:
        rest = flags.FLAGS(argv)
        if CONFIG.value is not None:
            CONFIG.value.lock()  # a config file that could not be loaded says so at its first use
    except (AttributeError, KeyError) as error:
        # ml_collections passes on the repr of a two-line message: "'stepss'\\nDid you mean ..."
        text = str(error.args[0]).encode().decode("unicode_escape").replace("'", "")
        fail(f"unknown config key: {'. '.join(text.splitlines())} (see configs/default.py)")
    except OSError as error:
        fail(f"config file cannot be read: {str(error).splitlines()[-1]}")
    except (flags.Error, TypeError, ValueError) as error:
        fail(str(error))
    if len(rest) > 1:
        fail(f"unexpected argument {rest[1]!r}; options read --name=value")
    if CONFIG.value is None or not WORKDIR.value:
        fail("give both --config=FILE, for example configs/quickstart.py, and --workdir=FOLDER")
    return rest


def entry() -> None:
    """The console command, run from the folder that holds configs/."""
    sys.path.insert(0, os.getcwd())  # configs import one another; `python -m` does this by itself
    app.run(main, flags_parser=parse)


if __name__ == "__main__":
    entry()
