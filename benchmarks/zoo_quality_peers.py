"""Test AUC of deepctr-torch's models on a log, in an environment of its own, for zoo_quality.

    python benchmarks/zoo_quality_peers.py PROBLEM.npz RESULT.json

As shipped, without L2 and batch norm: model.compile("adam") with each learning rate, model.fit one
epoch at a time, predictions after each. RESULT: by "MODEL LR SEED" the [valid, test] AUC by epoch.
"""

import contextlib
import io
import json
import sys

import numpy as np
import torch
from deepctr_torch.inputs import SparseFeat
from deepctr_torch.models import AFM, DCN, NFM, PNN, WDL, AutoInt, DCNMix, DeepFM, FiBiNET, xDeepFM
from sklearn.metrics import roc_auc_score


def build(name, fields, hidden, dim, seed):
    deep = {"dnn_hidden_units": hidden, "l2_reg_embedding": 0, "seed": seed}
    flat = {"l2_reg_linear": 0}
    cross = {"l2_reg_cross": 0}
    cin = {"cin_layer_size": (16, 16), "cin_split_half": False, "cin_activation": "linear"}
    afm = {"attention_factor": 16, "l2_reg_embedding": 0, "l2_reg_att": 0, "seed": seed}
    return {
        "MLP": lambda: WDL([], fields, **deep, **flat),
        "WideDeep": lambda: WDL(fields, fields, **deep, **flat),
        "DeepFM": lambda: DeepFM(fields, fields, **deep, **flat),
        "IPNN": lambda: PNN(fields, **deep),
        "NFM": lambda: NFM(fields, fields, **deep, **flat),
        "AFM": lambda: AFM(fields, fields, **afm, **flat),
        "DCN": lambda: DCN([], fields, 3, "vector", **deep, **flat, **cross),
        "DCNv2": lambda: DCN([], fields, 2, "matrix", **deep, **flat, **cross),
        "DCNv2Mix": lambda: DCNMix([], fields, 2, **deep, **flat, **cross),
        "xDeepFM": lambda: xDeepFM(fields, fields, **cin, **deep, **flat),
        "AutoInt": lambda: AutoInt([], fields, att_layer_num=2, att_head_num=2, **deep),
        "FiBiNET": lambda: FiBiNET(fields, fields, **deep, **flat),
    }[name]()


def main(problem, result):
    p = dict(np.load(problem))
    hidden, dim, batch = tuple(p["hidden"].tolist()), int(p["dim"]), int(p["batch"])
    n_values = p["ids"].max(0) + 1
    fields = [SparseFeat(f"f{k}", int(v), embedding_dim=dim) for k, v in enumerate(n_values)]
    part, label, found = p["part"], p["label"], {}

    def rows(which):
        return {f"f{k}": p["ids"][part == which, k] for k in range(len(fields))}

    torch.set_num_threads(1)
    for name in p["models"].tolist():
        for lr in p["lrs"].tolist():
            for seed in range(int(p["seeds"])):
                with contextlib.redirect_stdout(io.StringIO()):
                    model = build(name, fields, hidden, dim, seed)
                    model.compile(torch.optim.Adam(model.parameters(), lr), "binary_crossentropy")
                    aucs = []
                    for _ in range(int(p["epochs"])):
                        model.fit(rows(0), label[part == 0], batch, 1, verbose=0)
                        aucs.append(
                            [
                                float(roc_auc_score(label[part == k], model.predict(rows(k), 4096)))
                                for k in (1, 2)
                            ]
                        )
                found[f"{name} {lr:g} {seed}"] = aucs
                print(name, lr, seed, aucs[-1], file=sys.stderr, flush=True)
    with open(result, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
