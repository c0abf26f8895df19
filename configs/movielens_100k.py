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
    c.memory.mix, c.memory.mix_by = 4, "label"
    c.inner.l2.default = 0.1
    c.outer.steps = 500
    # Chosen on validation slices: python -m benchmarks.teachers
    c.teacher.arch, c.teacher.lr, c.teacher.first_epochs = "DCNv2", 5e-4, 3.0
    c.growth.pool = 16384  # a large part of the log, since its one stage is chosen from but once
    # Chosen on validation slices: python -m benchmarks.recipes --config=configs/movielens_100k.py
    # with --seeds=0,1,2,3 --methods=memory,random_hard,random_soft
    c.eval.full_epochs = 5.0
    lr, l2 = c.eval.lr, c.eval.l2
    lr.full.update({"default": 5e-4, "LR": 8e-3, "FM": 8e-3, "MLP": 2.5e-4})
    l2.full.update({"FM": 0.03, "MLP": 0.03})
    lr.memory.update({"default": 5e-3, "LR": 8e-2, "FM": 2e-2, "DCNv2": 1e-2})
    l2.memory.update({"FM": 0.03, "DeepFM": 0.03})
    lr.random_hard.update({"default": 1.25e-3, "LR": 1e-2, "FM": 1e-2})
    l2.random_hard.update({"FM": 1.0, "DCNv2": 0.03})
    lr.random_soft.update({"default": 1e-2, "LR": 8e-2, "FM": 2e-2, "DCNv2": 5e-3})
    l2.random_soft.update({"FM": 0.03})
    return c
