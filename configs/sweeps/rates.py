"""Learning rates, all combinations; those that lag behind after a stage are stopped.

python -m launch.sweep --sweep=configs/sweeps/rates.py --workdir=runs/rates
"""

from ml_collections import ConfigDict

from configs.sweeps import ablation


def get_config() -> ConfigDict:
    c = ablation.get_config()
    c.mode = "halving"
    c.axes = (("outer.lr", (0.01, 0.02, 0.04, 0.08)), ("inner.lr.default", (0.005, 0.01, 0.02)))
    c.seeds = (0,)
    return c
