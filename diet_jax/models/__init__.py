"""The zoo: CTR architectures as pure functions over looked-up table rows, by name."""

import ast
import inspect
from typing import Any

from diet_jax.models import (
    attention,
    cross,
    deep,
    linear,
    multi_task,
    products,
    self_attention,
    sequence,
    streams,
)
from diet_jax.models.adapters import from_linen, from_nnx
from diet_jax.models.base import (
    Inputs,
    Model,
    Spec,
    answer,
    init_params,
    logits,
    look_up,
    penalty,
)
from diet_jax.types import InputError

MODELS = {
    "LR": linear.lr,
    "FM": linear.fm,
    "FFM": linear.ffm,
    "FwFM": linear.fw_fm,
    "FmFM": linear.fm_fm,
    "MLP": deep.mlp,
    "WideDeep": deep.wide_deep,
    "IPNN": products.ipnn,
    "NFM": products.nfm,
    "AFM": products.afm,
    "DeepFM": deep.deep_fm,
    "DCN": cross.dcn,
    "DCNv2": cross.dcn_v2,
    "DCNv2Mix": cross.dcn_v2_mix,
    "GDCN": cross.gdcn,
    "xDeepFM": products.x_deep_fm,
    "AutoInt": attention.auto_int,
    "FiBiNET": attention.fi_bi_net,
    "MaskNet": attention.mask_net,
    "FinalMLP": streams.final_mlp,
    "DIN": sequence.din,
    "DIEN": sequence.dien,
    "SASRec": self_attention.sas_rec,
    "HSTU": self_attention.hstu,
    "TwoTower": streams.two_tower,
    "MMoE": multi_task.mmoe,
    "PLE": multi_task.ple,
}

__all__ = [
    "MODELS",
    "Inputs",
    "Model",
    "Spec",
    "answer",
    "from_linen",
    "from_nnx",
    "init_params",
    "logits",
    "look_up",
    "make_model",
    "penalty",
]


def make_model(
    name: str,
    dim: int,
    hidden: tuple[int, ...],
    init_scale: float = 0.01,
    pool: tuple[int, ...] = (),
    vocab: tuple[int, ...] = (),
    tasks: tuple[int, ...] = (),
) -> Model:
    """Build the architecture `name` with embeddings of `dim` columns and `hidden` layer widths.

    name: of MODELS, and after a colon what to set in it: "DCNv2:n_cross=3", "MLP:hidden=(64,)",
    "FiBiNET:init_scale=0.1".
    pool, vocab: of the log's `types.Schema`. pool is wanted for a log with multi-valued fields and
    by FFM, vocab for a history, which is the columns whose vocab is another field's. tasks: the
    columns that its `tasks` names, in their order.

    Raises InputError for a name that is not in the zoo, with the names that are, or for a setting
    that the architecture does not have, with those it has.
    """
    kind, given = parse(name)
    if kind not in MODELS:
        raise InputError(f"unknown architecture {kind!r}: choose from {', '.join(MODELS)}")
    parameters = list(inspect.signature(MODELS[kind]).parameters.values())[1:]
    common = {"dim": dim, "hidden": tuple(hidden), "init_scale": init_scale}
    known = {**common, **{p.name: p.default for p in parameters}}
    for key, value in given.items():
        if key not in known:
            raise InputError(f"{kind} has no {key!r} to set: choose from {', '.join(known)}")
        if type(value) is not type(known[key]):
            raise InputError(f"{name!r}: {key} is {value!r}; write it like {known[key]!r}")
    dim, hidden, init_scale = (given.pop(key, value) for key, value in common.items())
    history = tuple(k for k, (p, v) in enumerate(zip(pool, vocab, strict=False)) if p != v)
    target = vocab[history[0]] if history else -1
    task = pool[tasks[0]] if tasks else -1
    spec = Spec(dim, hidden, max(pool, default=-1) + 1, target, task)
    plain = pool == tuple(range(len(pool))) and not history  # then a look-up is all there is to it
    return MODELS[kind](spec, **given)._replace(
        name=name,
        init_scale=init_scale,
        pool=() if plain else tuple(pool),
        history=history,
        tasks=tuple(tasks),
    )


def parse(name: str) -> tuple[str, dict[str, Any]]:
    """What a name says: ("DCNv2", {"n_cross": 3}) of "DCNv2:n_cross=3".

    Raises InputError if what follows the colon is not key=value with literal values.
    """
    kind, _, settings = name.partition(":")
    try:
        call = ast.parse(f"f({settings})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or not all(k.arg for k in call.keywords):
            raise ValueError
        return kind, {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    except (SyntaxError, ValueError):
        raise InputError(
            f"cannot read {settings!r} of architecture {name!r}: write KEY=VALUE, for example "
            "DCNv2:n_cross=3"
        ) from None
