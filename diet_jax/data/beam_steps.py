"""The steps of a preparation on many machines: each sees a block, a chunk, or some values or users.

What they make together is what `spool` and `store` make in one go, bit for bit. A chunk is the rows
k * CHUNK .. of the log in order of time, as records (`spool.record`) whose codes are numbers of the
whole log's values; (k, rows) stands for one.
"""

import glob
import tempfile
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import polars as pl
from etils import epath

from diet_jax.data import check_keys, features, find, progress, records, spool, stages, store
from diet_jax.data.clean import clean, require_columns, used
from diet_jax.data.columns import usual_unit
from diet_jax.data.prepare import contents, description, digest, key_of
from diet_jax.data.progress import Progress
from diet_jax.data.source import Block, Part, Reject, Roles, Source, still_lacking
from diet_jax.data.vocabulary import Vocabulary
from diet_jax.types import Config, InputError

EXAMPLE = 1 << 13  # rows of an example of the data set
SHARDS = 64  # over which values and users are spread: bounds what a worker holds of them
STEP = 256  # one row in so many is looked at to share the rows out by time
SPELT = {"value": pl.String(), "part": pl.Int64(), "block": pl.Int64(), "code": pl.Int64()}
HOUR = stages.INTERVALS["hour"]


class Job(NamedTuple):
    """What every worker is told. about: all that names the result in the cache but the files."""

    data: Config
    cuts: stages.Cuts
    roles: Roles
    name: str
    licence: str
    where: str
    parts: int
    about: Any


class Piece(NamedTuple):
    """A block as records (`spool.record`) whose codes are of its own `values`, by column.

    start: the usable rows before it in its part. lacking: see `Block`.
    """

    part: int
    block: int
    start: int
    rows: np.ndarray
    values: dict[str, pl.Series]
    rejects: list[Reject]
    lacking: dict[str, str] | None


class Words(NamedTuple):
    """Slots as `Vocabulary` counts them: the table row of each (the last: -1), the slots of the
    rows F .. in their order, and the table rows known at the end of each stage."""

    row: np.ndarray
    slots: np.ndarray
    sizes: np.ndarray


class Runs(Sequence):
    """Ascending times of which neighbours are alike. values, counts: of each run."""

    def __init__(self, values: np.ndarray, counts: np.ndarray):
        self.values, self.ends = values, np.cumsum(counts)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, i):
        return int(self.values[bisect_right(self.ends, i)])


# Reading ------------------------------------------------------------------------------------------


def make_job(config: Config) -> Job:
    """Raises InputError as `prepare` does before it reads."""
    check_keys(config)
    given, cuts = config.data, config.stages
    cuts = stages.Cuts(cuts.count, tuple(cuts.fractions), cuts.interval)
    about = {k: v for k, v in given.to_dict().items() if k not in ("path", "tfds_dir", "cache")}
    with source_of(given) as s:
        said = description(s, cuts, given.min_count, given.max_rejected, about)
        where = spool.where(s)
        return Job(given, cuts, s.roles, s.name, s.licence, where, len(s.parts), said)


@contextmanager
def source_of(config: Config, part: int = -1) -> Iterator[Source]:
    """The log of the block `data`. One whose path is a URL comes as local files of the same names,
    which are empty but for those of `part`; they are gone afterwards."""
    if "://" not in config.path:
        yield find(config)
        return
    if glob.has_magic(config.path):
        raise InputError(f"data.path {config.path}: a URL may be no pattern; give the folder")
    with tempfile.TemporaryDirectory() as folder:
        there = epath.Path(config.path)
        local = {str(Path(folder) / f.relative_to(there.parent)): f for f in files_below(there)}
        for name in local:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).touch()
        here = config.copy_and_resolve_references()
        here.path = str(Path(folder) / there.name)
        try:
            source = find(here)
            for name in source.parts[part].files if part >= 0 else ():
                local[name].copy(name, overwrite=True)
            yield source._replace(
                parts=tuple(renamed(p, folder, str(there.parent)) for p in source.parts)
            )
        except InputError as error:
            raise InputError(str(error).replace(folder, str(there.parent))) from error


