"""The validation rows of research: cuts of the log that leave its last tenth unread."""

from ml_collections import ConfigDict


def windowed(config: ConfigDict, seed: int, window: float) -> ConfigDict:
    """An unlocked copy whose first stage is the log up to the share `window`, the next tenth its
    judge; with 0 every stage of the config, judged by its own tail."""
    config = ConfigDict(config.to_dict())
    config.seed = seed
    if window:
        config.stages.fractions = (window, 0.1, round(0.9 - window, 6))
    else:
        config.eval.on = "validation"
    return config
