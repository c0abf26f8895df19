"""Prepared once, whole or not at all, whatever happens in between."""

import json
import os
import resource
import shutil
import subprocess
import sys
import tracemalloc

import cli
import numpy as np
import polars as pl
import pytest
import small_logs
from hypothesis import given, settings
from hypothesis import strategies as st
from small_logs import RICH, bytes_of, columns, load, make, rich_log, source, texts

from diet_jax.data import readers, records, spool, store
from diet_jax.data.prepare import Report
from diet_jax.data.source import Field, Reject, Source
from diet_jax.types import InputError


def csv_source(folder, log, n_parts=3, roles=RICH):
    """The log in files, the latest rows first."""
    folder.mkdir(exist_ok=True)
    size = -(-len(log) // n_parts)
    for k in range(n_parts):
        log[k * size : (k + 1) * size].write_csv(folder / f"{n_parts - k}.csv")
    return Source("toy", readers.table_parts(folder), roles)


class Stop(BaseException):
    """What no part of the program catches."""


def stopped_after(calls, kind):
    left = iter(range(calls))

    def report(rows):
        if next(left, None) is None:
            raise Stop

    return Report(**{kind: report})


def test_a_log_is_read_once(tmp_path):
    reads = []
    one = csv_source(tmp_path / "log", rich_log(30))
    first = make(one, tmp_path / "c", report=Report(reads.append))
    assert reads == [10, 20, 30]
    kept = bytes_of(first)
    assert set(kept) == set(store.FILES) - {"weight"}
    assert make(one, tmp_path / "c", report=stopped_after(0, "read")) == first
    (first / "ids").unlink()
    assert make(one, tmp_path / "c", report=stopped_after(0, "read")) == first  # not looked into
    elsewhere = tmp_path / "another place"
    shutil.copytree(tmp_path / "log", elsewhere)
    moved = one._replace(parts=readers.table_parts(elsewhere))
    assert make(moved, tmp_path / "c", report=stopped_after(0, "read")) == first
    assert bytes_of(make(moved, tmp_path / "c2")) == kept


def test_what_makes_a_log_another_one(tmp_path):
    log, cache = rich_log(30), tmp_path / "c"
    one = csv_source(tmp_path / "log", log)
    keys = [
        make(one, cache),
        make(one, cache, 3),
        make(one, cache, min_count=2),
        make(one, cache, about={"options": 1}),
        make(one._replace(roles=RICH._replace(threshold=0.5)), cache),
        make(one._replace(name="b"), cache),
        make(one._replace(parts=one.parts[:2]), cache),
    ]
    text = (tmp_path / "log" / "1.csv").read_text()
    (tmp_path / "log" / "1.csv").write_text(text.replace("|", "-", 1))  # of the same size
    keys.append(make(one, cache))
    assert len(set(keys)) == len(keys)
    (tmp_path / "log" / "1.csv").write_text(text)
    assert make(one, cache) == keys[0]
    (tmp_path / "log" / "1.csv").rename(tmp_path / "log" / "1b.csv")
    assert make(one._replace(parts=readers.table_parts(tmp_path / "log")), cache) not in keys


@settings(max_examples=30)
@given(
    st.lists(st.integers(0, 6) | st.integers(0, 1000), min_size=2, max_size=60),
    st.integers(1, 9),
    st.integers(1, 9),
)
def test_any_order_becomes_that_of_time(tmp_path_factory, times, in_memory, chunk):
    """Stably, with files of records far longer than memory may hold, and many equal times."""
    tmp, dtype = tmp_path_factory.mktemp("log"), np.dtype([("time", np.int64), ("row", np.int32)])
    rows = np.zeros(len(times), dtype)
    rows["time"], rows["row"] = times, range(len(times))
    rows.tofile(tmp / "spool.bin")
    with pytest.MonkeyPatch.context() as patch, open(tmp / "out", "wb") as out:
        patch.setattr(records, "IN_MEMORY", in_memory * dtype.itemsize)
        patch.setattr(records, "CHUNK", chunk)
        patch.setattr(records, "MOST_CUTS", 3)
        records.sort_into(out, tmp / "spool.bin", dtype, len(times))
    found = np.fromfile(tmp / "out", dtype)
    assert found["row"].tolist() == np.argsort(times, kind="stable").tolist()
    assert {file.name for file in tmp.iterdir()} == {"spool.bin", "out"}


def test_sorting_takes_no_more_memory_for_wide_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "IN_MEMORY", 1 << 20)
    monkeypatch.setattr(records, "CHUNK", 16)
    dtype = np.dtype([("time", np.int64), ("codes", np.int32, (1000,))])
    for size in (1 << 20, 6 << 20):  # as much as fits, and more
        rows = np.zeros(size // dtype.itemsize, dtype)
        rows["time"] = np.arange(len(rows))[::-1]
        rows.tofile(tmp_path / "spool.bin")
        with open(tmp_path / "out", "wb") as out:
            tracemalloc.start()
            records.sort_into(out, tmp_path / "spool.bin", dtype, len(rows))
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak < 1.5 * (1 << 20)
        assert np.array_equal(np.fromfile(tmp_path / "out", dtype), rows[::-1])


def test_time_that_goes_backwards_across_files(tmp_path, monkeypatch):
    log = rich_log(200)
    log = log.with_columns(row=pl.int_range(200).cast(pl.String))
    roles = RICH._replace(fields=(*RICH.fields, Field("row")))
    shuffled = log.sample(fraction=1, shuffle=True, seed=1)
    expected = shuffled.sort("time", maintain_order=True)
    found = []
    for in_memory in (1000, 20):
        monkeypatch.setattr(records, "IN_MEMORY", in_memory * spool.record(roles).itemsize)
        stream = load(source(shuffled[:90], shuffled[90:], roles=roles, size=33), tmp_path, 3)
        assert texts(stream, "row") == expected["row"].to_list()
        assert columns(stream)[5].tolist() == expected["time"].to_list()
        found.append(columns(stream))
    for a, b in zip(*found, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("kind", ["read", "encoded"])
@pytest.mark.parametrize("in_order", [False, True])
def test_a_stopped_preparation_goes_on(tmp_path, monkeypatch, kind, in_order):
    """Wherever it was stopped, however often: the same bytes, and no part is read again."""
    monkeypatch.setattr(spool, "SEGMENT", 7)
    monkeypatch.setattr(records, "CHUNK", 9)
    log = rich_log(60)
    log = log if in_order else log[::-1]
    log = log.with_columns(time=pl.when(pl.int_range(60) % 20 == 3).then(-1).otherwise("time"))
    one = source(*(log[at : at + 15] for at in range(0, 60, 15)), roles=RICH, size=5)
    expected = bytes_of(make(one, tmp_path / "whole", 3, max_rejected=0.1))
    calls, opened = 0, []

    def counted(part):
        def blocks():
            opened.append(part.where)
            return part.blocks()

        return part._replace(blocks=blocks)

    one = one._replace(parts=tuple(map(counted, one.parts)))
    for _ in range(40):
        opened.clear()
        try:
            report = stopped_after(calls, kind)
            found = make(one, tmp_path / "cut", 3, max_rejected=0.1, report=report)
            break
        except Stop:
            calls += kind == "encoded"
            calls = calls or 3
    else:
        raise AssertionError("it never came to its end")
    assert bytes_of(found) == expected
    assert "rejected.csv" in expected
    assert len(opened) < 2  # the last time


def test_a_stop_while_sorting(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "IN_MEMORY", 10 * spool.record(RICH).itemsize)
    one = source(rich_log(60)[::-1], roles=RICH)
    expected = bytes_of(make(one, tmp_path / "whole"))

    def stop(*_):
        raise Stop

    for at in (records, spool):
        with monkeypatch.context() as patch:
            patch.setattr(at, "sort_into", stop)
            with pytest.raises(Stop):
                make(one, tmp_path / "cut")
    found = make(one, tmp_path / "cut", report=stopped_after(0, "read"))
    assert bytes_of(found) == expected


SCRIPT = """
import os, sys
from pathlib import Path
from diet_jax.data import readers, spool
from diet_jax.data.prepare import Report
from diet_jax.data.source import Source
from small_logs import RICH, make
spool.SEGMENT = 20
folder, cache, limit = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
rows = []
def report(n):
    rows.append(n)
    if n >= limit:
        os._exit(9)
one = Source("toy", readers.table_parts(folder), RICH)
make(one, cache, report=Report(report))
print(len(rows))
"""


def process(*args):
    env = os.environ | {"PYTHONPATH": cli.PATHS}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *map(str, args)], env=env, text=True, stdout=-1, stderr=-1
    )


