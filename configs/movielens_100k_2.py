"""MovieLens-100K with a memory of 2 % of the rows instead of 1 %, and the rates of that size.

    python -m diet_jax.main --config=configs/movielens_100k_2.py --workdir=runs/movielens_100k_2 \
        --config.data.path=FOLDER_OR_ZIP
"""

from configs import movielens_100k
from diet_jax.types import Config


def get_config() -> Config:
    c = movielens_100k.get_config()
    c.memory.rate = 0.02
    c.outer.lr = 2e-2  # the more slots, the smaller the part of each in a noisy gradient
    # Chosen on validation slices: python -m benchmarks.recipes --config=configs/movielens_100k_2.py
    # with --seeds=0,1,2,3 --methods=memory,random_hard,random_soft
    lr, l2 = c.eval.lr, c.eval.l2
    lr.memory.update({"default": 1e-2, "LR": 8e-2, "FM": 2e-2, "DeepFM": 8e-2})
    l2.memory.update({"FM": 0.03, "DeepFM": 1.0})
    lr.random_hard.update({"default": 1.25e-3, "LR": 1e-2, "FM": 1e-2})
    l2.random_hard.update({"FM": 1.0, "DCNv2": 0.1})
    lr.random_soft.update({"FM": 8e-2, "DeepFM": 5e-3, "DCNv2": 2e-2})
    l2.random_soft.update({"FM": 0.1})
    return c
