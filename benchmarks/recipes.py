"""The learning rates and L2 of our configs: `diet_jax.tune`, and a record of what it found.

    python -m benchmarks.recipes --config=configs/movielens_100k.py --out=benchmarks/results

Takes the flags of `diet_jax.tune` (trials go to runs/recipes_NAME by default) and writes all
figures to OUT/recipes_NAME.json. With --methods only those are chosen for anew, and the file keeps
what it holds of the others.
"""

import json
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from benchmarks.record import write
from diet_jax import command, tune
from diet_jax.rates import lines

OUT = flags.DEFINE_string("out", "benchmarks/results", "Folder of the result file.")


def main(_) -> None:
    name, config = name_of_config(), command.CONFIG.value
    found, path = command.told(tune.tune), Path(OUT.value) / f"recipes_{name}.json"
    kept = json.loads(path.read_text())["table"] if path.exists() else []
    rows = [row for row in found if row["method"] in tune.METHODS.value]
    rows += [row for row in kept if row["method"] not in tune.METHODS.value]
    print(*lines(rows), sep="\n")
    result = {"config": json.loads(config.to_json()), "table": rows}
    result["config"]["eval"]["on"] = "validation"
    result["config"]["data"]["path"] = Path(config.data.path).name  # the rest is this machine's
    write(path, result)


def name_of_config() -> str:
    return Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem


def parse(argv: list[str]) -> list[str]:
    rest = command.parse(argv)
    flags.FLAGS.workdir = flags.FLAGS.workdir or f"runs/recipes_{name_of_config()}"
    return rest


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse)