def test_a_killed_process_and_two_at_once(tmp_path):
    one = csv_source(tmp_path / "log", rich_log(90), n_parts=9)
    whole = make(one, tmp_path / "whole")
    killed = process(tmp_path / "log", tmp_path / "cut", 50)
    killed.communicate()
    assert killed.returncode == 9
    both = [process(tmp_path / "log", tmp_path / "cut", 999) for _ in range(2)]
    ended = [(*p.communicate(), p.returncode) for p in both]
    assert [(err, code) for _, err, code in ended] == [("", 0)] * 2
    assert sorted(int(out) for out, *_ in ended) == [0, 5]  # one reads what was not read yet
    assert bytes_of(tmp_path / "cut" / whole.name) == bytes_of(whole)


def left(cache):
    """What is not mere bookkeeping."""
    return [f.name for f in cache.iterdir() if f.suffix != ".lock" and f.name != "digests"]


def test_rejected_rows_are_counted_and_written_aside(tmp_path):
    log = rich_log(40).with_columns(
        time=pl.when(pl.int_range(40) == 7).then(None).otherwise("time"),
        label=pl.when(pl.int_range(40).is_in([3, 20])).then(7).otherwise("label"),
    )
    one = source(log, roles=RICH, size=9)
    folder = make(one, tmp_path, max_rejected=0.1)
    aside = pl.read_csv(folder / "rejected.csv")
    assert aside.columns == list(Reject._fields)
    assert aside["row"].to_list() == [4, 8, 21]
    assert aside["column"].to_list() == ["label", "time", "label"]
    assert (
        '"rejected": {\n  "is neither 0 nor 1": 2,\n  "the value is missing": 1'
        in (folder / "manifest.json").read_text()
    )
    shutil.rmtree(folder)
    with pytest.raises(InputError) as caught:
        make(one, tmp_path, max_rejected=0.07)
    message = str(caught.value)
    (kept,) = left(tmp_path)
    for words in (
        "log0, row 4, column 'label': '7' is neither 0 nor 1; give labels 0 and 1",
        "; 3 of 40 rows are rejected (is neither 0 nor 1: 2, the value is missing: 1), "
        "more than data.max_rejected = 0.07 allows",
        str(tmp_path / kept),
    ):
        assert words in message
    assert pl.read_csv(tmp_path / kept).equals(aside)


