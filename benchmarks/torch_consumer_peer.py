"""Trains deepctr-torch models on an exported memory, for benchmarks.torch_consumer.

    python benchmarks/torch_consumer_peer.py EXPORT TEST.npz ANSWER.npz FM,DeepFM,DCNv2 0,1,2

Nothing of diet_jax is used: memory.parquet, recipe.json, and a loop over batches.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from deepctr_torch.inputs import DenseFeat, SparseFeat
from deepctr_torch.models import DCN, DeepFM
from torch import nn


def build(arch: str, n_rows: int, fields: list[str], dense: list[str], recipe: dict, seed: int):
    """The model with embeddings and layers as the recipe starts them, and no penalty of its own."""
    sparse = [SparseFeat(name, n_rows, embedding_dim=recipe["dim"]) for name in fields]
    columns = [*sparse, *(DenseFeat(name, 1) for name in dense)]
    hidden = () if arch == "FM" else tuple(recipe["hidden"])
    common = {"init_std": recipe["init_scale"], "seed": seed, "l2_reg_linear": 0}
    common |= {"l2_reg_embedding": 0, "dnn_hidden_units": hidden}
    if arch == "DCNv2":
        model = DCN([], columns, cross_parameterization="matrix", l2_reg_cross=0, **common)
    else:
        model = DeepFM(columns, columns, **common)
    for name, table in model.named_parameters():
        if name.startswith("linear_model"):
            nn.init.zeros_(table)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            # deepctr-torch starts layers at nearly zero, too small for so few steps.
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return model


def fit(model, x, label, weight, arch: str, recipe: dict, seed: int) -> None:
    draw = np.random.default_rng(seed)
    lr, l2 = (recipe[k].get(arch, recipe[k]["default"]) for k in ("lr", "l2"))
    # The recipe's eps stands inside the square root, PyTorch's outside.
    adam = torch.optim.Adam(model.parameters(), lr=lr, eps=recipe["eps_root"] ** 0.5)
    steps, batch = recipe["steps"], recipe["batch"]
    passes = [draw.permutation(len(x)) for _ in range(-(-steps * batch // len(x)))]
    order = np.concatenate(passes)[: steps * batch].reshape(steps, batch)
    for rows in torch.tensor(order):
        adam.zero_grad()
        loss = nn.functional.binary_cross_entropy(model(x[rows])[:, 0], label[rows], weight[rows])
        if l2:
            looked_up = (
                table.weight[x[rows, k].long()]
                for k, table in enumerate(model.embedding_dict.values())
            )
            loss = loss + l2 * sum(v.square().sum(-1).mean() for v in looked_up)
        loss.backward()
        adam.step()


def main(export: str, test: str, answer: str, archs: str, seeds: str) -> None:
    table = pq.read_table(Path(export) / "memory.parquet")
    recipe = json.loads((Path(export) / "recipe.json").read_text())
    if recipe["optimizer"] != "adam":
        sys.exit(f"the recipe's optimizer is {recipe['optimizer']}; this script knows adam alone")
    fields = [name for name in table.column_names if name.endswith("_id")]
    rows = np.load(test)
    dense = [f"dense_{k}" for k in range(rows["dense"].shape[1])]
    if dense:
        sys.exit("this script knows logs without dense features alone")
    ids = np.stack([table[name].to_numpy() for name in fields], 1)
    x = torch.tensor(ids, dtype=torch.float32)
    label, weight = (torch.tensor(table[name].to_numpy()) for name in ("label", "weight"))
    asked = torch.tensor(rows["ids"], dtype=torch.float32)
    n_rows = int(max(ids.max(), rows["ids"].max())) + 1
    found = {}
    for arch in archs.split(","):
        answers = []
        for seed in map(int, seeds.split(",")):
            torch.manual_seed(seed)
            model = build(arch, n_rows, fields, dense, recipe, seed)
            fit(model, x, label, weight, arch, recipe, seed)
            with torch.no_grad():
                answers.append(torch.logit(model(asked)[:, 0], eps=1e-7).numpy())
        found[arch] = np.stack(answers)
    np.savez(answer, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
