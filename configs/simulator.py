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
    c.growth.pool = 16384
    # Rows have up to 33 values here, of a history too, and models forget what they were told twice:
    # one pass, of larger steps. Chosen on the ninth tenth of a stream of 200,000 rows.
    c.inner.archs = ("LR", "DeepFM")
    c.inner.batch = 256
    c.inner.lr.update({"default": 5e-3, "LR": 4e-2})
    c.teacher.lr, c.teacher.epochs, c.teacher.first_epochs = 4e-3, 1.0, 1.0
    c.eval.full_epochs = 1.0
    lr = c.eval.lr
    lr.full.update({"default": 4e-3, "FM": 2e-3})
    lr.memory.update({"default": 5e-3, "LR": 4e-2, "FM": 1e-2})
    lr.random_soft.update({"default": 5e-3, "LR": 4e-2, "FM": 1e-2})
    return c
