"""Logs of a few rows as sources, and what the data layer makes of them."""

import numpy as np
import polars as pl

from diet_jax.data import store
from diet_jax.data.prepare import prepare
from diet_jax.data.source import Block, Dense, Field, History, Part, Roles, Source
from diet_jax.data.stages import Cuts

ROLES = Roles("label", "time", "user", (Field("user"), Field("item")))
RICH = ROLES._replace(  # of `rich_log`
    fields=(*ROLES.fields, Field("seen", derived="count:item"), Field("tags", 2, "|")),
    dense=(Dense("x", "log"),),
    history=History("item", 2),
)


def part(frame, where="log", size=1000, files=()):
    """The rows of a frame (or of columns) in blocks of `size`."""
    frame = pl.DataFrame(frame, strict=False)

    def blocks():
        for at in range(0, max(len(frame), 1), size):
            rows = pl.int_range(at + 1, at + 1 + len(frame[at : at + size]), eager=True)
            yield Block(frame[at : at + size], rows)

    return Part(where, tuple(map(str, files)), blocks)


def source(*frames, roles=ROLES, size=1000):
    """A log of one part for each frame."""
    parts = [part(frame, f"log{k}", size) for k, frame in enumerate(frames)]
    return Source("toy", tuple(parts), roles, "free")


def make(source, cache, stages=2, min_count=1, max_rejected=0.0, **more):
    """The folder of the prepared log."""
    cuts = stages if isinstance(stages, Cuts) else Cuts(stages)
    return prepare(source, cuts, min_count, max_rejected, cache, **more)


def load(source, cache, *args, **more):
    """The prepared log, with nothing that has the same description taken for it."""
    more.setdefault("about", next(_numbers))
    return store.read(make(source, cache, *args, **more))


_numbers = iter(range(10**9))


def columns(stream):
    """All rows of all stages: ids, dense, label, weight, user, time."""
    rows = [[*stage.rows, stage.user, stage.time] for stage in stream.stages]
    return [np.concatenate(column) for column in zip(*rows, strict=True)]


def texts(stream, field):
    """The values of a field as the model sees them: one text a row, or several."""
    f = stream.schema.fields.index(field)
    ids = columns(stream)[0][:, np.array(stream.schema.pool) == f]
    words = [[stream.values[row] for row in rows if row >= 0] for rows in ids.tolist()]
    return [w for (w,) in words] if ids.shape[1] == 1 else words


def random_log(rng, n, users=4, items=5, times=12):
    """Columns of n rows in order of time with many ties."""
    return {
        "user": rng.integers(0, users, n),
        "item": rng.integers(0, items, n),
        "time": 1_700_000_000 + np.sort(rng.integers(0, times, n)),
        "label": rng.integers(0, 2, n),
    }


def rich_log(n, seed=0):
    """n rows in order of time, each column that `RICH` wants."""
    rng = np.random.default_rng(seed)
    log = random_log(rng, n, items=n, times=n) | {"x": rng.normal(size=n)}
    log["label"], log["tags"] = np.arange(n) % 2, rng.choice(["", "a|b", "b|c|a"], n)
    return pl.DataFrame(log)


def bytes_of(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}
