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
    # Rows have up to 33 values here, of a history too, and a second pass over all of them overfits.
    # What deep models gain, products of fields, takes them more steps on a memory.
    c.inner.steps, c.inner.batch = 240, 256
    c.inner.lr.default = 2e-2
    c.outer.lr = 5e-3  # each of many slots has a small part in a noisy gradient
    c.teacher.lr, c.teacher.epochs, c.teacher.first_epochs = 4e-3, 1.0, 1.0
    # With an IPNN, a FiBiNET and a DCNv2 that answer together the memory ranks models better:
    # docs/research.md has the flags and its figures, all others are of the MLP.
    c.eval.full_epochs = 1.0
    # Chosen on the tail of nine tenths of the log as one stage:
    # python -m benchmarks.recipes --config=configs/simulator.py --l2=0 \
    #     --config.data.options.n_stages=10 --config.stages.fractions="(0.9,0.1)" \
    #     --config.eval.seeds="(0,)" --lrs=0.0025,0.005,0.01,0.02,0.04,0.08 \
    #     --full_lrs=0.0005,0.001,0.002,0.004,0.008,0.016
    lr = c.eval.lr
    lr.full.update({"default": 2e-3, "MLP": 1e-3, "DCNv2": 4e-3})
    lr.memory.update({"default": 4e-2, "LR": 1e-2, "FM": 5e-3, "DeepFM": 1e-2})
    lr.random_hard.update({"LR": 2.5e-3, "FM": 2.5e-3, "MLP": 8e-2, "DCNv2": 2e-2})
    lr.random_soft.update({"FM": 5e-3, "MLP": 2e-2, "DCNv2": 8e-2})
    return c
