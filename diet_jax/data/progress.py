"""How far the reading of a log has come, on disk, so that an interrupted one resumes."""

import io
import json
import os
from pathlib import Path
from typing import IO, NamedTuple

import polars as pl

from diet_jax.data.clean import CURES, OTHER_CURE
from diet_jax.data.codes import Codes
from diet_jax.data.source import Reject
from diet_jax.files import replace_file, replace_text
from diet_jax.types import InputError


class Progress(NamedTuple):
    """How far a log has been read: what an interrupted reading resumes from."""

    next: tuple[int, int] = (0, 0)  # part and block
    unit: str = ""  # of numeric times
    rows: int = 0
    aside: int = 0  # bytes of rejected.csv
    rejected: dict[str, int] = {}  # rows by reason
    first: str = ""  # the first rejected row, in words
    last: int = -1  # the latest time so far, microseconds
    ascending: bool = True  # no row came before an earlier one
    sizes: dict[str, int] = {}  # values by column
    # Columns that no row had so far, and what to say if none does; None before rows showed any.
    lacking: dict[str, str] | None = None

    @property
    def seen(self) -> int:
        """Rows read, with the rejected ones."""
        return self.rows + sum(self.rejected.values())


def resume(folder: Path, coders: dict[str, Codes]) -> Progress:
    """What was read before; `coders` learn the values again, in their order.

    If what is said of it is damaged, or is of another version, all of it goes.
    """
    file = folder / "progress.json"
    if not file.exists():
        return Progress()
    try:
        done = Progress(**json.loads(file.read_text()))
    except (ValueError, TypeError):
        for old in folder.iterdir():
            old.unlink()
        return Progress()
    for k, (name, coder) in enumerate(coders.items()):
        for piece in sorted(folder.glob(f"values-{k}-*.parquet")):
            start, known = int(piece.stem.split("-")[-1]), len(coder)
            if start < done.sizes[name]:  # a later one was on its way when the reading ended
                values = pl.read_parquet(piece)["value"]
                coder.restore(values.slice(known - start, done.sizes[name] - known))
    return done._replace(next=(done.next[0], done.next[1]))


def save(
    folder: Path,
    coders: dict[str, Codes],
    before: dict[str, int],
    done: Progress,
    files: tuple[IO[bytes], ...],
) -> None:
    """Makes the reading so far durable, `files` first. before: the sizes at the last such point."""
    for file in files:
        file.flush()
        os.fsync(file.fileno())
    for k, (name, coder) in enumerate(coders.items()):
        start = before.get(name, 0)
        content = io.BytesIO()
        pl.DataFrame({"value": coder.values(start, done.sizes[name])}).write_parquet(content)
        piece = folder / f"values-{k}-{start:012d}.parquet"
        replace_file(piece, lambda draft, content=content: draft.write_bytes(content.getbuffer()))
    replace_text(folder / "progress.json", json.dumps(done._asdict()))


def lines(rejects: list[Reject], header: bool) -> bytes:
    if not rejects:
        return b""
    frame = pl.DataFrame(rejects, schema=list(Reject._fields), orient="row", strict=False)
    return frame.write_csv(include_header=header).encode()


def in_words(reject: Reject) -> str:
    where = f"{reject.where}, row {reject.row}"
    where += f", column {reject.column!r}" if reject.column else ""
    what = f"{reject.value!r} {reject.reason}" if reject.column and reject.value else reject.reason
    return f"{where}: {what}; {CURES.get(reject.reason, OTHER_CURE)}"


def check(done: Progress, limit: float) -> None:
    """At the end of the log: raises InputError for a column that no row had, too, which may be why
    rows are rejected."""
    for message in (done.lacking or {}).values():
        raise InputError(message)
    check_rejected(done, limit)


def check_rejected(done: Progress, limit: float) -> None:
    """Raises InputError if too large a share of the rows read so far is rejected."""
    bad = sum(done.rejected.values())
    if bad > limit * done.seen:
        reasons = ", ".join(f"{reason}: {n}" for reason, n in sorted(done.rejected.items()))
        raise InputError(
            f"{done.first}; {bad} of {done.seen} rows are rejected ({reasons}), more than "
            f"data.max_rejected = {limit:g} allows"
        )