def test_a_log_of_bad_rows_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(spool, "SEGMENT", 10)
    reads = []
    bad = rich_log(100).with_columns(label=pl.lit(5))
    with pytest.raises(InputError, match="10 of 10 rows are rejected"):
        make(source(bad, roles=RICH, size=5), tmp_path, report=Report(reads.append))
    assert len(reads) == 2
    with pytest.raises(InputError, match="log0: no rows"):
        make(source(bad, roles=RICH), tmp_path, max_rejected=1.0)


def test_logs_at_the_edge(tmp_path):
    rich = rich_log(20)
    for log, size in (
        (rich.with_columns(user=pl.lit("one")), 20),
        (rich.with_columns(item=pl.lit(None)), 20),
        (rich.with_columns(time=pl.lit(0)), 3),
        (pl.concat([rich, rich[:1]]), 20),
    ):
        stream = load(source(rich.clear(), log, rich.clear(), roles=RICH, size=size), tmp_path, 1)
        assert len(stream.stages[0].user) == len(log)
        assert texts(stream, "user") == log.sort("time")["user"].cast(pl.String).to_list()
    no_parts = Source("nothing", (), RICH)
    with pytest.raises(InputError, match="nothing: no rows"):
        make(no_parts, tmp_path)


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    for cache in (tmp_path / "file", tmp_path / "file" / "sub"):
        with pytest.raises(InputError) as caught:
            make(source(rich_log(20), roles=RICH), cache)
        assert str(tmp_path / "file") in str(caught.value) and "data.cache" in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("limit", [10, 400, 1000, 2000, 2700, 3000, 3900])
def test_a_full_disk(tmp_path, monkeypatch, limit):
    """Files may grow to `limit` bytes, then no further."""
    monkeypatch.setattr(spool, "SEGMENT", 40)
    log = rich_log(100)[::-1]
    one = source(log, roles=RICH, size=10)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(InputError) as caught:
            make(one, tmp_path / "c")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert left(tmp_path / "c") == []
    assert str(tmp_path / "c") in str(caught.value) and "free some space" in str(caught.value)
    assert "\n" not in str(caught.value)
    make(one, tmp_path / "c")


DISK = """
import json, subprocess, sys
from pathlib import Path
from diet_jax.data import readers, spool
from diet_jax.data.source import Source
from diet_jax.types import InputError
from small_logs import RICH, bytes_of, make
spool.SEGMENT = 200
log, disk = map(Path, sys.argv[1:])
one, errors, left = Source("toy", readers.table_parts(log), RICH), [], set()
for kib in range(8, 1024, 8):
    subprocess.run(["mount", "-o", f"remount,size={kib}k", disk], check=True)
    try:
        same = bytes_of(make(one, disk / "cache")) == bytes_of(make(one, log / "cache"))
        break
    except InputError as error:
        errors.append(str(error))
        left |= {str(f) for f in (disk / "cache").rglob("*") if f.is_file() and f.suffix != ".lock"}
        left -= {str(f) for f in (disk / "cache" / "digests").glob("?" * 24)}
print(json.dumps([errors, sorted(left), same]))
"""


