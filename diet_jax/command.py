"""What the commands share: the config flag, how the command line is read, and one-line errors."""

import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from absl import flags, logging
from ml_collections import config_flags

from diet_jax.models import MODELS
from diet_jax.types import Config, InputError

BAD_INPUT = 2  # exit status

CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "The config file, for example configs/quickstart.py.",
    lock_config=True,
)


def fail(message: str) -> NoReturn:
    """End the program for bad input: one line on stderr, no traceback."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(BAD_INPUT)


def name_architecture(config: Config, table: str, arch: str, value: str) -> None:
    """Set what a table of the config, `inner.lr` say, holds for an architecture, named or not yet.

    Raises KeyError where there is no such table, and ValueError where the value is no number.
    """
    where: Any = config
    for key in table.split("."):
        where = where[key]
    if "default" not in where:
        raise KeyError(arch)
    try:
        number = float(value)
    except ValueError as error:
        raise ValueError(f"config.{table}.{arch} is no number: {value!r}") from error
    with where.unlocked():
        where[arch] = number


def parse(argv: list[str]) -> list[str]:
    """Parse the flags; a flag or a config that cannot be read ends the program.

    --config.TABLE.NAME=value also names architectures that the table does not hold yet.
    """
    named = [re.fullmatch(r"--?config\.([\w.]+)\.(\w+)=(.*)", arg) for arg in argv]
    named = [found if found and found[2] in MODELS else None for found in named]
    argv = [arg for arg, found in zip(argv, named, strict=True) if not found]
    sys.argv = argv  # where ml_collections looks for --config.KEY
    try:
        rest = flags.FLAGS(argv)
        if CONFIG.value is not None:
            for found in filter(None, named):
                name_architecture(CONFIG.value, *found.groups())
            CONFIG.value.lock()  # a config file that could not be loaded says so at its first use
    except (AttributeError, KeyError) as error:
        # ml_collections passes on the repr of a two-line message: "'stepss'\\nDid you mean ..."
        text = str(error.args[0]).encode().decode("unicode_escape").replace("'", "")
        fail(f"unknown config key: {'. '.join(text.splitlines())} (see configs/default.py)")
    except OSError as error:
        fail(f"config file cannot be read: {str(error).splitlines()[-1]}")
    except (flags.Error, TypeError, ValueError) as error:
        # absl quotes the traceback of a config file whole; its last line is what went wrong.
        quoted = "Traceback" in str(error)
        fail(str(error).rsplit("Error: ", 1)[-1] if quoted else str(error))
    if len(rest) > 1:
        fail(f"unexpected argument {rest[1]!r}; options read --name=value")
    return rest


def told(action: Callable[[], Any]) -> Any:
    """What `action` returns; bad input ends the program with its one line."""
    logging.set_verbosity(logging.WARNING)  # libraries narrate every checkpoint at INFO
    try:
        return action()
    except InputError as error:
        fail(str(error))
