"""MovieLens-1M in 8 stages, memory 1 % of the rows.

    python -m diet_jax.main --config=configs/movielens_1m.py --workdir=runs/movielens_1m \
        --config.data.path=FOLDER_OR_ZIP

Without data.path it reads what `tfds build movielens/1m-ratings --file_format=array_record` left.
"""

from configs import default
from diet_jax.types import Config


def get_config() -> Config:
    c = default.get_config()
    c.data.name = "1m"
    c.memory.rate = 0.01
    c.memory.mix, c.memory.mix_by = 4, "label"
    return c
