"""The architectures' formulas in NumPy, one row at a time, written from the papers with loops.

Each is f(net, row) -> logit: net as nested dicts of float64 arrays, row as `Row`.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np


class Row(NamedTuple):
    """emb: [F, D]. dense: [G]. past: the embeddings of the items seen, in time order, without
    padding. length: places for them. target: the field of the item. task: which of the log's labels
    is asked for, and task_field: the field that says so (-1: none does)."""

    emb: np.ndarray
    dense: np.ndarray
    past: list
    length: int
    target: int
    task: int = 0
    task_field: int = -1


def count(net, kind):
    """How many layers of a kind there are: Flax calls them kind_0, kind_1 .."""
    return sum(name.startswith(f"{kind}_") for name in net)


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(np.asarray(x) - np.max(x))
    return e / e.sum()


def layer(net, x):
    return x @ net["kernel"] + net.get("bias", 0)


def mlp(net, x):
    for k in range(len(net)):
        x = relu(layer(net[f"Dense_{k}"], x))
    return x


def tower(net, x):
    for k in range(len(net) - 1):
        x = relu(layer(net[f"Dense_{k}"], x))
    return layer(net[f"Dense_{len(net) - 1}"], x)[0]


def normal(net, x):
    y = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    return y * net["scale"] + net["bias"]


def flat(row, v=None):
    return np.append(row.emb if v is None else v, row.dense)


def linear(net, row):
    return row.emb[:, 0].sum() + row.dense @ net["dense"] + net["bias"]


def pairs(v):
    return [v[i] * v[j] for i, j in combinations(range(len(v)), 2)]


def lr(net, row):
    return linear(net, row)


def fm(net, row):
    return linear(net, row) + np.sum(pairs(row.emb[:, 1:]))


def ffm(net, row):
    """The vector of i for field j meets the vector of j for field i."""
    n_fields = len(row.emb)
    d = (row.emb.shape[1] - 1) // n_fields
    total = linear(net, row)
    for i, j in combinations(range(n_fields), 2):
        total += row.emb[i, 1 + j * d : 1 + j * d + d] @ row.emb[j, 1 + i * d : 1 + i * d + d]
    return total


def fw_fm(net, row):
    r, total = iter(net["params"]["pairs"]), linear(net["params"]["FirstOrder_0"], row)
    for i, j in combinations(range(len(row.emb)), 2):
        total += next(r) * row.emb[i, 1:] @ row.emb[j, 1:]
    return total


def fm_fm(net, row):
    m, total = iter(net["params"]["pairs"]), linear(net["params"]["FirstOrder_0"], row)
    for i, j in combinations(range(len(row.emb)), 2):
        total += row.emb[i, 1:] @ next(m) @ row.emb[j, 1:]
    return total


def dnn(net, row):
    return tower(net["params"], flat(row))


def deep_fm(net, row):
    return fm(net, row) + tower(net["tower"]["params"], flat(row, row.emb[:, 1:]))


def wide_deep(net, row):
    net = net["params"]
    return linear(net["FirstOrder_0"], row) + tower(net["Tower_0"], flat(row, row.emb[:, 1:]))


def ipnn(net, row):
    products = [p.sum() for p in pairs(row.emb)]
    return tower(net["params"]["Tower_0"], np.append(flat(row), products))


def nfm(net, row):
    net = net["params"]
    x = np.append(sum(pairs(row.emb[:, 1:])), row.dense)
    return linear(net["FirstOrder_0"], row) + tower(net["Tower_0"], x)


def afm(net, row):
    net, products = net["params"], pairs(row.emb[:, 1:])
    a = softmax([layer(net["Dense_0"], relu(layer(net["Dense_1"], p)))[0] for p in products])
    pooled = sum(weight * p for weight, p in zip(a, products, strict=True))
    return linear(net["FirstOrder_0"], row) + layer(net["Dense_2"], pooled)[0]


def x_deep_fm(net, row):
    net, v = net["params"], row.emb[:, 1:]
    maps, pooled = v, []
    for k in range(count(net, "maps")):
        found = []
        for w in net[f"maps_{k}"]:
            now = np.zeros(v.shape[1])
            for i in range(len(maps)):
                for j in range(len(v)):
                    now += w[i, j] * maps[i] * v[j]
            found.append(now)
        maps = np.array(found)
        pooled.extend(maps.sum(1))
    deep = tower(net["Tower_0"], flat(row, v))
    return linear(net["FirstOrder_0"], row) + layer(net["Dense_0"], np.array(pooled))[0] + deep


def crossed(net, row, kind, cross):
    net, x0 = net["params"], flat(row)
    x = x0
    for k in range(count(net, kind)):
        x = cross(net[f"{kind}_{k}"], x0, x)
    return layer(net["Dense_0"], np.append(x, mlp(net["Mlp_0"], x0)))[0]


def dcn(net, row):
    def cross(net, x0, x):
        return x0 * (x @ net["Dense_0"]["kernel"][:, 0]) + net["bias"] + x

    return crossed(net, row, "VectorCross", cross)


def dcn_v2(net, row):
    net, x0 = net["params"], flat(row)
    x = deep = x0
    for name in ("Dense_0", "Dense_1"):
        x = x0 * layer(net[name], x) + x
    for name in ("Dense_2", "Dense_3"):
        deep = relu(layer(net[name], deep))
    return layer(net["Dense_4"], np.append(x, deep))[0]


def dcn_v2_mix(net, row):
    def cross(net, x0, x):
        gates, total = softmax(layer(net["Dense_0"], x)), x
        for e, gate in enumerate(gates):
            inner = np.tanh(np.tanh(x @ net["DenseGeneral_0"]["kernel"][:, e]) @ net["core"][e])
            total = total + gate * x0 * (inner @ net["down"][e] + net["bias"])
        return total

    return crossed(net, row, "MixtureCross", cross)


def gdcn(net, row):
    def cross(net, x0, x):
        return x0 * layer(net["Dense_0"], x) * sigmoid(layer(net["Dense_1"], x)) + x

    return crossed(net, row, "GatedCross", cross)


def auto_int(net, row):
    net = net["params"]
    tokens = [*row.emb, *(x * v for x, v in zip(row.dense, net["numbers"], strict=True))]
    for k in range(count(net, "Interacting")):
        one = net[f"Interacting_{k}"]
        found = []
        for x in tokens:
            heads = []
            for h in range(2):
                q, key, v = (one["qkv"]["kernel"][:, part, h] for part in range(3))
                a = softmax([(x @ q) @ (y @ key) for y in tokens])
                heads.extend(sum(w * (y @ v) for w, y in zip(a, tokens, strict=True)))
            found.append(relu(np.array(heads) + layer(one["skip"], x)))
        tokens = found
    return layer(net["Dense_0"], np.concatenate(tokens))[0] + tower(net["Tower_0"], flat(row))


def fi_bi_net(net, row):
    net, v = net["params"], row.emb[:, 1:]
    weights = relu(layer(net["Dense_1"], relu(layer(net["Dense_0"], v.mean(1)))))
    products = []
    for e in (v, np.array([w * x for w, x in zip(weights, v, strict=True)])):
        m = iter(net["pairs"])
        products.extend((e[i] @ next(m)) * e[j] for i, j in combinations(range(len(v)), 2))
    x = np.append(np.concatenate(products), row.dense)
    return linear(net["FirstOrder_0"], row) + tower(net["Tower_0"], x)


def mask_net(net, row):
    net, raw = net["params"], flat(row)
    scale = [{"scale": s, "bias": b} for s, b in zip(net["scale"], net["shift"], strict=True)]
    values = flat(row, np.array([normal(s, e) for s, e in zip(scale, row.emb, strict=True)]))
    blocks = []
    for k in range(count(net, "LayerNorm")):
        # Flax numbers layers as they are made: aggregate, then what the mask is an argument of.
        aggregate, block, mask = (net[f"Dense_{3 * k + i}"] for i in range(3))
        masked = layer(mask, relu(layer(aggregate, raw))) * values
        blocks.extend(relu(normal(net[f"LayerNorm_{k + 1}"], masked @ block["kernel"])))
    return tower(net["Tower_0"], np.array(blocks))


def two_tower(net, row):
    net = net["params"]
    item = row.emb[row.target]
    user = np.append(np.delete(row.emb, row.target, axis=0), row.dense)
    a, b = (
        layer(net[f"Dense_{k}"], mlp(net[f"Mlp_{k}"], side)) for k, side in enumerate((user, item))
    )
    return a @ b + net["bias"]


def final_mlp(net, row):
    """The first stream is gated by field 0, the second by a learned vector; 3 heads."""
    net, x = net["params"], flat(row)
    streams = []
    for k, context in enumerate((row.emb[0], net["context_1"][0])):
        gate = 2 * sigmoid(layer(net[f"Dense_{k}"], mlp(net[f"Mlp_{2 * k}"], context)))
        streams.append(mlp(net[f"Mlp_{2 * k + 1}"], gate * x))
    a, b = streams
    total = layer(net["Dense_2"], a)[0] + layer(net["Dense_3"], b)[0]
    size = len(a) // 3
    for h in range(3):
        part = slice(h * size, h * size + size)
        total += a[part] @ net["fusion"][h] @ b[part]
    return total


def ranked(net, row, state):
    target = row.emb[row.target]
    return tower(net["params"]["Tower_0"], np.concatenate([flat(row), state, state * target]))


def din(net, row):
    units = net["params"]["encoder"]["Activation_0"]
    target, state = row.emb[row.target], np.zeros(row.emb.shape[1])
    for item in row.past:
        x = np.concatenate([item, target, item - target, item * target])
        state = state + tower(units, x) * item
    return ranked(net, row, state)


def gru(net, past, attention):
    h, states = np.zeros(len(net["state"])), []
    for x, a in zip(past, attention, strict=True):
        update, reset, new = np.split(layer(net["Dense_0"], x), 3)
        u_update, u_reset = np.split(net["gates"], 2, axis=1)
        update, reset = a * sigmoid(update + h @ u_update), sigmoid(reset + h @ u_reset)
        h = (1 - update) * h + update * np.tanh(new + (reset * h) @ net["state"])
        states.append(h)
    return states


def dien(net, row):
    encoder, target = net["params"]["encoder"], row.emb[row.target]
    if not row.past:
        return ranked(net, row, np.zeros(len(target)))
    states = gru(encoder["Gru_0"], row.past, np.ones(len(row.past)))
    attention = softmax([h @ layer(encoder["Dense_0"], target) for h in states])
    return ranked(net, row, gru(encoder["Gru_1"], states, attention)[-1])


def sas_rec(net, row):
    """Two heads. The latest item has place 0."""
    encoder, d = net["params"]["encoder"], row.emb.shape[1]
    n = len(row.past)
    x = [item + encoder["places"][n - 1 - i] for i, item in enumerate(row.past)]
    for k in range(count(encoder, "DenseGeneral")):
        y = [normal(encoder[f"LayerNorm_{2 * k}"], token) for token in x]
        w = encoder[f"DenseGeneral_{k}"]["kernel"]  # [d, 3, heads, size]
        mixed = []
        for i in range(n):
            heads = []
            for h in range(2):
                q, keys, values = (
                    [token @ w[:, part, h] for token in y[: i + 1]] for part in range(3)
                )
                a = softmax([q[-1] @ key / np.sqrt(d / 2) for key in keys])
                heads.extend(sum(b * v for b, v in zip(a, values, strict=True)))
            mixed.append(x[i] + heads)
        x = []
        for token in mixed:
            y = normal(encoder[f"LayerNorm_{2 * k + 1}"], token)
            inner = relu(layer(encoder[f"Dense_{2 * k + 1}"], y))
            x.append(token + layer(encoder[f"Dense_{2 * k}"], inner))
    return ranked(net, row, normal(encoder[f"LayerNorm_{2 * k + 2}"], x[-1]) if n else np.zeros(d))


def hstu(net, row):
    """Two heads. The target is the last event; scores are divided by all places there are."""
    encoder, target = net["params"]["encoder"], row.emb[row.target]
    x, d = [*row.past, target], len(target)

    def silu(z):
        return z * sigmoid(z)

    for k in range(count(encoder, "DenseGeneral")):
        one = encoder[f"DenseGeneral_{k}"]  # kernel [d, 4, heads, size]: u, v, q, key
        y = [normal(encoder[f"LayerNorm_{2 * k}"], token) for token in x]
        u, v, q, key = (
            [silu(np.einsum("x,xhs->hs", t, one["kernel"][:, p]) + one["bias"][p]) for t in y]
            for p in range(4)
        )
        after = []
        for i, token in enumerate(x):
            mixed = np.zeros_like(v[0])
            for j in range(i + 1):
                for h in range(2):
                    score = silu(q[i][h] @ key[j][h] + encoder[f"apart_{k}"][i - j])
                    mixed[h] += score / (row.length + 1) * v[j][h]
            gated = normal(encoder[f"LayerNorm_{2 * k + 1}"], mixed.ravel()) * u[i].ravel()
            after.append(token + layer(encoder[f"Dense_{k}"], gated))
        x = after
    return ranked(net, row, x[-1].reshape(d))


def part(net, *at):
    """The parameters of one of several modules that lie side by side."""
    return {k: part(v, *at) if isinstance(v, dict) else v[at] for k, v in net.items()}


def gated(net, x, experts):
    return sum(g * e for g, e in zip(softmax(layer(net["Dense_0"], x)), experts, strict=True))


def multi_task_input(row):
    fields = [f for f in range(len(row.emb)) if f != row.task_field]
    return flat(row, row.emb[fields])


def mmoe(net, row):
    net, x = net["params"], multi_task_input(row)
    experts = [mlp(part(net["Experts_0"]["VmapMlp_0"], e), x) for e in range(4)]
    state = gated(part(net["VmapGate_0"], row.task), x, experts)
    return tower(part(net["VmapTower_0"], row.task), state)


def ple(net, row):
    """Two levels, of two experts for each task and one for all."""
    net, n = net["params"], len(net["params"]["VmapTower_0"]["Dense_0"]["bias"])
    states = [multi_task_input(row)] * (n + 1)  # the last is that of all tasks
    for level in range(2):
        mine = net[f"VmapExperts_{level}"]["VmapMlp_0"]
        own = [[mlp(part(mine, t, e), states[t]) for e in range(2)] for t in range(n)]
        common = [mlp(part(net[f"Experts_{level}"]["VmapMlp_0"], 0), states[n])]
        gates = net[f"VmapGate_{level}"]
        after = [gated(part(gates, t), states[t], own[t] + common) for t in range(n)]
        if level == 0:
            after.append(gated(net["Gate_0"], states[n], sum(own, []) + common))
        states = after
    return tower(part(net["VmapTower_0"], row.task), states[row.task])


FORMULAS = {
    "LR": lr,
    "FM": fm,
    "FFM": ffm,
    "FwFM": fw_fm,
    "FmFM": fm_fm,
    "MLP": dnn,
    "WideDeep": wide_deep,
    "IPNN": ipnn,
    "NFM": nfm,
    "AFM": afm,
    "DeepFM": deep_fm,
    "DCN:n_cross=2": dcn,
    "DCNv2": dcn_v2,
    "DCNv2Mix:n_experts=2,rank=3": dcn_v2_mix,
    "GDCN:n_cross=2": gdcn,
    "xDeepFM:maps=(3,2)": x_deep_fm,
    "AutoInt:size=3,n_layers=1": auto_int,
    "FiBiNET:reduction=2": fi_bi_net,
    "MaskNet:n_blocks=2,block=5,reduction=0.5": mask_net,
    "FinalMLP:first=(0,),heads=3": final_mlp,
    "DIN:units=(6,)": din,
    "DIEN": dien,
    "SASRec:heads=2,n_blocks=1": sas_rec,
    "HSTU:heads=2": hstu,
    "TwoTower:out=3": two_tower,
    "MMoE:tower=(3,)": mmoe,
    "PLE:tower=(3,),n_own=2": ple,
}
