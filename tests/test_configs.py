"""Every config that the README names runs on a log of its kind."""

import json
import re
from pathlib import Path

import cli
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from configs import movielens_1m, own_log, published
from diet_jax.data import load_stream
from diet_jax.types import InputError

SHARED = Path(__file__).parents[2] / "shared" / "data" / "ml-100k"


def clicks(n: int = 1500) -> pl.DataFrame:
    """A log with the columns of configs/own_log.py, in which item and price decide."""
    rng = np.random.default_rng(0)
    item, price = rng.integers(0, 40, n), rng.gamma(2.0, 10.0, n)
    chance = 1 / (1 + np.exp(-(item % 5 - 2) + price / 20 - 1))
    return pl.DataFrame(
        {
            "click": (rng.random(n) < chance).astype(int),
            "timestamp": 1_700_000_000 + np.arange(n) * 60,
            "user_id": [f"u{k}" for k in rng.integers(0, 30, n)],
            "item_id": item,
            "category": [f"c{k % 5}" for k in item],
            "device": rng.choice(["phone", "web"], n),
            "price": price,
        }
    )


def small(config: str, workdir: Path, **changes) -> list[str]:
    changes = {**cli.SMALL, **{key.replace("__", "."): v for key, v in changes.items()}}
    overrides = [f"--config.{key}={value}" for key, value in changes.items()]
    name, _, argument = config.partition(":")
    file = f"configs/{name}.py" + f":{argument}" * bool(argument)
    return [f"--config={file}", f"--workdir={workdir}", *overrides]


def test_a_log_of_ones_own_goes_in_and_comes_out_with_its_columns(tmp_path):
    path, workdir = tmp_path / "my clicks.parquet", tmp_path / "run"
    clicks().write_parquet(path)
    learn = ("label_logit", "log_weight", "dense")
    args = small("own_log", workdir, data__path=path, memory__rate=0.05, outer__learn=learn)
    status, out, err = cli.run(*args)
    assert status == 0, err
    assert "own log" in (workdir / "report.html").read_text()
    table = pq.read_table(workdir / "export" / "memory.parquet")
    assert len(table) == 50
    wanted = {"user_id", "item_id", "category", "device", "price", "label", "weight"}
    assert wanted <= set(table.column_names)
    # Dense features are learned, in the units of the log.
    source = clicks()["price"].to_numpy()[table["source_row"].to_numpy()]
    price = table["price"].to_numpy()
    assert not np.allclose(price, source) and np.abs(price - source).max() < 20


def test_a_log_of_fewer_rows_than_a_batch_runs(tmp_path):
    path = tmp_path / "few.csv"
    clicks(90).write_csv(path)
    status, _, err = cli.run(*small("own_log", tmp_path / "run", data__path=path))
    assert status == 0, err
    assert not re.search(r"^[IWE]\d{4} ", err, re.M), err  # no library talks through our log


def test_csv_and_parquet_are_the_same_log(tmp_path):
    clicks().write_parquet(tmp_path / "a.parquet")
    clicks().write_csv(tmp_path / "a.csv")
    streams = []
    for name in ("a.parquet", "a.csv"):
        config = own_log.get_config()
        config.data.path = str(tmp_path / name)
        streams.append(load_stream(config))
    for one, other in zip(streams[0].stages, streams[1].stages, strict=True):
        for a, b in zip(one.rows, other.rows, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
    assert list(streams[0].values) == list(streams[1].values)


@pytest.mark.parametrize("name, stages", [("simulator", {"count": 3}), ("simulator_10m", {})])
def test_a_simulated_log_runs_with_lists_and_histories(tmp_path, name, stages):
    changes = {"data__options__n_rows": 6000, "data__options__n_stages": 3}
    changes |= {f"stages__{key}": value for key, value in stages.items()}
    workdir = tmp_path / "run"
    status, _, err = cli.run(*small(name, workdir, inner__archs=("FM",), **changes))
    assert status == 0, err
    table = pq.read_table(workdir / "export" / "memory.parquet").to_pydict()
    tags, past = table["tags"], table["history"]
    assert {len(some) for some in tags} <= {1, 2, 3, 4} and len({len(some) for some in tags}) > 1
    assert any(past) and all(len(some) <= 20 for some in past)
    # A history holds items, by the very rows of the table that items have.
    rows = dict(zip(table["item"], table["item_id"], strict=True))
    for some, ids in zip(past, table["history_id"], strict=True):
        assert all(rows.get(value, row) == row for value, row in zip(some, ids, strict=True))


@pytest.mark.parametrize("name", published.SOURCES)
def test_published_logs_have_a_config(name, tmp_path):
    config = published.get_config(name)
    config.data.path = str(tmp_path / "none")
    with pytest.raises(InputError, match="none"):
        load_stream(config)


@pytest.mark.parametrize("config", ["published:sessions", "yoochoose"])
def test_a_published_log_runs_as_downloaded(tmp_path, config):
    rng, rows = np.random.default_rng(0), []
    for k in range(1200):
        moment = f"2014-04-{1 + k // 400:02d}T{k % 400 // 20:02d}:{k % 20:02d}:00.000Z"
        rows.append(f"{k // 3},{moment},{214_500_000 + rng.integers(30)},0\n")
    (tmp_path / "yoochoose-clicks.dat").write_text("".join(rows))
    changes = {"data__path": tmp_path}
    status, _, err = cli.run(*small(config, tmp_path / "run", **changes))
    assert status == 0, err


def test_a_rating_needs_a_threshold(tmp_path):
    path = tmp_path / "ratings.parquet"
    clicks().with_columns(pl.col("click") * 4 + 1).write_parquet(path)
    status, _, err = cli.run(*small("own_log", tmp_path / "run", data__path=path))
    assert status == 2 and len(err.splitlines()) == 1
    assert "click" in err and "threshold" in err and not (tmp_path / "run").exists()


@pytest.mark.skipif(not SHARED.exists(), reason="MovieLens-100K may not be redistributed")
def test_movielens_100k_runs_on_a_local_copy(tmp_path):
    changes = {"stages__fractions": (0.9, 0.1), "data__path": SHARED, "growth__pool": 2048}
    status, _, err = cli.run(*small("movielens_100k", tmp_path / "run", **changes))
    assert status == 0, err
    records = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert {r["rows"] for r in records if r["kind"] == "eval"} == {450, 90_000}


def test_movielens_1m_wants_a_copy_or_what_tfds_prepared(tmp_path):
    assert movielens_1m.get_config().data.name == "1m"
    args = small("movielens_1m", tmp_path / "run", data__tfds_dir=tmp_path / "none")
    status, _, err = cli.run(*args)
    assert status == 2 and len(err.splitlines()) == 1
    assert "tfds build" in err and "data.path" in err
