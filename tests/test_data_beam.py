"""Preparation on Beam's direct runner gives the very files that one machine gives by itself."""

import importlib.util
import os
import shlex
import subprocess
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from configs import default
from diet_jax.data import beam, beam_steps, features, prepare_log, records, spool
from diet_jax.data.source import Field, History, Roles
from diet_jax.types import InputError

ROOT = Path(__file__).parents[1]
needs_beam = pytest.mark.skipif(
    importlib.util.find_spec("apache_beam") is None,
    reason="apache_beam is not installed; see tests/beam-requirements.txt",
)


@pytest.fixture
def small(monkeypatch):
    """A log of some hundred rows is spread as one of many millions is."""
    monkeypatch.setattr(records, "CHUNK", 64)
    monkeypatch.setattr(beam_steps, "STEP", 8)
    monkeypatch.setattr(beam_steps, "SHARDS", 3)
    monkeypatch.setattr(beam_steps, "EXAMPLE", 50)


@pytest.fixture
def bucket():
    """What gs:// means to fsspec, in memory."""
    fsspec = pytest.importorskip("fsspec")
    from fsspec.implementations.memory import MemoryFileSystem

    class Bucket(MemoryFileSystem):
        protocol, store, pseudo_dirs = ("gcs", "gs"), {}, [""]

        @classmethod
        def _strip_protocol(cls, path):
            return MemoryFileSystem._strip_protocol(str(path).removeprefix("gs:/"))

        def unstrip_protocol(self, name):
            return "gs:/" + self._strip_protocol(name)

    fsspec.register_implementation("gcs", Bucket, clobber=True)
    return fsspec.filesystem("gcs")


