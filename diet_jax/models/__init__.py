"""The zoo: CTR architectures as pure functions over looked-up table rows, by name."""

from diet_jax.models.base import Model, init_params, logits, penalty
from diet_jax.models.cross import dcn_v2
from diet_jax.models.deep import deep_fm, mlp
from diet_jax.models.linear import fm, lr
from diet_jax.types import InputError

MODELS = {"LR": lr, "FM": fm, "MLP": mlp, "DeepFM": deep_fm, "DCNv2": dcn_v2}

__all__ = ["MODELS", "Model", "init_params", "logits", "make_model", "penalty"]


def make_model(
    name: str,
    dim: int,
    hidden: tuple[int, ...],
    init_scale: float = 0.01,
    pool: tuple[int, ...] = (),
) -> Model:
    """Build the architecture `name` with embeddings of `dim` columns and `hidden` layer widths.

    pool: see `Model`; give it for a log with multi-valued fields.

    Raises InputError for a name that is not in the zoo, with the names that are.
    """
    if name not in MODELS:
        raise InputError(f"unknown architecture {name!r}: choose from {', '.join(MODELS)}")
    plain = pool == tuple(range(len(pool)))  # then a look-up is all there is to it
    changes = {"init_scale": init_scale, "pool": () if plain else tuple(pool)}
    return MODELS[name](dim, tuple(hidden))._replace(**changes)
