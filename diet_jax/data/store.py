"""A prepared log on disk: whole columns that training memory-maps, one vocabulary, one manifest."""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl

from diet_jax.data import features, frames
from diet_jax.data.errors import told
from diet_jax.data.records import append, one_ahead
from diet_jax.data.source import Roles, Source
from diet_jax.data.spool import (
    Spool,
    columns_of,
    countable,
    counted,
    field_of,
    nobody,
    remembered,
    task_columns,
    user_field,
    where,
)
from diet_jax.data.stages import check_class, instant
from diet_jax.data.vocabulary import UNKNOWN, Vocabulary
from diet_jax.files import replace_text
from diet_jax.types import Rows, Schema, Stage, Stream

FORMAT = 4  # of the files below and what is made of a log; a store of another one is made anew
TYPES = {
    "ids": np.int32,
    "dense": np.float32,
    "label": np.float32,
    "user": np.int32,
    "time": np.int64,
    "weight": np.float32,
}
_ANEW = "remove that folder, and the log is prepared anew"
FILES = (*TYPES, "vocabulary.arrow", "manifest.json")


def write(
    spool: Spool,
    source: Source,
    borders: np.ndarray,
    min_count: int,
    folder: Path,
    report: Callable[[int], None] = lambda rows: None,
) -> None:
    """Encodes the spooled rows stage by stage (borders: int64 [stages + 1]) into `folder`.

    What is written for a stage depends on nothing after that stage. report(rows) is told the rows
    done. Raises InputError for a stage with one class.
    """
    roles = source.roles
    fill_counts(spool, roles)
    sizes = [len(spool.values[field.name]) for field in roles.fields]
    # A history is a field without values of its own.
    words = Vocabulary(sizes + [0] * bool(roles.history), field_of(roles.fields), min_count)
    first = (rows["dense"] for rows in spool.chunks(0, int(borders[1])))
    scales = features.fit_scales(first, int(borders[1]), roles.dense) if roles.dense else ()
    admitted, stages, done = [], [], 0
    with ExitStack() as stack:
        names = [name for name in TYPES if name != "weight" or roles.weight]
        files = {name: stack.enter_context(open(folder / name, "wb")) for name in names}
        for rows in one_ahead(encode(spool, source, borders, words, scales, admitted, stages)):
            for name, file in files.items():
                append(file, rows[name])
            done += len(rows["label"])
            report(done)
    write_vocabulary(folder / "vocabulary.arrow", np.concatenate(admitted), words, spool, roles)
    made = manifest(source.name, source.licence, roles, spool.n, scales, stages, spool.rejected)
    replace_text(folder / "manifest.json", made)


def manifest(
    name: str,
    licence: str,
    roles: Roles,
    rows: int,
    scales: tuple[features.Scale, ...],
    stages: list[dict],
    rejected: dict[str, int],
) -> str:
    """What a prepared log says of itself, as JSON. stages: see `encode`."""
    columns = field_of(roles.fields)
    last, tasks = roles.history.length if roles.history else 0, task_columns(roles)
    made = {
        "format": FORMAT,
        "name": name,
        "licence": licence,
        "rows": rows,
        "fields": [field.name for field in roles.fields] + ["history"] * bool(last),
        "pool": [*columns.tolist(), *[len(roles.fields)] * last],
        "vocab": [*columns.tolist(), *[int(columns[item_column(roles)])] * last],
        "dense": [feature.name for feature in roles.dense],
        "scales": [scale._asdict() for scale in scales],
        "stages": stages,
        "weighted": bool(roles.weight),
        "tasks": dict(zip(roles.labels, range(tasks.start or 0, tasks.stop), strict=False)),
        "rejected": rejected,
    }
    return json.dumps(made, indent=1) + "\n"


def encode(
    spool: Spool,
    source: Source,
    borders: np.ndarray,
    words: Vocabulary,
    scales: tuple[features.Scale, ...],
    admitted: list[np.ndarray],
    stages: list[dict],
) -> Iterator[dict[str, np.ndarray]]:
    """The columns of the store, some rows at a time; fills `admitted` and `stages`, one a stage."""
    roles, item, past, no_user = source.roles, item_column(source.roles), None, -1
    if roles.history:
        no_user = nobody(spool.values, roles)
        users = spool.values[roles.user if user_field(roles) >= 0 else ""]
        past = features.no_past(len(users), roles.history.length)
    for s, (start, stop) in enumerate(itertools.pairwise(borders.tolist())):
        positives = observe(spool, words, start, stop)
        check_class(positives, spool.time(), borders, s, where(source))
        admitted.append(words.admit())
        stages.append(
            {
                "stop": stop,
                "vocab_size": words.size,
                "begins": instant(int(spool.time()[start])),
                "positives": positives,
            }
        )
        for rows in spool.chunks(start, stop):
            slots = words.slots(rows["codes"])
            if past:
                liked = remembered(rows, roles, no_user)
                seen, past = features.histories(
                    past, rows["user"], slots[:, item], rows["time"], liked
                )
                slots = np.hstack([slots, np.where(seen < 0, words.none, seen)])
            yield {
                "ids": words.row.take(slots),
                "dense": features.rescale(rows["dense"], scales, roles.dense),
                "time": rows["time"] // 1_000_000,
                **{name: rows[name] for name in ("label", "user")},
                **({"weight": rows["weight"]} if roles.weight else {}),
            }


