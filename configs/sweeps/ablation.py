"""What each part of the method is worth: the quickstart, and every part changed by itself.

python -m launch.sweep --sweep=configs/sweeps/ablation.py --workdir=runs/ablation
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    c = ConfigDict()
    c.config = "configs/quickstart.py"
    c.mode = "one_at_a_time"  # or grid | random (`samples` draws) | halving (of a grid)
    c.axes = (
        ("growth.select", ("random", "el2n", "herding")),  # rows not by influence
        ("growth.rounds", (1, 3)),
        ("addressing.by", ("random", "sampled")),
        ("addressing.share", (0.0, 0.2, 1.0)),
        ("addressing.threshold", (1.0, 2.0)),
        ("addressing.swap_share", (0.1,)),
        ("outer.anchor", (0.0, 0.4, 1.0)),
        ("outer.hide_above", (1.0,)),  # no outlook on the next stage
        ("outer.label_share", (0.5, 1.0)),
        ("outer.lr", (0.0,)),  # rows chosen by influence, nothing learned
        ("outer.learn", (("label_logit",), ("log_weight",), ("label_logit", "log_weight"))),
        ("outer.schedule", ("constant",)),
        ("inner.mode", ("full", "one_step")),
        ("inner.archs", (("LR",), ("LR", "DeepFM"), ("DeepFM", "DCNv2"))),
        ("memory.mix", (1, 2, 8)),
        ("memory.own", (1,)),
        ("memory.mix_by", ("teacher",)),
        ("memory.scratch", ("stage", "stream")),
    )
    c.seeds = (0, 1, 2)
    c.samples = 0
    c.metric = "R"  # or R_soft | auc
    c.reduction = 3  # halving: of the trials that reach a stage, one in as many goes on
    c.retries = 2  # of a trial that fails
    c.resources = {"cpu": 2.0, "gpu": 0.0}  # of a trial; on Ray also parts of one
    return c
