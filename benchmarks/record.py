"""The result files of benchmarks: what was measured, and what it takes to measure it again."""

import json
import os
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from diet_jax.files import replace_text
from diet_jax.record import software_versions


def write(path: str | Path, result: dict) -> None:
    """Puts a result in place of the file, after `about`; it may have an env of its own."""
    save(path, about(result.get("env")) | result)


def save(path: str | Path, value: dict) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(value, indent=1) + "\n")


def about(env: dict | None = None) -> dict:
    """The command, software and devices, and the machine."""
    return {"command": command(sys.argv), "env": env or environment(), "machine": machine()}


def command(argv: list[str]) -> str:
    """As it was typed, but for where the log lies on this machine."""
    told, path = [], "--config.data.path"
    for before, arg in pairwise(argv):
        if path not in (before, arg) and not arg.startswith(f"{path}="):
            told.append(arg)
    return shlex.join(["python", "-m", f"benchmarks.{Path(argv[0]).stem}", *told])


def environment() -> dict:
    """Software and devices."""
    import jax  # here, as it would count as memory of what is measured in other processes

    return software_versions() | {"devices": [d.device_kind for d in jax.devices()]}


def versions(python: str, *packages: str) -> dict[str, str]:
    """Those of packages in another environment."""
    code = f"import json; from importlib.metadata import version; packages = {packages}\n"
    code += "print(json.dumps({name: version(name) for name in packages}))"
    return json.loads(subprocess.run([python, "-c", code], capture_output=True, check=True).stdout)


def machine() -> dict:
    """The processor and what of the machine is ours to use."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = {line.split(":")[1].strip() for line in lines if line.startswith("model name")}
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    cores = len(os.sched_getaffinity(0))
    return {"cpu": ", ".join(sorted(models)), "cores": cores, "memory": memory}
