"""What the commands share: the config flag, how the command line is read, and one-line errors."""

import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import absl
import ml_collections
from absl import flags, logging
from ml_collections import config_flags

from diet_jax.models import MODELS
from diet_jax.types import Busy, Config, InputError

BAD_INPUT = 2  # exit status
BUSY = 75  # that of what may be tried again later, as in sysexits.h

# Tables of the config by column of the log, and what they hold; those by architecture hold floats.
OF_COLUMNS = {"data.multi": int, "data.hashed": int, "data.missing": float, "data.scale": str}

CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "The config file, for example configs/quickstart.py.",
    lock_config=True,
)


def fail(message: str, status: int = BAD_INPUT) -> NoReturn:
    """End the program for bad input: one line on stderr, no traceback."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


def rows_of_tables(argv: list[str]) -> tuple[list[re.Match], list[str]]:
    """Of a command line what sets a row of a table of the config, which need not have it yet, and
    the rest."""
    found = [re.fullmatch(r"--?config\.([\w.]+)\.([^.=]+)=(.*)", arg) for arg in argv]
    found = [m if m and (m[1] in OF_COLUMNS or m[2] in MODELS) else None for m in found]
    rest = [arg for arg, m in zip(argv, found, strict=True) if not m]
    return [m for m in found if m], rest


def set_row(config: Config, table: str, name: str, value: str) -> None:
    """Set what a table of the config holds for an architecture (`inner.lr`), or for a column.

    Raises KeyError where there is no such table, and ValueError where the value is of another kind.
    """
    where: Any = config
    for key in table.split("."):
        where = where[key]
    if table not in OF_COLUMNS and "default" not in where:
        raise KeyError(name)
    kind = OF_COLUMNS.get(table, float)
    try:
        row = kind(value)
    except ValueError as error:
        raise ValueError(f"config.{table}.{name} is no {kind.__name__}: {value!r}") from error
    with where.unlocked():
        where[name] = row


def parse(argv: list[str], *files: flags.FlagHolder, more: bool = False) -> list[str]:
    """Parse the flags; a flag, or a file of a config, that cannot be read ends the program.

    --config.TABLE.NAME=value may name what the table does not hold yet, see `set_row`. files: the
    flags besides --config that name a file like it. more: whether arguments may follow the flags;
    what follows `--` is left as it is.
    """
    end = argv.index("--") if "--" in argv else len(argv)
    argv, after = argv[:end], argv[end:]
    rows, argv = rows_of_tables(argv)
    argv += after
    sys.argv = argv  # where ml_collections looks for --config.KEY
    sys.path.append(str(Path(__file__).parents[1]))  # for a config elsewhere that imports ours
    flag = CONFIG
    try:
        rest = flags.FLAGS(argv)
        if CONFIG.value is not None:
            for row in rows:
                set_row(CONFIG.value, *row.groups())
        for flag in (CONFIG, *files):
            if flag.value is not None:
                flag.value.unlock()  # one that could not be loaded says so at its first use
                flag.value.lock()  # with all of its tables
    except Exception as error:
        fail(in_one_line(error, flag.name))
    if len(rest) > 1 and not more:
        fail(f"unexpected argument {rest[1]!r}; options read --name=value")
    return rest


def in_one_line(error: Exception, flag: str) -> str:
    """What to say of an error of `parse`. flag: the one whose file was read last.

    Raises the error if neither the command line nor a file of a config can have caused it.
    """
    chain: list[BaseException] = [error]
    while chain[-1].__context__ is not None:  # absl and ml_collections wrap what a config raises
        chain.append(chain[-1].__context__)
    for cause in reversed(chain):
        if isinstance(cause, InputError):
            return str(cause)
        if isinstance(cause, SyntaxError):
            return f"{cause.filename}, line {cause.lineno}: {cause.msg}"
        if place := place_in_config(cause):
            return f"{place}: {type(cause).__name__}: {readable(cause)}"
    if isinstance(error, AttributeError) and "get_config" in str(error):
        return f"the file of --{flag} has no function get_config()"
    if isinstance(error, (AttributeError, KeyError)):
        return f"unknown config key: {readable(error)} (see configs/default.py)"
    if isinstance(error, OSError):
        return f"the file of --{flag} cannot be read: {readable(error)}"
    if isinstance(error, (flags.Error, TypeError, ValueError)):
        return str(error)
    raise error


def place_in_config(error: BaseException) -> str:
    """The file of a config and the line in which an error was raised, if it was."""
    others = [Path(package.__path__[0]) for package in (absl, ml_collections)]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path == Path(__file__):
            break
        if not (frame.filename.startswith("<") or {*others} & {*path.parents}):
            return f"{path}, line {frame.lineno}"
    return ""


def readable(error: BaseException) -> str:
    """Its message; ml_collections has reprs of two lines: "'stepss'\\nDid you mean ..."."""
    if isinstance(error, OSError):
        return str(error).splitlines()[-1]
    text = str(error.args[0] if error.args else "")
    if isinstance(error, (AttributeError, KeyError)):
        text = text.encode().decode("unicode_escape").replace("'", "")
    return ". ".join(text.splitlines())


def told(action: Callable[[], Any]) -> Any:
    """What `action` returns; bad input ends the program with its one line."""
    logging.set_verbosity(logging.WARNING)  # libraries narrate every checkpoint at INFO
    try:
        return action()
    except InputError as error:
        fail(str(error), BUSY if isinstance(error, Busy) else BAD_INPUT)
