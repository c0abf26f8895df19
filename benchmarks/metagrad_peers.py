"""One meta-gradient with a PyTorch peer, in an environment of its own, for benchmarks.metagrad.

    python benchmarks/metagrad_peers.py ENGINE PROBLEM.npz RESULT.npz

PROBLEM holds the start parameters of a DeepFM, the batches, the slots and the outer rows; RESULT
gets the gradient by labels and weights; standard input is a file, locked while calls are timed. All
is on a GPU where there is one. Each peer is used as its documentation shows: higher with
`innerloop_ctx`, torchopt with its differentiable optimizers, betty with a pair of problems. betty's
hypergradient is an approximation that sees one step alone (its default, DARTS): less work, and
another result.
"""

import fcntl
import json
import resource
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class DeepFM(nn.Module):
    """As diet_jax.models.deep_fm: one table whose column 0 is the first-order weight."""

    def __init__(self, p, sparse):
        super().__init__()
        self.table = nn.Embedding.from_pretrained(p["table"].clone(), False, sparse=sparse)
        self.bias = nn.Parameter(p["bias"].clone())
        self.tower = nn.ModuleList()
        for k in range(sum(name.startswith("kernel") for name in p)):
            layer = nn.Linear(*p[f"kernel{k}"].shape)
            layer.weight.data = p[f"kernel{k}"].T.contiguous()
            layer.bias.data = p[f"bias{k}"].clone()
            self.tower.append(layer)

    def forward(self, ids):
        emb = self.table(ids)
        v = emb[:, :, 1:]
        pairs = 0.5 * (v.sum(1).square() - v.square().sum(1)).sum(-1)
        x = v.flatten(1)
        *hidden, last = self.tower
        for layer in hidden:
            x = torch.relu(layer(x))
        return emb[:, :, 0].sum(-1) + self.bias + pairs + last(x)[:, 0]


def loss(model, ids, target, weight):
    return (weight * binary_cross_entropy_with_logits(model(ids), target, reduction="none")).mean()


def batches(p, z, w):
    """The slots' rows, soft labels and weights, batch by batch."""
    for index in p["order"]:
        ids = p["slot_ids"][index]
        yield ids, torch.sigmoid(z[index]), torch.exp(w[index])


def outer(p):
    return p["outer_ids"], p["outer_target"], torch.ones((), device=DEVICE)


def with_higher(p, z, w, sparse=False):
    import higher

    model, lr = DeepFM(p, sparse), float(p["lr"])
    if p["optimizer"] == "sgd":
        opt = torch.optim.SGD(model.parameters(), lr, momentum=float(p["momentum"]))
    else:
        opt = torch.optim.Adam(model.parameters(), lr)  # it has no eps inside the root
    with higher.innerloop_ctx(model, opt) as (fast, steps):
        for batch in batches(p, z, w):
            steps.step(loss(fast, *batch))
        return torch.autograd.grad(loss(fast, *outer(p)), (z, w))


def with_torchopt(p, z, w):
    import torchopt

    model, lr = DeepFM(p, False), float(p["lr"])
    if p["optimizer"] == "sgd":
        opt = torchopt.MetaSGD(model, lr, momentum=float(p["momentum"]))
    else:
        opt = torchopt.MetaAdam(model, lr, eps_root=float(p["eps_root"]))
    for batch in batches(p, z, w):
        opt.step(loss(model, *batch))
    return torch.autograd.grad(loss(model, *outer(p)), (z, w))


def with_betty(p, z, w):
    from betty.configs import Config, EngineConfig
    from betty.engine import Engine
    from betty.problems import ImplicitProblem

    n_steps, lr = len(p["order"]), float(p["lr"])
    memory = nn.ParameterDict({"z": nn.Parameter(z.detach()), "w": nn.Parameter(w.detach())})
    found = []

    class Outer(ImplicitProblem):
        def training_step(self, batch):
            return loss(self.inner.module, *batch)

        def custom_optimizer_step(self):
            found.extend(self.module[name].grad.clone() for name in ("z", "w"))

    class Inner(ImplicitProblem):
        def training_step(self, batch):
            ids, index = batch
            z, w = (self.outer.module[name][index] for name in ("z", "w"))
            return loss(self.module, ids, torch.sigmoid(z), torch.exp(w))

    model = DeepFM(p, False)
    if p["optimizer"] == "sgd":
        opt = torch.optim.SGD(model.parameters(), lr, momentum=float(p["momentum"]))
    else:
        opt = torch.optim.Adam(model.parameters(), lr)
    rows = [(p["slot_ids"][i], i) for i in p["order"]]
    own = Config(type="darts", unroll_steps=n_steps)
    inner = Inner("inner", own, model, opt, train_data_loader=rows)
    outermost = Outer("outer", Config(), memory, None, train_data_loader=[outer(p)])
    graph = {"u2l": {outermost: [inner]}, "l2u": {inner: [outermost]}}
    Engine([outermost, inner], EngineConfig(train_iters=n_steps), graph).run()
    return found


ENGINES = {
    "betty": with_betty,
    "higher": with_higher,
    "higher, sparse embeddings": lambda p, z, w: with_higher(p, z, w, sparse=True),
    "torchopt": with_torchopt,
}


def on_device(array):
    """Numbers on the device, integers as torch indexes with them; a text as it is."""
    if array.dtype.kind == "U":
        return str(array)
    tensor = torch.tensor(array, device=DEVICE)
    return tensor.long() if tensor.dtype == torch.int32 else tensor


def main(engine, problem, result):
    p = {name: on_device(array) for name, array in np.load(problem).items()}
    z, w = (p[name].requires_grad_() for name in ("label_logit", "log_weight"))
    seconds = []
    fcntl.flock(0, fcntl.LOCK_EX)
    for _ in range(int(p["calls"]) + 1):
        start = time.perf_counter()
        grads = ENGINES[engine](p, z, w)
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    np.savez(result, **{f"g{k}": g.detach().cpu().numpy() for k, g in enumerate(grads)})
    found = {"first": seconds[0], "seconds": seconds[1:]}
    if DEVICE == "cuda":
        found["temp_bytes"] = torch.cuda.max_memory_allocated()
    found["peak_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
