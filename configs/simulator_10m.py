"""A simulated log of ten million rows, nine tenths as one stage, distilled in few outer steps.

    python -m diet_jax.main --config=configs/simulator_10m.py --workdir=runs/simulator_10m

A trial of 480 steps sees each of 90,000 slots about once. So far outer steps have taught them
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
    return c
