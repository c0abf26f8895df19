"""YOOCHOOSE: clicks of anonymous sessions, negatives sampled, one stage and its test, memory 1 %.

    python -m diet_jax.main --config=configs/yoochoose.py --workdir=runs/yoochoose \
        --config.data.path=FOLDER

A row is a click, or an item that was not clicked, drawn by popularity. Its fields are the item, how
often it came before, and the items that its session clicked before. Which items go together is all
there is to learn here, and 1 % of the rows say little of it: see docs/research.md.
"""

from configs import published
from diet_jax.types import Config


def get_config() -> Config:
    c = published.get_config("sessions")
    c.stages.fractions = (0.9, 0.1)
    c.memory.rate = 0.01
    c.inner.steps, c.inner.batch = 1920, 256
    c.inner.lr.default = 2e-2
    c.outer.lr = 5e-3
    c.growth.rounds, c.growth.pool = 2, 131072  # one choice of 30,000 rows from many
    c.outer.steps = 50
    c.teacher.lr, c.teacher.epochs, c.teacher.first_epochs = 4e-3, 1.0, 1.0
    c.eval.full_epochs = 1.0
    c.eval.seeds = (0,)
    # Chosen on the tail of the stage: python -m benchmarks.recipes with --l2=0,
    # --lrs=0.01,0.02,0.04,0.08 (random_hard: 0.0025 to 0.04), and for --methods=full
    # --full_lrs=0.0005,0.001,0.002,0.004,0.008
    lr = c.eval.lr
    lr.full = {"default": 4e-3, "LR": 2e-3}
    lr.memory = {"default": 2e-2, "LR": 1e-2, "FM": 4e-2, "MLP": 4e-2}
    lr.random_hard = {"default": 2e-2, "LR": 2.5e-3, "FM": 4e-2}
    lr.random_soft = {"default": 2e-2, "LR": 1e-2, "FM": 4e-2}
    return c
