"""Training speed of PyTorch peers, in an environment of their own, for benchmarks.zoo_speed.

    python benchmarks/zoo_speed_peers.py PROBLEM.npz

Answers each line "ENGINE MODEL" on standard input with the seconds of one pass over the problem's
rows. deepctr: deepctr-torch as shipped, model.compile("adam") and model.fit, without L2. torch: a
loop written for speed: one sparse table for all fields with SparseAdam, Adam for the rest, batches
cut from tensors. Both on a GPU where there is one.
"""

import contextlib
import io
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, relu

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def mlp(sizes):
    layers = [nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True)]
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))


class Interacting(nn.Module):
    def __init__(self, given, heads, size):
        super().__init__()
        self.heads, self.size = heads, size
        self.all = nn.Linear(given, 4 * heads * size, bias=False)

    def forward(self, x):
        q, k, v, skip = self.all(x).chunk(4, dim=-1)
        q, k, v = (a.view(*a.shape[:2], self.heads, self.size).transpose(1, 2) for a in (q, k, v))
        mixed = torch.softmax(q @ k.transpose(2, 3), dim=-1) @ v
        return relu(mixed.transpose(1, 2).reshape(skip.shape) + skip)


class Net(nn.Module):
    """The four architectures over one table, as diet_jax.models has them."""

    def __init__(self, name, n_rows, n_fields, dim, hidden):
        super().__init__()
        self.name = name
        self.table = nn.Embedding(n_rows, dim + (name == "DeepFM"), sparse=True)
        nn.init.normal_(self.table.weight, std=0.01)
        flat = n_fields * dim
        self.deep = mlp((flat, *hidden))
        out = hidden[-1] + flat * (name == "DCNv2")
        self.last = nn.Linear(out, 1)
        if name == "DCNv2":
            self.cross = nn.ModuleList(nn.Linear(flat, flat) for _ in range(2))
        if name == "AutoInt":
            self.attention = nn.Sequential(Interacting(dim, 2, 8), Interacting(16, 2, 8))
            self.tokens = nn.Linear(n_fields * 16, 1)

    def forward(self, ids):
        emb = self.table(ids)
        v = emb[:, :, 1:] if self.name == "DeepFM" else emb
        x = v.flatten(1)
        if self.name == "DCNv2":
            crossed = x
            for layer in self.cross:
                crossed = torch.addcmul(crossed, x, layer(crossed))
            return self.last(torch.cat([crossed, self.deep(x)], 1))[:, 0]
        z = self.last(self.deep(x))[:, 0]
        if self.name == "DeepFM":
            pairs = 0.5 * (v.sum(1).square() - v.square().sum(1)).sum(1)
            return z + emb[:, :, 0].sum(1) + pairs
        if self.name == "AutoInt":
            return z + self.tokens(self.attention(v).flatten(1))[:, 0]
        return z


def by_hand(name, p):
    ids, label = (
        torch.tensor(p["ids"], device=DEVICE).long(),
        torch.tensor(p["label"], device=DEVICE),
    )
    batch, dim, hidden = int(p["batch"]), int(p["dim"]), tuple(p["hidden"].tolist())
    model = Net(name, int(p["V"]), ids.shape[1], dim, hidden).to(DEVICE)
    table, *rest = model.parameters()
    optimizers = torch.optim.SparseAdam([table], lr=1e-3), torch.optim.Adam(rest, lr=1e-3)

    def run():
        for some, y in zip(ids.split(batch), label.split(batch), strict=True):
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            binary_cross_entropy_with_logits(model(some), y).backward()
            for optimizer in optimizers:
                optimizer.step()

    return run


def deepctr(name, p):
    from deepctr_torch.inputs import SparseFeat
    from deepctr_torch.models import DCN, WDL, AutoInt, DeepFM

    n_fields, dim, batch = p["ids"].shape[1], int(p["dim"]), int(p["batch"])
    share = int(p["V"]) // n_fields
    columns = [SparseFeat(f"f{k}", share, embedding_dim=dim) for k in range(n_fields)]
    common = {"dnn_hidden_units": tuple(p["hidden"].tolist()), "l2_reg_embedding": 0}
    common["device"] = DEVICE
    if name == "DeepFM":
        model = DeepFM(columns, columns, l2_reg_linear=0, **common)
    elif name == "MLP":
        model = WDL([], columns, l2_reg_linear=0, **common)
    elif name == "DCNv2":
        model = DCN([], columns, 2, "matrix", l2_reg_linear=0, l2_reg_cross=0, **common)
    else:
        model = AutoInt([], columns, att_layer_num=2, att_head_num=2, **common)
    model.compile("adam", "binary_crossentropy")
    inputs = {f"f{k}": p["ids"][:, k] - k * share for k in range(n_fields)}

    def run():
        with contextlib.redirect_stdout(io.StringIO()):
            model.fit(dict(inputs), p["label"], batch_size=batch, epochs=1, verbose=0)

    return run


def timed(run):
    """Seconds of one pass, with what it has left the device to do."""
    start = time.perf_counter()
    run()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


CORES = torch.get_num_threads()
ENGINES = {"deepctr": deepctr, "torch": by_hand}


def fastest(run):
    """With how many threads it is faster, one or as many as there are cores: small layers may lose
    by waiting for each other what they win. Warms up, too; that is all there is to do for a GPU."""
    seconds = {}
    for threads in (CORES,) if DEVICE == "cuda" else (1, CORES, 1, CORES):
        torch.set_num_threads(threads)
        seconds[threads] = timed(run)
    return min(seconds, key=lambda threads: seconds[threads])


def main(problem):
    p, known, threads = dict(np.load(problem)), {}, {}
    answers = sys.stdout
    for line in sys.stdin:
        engine, name = line.split()
        if line not in known:
            with contextlib.redirect_stdout(sys.stderr):
                known[line] = ENGINES[engine](name, p)
                threads[line] = fastest(known[line])
        torch.set_num_threads(threads[line])
        print(timed(known[line]), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
