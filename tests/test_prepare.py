"""What a person sees of the preparation of a log."""

import io
import subprocess
import sys

import cli
import numpy as np
import polars as pl
import pytest
import toy
from rich.console import Console
from test_configs import clicks

from diet_jax import console
from diet_jax.data import load_stream
from diet_jax.data.profile import QUANTILES, Dense, Field, profile
from diet_jax.data.store import load_manifest


def prepare(*args) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "diet_jax.prepare", *map(str, args)]
    return subprocess.run(command, cwd=cli.ROOT, text=True, capture_output=True)


def test_the_command_says_what_the_log_holds_and_what_was_rejected(tmp_path):
    log = clicks(900).with_columns(pl.col("click").cast(pl.String))
    log[123, "click"] = "maybe"
    log.write_csv(tmp_path / "a log.csv")
    args = ["--config=configs/own_log.py", f"--config.data.path={tmp_path / 'a log.csv'}"]
    args += [f"--config.data.cache={tmp_path / 'cache'}", "--config.stages.count=3"]
    done = prepare(*args)
    assert (done.returncode, done.stderr) == (0, "")
    folder = tmp_path / "cache" / done.stdout.rstrip().rsplit("/", 1)[1]
    manifest = load_manifest(folder)
    assert manifest["rows"] == 899
    for words in ("899 rows", "user_id", "item_id", "category", "device", "price"):
        assert words in done.stdout
    assert "1 rows rejected" in done.stdout
    assert "1: is neither 0 nor 1" in done.stdout and "2023-11-14 22:13:20" in done.stdout
    aside = pl.read_csv(folder / "rejected.csv")
    assert aside["row"].to_list() == [124] and aside["value"].to_list() == ["maybe"]
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    again = prepare(*args)
    assert again.returncode == 0 and str(folder) in again.stdout
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before


def test_bad_input_is_one_line():
    for args, words in (
        ((), "--config"),
        (("--config=configs/own_log.py", "--config.data.path=none.csv"), "none.csv"),
        (("--config=configs/published.py:none",), "criteo"),
    ):
        done = prepare(*args)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
        assert words in done.stderr


def test_progress_is_rows_and_speed(monkeypatch):
    monkeypatch.setattr(console, "LINE_EVERY_S", 0.0)
    for terminal, words in ((False, ("1,000 rows read", "1,000 rows encoded")), (True, ())):
        out = io.StringIO()
        with console.preparation(Console(file=out, force_terminal=terminal)) as report:
            report.read(500)
            report.read(1000)
            report.encoded(500)
            report.encoded(1000)
        assert all(word in out.getvalue() for word in words)


def test_a_manifest_is_shown_stage_by_stage(tmp_path):
    stages = [
        {"stop": 1000, "vocab_size": 20, "begins": "2024-01-01 00:00:00", "positives": 250.0},
        {"stop": 1500, "vocab_size": 32, "begins": "2024-01-02 10:00:00", "positives": 50.0},
    ]
    manifest = {"name": "log", "rows": 1500, "rejected": {}, "stages": stages}
    fields = [Field("city", 1234, 0.125, float("nan"), "Köln [old]", 0.5)]
    columns, out = (
        (fields, [Dense("price", [0.5, 1, 2, 30, 1e9]), Dense("q", [0, 0, 1, 2, 2], 0, 2)]),
        io.StringIO(),
    )
    console.print_preparation(manifest, columns, tmp_path, 0.5, Console(file=out, width=80))
    text = out.getvalue()
    for words in ("log: 1,500 rows", "25.0%", "10.0%", "2024-01-02 10:00:00", "0 rows rejected"):
        assert words in text
    assert "3,000 rows a second" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["city", "1,234", "12.5%", "-", "Köln", "[old]", "50.0%"] in lines
    assert ["price", "0.5", "1", "2", "30", "1e+09"] in lines
    assert ["q", *"≤0≤01≥2≥2"] in lines  # cut to what its scale knows


def test_a_profile_says_what_columns_hold_in_the_last_stage(tmp_path):
    log = pl.DataFrame(
        {
            "user": ["a", "a", "b", "b", "c", "c", "a", ""],
            "tags": ["x|y", "x", "y", "x", "z|x", "x", "", "y"],
            "price": [1.0, 9.0, 1.0, 9.0, 2.0, 4.0, 6.0, 8.0],
            "label": [0, 1, 0, 1, 0, 1, 0, 1],
            "time": [10, 11, 12, 13, 20, 21, 22, 23],
        }
    )
    log.write_csv(tmp_path / "log.csv")
    change = {
        "data.categorical": ("user",),
        "data.multi": {"tags": 2},
        "data.scale.price": "log",
        "stages.count": 2,
    }
    stream = load_stream(toy.config(str(tmp_path / "log.csv"), **change))
    fields, dense = profile(stream)
    # New are c, and the missing value itself, which no row before has shown.
    assert fields[0] == ("user", 4, 0.25, 0.75, "c", 0.5)
    assert fields[1] == ("tags", 3, 0.25, 0.25, "x", 0.5)
    assert dense[0].name == "price"
    np.testing.assert_allclose(dense[0].quantiles, np.quantile([2, 4, 6, 8], QUANTILES), rtol=1e-3)
    change |= {"data.scale.price": "quantile"}
    kept = profile(load_stream(toy.config(str(tmp_path / "log.csv"), **change)))[1][0]
    assert (kept.least, kept.most) == pytest.approx((1, 9))  # of the first stage
    alone = stream._replace(stages=stream.stages[:1])
    assert np.isnan(profile(alone)[0][0].new)
