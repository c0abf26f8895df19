"""A simulated log of ten million rows, nine tenths as one stage, distilled in few outer steps.

    python -m diet_jax.main --config=configs/simulator_10m.py --workdir=runs/simulator_10m

A trial of 480 steps draws 122,880 times from 90,000 slots. So far outer steps have taught them
little beside what the teacher's labels say, and take time in which models could be tried.
"""

from configs import simulator
from diet_jax.types import Config


def get_config() -> Config:
    c = simulator.get_config()
    c.data.options.n_rows, c.data.options.n_stages = 10_000_000, 10
    c.stages.fractions = (0.9, 0.1)
    c.inner.steps = 480
    c.growth.rounds, c.growth.pool = 2, 131072  # one choice of 45,000 rows from many
    c.outer.steps = 50
    c.eval.seeds = (0,)
    # Chosen on the tail of the stage: python -m benchmarks.recipes with --l2=0,
    # --lrs=0.0025,0.005,0.01,0.02,0.04, and --full_lrs=0.0005,0.001,0.002 for --methods=full
    lr = c.eval.lr
    lr.full = {"default": 5e-4, "LR": 1e-3, "MLP": 2e-3, "DCNv2": 1e-3}
    lr.memory = {"default": 2e-2, "FM": 1e-2, "DeepFM": 1e-2}
    lr.random_hard = {"default": 1e-2, "LR": 5e-3, "FM": 2.5e-3, "DeepFM": 5e-3}
    lr.random_soft = {"default": 1e-2, "MLP": 4e-2, "DCNv2": 2e-2}
    return c