def write_log(folder, parts=3, rows=150, kind="int"):
    """Parts whose times overlap and tie, with rows that cannot be used and values that are rare."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    for p in range(parts):
        time = 1_700_000_000 + rng.integers(0, 40, rows) * 3600 + 7 * p
        label = rng.integers(0, 2, rows).astype(object)
        label[rng.choice(rows, 4, replace=False)] = "?"
        items = rng.zipf(1.3, rows) % 50
        tags = ["|".join(rng.choice(list("abcdefg"), rng.integers(0, 5))) for _ in range(rows)]
        when = time.astype(str).tolist()
        if kind == "text":
            when = [str(np.datetime64(int(t), "s")) for t in time]
        if kind == "day":
            when = [str(np.datetime64(int(t), "s"))[:10] for t in time]
        when[5 * p] = "soon"
        frame = pl.DataFrame(
            {
                "user": [f"u{u}" if u else "" for u in rng.integers(0, 12, rows)],
                "item": items.astype(str) if p else items,
                "tags": tags,
                "place": rng.choice(["", "x", "y"], rows),
                "price": rng.lognormal(0, 2, rows).astype(np.float32),
                "age": rng.normal(30, 9, rows),
                "pull": rng.integers(0, 9, rows),
                "size": rng.normal(0, 1, rows),
                "worth": rng.uniform(0.5, 2, rows),
                "click": [str(x) for x in label],
                "when": when,
            }
        )
        frame.write_csv(folder / f"part-{p}.csv")
    return folder


def make_config(log, cache, **change):
    config = default.get_config()
    given = {
        "source": "table",
        "path": str(log),
        "name": "",
        "cache": str(cache),
        "threshold": -1.0,
        "max_rejected": 0.1,
        "min_count": 2,
        "label": "click",
        "time": "when",
        "user": "user",
        "weight": "worth",
        "categorical": ("user", "item", "place"),
        "multi": {"tags": 3},
        "hashed": {"place": 4},
        "derived": ("hour", "weekday", "day", "count:item", "count:user"),
        "dense": ("price", "age", "pull", "size"),
        "scale": {"price": "log", "pull": "quantile", "size": "none", "default": "standard"},
        "history": "item",
        "history_length": 5,
    }
    stages = change.pop("stages", {"count": 4})
    config.data.update(given | change)
    config.stages.update(stages)
    return config


def files(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def check_equal(config, tmp_path):
    want = prepare_log(config)
    made = beam.build(config, str(tmp_path / "beam"), ["--runner=DirectRunner"])
    got = beam.from_tfds(made, tmp_path / "other")
    assert got.name == want.name
    assert files(got).keys() == files(want).keys()
    for name, content in files(want).items():
        assert files(got)[name] == content, name


@needs_beam
@pytest.mark.parametrize("kind", ["int", "text"])
def test_everything_at_once_in_small_chunks(tmp_path, small, kind):
    log = write_log(tmp_path / "log", kind=kind)
    check_equal(make_config(log, tmp_path / "cache"), tmp_path)


@needs_beam
def test_days_that_are_longer_than_a_chunk(tmp_path, small):
    log = write_log(tmp_path / "log", kind="day")
    change = {"user": "place", "history": "user", "stages": {"interval": "day"}}
    check_equal(make_config(log, tmp_path / "cache", **change), tmp_path)


@needs_beam
def test_a_log_of_two_labels(tmp_path, small):
    log = write_log(tmp_path / "log")
    for part in log.iterdir():
        frame = pl.read_csv(part, infer_schema=False)
        buy = pl.Series("buy", ["0", "", "1"] * 50)
        frame.with_columns(buy).write_csv(part)
    check_equal(make_config(log, tmp_path / "cache", more_labels=("buy",)), tmp_path)


@needs_beam
def test_a_plain_log(tmp_path):
    log = write_log(tmp_path / "log", parts=1)
    change = {"multi": {}, "hashed": {}, "derived": (), "dense": (), "weight": "", "history": ""}
    change |= {"scale": {"default": "none"}, "min_count": 1, "user": "item"}
    check_equal(make_config(log, tmp_path / "cache", **change), tmp_path)


@needs_beam
@pytest.mark.parametrize(
    "change",
    [
        {"max_rejected": 0.0},
        {"label": "none"},
        {"stages": {"count": 99}},
        {"stages": {"fractions": (0.001, 0.999)}},
        {"threshold": 0.0},
        {"min_count": 0},
    ],
    ids=str,
)
def test_errors_are_those_of_one_machine(tmp_path, change):
    config = make_config(write_log(tmp_path / "log"), tmp_path / "cache", **change)
    with pytest.raises(InputError) as want:
        prepare_log(config)
    with pytest.raises(InputError) as got:
        beam.build(config, str(tmp_path / "beam"), ["--runner=DirectRunner"])
    assert str(got.value) == str(want.value).split(" (rejected rows: ")[0]


@needs_beam
def test_a_log_and_a_data_set_in_a_bucket(tmp_path, bucket):
    log = write_log(tmp_path / "log")
    config = make_config(log, tmp_path / "cache")
    want = prepare_log(config)
    bucket.put(str(log), "gs://mine/log", recursive=True)
    config.data.path = "gs://mine/log"
    made = beam.build(config, "gs://mine/out", ["--runner=DirectRunner"])
    bucket.get(made, str(tmp_path / "copy"), recursive=True)
    got = beam.from_tfds(str(tmp_path / "copy"), tmp_path / "other")
    assert got.name == want.name
    assert {k: v for k, v in files(got).items() if k != "rejected.csv"} == {
        k: v for k, v in files(want).items() if k != "rejected.csv"
    }
    rejected = (got / "rejected.csv").read_text()
    assert rejected.replace("gs://mine/log", str(log)) == (want / "rejected.csv").read_text()


@needs_beam
def test_a_second_data_set_in_one_place_is_refused(tmp_path):
    (tmp_path / "beam" / "prepared" / "1.0.0").mkdir(parents=True)
    config = make_config(write_log(tmp_path / "log"), tmp_path / "cache")
    with pytest.raises(InputError, match="remove it, or set another --data_dir"):
        beam.build(config, str(tmp_path / "beam"), [])


def test_without_beam_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(beam.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install -e '.\[beam\]'"):
        beam.build(make_config(tmp_path, tmp_path), str(tmp_path), [])


def test_a_folder_that_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(InputError, match="no prepared log"):
        beam.from_tfds(str(tmp_path), tmp_path / "cache")


def test_histories_by_user_and_chunk_are_those_of_the_stream(small):
    rng = np.random.default_rng(0)
    field = (Field("user"), Field("item"))
    roles = Roles("label", "time", "user", field, history=History("item", 3))
    job = beam_steps.Job(None, None, roles, "", "", "", 0, None)
    rows = np.zeros(500, spool.record(roles))
    rows["time"] = np.sort(rng.integers(0, 25, 500))  # ties within chunks and over several
    rows["user"] = rng.integers(0, 8, 500)
    rows["codes"][:, 1] = rng.integers(0, 30, 500)
    rows["label"] = rng.integers(0, 2, 500)
    items = rows["codes"][:, 1]
    past = features.no_past(8, 3)
    positive = (rows["label"] > 0) & (rows["user"] != 7)  # who stands for a missing user
    want, _ = features.histories(past, rows["user"], items, rows["time"], positive)
    chunks = [(k, rows[k * 64 : (k + 1) * 64]) for k in range(8)]
    shards, found = {}, {}
    for chunk in chunks:
        for shard, ask in beam_steps.act(chunk, 7, job):
            shards.setdefault(shard, []).insert(0, ask)  # groups come in no order
    for group in shards.items():
        for k, known in beam_steps.pasts(group, job):
            found.setdefault(k, []).append(known)
    got = [beam_steps.histories(mine, found[k], 7, roles) for k, mine in chunks]
    assert np.array_equal(np.concatenate(got), want)


def test_launch_script_prints_what_it_would_run():
    script = [str(ROOT / "launch" / "beam_dataflow.sh")]
    env = {"PATH": os.environ["PATH"], "LOG": "gs://b/a log", "OUT": "gs://b/out"}
    done = subprocess.run([*script, "--dry-run"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    prepare, *_, load = done.stdout.splitlines()
    assert shlex.split(prepare)[:3] == ["python", "-m", "diet_jax.data.beam"]
    assert "--config.data.path=gs://b/a log" in shlex.split(prepare)
    assert "--runner=DataflowRunner" in shlex.split(prepare)
    assert any(option.startswith("--load=") for option in shlex.split(load))
    wrong = subprocess.run([*script, "--now"], env=env, capture_output=True, text=True)
    assert (wrong.returncode, wrong.stdout) == (2, "")
