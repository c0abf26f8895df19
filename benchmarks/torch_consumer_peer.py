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


class Mixtures(nn.Module):
    """A field's embeddings: in training of slots, the means of those of the rows that each mixes
    (ids and share [slots, M]); else of table rows."""

    def __init__(self, table: nn.Embedding, ids, share):
        super().__init__()
        self.table, self.ids, self.share = table, ids, share

    def forward(self, index):
        if not self.training:
            return self.table(index)
        return (self.share[index][..., None] * self.table(self.ids[index])).sum(-2)

    def squares(self, index):
        """The squared lengths of the embeddings, of mixed rows by their shares."""
        return (self.share[index] * self.table(self.ids[index]).square().sum(-1)).sum(-1)


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


def mix(model, ids, share) -> None:
    """Has the model train on slots. ids int64 [slots, M, fields]: the rows; share [slots, M]."""
    for tables in (model.embedding_dict, model.linear_model.embedding_dict):
        for k, (name, table) in enumerate(list(tables.items())):
            tables[name] = Mixtures(table, ids[:, :, k], share)


class Adam(torch.optim.Optimizer):
    """With eps_root inside the square root, as the recipe means it: PyTorch's Adam has its eps
    outside, which takes smaller steps where gradients are small."""

    def __init__(self, parameters, lr: float, eps_root: float):
        super().__init__(parameters, {})
        self.lr, self.eps_root, self.steps = lr, eps_root, 0

    @torch.no_grad()
    def step(self):
        self.steps += 1
        for p in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            kept = self.state[p] or {"m": torch.zeros_like(p), "v": torch.zeros_like(p)}
            self.state[p] = kept
            kept["m"].lerp_(p.grad, 0.1)
            kept["v"].lerp_(p.grad.square(), 0.001)
            m, v = kept["m"] / (1 - 0.9**self.steps), kept["v"] / (1 - 0.999**self.steps)
            p -= self.lr * m / (v + self.eps_root).sqrt()


def fit(model, x, label, weight, arch: str, recipe: dict, seed: int) -> None:
    draw = np.random.default_rng(seed)
    lr, l2 = (recipe[k].get(arch, recipe[k]["default"]) for k in ("lr", "l2"))
    adam = Adam(model.parameters(), lr, recipe["eps_root"])
    steps, batch = recipe["steps"], recipe["batch"]
    passes = [draw.permutation(len(x)) for _ in range(-(-steps * batch // len(x)))]
    order = np.concatenate(passes)[: steps * batch].reshape(steps, batch)
    for rows in torch.tensor(order):
        adam.zero_grad()
        loss = nn.functional.binary_cross_entropy(model(x[rows])[:, 0], label[rows], weight[rows])
        if l2:
            tables = enumerate(model.embedding_dict.values())
            loss = loss + l2 * sum(t.squares(x[rows, k].long()).mean() for k, t in tables)
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
    label, weight = (torch.tensor(table[name].to_numpy()) for name in ("label", "weight"))
    # Every M rows are one slot; without mixtures a row is a slot.
    mixed = "slot" in table.column_names
    n_slots = table["slot"].to_numpy().max() + 1 if mixed else len(table)
    share = table["share"].to_numpy() if mixed else np.ones(n_slots, np.float32)
    share = torch.tensor(share).reshape(n_slots, -1)
    members = torch.tensor(ids).reshape(*share.shape, -1).long()
    label, weight = (a.reshape(n_slots, -1)[:, 0] for a in (label, weight))
    x = torch.arange(n_slots, dtype=torch.float32)[:, None].repeat(1, len(fields))
    asked = torch.tensor(rows["ids"], dtype=torch.float32)
    n_rows = int(max(ids.max(), rows["ids"].max())) + 1
    found = {}
    for arch in archs.split(","):
        answers = []
        for seed in map(int, seeds.split(",")):
            torch.manual_seed(seed)
            model = build(arch, n_rows, fields, dense, recipe, seed)
            mix(model, members, share)
            fit(model, x, label, weight, arch, recipe, seed)
            model.eval()
            with torch.no_grad():
                answers.append(torch.logit(model(asked)[:, 0], eps=1e-7).numpy())
        found[arch] = np.stack(answers)
    np.savez(answer, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
