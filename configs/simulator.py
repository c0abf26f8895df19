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
    c.growth.pool = 20480  # for rounds of 10,000 rows, which 1 % of ten million takes
    # Rows have up to 33 values here, of a history too, and models forget what they were told twice:
    # one pass over all rows. What deep models gain, products of fields, takes them more steps.
    c.inner.steps, c.inner.batch = 240, 256
    c.inner.lr.default = 2e-2
    c.outer.lr = 5e-3  # each of many slots has a small part in a noisy gradient
    c.teacher.lr, c.teacher.epochs, c.teacher.first_epochs = 4e-3, 1.0, 1.0
    c.eval.full_epochs = 1.0
    return c
