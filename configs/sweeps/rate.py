"""How large a memory has to be, and how many outer steps it takes: all combinations.

python -m launch.sweep --sweep=configs/sweeps/rate.py --workdir=runs/rate
"""

from ml_collections import ConfigDict

from configs.sweeps import ablation


def get_config() -> ConfigDict:
    c = ablation.get_config()
    c.mode = "grid"
    c.axes = (("memory.rate", (0.005, 0.01, 0.02, 0.05)), ("outer.steps", (100, 300, 900)))
    return c
