"""The bundled MovieLens latest-small, 100,836 ratings in 8 stages, memory 2 % of the rows.

python -m diet_jax.main --config=configs/quickstart.py --workdir=runs/quickstart
"""

from configs import default
from diet_jax.types import Config


def get_config() -> Config:
    c = default.get_config()
    return c
