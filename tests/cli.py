"""The command line as a person starts it: another process, from the repository's root."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What a process of the tests imports: us, and what whoever starts the tests has put on the path.
PATHS = os.pathsep.join(
    filter(None, (str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")))
)
# Programs compile as a person has them compiled, and not as conftest does; flags of whoever starts
# the tests stay, as one of them makes GPUs repeat their bits.
FASTER = "--xla_cpu_use_fusion_emitters=false"  # conftest's own
FLAGS = os.environ.get("XLA_FLAGS", "").replace(FASTER, "")
PLAIN = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0", "XLA_FLAGS": FLAGS}
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
    "growth.pool": 1024,
    "growth.block": 256,
    "teacher.arch": "LR",
    "teacher.epochs": 1.0,
    "teacher.first_epochs": 1.0,
    "eval.archs": ("LR", "FM"),
    "eval.seeds": (0,),
    "eval.full_epochs": 1.0,
}


def devices(n: int) -> dict[str, str]:
    """The environment of a process with n simulated devices."""
    count = f"--xla_force_host_platform_device_count={n}"
    return {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {count}", "JAX_PLATFORMS": "cpu"}


def start(*args, **env: str) -> subprocess.Popen:
    """`python -m diet_jax.main ARGS`, with its two outputs captured."""
    return subprocess.Popen(
        [sys.executable, "-m", "diet_jax.main", *map(str, args)],
        cwd=ROOT,
        env=os.environ | env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(*args, **env: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of one whole run."""
    process = start(*args, **env)
    out, err = process.communicate()
    return process.returncode, out, err
