"""MovieLens-100K with three more architectures to judge, for the board's matrix of transfer.

python -m benchmarks.board --config=configs/transfer.py --config.data.path=FOLDER --rates=0.01 \
    --seeds=0,1,2 --methods=random_soft,diet_mix4_on_LR_cosine,diet_mix4_on_FM_cosine, ..
"""

from configs import movielens_100k
from diet_jax.types import Config


def get_config() -> Config:
    c = movielens_100k.get_config()
    c.eval.archs = (*c.eval.archs, "AutoInt", "xDeepFM", "FinalMLP")
    return c