def test_a_disk_that_is_really_full_and_then_has_room(tmp_path):
    """A small file system, in a mount namespace that ends with the process; it grows until the log
    fits, so that it is full at every point of a preparation once."""
    csv_source(tmp_path / "log", rich_log(1000))
    disk = tmp_path / "disk"
    disk.mkdir()
    apart = ["unshare", "--mount", "--map-root-user"]
    if not shutil.which("unshare") or subprocess.run([*apart, "true"], stderr=-1).returncode:
        pytest.skip("no file system can be mounted here: there are no mount namespaces")
    mounted = f"mount -t tmpfs -o size=8k none {disk} || exit 77"
    inside = ["sh", "-c", f'{mounted}; exec "$@"', "sh", sys.executable, "-c", DISK]
    done = subprocess.run(
        [*apart, *inside, tmp_path / "log", disk],
        env=os.environ | {"PYTHONPATH": cli.PATHS},
        text=True,
        capture_output=True,
    )
    if done.returncode == 77:
        pytest.skip(f"no file system can be mounted here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    errors, left, same = json.loads(done.stdout)
    assert len(errors) > 10 and left == [] and same
    for error in errors:
        assert str(disk) in error and "\n" not in error
        assert "No space left on device; free some space, or set --config.data.cache" in error


def test_a_log_that_is_gone(tmp_path):
    one = csv_source(tmp_path / "log", rich_log(20))
    (tmp_path / "log" / "2.csv").unlink()
    with pytest.raises(InputError, match="2.csv: No such file.*check the path"):
        make(one, tmp_path / "c")


def test_a_file_that_changes_while_it_is_read(tmp_path):
    log = rich_log(30)
    one = csv_source(tmp_path / "log", log)
    expected = bytes_of(make(one, tmp_path / "whole"))

    def change(rows):
        if rows == 30:
            log[:9].write_csv(tmp_path / "log" / "3.csv")

    with pytest.raises(InputError, match="3.csv: changed while it was read; prepare it again"):
        make(one, tmp_path / "c", report=Report(change))
    assert left(tmp_path / "c") == []
    one = csv_source(tmp_path / "log", log)
    assert bytes_of(make(one, tmp_path / "c")) == expected


def test_one_file_of_a_hash_is_known_by_its_state(tmp_path, monkeypatch):
    """A log is not read again to know that it is the same."""
    one = csv_source(tmp_path / "log", rich_log(20))
    folder = make(one, tmp_path / "c")
    monkeypatch.setattr("hashlib.file_digest", small_logs.part)
    assert make(one, tmp_path / "c") == folder


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"state": 1}', "\0"])
def test_a_damaged_note_of_a_file_is_made_anew(tmp_path, damage):
    one = csv_source(tmp_path / "log", rich_log(20))
    folder = make(one, tmp_path / "c")
    notes = list((tmp_path / "c" / "digests").iterdir())
    for note in notes:
        note.write_text(damage)
    assert make(one, tmp_path / "c", report=stopped_after(0, "read")) == folder
    assert len(notes) == 3 and all("sha256" in json.loads(note.read_text()) for note in notes)


def test_a_name_that_is_not_utf8(tmp_path):
    csv_source(tmp_path / "log", rich_log(20))
    (tmp_path / "log" / "1.csv").rename(tmp_path / "log" / "\udce9.csv")
    one = Source("toy", readers.table_parts(tmp_path / "log"), RICH)
    with pytest.raises(InputError, match=r"log/\\udce9.csv: its name is not UTF-8; rename it"):
        make(one, tmp_path / "c")


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"rows": 10, "colour": "red"}'])
def test_progress_that_cannot_be_read_is_made_again(tmp_path, monkeypatch, damage):
    monkeypatch.setattr(spool, "SEGMENT", 10)
    one = csv_source(tmp_path / "log", rich_log(40), n_parts=4)
    expected = bytes_of(make(one, tmp_path / "whole"))
    with pytest.raises(Stop):
        make(one, tmp_path / "cut", report=stopped_after(2, "read"))
    (progress,) = (tmp_path / "cut").glob("*.part/progress.json")
    progress.write_text(damage)
    assert bytes_of(make(one, tmp_path / "cut")) == expected


@pytest.mark.parametrize("name", store.FILES)
def test_a_prepared_log_of_which_a_file_is_damaged(tmp_path, name):
    one = csv_source(tmp_path / "log", rich_log(20), roles=RICH._replace(weight="x"))
    folder = make(one, tmp_path / "c", max_rejected=1.0)
    content = (folder / name).read_bytes()
    for damage in (content[:-4], content[:1], b"", None):
        if damage is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(damage)
        with pytest.raises(InputError) as caught:
            store.read(folder)
        assert str(caught.value).startswith(f"{folder}: cannot be read") and "\n" not in str(caught)
        assert "remove that folder, and the log is prepared anew" in str(caught.value)
