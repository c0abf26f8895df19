"""The command line as a person starts it: another process, from the repository's root."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# A person has no use for what conftest does to compile faster.
ENV = {k: v for k, v in os.environ.items() if k != "JAX_DISABLE_MOST_OPTIMIZATIONS"}
# Overrides that make a run of seconds.
SMALL = {
    "stages.count": 3,
    "memory.rate": 0.005,
    "inner.archs": ("LR",),
    "inner.dim": 2,
    "inner.steps": 10,
    "inner.window": 5,
    "inner.batch": 32,
    "outer.steps": 10,
    "outer.chunk": 5,
    "outer.batch": 64,
    "outer.anchor_batch": 16,
    "growth.rounds": 2,
    "growth.pool": 512,
    "growth.block": 256,
    "teacher.arch": "LR",
    "teacher.epochs": 1.0,
    "teacher.first_epochs": 1.0,
    "eval.archs": ("LR", "FM"),
    "eval.seeds": (0,),
    "eval.full_epochs": 1.0,
}


def start(*args, **env: str) -> subprocess.Popen:
    """`python -m diet_jax.main ARGS`, with its two outputs captured."""
    return subprocess.Popen(
        [sys.executable, "-m", "diet_jax.main", *map(str, args)],
        cwd=ROOT,
        env=ENV | env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(*args, **env: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of one whole run."""
    process = start(*args, **env)
    out, err = process.communicate()
    return process.returncode, out, err
