"""MovieLens latest-small, bundled: 100,836 ratings in 8 stages, memory 2 % of the rows.

python -m diet_jax.main --config=configs/quickstart.py --workdir=runs/quickstart
"""

from configs import default


def get_config():
    c = default.get_config()
    return c
