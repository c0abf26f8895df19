"""MovieLens-100K: the first 90 % as one stage, the last 10 % as its test, memory 1 % of the rows.

    python -m diet_jax.main --config=configs/movielens_100k.py --workdir=runs/movielens_100k \
        --config.data.path=FOLDER_OR_ZIP

Without data.path it reads what `tfds build movielens/100k-ratings --file_format=array_record` left.
"""

from configs import default
from diet_jax.types import Config


def get_config() -> Config:
    c = default.get_config()
    c.data.name = "100k"
    c.stages.fractions = (0.9, 0.1)
    c.memory.rate = 0.01
    c.inner.remat = False  # a small log: activations fit, and a step takes less time
    c.outer.steps = 500
    # Chosen on validation slices: python -m benchmarks.recipes --config=configs/movielens_100k.py
    lr = c.eval.lr
    c.eval.full_epochs = 5.0
    lr.full.update({"default": 5e-4, "LR": 8e-3, "FM": 1e-3})
    lr.memory.update({"default": 5e-3, "LR": 8e-2, "FM": 2e-2, "DeepFM": 1e-2})
    lr.random_hard.update({"default": 2.5e-3, "LR": 1e-2})
    lr.random_soft.update({"default": 1e-2, "LR": 4e-2, "DeepFM": 5e-3})
    return c
