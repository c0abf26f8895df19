"""From a log as it was found to a prepared one in the cache: once, whole or not at all."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from diet_jax.data import roles, spool, stages, store
from diet_jax.data.source import Part, Source
from diet_jax.data.stages import Cuts
from diet_jax.files import replace_text
from diet_jax.types import InputError


class Report(NamedTuple):
    """Who is told how far a preparation is: rows read, and rows encoded."""

    read: Callable[[int], None] = lambda rows: None
    encoded: Callable[[int], None] = lambda rows: None


def prepare(
    source: Source,
    cuts: Cuts,
    min_count: int,
    max_rejected: float,
    cache: Path,
    about: Any = None,
    report: Report = Report(),  # noqa: B008 (immutable)
) -> Path:
    """The folder of the prepared log, made now unless the cache holds it.

    It is found by the content and the names of the files (not of their folders), the roles and the
    arguments (`about`: anything else that decides what the source yields, as JSON). An interrupted
    preparation resumes. Raises InputError for bad input, or if the cache cannot be written; then
    nothing of it is left but the rejected rows.
    """
    with readable_errors(cache, "free some space, or set --config.data.cache to another folder"):
        cache.mkdir(parents=True, exist_ok=True)
        key, known = identify(source, cuts, min_count, max_rejected, cache, about)
        final, draft = cache / key, cache / f"{key}.part"
        aside = cache / f"{key}.rejected.csv"
        if final.exists():
            return final
        with one_at_a_time(cache / f"{key}.lock"):
            if final.exists():
                return final
            draft.mkdir(exist_ok=True)
            try:
                rows = spool.write(source, draft, max_rejected, report.read)
                borders = stages.cut(rows.time(), cuts, spool.where(source))
                store.write(rows, source, borders, min_count, draft, report.encoded)
                spool.clear(draft, store.FILES)
                for file in draft.iterdir():
                    with open(file, "rb") as written:
                        os.fsync(written.fileno())
                for file, content in known.items():
                    if digest(Path(file), cache) != content:
                        raise InputError(f"{file}: changed while it was read; prepare it again")
                os.replace(draft, final)
            except InputError as error:
                rejected = spool.rejected_rows(draft)
                if rejected:
                    os.replace(rejected, aside)
                shutil.rmtree(draft)
                more = f" (rejected rows: {aside})" if rejected else ""
                raise InputError(f"{error}{more}") from error
            except OSError:
                shutil.rmtree(draft)
                raise
    return final


def identify(
    source: Source, cuts: Cuts, min_count: int, max_rejected: float, cache: Path, about: Any
) -> tuple[str, dict[str, str]]:
    """The name that the prepared log has in the cache, whether it is there or not, and the digest
    of each of its files. Raises InputError for bad arguments and files that cannot be read."""
    said = description(source, cuts, min_count, max_rejected, about)
    known = {file: digest(Path(file), cache) for part in source.parts for file in part.files}
    return key_of(said, [contents(part, known) for part in source.parts]), known


def description(
    source: Source, cuts: Cuts, min_count: int, max_rejected: float, about: Any
) -> list[Any]:
    """All that names a prepared log in the cache but its files, as JSON; see `prepare`.

    Raises InputError for what no log can be prepared with.
    """
    if min_count < 1:
        raise InputError(f"data.min_count is {min_count}; set it to 1 or more")
    if not 0 <= max_rejected <= 1:
        raise InputError(f"data.max_rejected is {max_rejected}; set it to 0 .. 1")
    roles.check(source.roles)
    stages.check(cuts)
    return [store.FORMAT, source.name, source.roles, cuts, min_count, max_rejected, about]


def key_of(said: list[Any], parts: list[list[Any]]) -> str:
    """The name of a prepared log. said: its `description`; parts: their `contents`."""
    return hashlib.sha256(json.dumps([*said, parts], sort_keys=True).encode()).hexdigest()[:24]


def contents(part: Part, digests: dict[str, str]) -> list[Any]:
    """What decides a part's rows, as JSON: its files' names, on which how they are read may hang,
    and digests; and what folders say of it."""
    files = [[Path(file).name, digests[file]] for file in part.files]
    return files + [{column: value} for column, value in part.said]


def digest(file: Path, cache: Path) -> str:
    """SHA-256 of a file's content, remembered in the cache by its path, size and time of change."""
    path = str(file.absolute())
    try:
        known = cache / "digests" / hashlib.sha256(path.encode()).hexdigest()[:24]
    except UnicodeEncodeError as error:
        shown = path.encode("utf8", "backslashreplace").decode()
        raise InputError(f"{shown}: its name is not UTF-8; rename it") from error
    with readable_errors(file, "check the path, and that it can be read"):
        stat = file.stat()
        state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        if known.exists():
            with suppress(ValueError, KeyError, TypeError):  # a note that is damaged is made anew
                remembered = json.loads(known.read_text())
                if remembered["state"] == state:
                    return remembered["sha256"]
        with open(file, "rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
    with suppress(OSError):  # a cache that can only be read will do if the log is in it
        known.parent.mkdir(exist_ok=True)
        replace_text(known, json.dumps({"file": str(file), "state": state, "sha256": found}))
    return found


@contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Two processes that prepare the same log: the second waits, and then finds it done."""
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def readable_errors(where: Path, cure: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        what = f"{error.filename or where}: {error.strerror or error}"
        raise InputError(f"{what}; {cure}") from error
