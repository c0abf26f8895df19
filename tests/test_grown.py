"""A run whose log has grown goes on: what is done stays, and the rest is as if it had waited."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import polars as pl
import pytest
import toy
from polars.testing import assert_frame_equal

from diet_jax import run
from diet_jax.data import log_key
from diet_jax.record import open_workdir, read_records
from diet_jax.types import InputError

HOUR = toy.ROWS_A_STAGE  # rows; one a minute
# The last stage of the short log is half an hour. Its memory is half as large as the long one's.
SHORT, LONG = 2 * HOUR + HOUR // 2, 6 * HOUR


def log(rows: int = LONG) -> pl.DataFrame:
    """The first rows of a log that shows new items in every hour."""
    columns = toy.log(stages=LONG // HOUR)
    n = np.arange(LONG)
    columns["time"] = 1_700_002_800 + 60 * n
    columns["item"] = columns["item"] + np.where(n % 3, 0, 10 * (n // HOUR))
    columns["visitor"] = n % 7
    return pl.DataFrame(columns).head(rows)


def config(folder: Path, rows: pl.DataFrame, **change):
    """Of a run on these rows, written to a file of one name in any folder."""
    folder.mkdir(exist_ok=True)
    rows.write_parquet(folder / "log.parquet")
    return config_at(str(folder / "log.parquet"), **change)


def config_at(path: str, **change):
    return toy.config(path, **{"stages.interval": "hour", "data.user": "visitor"} | change)


def records(workdir: Path) -> list[dict]:
    """What was recorded, but for how many stages the log had then."""
    return [r | {"stages": 0} for r in read_records(workdir / "metrics.jsonl")]


def measured(workdir: Path) -> list[dict]:
    return [{k: v for k, v in r.items() if "seconds" not in k} for r in records(workdir)]


def held(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """The workdir of a finished run on the short log."""
    folder = tmp_path_factory.mktemp("short")
    run.run(config(folder, log(SHORT)), str(folder / "run"), {})
    return folder / "run"


@pytest.fixture
def workdir(short, tmp_path):
    shutil.copytree(short, tmp_path / "run")
    return tmp_path / "run"


def test_it_goes_on_as_if_it_had_read_the_whole_log(workdir, tmp_path, capsys):
    before, old = records(workdir), held(workdir / "checkpoints")
    grown = config(tmp_path / "moved", log())
    run.run(grown, str(workdir), {"session": 2})
    said = capsys.readouterr().out
    assert said.startswith("The log has grown. Stages that are done stay as they are.\nGoing on")
    assert held(workdir / "checkpoints").items() >= old.items()
    kept = [r for r in before if r.get("stage", 9) < 2]  # the rest was tested on half an hour
    assert len(kept) > 8 and records(workdir)[: len(kept)] == kept
    run.run(grown, str(tmp_path / "whole"), {})
    # Up to rounding, as arrays for more slots are added up in another order.
    pairs = map(jax.tree.leaves, (measured(workdir), measured(tmp_path / "whole")))
    assert all(a == b or a == pytest.approx(b, rel=1e-4) for a, b in zip(*pairs, strict=True))
    memories = (w / "export" / "memory.parquet" for w in (workdir, tmp_path / "whole"))
    assert_frame_equal(*map(pl.read_parquet, memories), rel_tol=1e-4)
    for name in ("config.json", "log.json"):  # of the log that it reads now
        assert (workdir / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    capsys.readouterr()
    after = records(workdir)
    run.run(grown, str(workdir), {})
    assert "finished" in (said := capsys.readouterr().out) and "Its log is as it was" in said
    assert records(workdir) == after


def flipped(rows: pl.DataFrame, at: int) -> pl.DataFrame:
    n = pl.int_range(pl.len())
    return rows.with_columns(label=pl.when(n == at).then(1 - pl.col("label")).otherwise("label"))


def of_others(rows: pl.DataFrame) -> pl.DataFrame:
    """Who a row is of decides GAUC alone here."""
    return rows.with_columns(visitor=pl.lit("the same"))


@pytest.mark.parametrize(
    ("rows", "stage"),
    [
        (flipped(log(), HOUR + 7), 2),
        (of_others(log()), 1),
        (pl.concat([log(), log(1)]), 1),  # a row that came late
        (log(2 * HOUR), 3),
        (log(SHORT - 1), 3),
        (log().tail(-HOUR), 1),
    ],
    ids=["label", "users", "late", "shorter", "cut", "forgotten"],
)
def test_another_log_is_refused_and_nothing_is_lost(workdir, tmp_path, rows, stage):
    before = held(workdir)
    other = config(tmp_path / "other", rows)
    with pytest.raises(InputError, match=f"another log: its stage {stage} is not what it was"):
        run.run(other, str(workdir), {})
    assert held(workdir) == before


def test_a_finished_run_needs_no_log_but_takes_no_other(workdir, tmp_path, capsys):
    place = json.loads((workdir / "config.json").read_text())["data"]["path"]
    moved = config(tmp_path / "moved", log(SHORT))
    before = records(workdir)
    run.run(moved, str(workdir), {})
    assert "grown" not in capsys.readouterr().out and records(workdir) == before
    now = json.loads((workdir / "config.json").read_text())["data"]["path"]
    assert now == moved.data.path != place
    Path(moved.data.path).unlink()  # nobody would learn that it grows
    for path in (moved.data.path, "typo.parquet"):
        with pytest.raises(InputError, match=f"{path}: does not exist"):
            run.run(config_at(path), str(workdir), {})
    assert records(workdir) == before


def test_stages_of_equal_counts_take_no_other_log(short, tmp_path, capsys):
    equal = {"stages.interval": "", "stages.count": 3}
    known = config(tmp_path / "log", log(SHORT), **equal)
    workdir = tmp_path / "run"
    with open_workdir(workdir, known, {}, log_key(known)) as recorder:
        recorder.append(read_records(short / "metrics.jsonl"))
    before = records(workdir)
    run.run(known, str(workdir), {})
    assert "Its log is as it was" in capsys.readouterr().out
    other = config(tmp_path / "other", log(), **equal)
    with pytest.raises(InputError, match="holds a run on another log"):
        run.run(other, str(workdir), {})
    shutil.copy(other.data.path, known.data.path)
    run.run(known, str(workdir), {})
    assert "changed since: that takes another --workdir" in capsys.readouterr().out
    Path(known.data.path).unlink()
    run.run(known, str(workdir), {})
    assert "Whether its log has changed is not known" in capsys.readouterr().out
    assert records(workdir) == before