def renamed(part: Part, old: str, new: str) -> Part:
    """The part with another folder in its messages."""

    def blocks() -> Iterator[Block]:
        for block in part.blocks():
            rejects = (r._replace(where=r.where.replace(old, new)) for r in block.rejects)
            yield block._replace(rejects=tuple(rejects))

    return part._replace(where=part.where.replace(old, new), blocks=blocks)


def files_below(path: epath.Path) -> Iterator[epath.Path]:
    if not path.is_dir():
        yield path
        return
    for inner in path.iterdir():
        yield from files_below(inner)


def look(number: int, job: Job) -> tuple[int, str, list[Any]]:
    """A part's number, the first unit that its times are in, and its `contents`."""
    with source_of(job.data, number) as source, tempfile.TemporaryDirectory() as cache:
        part, unit = source.parts[number], ""
        for block in part.blocks():
            if block.frame.width:
                require_columns(block.frame.columns, used(job.roles), part.where)
                time = block.frame[job.roles.time]
                unit = usual_unit(time, part.where)
                if unit or time.dtype.is_temporal():
                    break
        digests = {file: digest(Path(file), Path(cache)) for file in part.files}
        return number, unit, contents(part, digests)


def read(number: int, job: Job, parts: list) -> Iterator[Piece]:
    """The blocks of a part. parts: what `look` says of all."""
    unit = next((unit for _, unit, _ in sorted(parts) if unit), "")
    start, dtype = 0, spool.record(job.roles)
    with source_of(job.data, number) as source:
        for upto, _, found, rejects in clean((source.parts[number],), job.roles, unit=unit):
            coders = spool.make_coders(job.roles)
            rows = spool.encode(found, job.roles, coders, dtype)
            values = {name: coder.values() for name, coder in coders.items()}
            yield Piece(number, upto[1], start, rows, values, rejects, found.lacking)
            start += len(rows)


def tally(blocks: list, job: Job) -> Progress:
    """Counts rows and rejects as the reading on one machine does, and raises InputError where it
    would. blocks: part, block, rows, rejected rows by reason, the first of them in words, lacking
    columns."""
    done = saved = Progress()
    for part, block, n, rejected, first, lacking in sorted(blocks, key=lambda block: block[:2]):
        done = done._replace(
            next=(part, block),
            rows=done.rows + n,
            rejected=dict(Counter(done.rejected) + rejected),
            first=done.first or first,
            lacking=still_lacking(done.lacking, lacking),
        )
        if done.seen - saved.seen >= spool.SEGMENT:
            progress.check_rejected(done, job.data.max_rejected)
            saved = done
    progress.check(done, job.data.max_rejected)
    if not done.rows:
        raise InputError(f"{job.where}: no rows to use; give a log with at least one good row")
    return done


def summary(piece: Piece) -> tuple:
    rejects = piece.rejects
    first = progress.in_words(rejects[0]) if rejects else ""
    reasons = Counter(r.reason for r in rejects)
    return piece.part, piece.block, len(piece.rows), reasons, first, piece.lacking


def write_rejects(group: tuple[int, Iterable[tuple[int, list[Reject]]]], out: str) -> None:
    rejects = [reject for _, found in sorted(group[1]) for reject in found]
    (epath.Path(out) / f"rejected-{group[0]:06d}.csv").write_bytes(progress.lines(rejects, False))


# Values as numbers --------------------------------------------------------------------------------


def spell(piece: Piece) -> Iterator[tuple[tuple[int, int], pl.DataFrame]]:
    """The values of a block by column and shard, with their place."""
    for c, values in enumerate(piece.values.values()):
        at = {"part": piece.part, "block": piece.block, "code": np.arange(len(values))}
        shard = pl.Series("shard", [zlib.crc32(v.encode()) % SHARDS for v in values], pl.Int64)
        frame = pl.DataFrame({"value": values, **at}, SPELT).with_columns(shard)
        for (s,), mine in frame.partition_by("shard", as_dict=True, include_key=False).items():
            yield (c, int(s)), mine


def once(group: tuple[tuple[int, int], Iterable[pl.DataFrame]]) -> tuple[int, pl.DataFrame]:
    """Each value of a column and shard at the place where it comes up first."""
    frame = pl.concat(group[1]).sort("part", "block", "code")
    return group[0][0], frame.unique("value", keep="first", maintain_order=True)


