"""Chooses learning rates and L2 for a log, for every method and architecture.

    python -m diet_jax.tune --config=configs/own_log.py --config.data.path=LOG --workdir=runs/tune

The last tenth of each stage is held out of everything and judges (eval.on=validation). All methods
get as large a grid and the same steps. Prints the lines that belong into the config. The same
command goes on where it was stopped; with a larger grid or more seeds it does what is new.
"""

import os
import sys
from pathlib import Path

import jax
from absl import app, flags

from diet_jax import command, sharding
from diet_jax.rates import Grid, lines, table, tried
from diet_jax.record import software_versions
from diet_jax.types import InputError

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the trials.")
SUBSET = flags.DEFINE_list(
    "lrs", "0.00125,0.0025,0.005,0.01,0.02,0.04,0.08,0.16", "Learning rates of subset methods."
)
FULL = flags.DEFINE_list(
    "full_lrs", "0.000125,0.00025,0.0005,0.001,0.002,0.004,0.008,0.016", "Those of full data."
)
L2 = flags.DEFINE_list("l2", "0,0.03,0.1,0.3,1", "Weights of the penalty on embeddings.")
SEEDS = flags.DEFINE_list("seeds", "0", "Seeds of everything; the mean over them chooses.")
METHODS = flags.DEFINE_list("methods", "full,memory,random_hard,random_soft", "To choose for.")


def grid() -> Grid:
    """What the flags ask for. Raises InputError for lists that cannot be."""

    def numbers(flag: flags.FlagHolder, kind: type) -> tuple:
        try:
            return tuple(kind(text) for text in flag.value)
        except ValueError:
            said = ",".join(flag.value)
            raise InputError(f"--{flag.name} is {said!r}; give numbers with commas") from None

    lrs, full = numbers(SUBSET, float), numbers(FULL, float)
    if len(lrs) != len(full):
        raise InputError(f"--lrs has {len(lrs)} rates and --full_lrs {len(full)}; give as many")
    pairs = tuple(zip(lrs, full, strict=True))
    return Grid(pairs, numbers(L2, float), numbers(SEEDS, int), tuple(METHODS.value))


def tune() -> list[dict]:
    """The table of all that was tried, which the folder keeps as well."""
    workdir = Path(str(WORKDIR.value))
    if not jax.config.values["jax_compilation_cache_dir"]:
        jax.config.update("jax_compilation_cache_dir", str(workdir / "compiled"))
    env = software_versions() | {"devices": sharding.device_kinds()}
    return table(tried(command.CONFIG.value, workdir, grid(), env))


def main(argv: list[str]) -> None:
    for line in lines(command.told(tune)):
        print(line)


def parse(argv: list[str]) -> list[str]:
    rest = command.parse(argv)
    if command.CONFIG.value is None or not WORKDIR.value:
        command.fail("give both --config=FILE and --workdir=FOLDER")
    return rest


def entry() -> None:
    sys.path.insert(0, os.getcwd())  # as `python -m` does
    app.run(main, flags_parser=parse)


if __name__ == "__main__":
    entry()
