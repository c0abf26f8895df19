"""Measures a task in a process of its own: what it returns, and the memory that it took at most."""

import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def measure(python: str, task: Any, args: tuple, alone: bool = False) -> dict:
    """What `task` returns in a process of its own, with its peak memory in bytes.

    peak_rss: resident, with pages of mapped files. peak_held: without them. For a task of many
    processes, what they may share (pages of files, shared memory) is counted once. alone: the task
    needs nothing but its own lines, and `python` may know nothing else.
    """
    name, spec = task.__name__, sys.modules[task.__module__].__spec__
    assert spec is not None
    code = inspect.getsource(task) if alone else f"from {spec.name} import {name}"
    code += f"\nimport json\nprint(json.dumps({name}(*{args!r})))"
    os.sync()  # or this one would wait for what an earlier one left to be written
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen([python, "-c", code], stdout=out, stderr=errors)
        peak_rss = peak_held = 0
        while process.poll() is None:
            start = time.perf_counter()
            rss, held = memory_of(process.pid)
            peak_rss, peak_held = max(peak_rss, rss), max(peak_held, held)
            time.sleep(max(0.01, 20 * (time.perf_counter() - start)))  # 5 % of a core at most
        out.seek(0)
        errors.seek(0)
        if process.returncode:
            sys.exit(f"{name} failed:\n{errors.read()[-4000:]}")
        result = json.loads(out.read().splitlines()[-1])
    return {**result, "peak_rss": peak_rss, "peak_held": peak_held}


def memory_of(pid: int) -> tuple[int, int]:
    """Bytes resident and bytes held by a process and its descendants; see `measure`."""
    tree, sizes = [pid], []
    for process in tree:  # grows on the way
        folder = Path("/proc", str(process))
        try:
            for thread in (folder / "task").iterdir():
                tree += map(int, (thread / "children").read_text().split())
            lines = (line.split() for line in (folder / "status").read_text().splitlines())
            status = {line[0]: int(line[1]) << 10 for line in lines if line[-1:] == ["kB"]}
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        if "VmHWM:" in status:
            sizes.append([status[f"{key}:"] for key in ("VmHWM", "RssAnon", "RssFile", "RssShmem")])
    if not sizes:
        return 0, 0
    highest, anon, file, shared = zip(*sizes, strict=True)
    held = sum(anon) + max(shared)
    # Of one process the kernel knows the peak between two looks too.
    return (highest[0] if len(sizes) == 1 else held + max(file)), held