def number(found: list[tuple[int, pl.DataFrame]], job: Job) -> dict[str, pl.Series]:
    """`Spool.values`: the values of each column in the order in which the log is read."""
    values = {}
    for c, name in enumerate(spool.make_coders(job.roles)):
        frames = [pl.DataFrame(schema=SPELT), *(frame for column, frame in found if column == c)]
        values[name] = pl.concat(frames).sort("part", "block", "code")["value"]
    return values


def translate(piece: Piece, values: dict[str, pl.Series], job: Job) -> Piece:
    """The piece with codes of the whole log's values."""
    table, rows = {}, piece.rows.copy()
    for name, mine in piece.values.items():
        known = pl.DataFrame({"value": values[name]}).with_row_index("code")
        both = known.join(pl.DataFrame({"value": mine}).with_row_index("at"), on="value")
        table[name] = np.append(both.sort("at")["code"].to_numpy().astype(np.int32), -1)
    for f, columns in spool.columns_of(job.roles.fields):
        rows["codes"].T[columns] = table[job.roles.fields[f].name][rows["codes"].T[columns]]
    rows["user"] = table["" if "" in table else job.roles.user][rows["user"]]
    return piece._replace(rows=rows, values={}, rejects=[])


# Order of time ------------------------------------------------------------------------------------


def place(piece: Piece) -> np.ndarray:
    """int64 [2, n]: what rows are ordered by, their place in the log and, before it, their time."""
    return np.stack(
        [(piece.part << 40) + piece.start + np.arange(len(piece.rows)), piece.rows["time"]]
    )


