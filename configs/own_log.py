"""Your own Parquet or CSV: copy this file, name your columns, run it.

    python -m diet_jax.main --config=configs/own_log.py --workdir=runs/own_log \
        --config.data.path=clicks.parquet

Categorical columns may hold text or numbers; dense columns hold numbers; the time is in seconds,
milliseconds or microseconds since 1970, a date, or ISO text. The user column only groups rows for
GAUC: name it among the categorical columns too if a model shall see it.
"""

from configs import default
from diet_jax.types import Config


def get_config() -> Config:
    c = default.get_config()
    c.data.source = "table"
    c.data.name = "own log"
    c.data.path = "clicks.parquet"
    c.data.label = "click"  # 0 or 1; for a rating set data.threshold, for example 4.0
    c.data.threshold = -1.0
    c.data.more_labels = ()  # further such columns, each a task of its own: ("purchase",)
    c.data.time = "timestamp"
    c.data.user = "user_id"
    c.data.categorical = ("user_id", "item_id", "category", "device")
    c.data.dense = ("price",)
    # What else a log may have, a line each (docs/data.md says more):
    # c.data.weight = "weight"  # of each row in the loss, positive
    # c.data.multi.tags = 5  # a field of several values, lists or text with |: the first 5
    # c.data.hashed.user_id = 100_000  # so many table rows that its values share
    # c.data.history, c.data.history_length = "item_id", 20  # what the user clicked before
    # c.data.derived = ("hour", "weekday", "count:item_id")
    # c.data.scale.price = "log"  # or standard, quantile, none
    # c.data.missing.price = 0.0  # instead of rejecting rows without one
    c.stages.count = 8
    c.growth.spread_field = "item_id"
    return c
