"""Models of deepctr-torch with random weights, and what they answer, for benchmarks.zoo_peers.

    python benchmarks/zoo_peers_torch.py RESULT.npz

Writes "MODEL/in/NAME" for each weight (float64), and "MODEL/out", logits [B] (of several tasks
[B, T]), of rows "ids" [B, F] (within each field) and "dense" [B, G].
"""

import sys

import numpy as np
import torch
from deepctr_torch.inputs import DenseFeat, SparseFeat
from deepctr_torch.models import (
    AFM,
    DCN,
    MMOE,
    NFM,
    PLE,
    PNN,
    WDL,
    AutoInt,
    DCNMix,
    DeepFM,
    FiBiNET,
    xDeepFM,
)

B, F, G, D, VALUES, HIDDEN = 16, 4, 2, 4, 7, (6, 5)


def models():
    fields = [SparseFeat(f"f{k}", VALUES, embedding_dim=D) for k in range(F)]
    both = fields + [DenseFeat(f"x{g}", 1) for g in range(G)]
    deep = {"dnn_hidden_units": HIDDEN}
    tasks = {"expert_dnn_hidden_units": HIDDEN, "tower_dnn_hidden_units": (6,)}
    tasks["gate_dnn_hidden_units"] = ()  # the papers' gates: one matrix
    cin = {"cin_layer_size": (3, 2), "cin_split_half": False, "cin_activation": "linear"}
    return {
        "MLP": WDL([], both, **deep),
        "WideDeep": WDL(both, both, **deep),
        "DeepFM": DeepFM(both, both, **deep),
        "IPNN": PNN(both, **deep),
        "NFM": NFM(both, both, **deep),
        "AFM": AFM(both, fields, attention_factor=3),
        "DCN": DCN([], both, 2, "vector", **deep),
        "DCNv2": DCN([], both, 2, "matrix", **deep),
        "DCNv2Mix": DCNMix([], both, 2, low_rank=3, num_experts=2, **deep),
        "xDeepFM": xDeepFM(both, both, **cin, **deep),
        # Its attention is among embeddings alone: with dense features it would be another model.
        "AutoInt": AutoInt([], fields, att_layer_num=2, att_head_num=2, **deep),
        "FiBiNET": FiBiNET(both, both, **deep),
        "MMoE": MMOE(both, num_experts=3, **tasks),
        "PLE": PLE(both, shared_expert_num=1, specific_expert_num=2, num_levels=2, **tasks),
    }


def main(result):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, VALUES, (B, F))
    dense = rng.normal(size=(B, G))
    rows = {f"f{k}": ids[:, k] for k in range(F)} | {f"x{g}": dense[:, g] for g in range(G)}
    found = {"ids": ids, "dense": dense}
    for name, model in models().items():
        model = model.double().eval()
        with torch.no_grad():
            for key, leaf in model.named_parameters():
                leaf.copy_(torch.tensor(rng.uniform(-0.7, 0.7, leaf.shape)))
                if "conv1ds" in key and "bias" in key:  # of a CIN: the paper has none
                    leaf.zero_()
            columns = [torch.tensor(rows[f], dtype=torch.float64) for f in model.feature_index]
            p = model(torch.stack(columns, dim=1))
        found[f"{name}/out"] = torch.logit(p).squeeze(1).numpy()
        for key, leaf in model.state_dict().items():
            found[f"{name}/in/{key}"] = leaf.numpy()
    np.savez(result, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