def shares(sample: list[np.ndarray]) -> np.ndarray:
    """int64 [2, m]: places between which there are about as many rows as in a chunk."""
    rows = np.hstack(sample)
    return rows[:, np.lexsort(rows)][:, :: max(records.CHUNK // STEP, 1)]


def deal(piece: Piece, borders: np.ndarray) -> Iterator[tuple[int, tuple]]:
    mine = place(piece)
    order = np.lexsort(np.hstack([borders, mine]))
    share = np.empty(len(order), int)
    share[order] = np.cumsum(order < borders.shape[1])
    share = share[borders.shape[1] :]
    for s in np.unique(share):
        yield int(s), (mine[:, share == s], piece.rows[share == s])


def arrange(group: tuple[int, Iterable[tuple]]) -> tuple[int, np.ndarray]:
    places, rows = zip(*group[1], strict=True)
    return group[0], np.concatenate(rows)[np.lexsort(np.hstack(places))]


def align(share: tuple[int, np.ndarray], sizes: dict[int, int]) -> Iterator[tuple[int, tuple]]:
    """The rows of a share by chunk, each with the number of its first row."""
    s, rows = share
    start = sum(size for other, size in sizes.items() if other < s)
    for k in range(start // records.CHUNK, (start + len(rows) - 1) // records.CHUNK + 1):
        first = max(k * records.CHUNK, start)
        yield k, (first, rows[first - start : (k + 1) * records.CHUNK - start])


def join(group: tuple[int, Iterable[tuple]]) -> tuple[int, np.ndarray]:
    pieces = sorted(group[1], key=lambda piece: piece[0])
    return group[0], np.concatenate([rows for _, rows in pieces])


# Stages -------------------------------------------------------------------------------------------


def asked(chunk: tuple[int, np.ndarray], done: Progress, job: Job) -> list[int]:
    """Those of the times that stages may end at that are in the chunk."""
    ends = [1, done.rows]
    with suppress(InputError):  # it is raised again when the borders are made
        ends += stages.cut(range(done.rows), job.cuts._replace(interval=""), "").tolist()
    time, start = chunk[1]["time"], chunk[0] * records.CHUNK
    return [int(time[end - 1 - start]) for end in ends if 0 <= end - 1 - start < len(time)]


def runs(chunk: tuple[int, np.ndarray], times: list[int], job: Job) -> tuple:
    """The chunk's times, each as its hour or the next of `times`, as (chunk, values, counts)."""
    time = chunk[1]["time"]
    known = np.unique(times)
    like = time // HOUR * HOUR if job.cuts.interval else known[np.searchsorted(known, time)]
    return chunk[0], *np.unique(like, return_counts=True)


def cut(found: list[tuple], job: Job) -> np.ndarray:
    """int64 [stages + 1]: the borders, see `stages.cut`."""
    _, values, counts = zip(*sorted(found, key=lambda run: run[0]), strict=True)
    return stages.cut(Runs(np.concatenate(values), np.concatenate(counts)), job.cuts, job.where)


def by_stage(k: int, n: int, borders: np.ndarray) -> Iterator[tuple[int, slice]]:
    """The stages that chunk k of n rows has a piece of."""
    start = k * records.CHUNK
    for s in range(len(borders) - 1):
        piece = slice(max(int(borders[s]) - start, 0), min(int(borders[s + 1]) - start, n))
        if piece.start < piece.stop:
            yield s, piece


def labels(chunk: tuple[int, np.ndarray], borders: np.ndarray) -> Iterator[tuple]:
    for s, piece in by_stage(chunk[0], len(chunk[1]), borders):
        rows = chunk[1][piece]
        total = float(rows["label"].sum(dtype=np.float64))
        yield s, (total, int(rows["time"][0]), int(rows["time"][-1]))


def check_classes(found: list[tuple], borders: np.ndarray, job: Job) -> list[dict]:
    """When each stage begins and its positives; raises InputError as `stages.check_class` does."""
    about = []
    for s in range(len(borders) - 1):
        totals, firsts, lasts = zip(*(label for stage, label in found if stage == s), strict=True)
        time = {int(borders[s]): min(firsts), int(borders[s + 1]) - 1: max(lasts)}
        stages.check_class(sum(totals), cast(np.ndarray, time), borders, s, job.where)
        about.append({"begins": stages.instant(min(firsts)), "positives": sum(totals)})
    return about


# Counts and histories -----------------------------------------------------------------------------


def scatter(keys: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    shard = keys % SHARDS
    for s in np.unique(shard):
        yield int(s), shard == s


def count(chunk: tuple[int, np.ndarray], job: Job) -> Iterator[tuple]:
    """How often each value is in the chunk, by column and shard."""
    for j, (_, of) in enumerate(spool.counted(job.roles)):
        codes, n = np.unique(spool.countable(chunk[1], of, job.roles), return_counts=True)
        for s, mine in scatter(codes):
            yield (j, s), (chunk[0], codes[mine], n[mine])


def counts_before(group: tuple) -> Iterator[tuple]:
    """How often each value of a chunk was in earlier ones, by chunk."""
    (j, _), found = group
    frame = pl.concat(pl.DataFrame({"k": k, "code": codes, "n": n}) for k, codes, n in found)
    frame = frame.sort("k").with_columns(pl.col("n").cum_sum().over("code") - pl.col("n"))
    for (k,), mine in frame.partition_by("k", as_dict=True).items():
        yield int(k), (j, mine["code"].to_numpy(), mine["n"].to_numpy())


def fill_counts(group: tuple, job: Job) -> tuple[int, np.ndarray]:
    k, (chunks, before) = group
    rows = chunks[0].copy()
    for j, (to, of) in enumerate(spool.counted(job.roles)):
        codes, n = (
            np.concatenate(x) for x in zip(*(b[1:] for b in before if b[0] == j), strict=True)
        )
        counts = n[np.argsort(codes)].astype(np.int64)
        _, mine = np.unique(spool.countable(rows, of, job.roles), return_inverse=True)
        rows["codes"][:, to] = features.seen_before(counts, mine)
    return k, rows


def no_user(values: dict[str, pl.Series], job: Job) -> int:
    """See `spool.nobody`."""
    return spool.nobody(values, job.roles)


def act(chunk: tuple[int, np.ndarray], nobody: int, job: Job) -> Iterator[tuple]:
    """By shard: the users of a chunk, when it starts, and the user, time and item of positives."""
    k, rows = chunk
    users = np.unique(rows["user"])
    items = rows["codes"][:, store.item_column(job.roles)]
    for s, mine in scatter(users):
        good = spool.remembered(rows, job.roles, nobody) & (rows["user"] % SHARDS == s)
        seen = rows["user"][good], rows["time"][good], items[good]
        yield s, (k, users[mine], int(rows["time"][0]), *seen)


def pasts(group: tuple, job: Job) -> Iterator[tuple]:
    """By chunk: its users, the last items of each before its first time (-1: none), and the latest
    of that time in earlier chunks, as users and items."""
    asks = sorted(group[1], key=lambda ask: ask[0])
    length = cast(Any, job.roles.history).length
    chunk = np.concatenate([np.full(len(ask[3]), ask[0]) for ask in asks])
    user, time, item = (np.concatenate(x) for x in list(zip(*asks, strict=True))[3:])
    order = np.argsort(user, kind="stable")
    user, time, item, chunk = user[order].astype(np.int64), time[order], item[order], chunk[order]
    moments = np.unique(np.append(time, [ask[2] for ask in asks]))
    by_time = user * len(moments) + np.searchsorted(moments, time)
    by_chunk = user * (asks[-1][0] + 1) + chunk
    items, back = np.append(item, np.int32(-1)), np.arange(-length, 0)
    for k, users, first, *_ in asks:
        who = users.astype(np.int64)
        begin = np.searchsorted(user, who)[:, None]
        moment = np.searchsorted(moments, first)
        now = np.searchsorted(by_time, who * len(moments) + moment)[:, None]
        end = np.searchsorted(by_chunk, who * (asks[-1][0] + 1) + k)[:, None]
        last = items[np.where(now + back >= begin, now + back, -1)]
        going = end + back >= now
        pending = np.broadcast_to(users[:, None], going.shape)[going], items[(end + back)[going]]
        yield k, (users, last, *pending)


def histories(rows: np.ndarray, found: Iterable[tuple], nobody: int, roles: Roles) -> np.ndarray:
    """int [n, L], codes of the item's column; found: of `pasts`."""
    users, last, who, what = (np.concatenate(x) for x in zip(*found, strict=True))
    known, mine = np.unique(rows["user"], return_inverse=True)
    first = int(rows["time"][0])
    past = features.Past(last[np.argsort(users)], first, np.searchsorted(known, who), what)
    items, liked = rows["codes"][:, store.item_column(roles)], spool.remembered(rows, roles, nobody)
    return features.histories(past, mine, items, rows["time"], liked)[0]


# Vocabulary, scales, rows -------------------------------------------------------------------------


def starts(values: dict[str, pl.Series], job: Job) -> np.ndarray:
    """int64 [F + 1]: the first slot of each field, and that of no value. A history has none."""
    sizes = [len(values[field.name]) for field in job.roles.fields]
    return np.cumsum([0, *sizes, *[0] * bool(job.roles.history)])


def observe(chunk: tuple, borders: np.ndarray, first: np.ndarray, job: Job) -> Iterator[tuple]:
    """By shard: the slots in each stage of the chunk, their first cells and counts."""
    k, rows = chunk
    codes = rows["codes"]
    slots = np.where(codes < 0, first[-1], codes + first[spool.field_of(job.roles.fields)])
    for s, piece in by_stage(k, len(rows), borders):
        seen, at, n = np.unique(slots[piece], return_index=True, return_counts=True)
        at += (k * records.CHUNK + piece.start) * slots.shape[1]
        for shard, mine in scatter(seen):
            mine &= seen < first[-1]
            frame = {"slot": seen[mine], "first": at[mine], "n": n[mine]}
            yield shard, pl.DataFrame(frame).with_columns(stage=pl.lit(s, pl.Int64))


def admit(group: tuple[int, Iterable[pl.DataFrame]], min_count: int) -> pl.DataFrame:
    """The slots that are seen often enough, with the stage when they first are."""
    frame = pl.concat(group[1]).group_by("stage", "slot").agg(pl.min("first"), pl.sum("n"))
    frame = frame.sort("stage").with_columns(
        pl.col("first").min().over("slot"), pl.col("n").cum_sum().over("slot")
    )
    ready = frame.filter(pl.col("n") >= min_count)
    return ready.unique("slot", keep="first", maintain_order=True).drop("n")


def admitted(frames: list[pl.DataFrame], borders: np.ndarray, first: np.ndarray) -> Words:
    frame = pl.concat(frames).sort("stage", "first")
    slots, width = frame["slot"].to_numpy(), len(first) - 1
    row = np.append(np.repeat(np.arange(width), np.diff(first)), -1).astype(np.int32)
    row[slots] = width + np.arange(len(slots))
    new = np.bincount(frame["stage"].to_numpy(), minlength=len(borders) - 1)
    return Words(row, slots, width + np.cumsum(new))


def dense(chunk: tuple, borders: np.ndarray, job: Job) -> np.ndarray:
    """float64 [m, G]: the chunk's rows in the first stage, see `features.bend`."""
    n = max(int(borders[1]) - chunk[0] * records.CHUNK, 0)
    return features.bend(chunk[1]["dense"][:n], job.roles.dense)


def middle(chunk: tuple, borders: np.ndarray, job: Job) -> np.ndarray:
    """float64 [G]: what is taken off before squares are summed, of the first chunk."""
    return dense(chunk, borders, job).mean(0)


def powers(chunk: tuple, borders: np.ndarray, shift: np.ndarray, job: Job) -> tuple:
    """What `features.fit_scales` takes from a chunk."""
    start, x = chunk[0] * records.CHUNK, dense(chunk, borders, job)
    return chunk[0], features.powers(x, shift, start, int(borders[1]))


def fit(found: list[tuple], borders: np.ndarray, shift, job: Job) -> tuple[features.Scale, ...]:
    """`features.fit_scales` of `powers`, added up in the same order."""
    parts = [part for _, part in sorted(found, key=lambda m: m[0])]
    return features.scales_of(parts, shift, int(borders[1]), job.roles.dense)


def encode(group: tuple, borders, first, nobody, words: Words, scales, job: Job) -> Iterator[tuple]:
    """The examples of a chunk, by the number of their first row."""
    k, (chunks, found) = group
    rows, fields = chunks[0], spool.field_of(job.roles.fields)
    slots = np.where(rows["codes"] < 0, first[-1], rows["codes"] + first[fields])
    if job.roles.history:
        item = store.item_column(job.roles)
        seen = histories(rows, found, nobody, job.roles)
        slots = np.hstack([slots, np.where(seen < 0, first[-1], seen + first[fields[item]])])
        fields = np.append(fields, [fields[item]] * seen.shape[1])
    at = np.arange(k * records.CHUNK, k * records.CHUNK + len(rows))
    known = words.sizes[np.searchsorted(borders[1:], at, "right")][:, None]
    ids = words.row[slots]
    made = {
        "ids": np.where(ids < known, ids, fields).astype(np.int32),
        "dense": features.rescale(rows["dense"], scales, job.roles.dense),
        "time": rows["time"] // 1_000_000,
    }
    for start in range(0, len(rows), EXAMPLE):
        here = slice(start, start + EXAMPLE)
        example = {name: (made if name in made else rows)[name][here] for name in shapes(job)}
        yield int(at[start]), example


def shapes(job: Job) -> dict[str, tuple]:
    """The shape of each column of an example."""
    history = job.roles.history.length if job.roles.history else 0
    width = {
        "ids": (len(spool.field_of(job.roles.fields)) + history,),
        "dense": (len(job.roles.dense),),
    }
    left_out = ["dense"] * (not job.roles.dense) + ["weight"] * (not job.roles.weight)
    return {name: (None, *width.get(name, ())) for name in store.TYPES if name not in left_out}


def describe(_, parts, done: Progress, values, borders, about, words: Words, scales, job, out):
    """Writes what goes with the rows: vocabulary, manifest, and the key in the cache."""
    roles, fields = job.roles, spool.field_of(job.roles.fields)
    sizes = np.diff(starts(values, job)).tolist()
    rows = spool.Spool(Path(), spool.record(roles), done.rows, values, done.rejected)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocabulary.arrow"
        store.write_vocabulary(path, words.slots, Vocabulary(sizes, fields, 1), rows, roles)
        (epath.Path(out) / path.name).write_bytes(path.read_bytes())
    stages = [
        {"stop": int(stop), "vocab_size": int(size), **more}
        for stop, size, more in zip(borders[1:], words.sizes, about, strict=True)
    ]
    made = store.manifest(job.name, job.licence, roles, done.rows, scales, stages, done.rejected)
    (epath.Path(out) / "manifest.json").write_text(made)
    key = key_of(job.about, [held for _, _, held in sorted(parts, key=lambda part: part[0])])
    (epath.Path(out) / "key.txt").write_text(key)
