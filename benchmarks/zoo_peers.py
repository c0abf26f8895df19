"""Do the zoo's models answer what deepctr-torch's answer, with the same weights?

    python -m benchmarks.zoo_peers --out=benchmarks/results --peers_python=PEERS/bin/python

PEERS is an environment with benchmarks/zoo-peers-requirements.txt. Weights are drawn there, in
double precision, and copied into our parameters. zoo_peers.json: by model, the largest difference
of a logit, relative to the larger of 1 and that logit; the target is 1e-5 (ours are float32).
"""

import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from diet_jax.files import replace_text
from diet_jax.models import init_params, logits, make_model

OUT = flags.DEFINE_string("out", "benchmarks/results", "Folder of zoo_peers.json.")
PEERS = flags.DEFINE_string("peers_python", None, "The peers' Python.", required=True)

TARGET = 1e-5
# Their sizes, where they are not our defaults.
SETTINGS = {
    "AFM": "AFM:attention=3",
    "DCN": "DCN:n_cross=2",
    "DCNv2Mix": "DCNv2Mix:n_experts=2,rank=3",
    "xDeepFM": "xDeepFM:maps=(3,2)",
    "AutoInt": "AutoInt:heads=2,size=2",
}
HIDDEN = (6, 5)


class Weights:
    """A peer's weights by their names there."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays = arrays

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def linear(self, name: str) -> dict:
        found = {"kernel": self[f"{name}.weight"].T}
        return found | ({"bias": self[f"{name}.bias"]} if f"{name}.bias" in self.arrays else {})

    def hidden(self) -> dict:
        return {f"Dense_{k}": self.linear(f"dnn.linears.{k}") for k in range(len(HIDDEN))}

    def tower(self, bias: np.ndarray | float = 0.0) -> dict:
        last = {"kernel": self["dnn_linear.weight"].T, "bias": np.zeros(1) + bias}
        return self.hidden() | {f"Dense_{len(HIDDEN)}": last}

    def first_order(self) -> dict:
        return {"bias": self["out.bias"][0], "dense": self["linear_model.weight"][:, 0]}

    def last(self) -> dict:
        return {"kernel": self["dnn_linear.weight"].T, "bias": self["out.bias"]}


def mlp(w: Weights) -> dict:
    return w.tower(w["out.bias"])


def wide(w: Weights) -> dict:
    return {"FirstOrder_0": w.first_order(), "Tower_0": w.tower()}


def ipnn(w: Weights) -> dict:
    # They put dense features behind the products, we before.
    tower = w.tower(w["out.bias"])
    kernel, n = tower["Dense_0"]["kernel"], 2
    flat, products, dense = np.split(kernel, [16, len(kernel) - n])
    tower["Dense_0"]["kernel"] = np.concatenate([flat, dense, products])
    return {"Tower_0": tower}


def afm(w: Weights) -> dict:
    return {
        "FirstOrder_0": w.first_order(),
        "Dense_0": {"kernel": w["fm.projection_h"]},
        "Dense_1": {"kernel": w["fm.attention_W"], "bias": w["fm.attention_b"]},
        "Dense_2": {"kernel": w["fm.projection_p"]},
    }


def dcn(w: Weights) -> dict:
    layers = zip(w["crossnet.kernels"], w["crossnet.bias"], strict=True)
    crosses = {
        f"VectorCross_{k}": {"Dense_0": {"kernel": kernel}, "bias": bias[:, 0]}
        for k, (kernel, bias) in enumerate(layers)
    }
    return {**crosses, "Mlp_0": w.hidden(), "Dense_0": w.last()}


def dcn_v2(w: Weights) -> dict:
    layers = zip(w["crossnet.kernels"], w["crossnet.bias"], strict=True)
    parts = [{"kernel": kernel.T, "bias": bias[:, 0]} for kernel, bias in layers]
    parts += [*w.hidden().values(), w.last()]
    return {f"Dense_{k}": part for k, part in enumerate(parts)}


def dcn_v2_mix(w: Weights) -> dict:
    n_experts = len(w["crossnet.U_list"][0])
    gates = [w[f"crossnet.gating.{e}.weight"][0] for e in range(n_experts)]
    crosses = {
        f"MixtureCross_{k}": {
            "Dense_0": {"kernel": np.stack(gates, axis=1)},
            "DenseGeneral_0": {"kernel": v.transpose(1, 0, 2)},
            "core": c.transpose(0, 2, 1),
            "down": u.transpose(0, 2, 1),
            "bias": bias[:, 0],
        }
        for k, (u, v, c, bias) in enumerate(
            zip(*(w[f"crossnet.{n}"] for n in ("U_list", "V_list", "C_list", "bias")), strict=True)
        )
    }
    return {**crosses, "Mlp_0": w.hidden(), "Dense_0": w.last()}


def x_deep_fm(w: Weights) -> dict:
    # Their CIN has biases, which the paper has not: they are set to zero there.
    maps, before = {}, 4
    for k in range(2):
        kernel = w[f"cin.conv1ds.{k}.weight"][..., 0]
        maps[f"maps_{k}"] = kernel.reshape(len(kernel), before, 4)
        before = len(kernel)
    return {**maps, "Dense_0": w.linear("cin_linear"), **wide(w)}


def auto_int(w: Weights) -> dict:
    layers = {}
    for k in range(2):
        # Their columns are head by head, as ours [d, 3, heads, size] lie in memory.
        parts = [w[f"int_layers.{k}.W_{p}"] for p in ("Query", "key", "Value")]
        qkv = np.stack([p.reshape(len(p), 2, -1) for p in parts], axis=1)
        skip = {"kernel": w[f"int_layers.{k}.W_Res"]}
        layers[f"Interacting_{k}"] = {"qkv": {"kernel": qkv}, "skip": skip}
    tokens, deep = np.split(w["dnn_linear.weight"].T, [-HIDDEN[-1]])
    tower = w.hidden() | {f"Dense_{len(HIDDEN)}": {"kernel": deep, "bias": np.zeros(1)}}
    answer = {"kernel": tokens, "bias": w["out.bias"]}
    return {**layers, "Tower_0": tower, "Dense_0": answer, "numbers": np.zeros((0, 4))}


def fi_bi_net(w: Weights) -> dict:
    # They put the reweighed fields' products first, we last.
    tower = w.tower()
    again, first, dense = np.split(tower["Dense_0"]["kernel"], [24, 48])
    tower["Dense_0"]["kernel"] = np.concatenate([first, again, dense])
    pairs = np.stack([w[f"Bilinear.bilinear.{p}.weight"].T for p in range(6)])
    senet = {f"Dense_{k}": w.linear(f"SE.excitation.{2 * k}") for k in range(2)}
    return {**senet, "pairs": pairs, "FirstOrder_0": w.first_order(), "Tower_0": tower}


COPY: dict[str, Callable[[Weights], dict]] = {
    "MLP": mlp,
    "WideDeep": wide,
    "DeepFM": wide,
    "IPNN": ipnn,
    "NFM": wide,
    "AFM": afm,
    "DCN": dcn,
    "DCNv2": dcn_v2,
    "DCNv2Mix": dcn_v2_mix,
    "xDeepFM": x_deep_fm,
    "AutoInt": auto_int,
    "FiBiNET": fi_bi_net,
}


def difference(name: str, found: dict[str, np.ndarray]) -> float:
    here = f"{name}/in/"
    w = Weights({key[len(here) :]: a for key, a in found.items() if key.startswith(here)})
    ids, dense = found["ids"], found["dense"]
    n_fields, values, dim = ids.shape[1], *w["embedding_dict.f0.weight"].shape
    dense = dense[:, :0] if name == "AutoInt" else dense
    model = make_model(SETTINGS.get(name, name), dim, HIDDEN)
    table = np.concatenate([w[f"embedding_dict.f{k}.weight"] for k in range(n_fields)])
    if model.linear:
        weights = [w[f"linear_model.embedding_dict.f{k}.weight"] for k in range(n_fields)]
        table = np.concatenate([np.concatenate(weights), table], axis=1)
    net = {"params": COPY[name](w)}
    if name == "DeepFM":
        net = {**w.first_order(), "tower": {"params": w.tower()}}
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), {"table": table, "net": net})
    args = jax.random.key(0), jnp.arange(len(table)), n_fields, dense.shape[1]
    wanted = jax.eval_shape(lambda: init_params(model, *args))
    if jax.tree.map(jnp.shape, params) != jax.tree.map(lambda a: a.shape, wanted):
        raise ValueError(f"{name}: the weights copied are not those of the model")
    rows = jnp.asarray(ids + values * np.arange(n_fields), jnp.int32)
    z, want = logits(model, params, rows, jnp.asarray(dense, jnp.float32)), found[f"{name}/out"]
    return float(np.max(np.abs(z - want) / np.maximum(1, np.abs(want))))


def main(argv: list[str]) -> None:
    del argv
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "peers.npz"
        script = str(Path(__file__).parent / "zoo_peers_torch.py")
        subprocess.run([PEERS.value, script, str(path)], check=True)
        found = dict(np.load(path))
    table = {name: difference(name, found) for name in COPY}
    result = {"peer": "deepctr-torch 0.3.0", "target": TARGET, "difference": table}
    out = Path(OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    replace_text(out / "zoo_peers.json", json.dumps(result, indent=1) + "\n")
    for name, value in table.items():
        print(f"{name:10} {value:.1e} {'' if value <= TARGET else 'MISSED'}")


if __name__ == "__main__":
    app.run(main)
