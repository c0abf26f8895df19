"""The bundled MovieLens latest-small, 100,836 ratings in 8 stages, memory 2 % of the rows.

python -m diet_jax.main --config=configs/quickstart.py --workdir=runs/quickstart
"""

from configs import default
from diet_jax.types import Config


def get_config() -> Config:
    c = default.get_config()
    c.teacher.first_epochs = 4.0
    c.memory.mix, c.memory.mix_by = 4, "label"
    c.outer.steps = 300
    # Chosen on validation slices: python -m benchmarks.recipes --config=configs/quickstart.py
    # (those of the memory with --seeds=0,1)
    lr, l2 = c.eval.lr, c.eval.l2
    lr.full.update({"default": 5e-4, "LR": 8e-3, "FM": 2e-3})
    lr.memory.update({"default": 2.5e-3, "LR": 4e-2, "FM": 4e-2, "DeepFM": 5e-3})
    l2.memory.update({"FM": 1.0, "DCNv2": 0.03})
    lr.random_hard.update({"default": 1.25e-3})
    l2.random_hard.update({"FM": 0.3})
    lr.random_soft.update({"default": 2.5e-3, "LR": 2e-2, "FM": 2e-2})
    l2.random_soft.update({"FM": 0.1})
    return c
