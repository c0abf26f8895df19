"""The run's diary: the only writer of config.json, env.json, log.json, metrics.jsonl and tb/.

metrics.jsonl is the truth and TensorBoard is a mirror of it, rebuilt from it whenever a run starts
or resumes. Reading needs no JAX, so that reports start at once.
"""

import errno
import fcntl
import json
import math
import os
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from diet_jax.files import replace_text
from diet_jax.same_log import LOG, Mark, grown
from diet_jax.types import Busy, InputError

Record = dict[str, Any]

_TAIL_BYTES = 1 << 16
# Of a config, what says where and how a run takes place. The log is known by its content.
_PLACE = ("mesh.", "checkpoint.", "data.path", "data.tfds_dir", "data.cache")
_METRICS = ("auc", "gauc", "logloss")


@contextmanager
def open_workdir(
    workdir: str | Path,
    config: Any,
    env: dict,
    log: str = "",
    marks: Callable[[], list[Mark]] = list,
) -> Iterator["Recorder"]:
    """Makes the folder of a run, or takes up an earlier run of the same config in it; for the time
    of the context no other process may.

    Args:
        workdir: folder, created when missing.
        config: an ml_collections.ConfigDict (anything with `to_json`).
        env: versions and devices, JSON values; kept from the last session that computed something.
        log: the key of the prepared log, `Stream.key`.
        marks: () -> the mark of each of its stages, if it may grow; see `grown`.

    Raises:
        InputError: as `look_into` and `grown`, and Busy: as `alone`.
    """
    workdir = Path(workdir)
    with _in_one_line(workdir):
        workdir.mkdir(parents=True, exist_ok=True)
    with alone(workdir), Recorder(workdir) as recorder:
        look_into(workdir, config)
        note, redo = grown(workdir, log, marks)
        with _in_one_line(workdir):
            text = config.to_json(indent=2, sort_keys=True)
            replace_text(workdir / "config.json", text + "\n")
            if redo:
                recorder.drop_from(redo)
            if note:
                replace_text(workdir / LOG, json.dumps(note) + "\n")
            if not is_finished(recorder.records()):
                replace_text(workdir / "env.json", json.dumps(env, indent=2, sort_keys=True) + "\n")
        yield recorder


def look_into(workdir: str | Path, config: Any) -> list[Record]:
    """The records of a run of this config in the folder; nothing is written.

    Raises InputError if the folder holds a run of another config, or cannot be written: so that it
    is known before the log is read, which may take hours.
    """
    workdir = Path(workdir)
    with _in_one_line(workdir):
        there = next(path for path in (workdir, *workdir.absolute().parents) if path.exists())
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(there))
        if not os.access(there, os.W_OK):
            raise PermissionError
        _check_config(workdir / "config.json", json.loads(config.to_json()))
        return read_records(workdir / "metrics.jsonl")


