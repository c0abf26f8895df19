"""The models that memories are compared on: architectures x widths x embedding sizes.

    python -m diet_jax.evaluate --memory=runs/quickstart --zoo=configs/zoo.py

The argument `tune` (configs/zoo.py:tune) tries a grid of learning rates and L2 on the subsets,
`tune_fine` one of three times as many points, and `tune_full` one of learning rates on all rows.
"""

from ml_collections import ConfigDict

from diet_jax.types import Config, InputError

WIDE = ("LR", "FM", "FwFM", "FmFM")  # no layers of their own
DEEP = (
    "MLP WideDeep IPNN NFM DeepFM DCN DCNv2 DCNv2Mix GDCN xDeepFM AutoInt FiBiNET MaskNet FinalMLP"
).split()
SIZED = ("MLP", "DeepFM", "DCNv2")  # also with larger embeddings and more layers


def get_config(how: str = "") -> Config:
    c: Config = ConfigDict()
    subsets = ("memory", "random_hard", "random_soft")
    # Learning rates and L2 to try beside those of the recipe; no l2s: the recipe's. Settings of the
    # architecture to try with each, such as ("", "init_scale=0.1"); none: as it is.
    c.settings = ()
    known = {
        "": (("full", *subsets), (), ()),
        "tune": (subsets, (0.00125, 0.005, 0.02, 0.08), (0.0, 0.3)),
        "tune_fine": (subsets, (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08), (0.0, 0.03, 0.1, 0.3)),
        "tune_full": (("full",), (0.002, 0.008), ()),
    }
    if how not in known:
        raise InputError(
            f"configs/zoo.py has no {how!r}; choose from {', '.join(filter(None, known))}"
        )
    c.methods, c.lrs, c.l2s = known[how]
    models = [(arch, 8, ()) for arch in WIDE] + [(arch, 8, (64, 32)) for arch in DEEP]
    models += [(arch, 16, (64, 32)) for arch in SIZED]
    models += [(arch, 8, (128, 64, 32)) for arch in SIZED]
    c.variants = ConfigDict({name(*model): spec(*model) for model in models})
    return c


def name(arch: str, dim: int, hidden: tuple[int, ...]) -> str:
    return " ".join([arch, str(dim), *(["-".join(map(str, hidden))] if hidden else [])])


def spec(arch: str, dim: int, hidden: tuple[int, ...]) -> ConfigDict:
    return ConfigDict({"arch": arch, "dim": dim, "hidden": hidden})
