"""Prepares a log once, and says what it holds and what was rejected.

    python -m diet_jax.prepare --config=configs/own_log.py --config.data.path=clicks.parquet

A run of the same config finds it prepared; without this command it prepares the log itself.
"""

import time

from absl import app

from diet_jax import command, console
from diet_jax.data import prepare_log
from diet_jax.data.profile import profile
from diet_jax.data.store import load_manifest, read


def main(argv: list[str]) -> None:
    start = time.perf_counter()
    with console.preparation() as report:
        folder = command.told(lambda: prepare_log(command.CONFIG.value, report))
    took = time.perf_counter() - start
    manifest, columns = command.told(lambda: (load_manifest(folder), profile(read(folder))))
    console.print_preparation(manifest, columns, folder, took)


def parse(argv: list[str]) -> list[str]:
    rest = command.parse(argv)
    if command.CONFIG.value is None:
        command.fail("give --config=FILE, for example configs/quickstart.py")
    return rest


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
