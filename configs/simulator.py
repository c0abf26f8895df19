"""A simulated stream of a million rows that drifts, whose best possible AUC is known.

    python -m diet_jax.main --config=configs/simulator.py --workdir=runs/simulator

Its parameters are those of World in diet_jax/data/simulator.py, set as data.options.
"""

from ml_collections import ConfigDict

from configs import default
from diet_jax.types import Config


def get_config() -> Config:
    c = default.get_config()
    c.data.source = "simulator"
    c.data.name = ""
    c.data.options = ConfigDict({"n_rows": 1_000_000, "seed": 0, "n_stages": 8})
    c.stages.count = 8
    c.memory.rate = 0.01
    return c
