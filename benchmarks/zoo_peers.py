"""Do the zoo's models answer what deepctr-torch's answer, with the same weights?

    python -m benchmarks.zoo_peers --out=benchmarks/results --peers_python=PEERS/bin/python

PEERS is an environment with benchmarks/zoo-peers-requirements.txt. Weights are drawn there, in
double precision, and copied into our parameters. zoo_peers.json: by model, the largest difference
of a logit, relative to the larger of 1 and that logit; the target is 1e-5 (ours are float32).
"""

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks.record import versions, write
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
    "MMoE": "MMoE:n_experts=3,tower=(6,)",
    "PLE": "PLE:n_own=2,tower=(6,)",
}
HIDDEN = (6, 5)
TASKS = 2  # of MMoE and PLE


class Weights:
    """A peer's weights by their names there."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays = arrays

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def linear(self, name: str) -> dict:
        found = {"kernel": self[f"{name}.weight"].T}
        return found | ({"bias": self[f"{name}.bias"]} if f"{name}.bias" in self.arrays else {})

    def hidden(self, at: str = "dnn") -> dict:
        kernels = [name for name in self.arrays if name.startswith(f"{at}.") and "weight" in name]
        return {f"Dense_{k}": self.linear(f"{at}.linears.{k}") for k in range(len(kernels))}

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


def side_by_side(parts: list[dict]) -> dict:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *parts)


def towers(w: Weights) -> dict:
    parts = []
    for t in range(TASKS):
        last = {"kernel": w[f"tower_dnn_final_layer.{t}.weight"].T, "bias": w[f"out.{t}.bias"]}
        parts.append(w.hidden(f"tower_dnn.{t}") | {"Dense_1": last})
    return side_by_side(parts)


def mmoe(w: Weights) -> dict:
    experts = side_by_side([w.hidden(f"expert_dnn.{e}") for e in range(3)])
    gates = [{"Dense_0": w.linear(f"gate_dnn_final_layer.{t}")} for t in range(TASKS)]
    net = {"Experts_0": {"VmapMlp_0": experts}, "VmapGate_0": side_by_side(gates)}
    return {**net, "VmapTower_0": towers(w)}


def ple(w: Weights) -> dict:
    net = {
        "VmapTower_0": towers(w),
        "Gate_0": {"Dense_0": w.linear("shared_gate_dnn_final_layer.0")},
    }
    for k in range(2):
        own = [
            side_by_side([w.hidden(f"specific_experts.{k}.{t}.{e}") for e in range(2)])
            for t in range(TASKS)
        ]
        gates = [f"specific_gate_dnn_final_layer.{k}.{t}" for t in range(TASKS)]
        # They make as many shared experts as own ones, and use the first.
        shared = side_by_side([w.hidden(f"shared_experts.{k}.0.0")])
        net |= {
            f"VmapExperts_{k}": {"VmapMlp_0": side_by_side(own)},
            f"Experts_{k}": {"VmapMlp_0": shared},
            f"VmapGate_{k}": side_by_side([{"Dense_0": w.linear(name)} for name in gates]),
        }
    return net


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
    "MMoE": mmoe,
    "PLE": ple,
}


def difference(name: str, found: dict[str, np.ndarray]) -> float:
    here = f"{name}/in/"
    w = Weights({key[len(here) :]: a for key, a in found.items() if key.startswith(here)})
    ids, dense = found["ids"], found["dense"]
    n_fields, values, dim = ids.shape[1], *w["embedding_dict.f0.weight"].shape
    dense = dense[:, :0] if name == "AutoInt" else dense
    rows, want = ids + values * np.arange(n_fields), found[f"{name}/out"]
    model = make_model(SETTINGS.get(name, name), dim, HIDDEN)
    if want.ndim > 1:  # a row for each task; the field that says so has one table row, of no effect
        pool, tasks = (*range(n_fields), *[n_fields] * TASKS), (n_fields, n_fields + 1)
        model = make_model(SETTINGS[name], dim, HIDDEN, pool=pool, vocab=pool, tasks=tasks)
        rows = np.repeat(rows, TASKS, axis=0)
        asked = np.tile(np.eye(TASKS, dtype=int) - 1, (len(ids), 1))
        rows, dense = np.hstack([rows, asked]), np.repeat(dense, TASKS, axis=0)
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
    given = jnp.asarray(rows, jnp.int32), jnp.asarray(dense, jnp.float32)
    z, want = logits(model, params, *given), want.reshape(-1)
    return float(np.max(np.abs(z - want) / np.maximum(1, np.abs(want))))


def main(argv: list[str]) -> None:
    del argv
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "peers.npz"
        script = str(Path(__file__).parent / "zoo_peers_torch.py")
        subprocess.run([PEERS.value, script, str(path)], check=True)
        found = dict(np.load(path))
    table = {name: difference(name, found) for name in COPY}
    peers = versions(PEERS.value, "deepctr-torch", "torch")
    result = {"peers": peers, "target": TARGET, "difference": table}
    write(Path(OUT.value) / "zoo_peers.json", result)
    for name, value in table.items():
        print(f"{name:10} {value:.1e} {'' if value <= TARGET else 'MISSED'}")


if __name__ == "__main__":
    app.run(main)