def item_column(roles: Roles) -> int:
    """The column of codes whose values make up histories; -1 if there are none."""
    if not roles.history:
        return -1
    names = [field.name for field in roles.fields]
    return columns_of(roles.fields)[names.index(roles.history.field)][1].start


def observe(spool: Spool, words: Vocabulary, start: int, stop: int) -> float:
    """Shows the rows start .. stop - 1 to the vocabulary, and returns the sum of their labels."""
    total = 0.0
    chunks = (
        (words.slots(rows["codes"]), float(rows["label"].sum(dtype=np.float64)))
        for rows in spool.chunks(start, stop)
    )
    for slots, positives in one_ahead(chunks):
        words.observe(slots, start)
        total += positives
        start += len(slots)
    return total


def fill_counts(spool: Spool, roles: Roles) -> None:
    """Puts the derived counts into the spool, now that it is in order of time."""
    fields, n = field_of(roles.fields), len(roles.labels)
    wanted = [
        (to, of, np.zeros(n * len(spool.values[roles.fields[fields[of]].name]), np.int64))
        for to, of in counted(roles)
    ]
    if wanted:
        at = 0
        with open(spool.path, "rb+") as file:
            for rows in spool.chunks(0, spool.n):
                for to, of, counts in wanted:
                    rows["codes"][:, to] = features.seen_before(counts, countable(rows, of, roles))
                file.seek(at * spool.dtype.itemsize)
                append(file, rows)
                at += len(rows)


def write_vocabulary(path: Path, slots: np.ndarray, words: Vocabulary, spool: Spool, roles: Roles):
    """One line for each table row: its value and its field. slots: those of the rows F .."""

    def piece(some: np.ndarray) -> pl.DataFrame:
        field, at, value = words.field[some], [], []
        for f in range(len(roles.fields)):
            mine = np.flatnonzero(field == f)
            at.append(mine)
            value.append(spool.values[roles.fields[f].name].gather(some[mine] - words.starts[f]))
        order = np.argsort(np.concatenate(at))
        return pl.DataFrame({"value": pl.concat(value).gather(order), "field": field})

    width = len(words.starts) - 1
    unknown = pl.Series([UNKNOWN] * width, dtype=pl.String)
    first = pl.DataFrame({"value": unknown, "field": np.arange(width, dtype=np.int32)})
    starts = range(0, len(slots), frames.PIECE)
    rest = (piece(slots[at : at + frames.PIECE]) for at in starts)
    frames.write(path, itertools.chain([first], rest))


def load_manifest(folder: Path) -> dict[str, Any]:
    """What a prepared log says of itself. Raises InputError if that cannot be read."""
    with told(str(folder), _ANEW):
        return json.loads((folder / "manifest.json").read_text())


def read(folder: Path) -> Stream:
    """The prepared log; its columns are memory-mapped, so that opening it costs nothing.

    Raises InputError if a file of it is gone, cut or unreadable.
    """
    m = load_manifest(folder)
    with told(str(folder), _ANEW):
        return _open(folder, m)


def _open(folder: Path, m: dict[str, Any]) -> Stream:
    """m: the manifest."""
    n, shapes = m["rows"], {"ids": (len(m["pool"]),), "dense": (len(m["dense"]),)}

    def column(name: str) -> np.ndarray:
        shape = (n, *shapes.get(name, ()))
        if 0 in shape:
            return np.zeros(shape, TYPES[name])
        return np.memmap(folder / name, TYPES[name], "r", shape=shape)

    ids, dense, label, user, time = (column(name) for name in list(TYPES)[:5])
    weight = column("weight") if m["weighted"] else np.broadcast_to(np.float32(1), n)
    rows, stages, start = Rows(ids, dense, label, weight), [], 0
    for stage in m["stages"]:
        here, source = slice(start, stage["stop"]), range(start, stage["stop"])
        part = Rows(*(column[here] for column in rows))
        stages.append(Stage(part, user[here], time[here], source, stage["vocab_size"]))
        start = stage["stop"]
    words = frames.read(folder / "vocabulary.arrow")
    return Stream(
        schema=Schema(
            *(tuple(m[key]) for key in ("fields", "dense", "pool", "vocab")), tasks=m["tasks"]
        ),
        rows=rows,
        stages=tuple(stages),
        values=cast(Sequence[str], words["value"]),
        row_field=words["field"].to_numpy(),
        scales=tuple(features.Scale(**scale) for scale in m["scales"]),
        name=m["name"],
        licence=m["licence"],
        rejected=m["rejected"],
        key=folder.name,
    )
