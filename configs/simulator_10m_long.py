"""A simulated log of ten million rows with trials of four times the steps of simulator_10m.py.

    python -m diet_jax.main --config=configs/simulator_10m_long.py --workdir=runs/simulator_10m_long

A trial draws 491,520 times from 90,000 slots: nearer to full data, and a fourth as cheap.
"""

from configs import simulator_10m
from diet_jax.types import Config


def get_config() -> Config:
    c = simulator_10m.get_config()
    c.inner.steps = 1920
    return c
