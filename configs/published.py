"""Public logs as their owners publish them; name one behind a colon.

    python -m diet_jax.prepare --config=configs/published.py:criteo --config.data.path=FOLDER
    python -m diet_jax.main --config=configs/published.py:criteo --config.data.path=FOLDER \
        --workdir=runs/criteo

The names are those of SOURCES below. data.name picks one of a family (see the docstrings in
diet_jax/data/adapters). How they are cut follows how they were collected; the methods' knobs and
learning rates are the defaults, chosen for none of them.
"""

from configs import default
from diet_jax.types import Config, InputError

# source: (stages.interval, growth.spread_field); "" is eight stages of equal counts, and no cap.
SOURCES = {
    "amazon": ("", "parent_asin"),
    "avazu": ("day", ""),
    "criteo": ("day", ""),
    "kuairand": ("day", "video_id"),
    "mind": ("day", "news"),
    "movielens": ("", "item"),
    "sessions": ("", "item"),
    "taobao": ("day", ""),
    "yambda": ("", "item_id"),
}


def get_config(source: str = "") -> Config:
    if source not in SOURCES:
        names = ", ".join(SOURCES)
        raise InputError(f"name a log: --config=configs/published.py:NAME with one of {names}")
    c = default.get_config()
    c.data.source = source
    c.data.name = "25m" if source == "movielens" else ""
    c.stages.interval, c.growth.spread_field = SOURCES[source]
    c.data.min_count = 2
    return c
