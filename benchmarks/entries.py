"""The main of a benchmark of influence: means over seeds, each choice of options in one file."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import flags
from ml_collections import config_flags

from benchmarks.record import about, save


def tell(one_seed: Callable[[int], list[dict]], keys: tuple[str, ...], options: list[str]) -> None:
    """Prints the table of all --seeds, and keeps it in --out, beside those of other options.

    one_seed: rows by "name", with numbers by `keys`, of which the first is told with its spread.
    options: flags that change the result; an entry is known by the config, what is changed in it,
    and those that are not at their defaults.
    """
    rows = [row for seed in map(int, flags.FLAGS.seeds) for row in one_seed(seed)]
    table = {}
    for name in dict.fromkeys(row["name"] for row in rows):
        mine = [row for row in rows if row["name"] == name]
        means = {k: round(float(np.mean([r[k] for r in mine])), 4) for k in keys}
        spread = np.std([r[keys[0]] for r in mine], ddof=len(mine) > 1)
        means[f"{keys[0]}_sd"] = round(float(spread), 4)
        table[name] = means | {"seeds": len(mine)}
        print(f"{name:18} {table[name]}", flush=True)
    config = flags.FLAGS["config"]
    overrides = config_flags.get_override_values(config)
    changed = [f"{k}={v}" for k, v in overrides.items() if k != "data.path"]
    said = [flags.FLAGS[name] for name in (*options, "seeds")]
    changed += [flag.serialize() for flag in said if flag.value != flag.default]
    key = " ".join([Path(config_flags.get_config_filename(config)).stem, *changed])
    path = Path(flags.FLAGS.out)
    known = json.loads(path.read_text()) if path.exists() else {}
    known[key] = about() | {"options": " ".join(f.serialize() for f in said), "table": table}
    save(path, known)
