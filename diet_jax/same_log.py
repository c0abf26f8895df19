"""Holds a run to the log that it reads, which may grow where its stages are intervals of time."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diet_jax.types import InputError

LOG = "log.json"  # in the folder of a run
Mark = list[Any]  # of a stage: its rows, and a digest of what they hold


def known_log(workdir: Path) -> dict[str, Any]:
    """What is known of the log that the run in the folder reads; "key": of the prepared log, None
    if that is not known; "stages": their marks, none if it may not grow."""
    try:
        return {"key": None} | json.loads((workdir / LOG).read_text())
    except (OSError, ValueError, TypeError):
        return {"key": None}


def grown(
    workdir: Path, log: str, marks: Callable[[], list[Mark]]
) -> tuple[dict[str, Any] | None, int]:
    """Holds the log to the one that the run in the folder read before, which may have grown: all
    stages but the last are as they were, and the last one has no fewer rows.

    Returns what to note of the log, None if that is known, and the first stage whose records no
    longer hold, 0 if all do: of a log that has grown, the one that was tested on its last stage if
    that changed, else the one after, as the run goes on.
    Raises InputError for any other log.
    """
    known, redo = known_log(workdir), 0
    if known["key"] == log and (workdir / LOG).exists():
        return None, redo
    new, old = marks(), known.get("stages", [])
    if (workdir / LOG).exists():
        refuse(workdir, old, new)
        if new != old:
            redo = len(old) - (new[len(old) - 1] != old[-1])
    return {"key": log, "stages": new}, redo


def refuse(workdir: Path, old: list[Mark], new: list[Mark]) -> None:
    """Raises InputError unless a log of the stages `new` is one of `old` that has grown."""
    if not old:
        refuse_another_log(workdir, "")
    last = len(old) - 1
    changed = [n for n, mark in enumerate(old[:-1]) if new[n : n + 1] != [mark]]
    if len(new) <= last or new[last][0] < old[last][0]:
        changed.append(last)
    if changed:
        raise InputError(
            f"{workdir} holds a run on another log: its stage {changed[0] + 1} is not what it was, "
            "since rows of its time came late, or files at data.path have changed or are gone, or "
            "how they are prepared has; put the old ones back, or give another --workdir"
        )


def refuse_another_log(workdir: Path, log: str, cure: str = "give another --workdir") -> None:
    """Raises InputError if the run in the folder read another log than the one of this key."""
    if (workdir / LOG).exists() and known_log(workdir)["key"] != log:
        raise InputError(
            f"{workdir} holds a run on another log: the files at data.path, or their names, have "
            f"changed since, or how they are prepared has; put the old ones back, or {cure}"
        )