@contextmanager
def _in_one_line(workdir: Path) -> Iterator[None]:
    """Errors of the file system as InputError."""
    try:
        yield
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise InputError(
            f"workdir {workdir}: {error.filename or workdir} is in the way; "
            "remove it or give another --workdir"
        ) from None
    except OSError as error:
        raise InputError(
            f"workdir {workdir} cannot be written ({error.strerror or 'permission denied'}); "
            "give a --workdir that you may write to"
        ) from None


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds the folder while a process writes there: two at once would both write every record.

    Raises Busy if another process does. Where files cannot be locked nobody is kept out.
    """
    lock = folder / ".lock"
    try:
        file = open(lock, "w")
    except OSError as error:
        cure = "give a folder that you may write to"
        raise InputError(f"{lock} cannot be written ({error.strerror}); {cure}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # A server of files may keep the lock of a machine that is gone.
            raise Busy(
                f"another process writes to {folder}; wait for it, give another folder, "
                f"or remove {lock} if that process died with its machine"
            ) from None
        except OSError:
            pass
        yield


class Recorder:
    """Appends records to metrics.jsonl and mirrors them to TensorBoard; use as a context manager.

    With `enabled` False it reads the same and writes nothing.
    """

    def __init__(self, workdir: str | Path, enabled: bool = True):
        self.workdir = Path(workdir)
        self.path = self.workdir / "metrics.jsonl"
        self.enabled = enabled
        self._events = None

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def records(self) -> list[Record]:
        """All records written so far, in order."""
        return read_records(self.path)

    def append(self, records: list[Record]) -> None:
        """Adds records, see `append_records`."""
        if not self.enabled or not records:
            return
        records = append_records(self.path, records)
        if self._events is None:
            self._rebuild_events()
        else:
            _mirror(self._events, records)

    def drop_from(self, stage: int, n_seeds: int = 0) -> list[tuple[str, str]]:
        """Forgets every record of stage `stage` and later ones, and that the run had finished.

        n_seeds: if not 0, what was measured of the stage itself stays: its outer losses, and trials
        of which there are as many. Returns their (method, architecture).
        """
        if not self.enabled or not self.path.exists():
            return []
        found = self.records()
        kept = [r for r in found if r.get("stage", math.inf) < stage]
        here = [r for r in found if r.get("stage") == stage]
        counts = Counter((r["method"], r["arch"]) for r in here if r["kind"] == "eval")
        whole = [pair for pair, n in counts.items() if n == n_seeds]
        if whole:
            kept += [r for r in here if r["kind"] == "outer"]
            kept += [r for r in here if (r.get("method"), r.get("arch")) in whole]
        replace_text(self.path, "".join(json.dumps(record) + "\n" for record in kept))
        self.close()
        return whole

    def close(self) -> None:
        """Closes the event file; the next append opens a new one."""
        if self._events is not None:
            self._events.close()
            self._events = None

    def _rebuild_events(self) -> None:
        # Not SummaryWriter: its queue leaves threads behind, and a few events need none.
        from tensorboardX.event_file_writer import EventsWriter

        folder = self.workdir / "tb"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self._events = EventsWriter(str(folder / "events"))
        _mirror(self._events, self.records())


def read_records(path: str | Path) -> list[Record]:
    """The records of a metrics.jsonl in order; [] if there is none; a broken last line is ignored.

    Raises:
        InputError: another line than the last one is broken.
    """
    path = Path(path)
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    unfinished = lines.pop()  # what follows the last newline: nothing, or half a line
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except ValueError:
            if number == len(lines) and not unfinished:
                break
            raise InputError(
                f"{path}, line {number}: not a JSON record; remove it or give another --workdir"
            ) from None
    return records


def append_records(path: Path, records: list[Record]) -> list[Record]:
    """Adds records in one write, on disk when it returns: a crash breaks the last line at most, and
    what it left of one is cut off by the next call. Returns them as they are read back.

    NumPy scalars and arrays are welcome; a number that is not finite is written as null.
    """
    records = [_plain(record) for record in records]
    lines = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records)
    with path.open("ab+") as file:
        file.truncate(_sound_size(file))
        file.write(lines.encode())
        file.flush()
        os.fsync(file.fileno())
    return records


def is_finished(records: list[Record]) -> bool:
    """Whether the run has done its last stage."""
    return any(record["kind"] == "run" for record in records)


def evaluated_stages(records: list[Record]) -> list[int]:
    """The stages (1-based, ascending) that were distilled and evaluated to the end."""
    return sorted({record["stage"] for record in records if record["kind"] == "stage"})


def software_versions() -> dict[str, str]:
    """Versions of Python, the platform and the packages that decide a result, importing none."""
    import platform
    from importlib import metadata

    import diet_jax

    versions = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "diet_jax": diet_jax.__version__,
    }
    for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"):
        versions[name] = metadata.version(name)
    return versions


def _check_config(path: Path, config: dict) -> None:
    """Raises InputError if `path` holds another config."""
    if not path.exists():
        return
    try:
        old, new = asked(json.loads(path.read_text())), asked(config)
    except ValueError:
        raise InputError(f"{path} is not JSON; remove it or give another --workdir") from None

    def shown(flat: dict, key: str) -> str:
        return json.dumps(flat[key]) if key in flat else "absent"

    keys = [key for key in sorted(old | new) if shown(old, key) != shown(new, key)]
    if keys:
        found = [f"{key} was {shown(old, key)}, is now {shown(new, key)}" for key in keys[:3]]
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        raise InputError(
            f"workdir {path.parent} holds a run of another config ({'; '.join(found)}{more}); "
            "give another --workdir, or the old values to resume it"
        )


def asked(config: dict) -> dict[str, Any]:
    """What a config asks for, by dotted key, sorted: all but where a run takes place and how often
    it is saved, so that it may resume elsewhere."""
    flat = sorted(flatten(config).items())
    return {key: value for key, value in flat if not key.startswith(_PLACE)}


def flatten(config: dict, prefix: str = "") -> dict[str, Any]:
    """A nested dict as one of dotted keys."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _plain(value: Any) -> Any:
    """JSON values for containers, NumPy values and numbers that are not finite (null)."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _sound_size(file: Any) -> int:
    """Bytes of an open file up to the end of its last whole record."""
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - _TAIL_BYTES)
    file.seek(start)
    tail = file.read()
    if start and tail.count(b"\n") < 2:  # a record longer than the tail
        start = file.seek(0)
        tail = file.read()
    end = tail.rfind(b"\n") + 1
    last = tail.rfind(b"\n", 0, max(end - 1, 0)) + 1
    try:
        json.loads(tail[last:end] or b"0")
    except ValueError:
        end = last
    return start + end


def _mirror(events: Any, records: list[Record]) -> None:
    """Writes the scalars of some records: outer loss by step, means over seeds by stage."""
    from tensorboardX.proto import event_pb2
    from tensorboardX.summary import scalar

    points, seeds = [], defaultdict(list)
    for record in records:
        if record["kind"] == "outer" and record["loss"] is not None:
            tag = f"outer_loss/stage_{record['stage']:02d}"
            points.append((tag, record["loss"], record["step"]))
        if record["kind"] == "eval":
            for metric in _METRICS:
                if record.get(metric) is not None:
                    tag = f"{metric}/{record['method']}/{record['arch']}"
                    seeds[tag, record["stage"]].append(record[metric])
    points += [(tag, sum(v) / len(v), stage) for (tag, stage), v in seeds.items()]
    for tag, value, step in points:
        event = {"wall_time": time.time(), "step": step, "summary": scalar(tag, value)}
        events.write_event(event_pb2.Event(**event))  # pyright: ignore (made at run time)
    events.flush()
