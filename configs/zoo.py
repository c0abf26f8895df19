"""The models that memories are compared on: architectures x widths x embedding sizes.

    python -m diet_jax.evaluate --memory=runs/quickstart --zoo=configs/zoo.py

The argument `tune` (configs/zoo.py:tune) tries a grid of learning rates and L2 with each.
"""

from ml_collections import ConfigDict

from diet_jax.types import Config

DEEP = ("MLP", "DeepFM", "DCNv2")


def get_config(how: str = "") -> Config:
    c: Config = ConfigDict()
    c.methods = ("full", "memory", "random_hard", "random_soft")
    # Learning rates and L2 to try beside those of the recipe; no l2s: the recipe's.
    c.lrs = (0.00125, 0.005, 0.02, 0.08) if how == "tune" else ()
    c.l2s = (0.0, 0.3) if how == "tune" else ()
    c.variants = ConfigDict()
    add(c, "LR", "LR", 1, ())
    for dim in (4, 8, 16):
        add(c, f"FM, {dim}", "FM", dim, ())
        for arch in DEEP:
            for hidden in ((32,), (64, 32)):
                add(c, f"{arch}, {dim}, {'-'.join(map(str, hidden))}", arch, dim, hidden)
    return c


def add(c: Config, name: str, arch: str, dim: int, hidden: tuple[int, ...]) -> None:
    c.variants[name] = ConfigDict({"arch": arch, "dim": dim, "hidden": hidden})
