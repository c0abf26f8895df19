"""Copies of a config that research changes, and the validation rows it judges by.

Those are cuts of the log that leave its last tenth unread.
"""

from ml_collections import ConfigDict

from diet_jax.types import Config


def unlocked(config: Config) -> Config:
    """A copy that takes new keys and types."""
    return ConfigDict(config.to_dict())


def windowed(config: Config, seed: int, window: float) -> Config:
    """An unlocked copy whose first stage is the log up to the share `window`, the next tenth its
    judge; with 0 every stage of the config, judged by its own tail."""
    config = unlocked(config)
    config.seed = seed
    if window:
        config.stages.fractions = (window, 0.1, round(0.9 - window, 6))
    else:
        config.eval.on = "validation"
    return config
