"""The models that memories are compared on: architectures x widths x embedding sizes.

    python -m diet_jax.evaluate --memory=runs/quickstart --zoo=configs/zoo.py

The argument `tune` (configs/zoo.py:tune) tries a grid of learning rates and L2 with each.
"""

from ml_collections import ConfigDict

from diet_jax.types import Config

WIDE = ("LR", "FM", "FwFM", "FmFM", "AFM")  # no layers of their own
DEEP = (
    "MLP WideDeep IPNN NFM DeepFM DCN DCNv2 DCNv2Mix GDCN xDeepFM AutoInt FiBiNET MaskNet FinalMLP"
).split()
SIZED = ("MLP", "DeepFM", "DCNv2")  # also with other embeddings and layers


def get_config(how: str = "") -> Config:
    c: Config = ConfigDict()
    c.methods = ("full", "memory", "random_hard", "random_soft")
    # Learning rates and L2 to try beside those of the recipe; no l2s: the recipe's.
    c.lrs = (0.00125, 0.005, 0.02, 0.08) if how == "tune" else ()
    c.l2s = (0.0, 0.3) if how == "tune" else ()
    models = [(arch, 8, ()) for arch in WIDE] + [(arch, 8, (64, 32)) for arch in DEEP]
    models += [(arch, dim, (64, 32)) for arch in SIZED for dim in (4, 16)]
    models += [(arch, 8, hidden) for arch in SIZED for hidden in ((16,), (128, 64, 32))]
    c.variants = ConfigDict({name(*model): spec(*model) for model in models})
    return c


def name(arch: str, dim: int, hidden: tuple[int, ...]) -> str:
    return " ".join([arch, str(dim), *(["-".join(map(str, hidden))] if hidden else [])])


def spec(arch: str, dim: int, hidden: tuple[int, ...]) -> ConfigDict:
    return ConfigDict({"arch": arch, "dim": dim, "hidden": hidden})
