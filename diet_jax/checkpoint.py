"""One Orbax checkpoint per finished stage, written once and opened anywhere.

Processes of one job save and load together, from a folder that all of them share: all call, the
first one writes (the state is the same NumPy arrays in all), and each reads for itself, so that no
table has to be sent. The files are those of a single process, so any number of processes and
devices goes on from them.
"""

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from diet_jax.sharding import told_by_first
from diet_jax.types import InputError

FOLDER = "checkpoints"
PAUSED = "paused"  # of a stage under way: the same, numbered by the chunks done; the latest alone


def _split(tree: Any) -> tuple[dict[str, np.ndarray], list[str]]:
    """Leaves by path, and the paths of empty leaves, which Orbax refuses to store."""
    flat = {
        jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    return {k: v for k, v in flat.items() if v.size}, [k for k, v in flat.items() if not v.size]


def _open(workdir: Path, folder: str) -> ocp.training.Checkpointer:
    policies = ocp.training.preservation_policies
    keep: Any = policies.LatestN(1) if folder == PAUSED else policies.PreserveAll()
    # Absolute, since Orbax refuses relative paths.
    root = str((workdir / folder).resolve())
    return ocp.training.Checkpointer(root, preservation_policy=keep)


def save(workdir: Path, stage: int, state: Any, facts: dict, folder: str = FOLDER) -> None:
    """Write the pytree `state` of arrays as the checkpoint of `stage`, durable on return.

    facts: JSON values kept beside it. A stage is never overwritten: Orbax raises
    StepAlreadyExistsError, and a save that does not take place is a RuntimeError.
    """
    leaves, _ = _split(state)
    with _open(workdir, folder) as checkpointer:
        if checkpointer.save(stage, leaves, custom_metadata=facts) is False:
            raise RuntimeError(f"the checkpoint of stage {stage} was not saved")


def stages(workdir: Path, folder: str = FOLDER) -> list[int]:
    """The stages that have a finished checkpoint, ascending."""
    if not told_by_first((workdir / folder).is_dir):
        return []
    with _open(workdir, folder) as checkpointer:
        return sorted(c.step for c in checkpointer.checkpoints)


def clear(workdir: Path, folder: str = PAUSED) -> None:
    """Remove the folder, if there is one."""
    told_by_first(lambda: shutil.rmtree(workdir / folder, ignore_errors=True))


def fits(shape: tuple[int, ...], longer: tuple[int, ...]) -> bool:
    """Whether an array is one of the other shape, or the beginning of one."""
    return shape == longer or (
        len(shape) == len(longer) and shape[1:] == longer[1:] and shape[:1] < longer[:1]
    )


def load(workdir: Path, stage: int, like: Any, folder: str = FOLDER) -> tuple[Any, dict]:
    """The state saved at `stage`, as numpy arrays in the structure of `like`, and its facts.

    The checkpoint may have been written on other devices, by a version with narrower numbers, or
    when the log was shorter: where `like` is longer along the first axis (it has more slots, more
    table rows), the rest is what `like` holds there.
    Raises InputError when its leaves, shapes or dtypes are otherwise not those of `like` (Orbax by
    itself would cast a dtype silently).
    """
    path = workdir / folder
    wanted, empty = _split(like)
    with _open(workdir, folder) as checkpointer:
        # The saved leaves decide the target: Orbax would cast a wrong dtype and drop a wrong shape.
        saved = checkpointer.metadata(stage).metadata
        target = {name: np.empty(leaf.shape, leaf.dtype) for name, leaf in saved.items()}
        facts: Any = checkpointer.metadata(stage).custom_metadata or {}
        found = checkpointer.load(stage, target)
    for name in sorted(wanted.keys() | found.keys()):
        have, want = (
            (a[name].shape, a[name].dtype) if name in a else None for a in (found, wanted)
        )
        if have and want and fits(have[0], want[0]) and np.can_cast(have[1], want[1]):
            whole = np.asarray(found[name], want[1])
            if have[0] != want[0]:
                whole = np.concatenate([whole, wanted[name][have[0][0] :]])
            found[name] = whole
        else:
            raise InputError(
                f"{path / str(stage)}: not a checkpoint of this run, its leaf {name} "
                f"is {have} and should be {want}; use another --workdir"
            )
    paths = jax.tree_util.tree_leaves_with_path(like)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in paths]
    leaves = [
        np.asarray(leaf) if name in empty else np.asarray(found[name])
        for name, (_, leaf) in zip(names, paths, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves), dict(facts)
