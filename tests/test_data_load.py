"""The door of the data layer on real logs: what ships with the package and the local 100k."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from configs import default
from diet_jax import data
from diet_jax.data import load_stream
from diet_jax.types import InputError

ML_100K = Path(__file__).parents[2] / "shared" / "data" / "ml-100k"


def make_config(count=8, fractions=(), **change):
    config = default.get_config()
    config.data.update(change)
    config.stages.count, config.stages.fractions = count, fractions
    return config


def check_stream(stream):
    """What every consumer relies on."""
    schema, values = stream.schema, list(stream.values)
    width, n_columns = len(schema.fields), len(schema.pool)
    assert stream.row_field.dtype == np.int32
    assert len(values) == len(stream.row_field) == stream.stages[-1].vocab_size
    assert values[:width] == ["<unknown>"] * width
    assert stream.row_field[:width].tolist() == list(range(width))
    assert len(set(zip(stream.row_field.tolist(), values, strict=True))) == len(values)
    time = np.concatenate([stage.time for stage in stream.stages])
    source = np.concatenate([stage.source for stage in stream.stages])
    assert (np.diff(time) >= 0).all()
    assert source.tolist() == list(range(len(time)))
    for before, after in zip(stream.stages, stream.stages[1:], strict=False):
        assert before.time[-1] < after.time[0]
        assert before.vocab_size <= after.vocab_size
    for stage in stream.stages:
        ids, dense, label, weight = stage.rows
        n = len(stage.time)
        assert (ids.shape, ids.dtype) == ((n, n_columns), np.int32)
        assert (dense.shape, dense.dtype) == ((n, len(schema.dense)), np.float32)
        assert (label.shape, label.dtype) == ((n,), np.float32)
        assert (weight.shape, weight.dtype) == ((n,), np.float32)
        assert (stage.user.dtype, stage.time.dtype, len(stage.source)) == ("i4", "i8", n)
        assert -1 <= ids.min() and ids.max() < stage.vocab_size
        assert ((stream.row_field[ids] == schema.vocab) | (ids < 0)).all()
        assert np.isfinite(dense).all() and (weight > 0).all()
        assert set(np.unique(label)) == {0.0, 1.0}


def test_bundled_log_has_eight_good_stages():
    stream = load_stream(make_config())
    check_stream(stream)
    assert stream.name == "MovieLens latest-small"
    assert sum(len(stage.time) for stage in stream.stages) == 100_836
    assert len(stream.stages) == 8
    assert len(stream.schema.fields) == 10
    users = np.concatenate([stage.user for stage in stream.stages])
    assert len(np.unique(users)) == 610


def test_a_simulated_log():
    options = {"n_rows": 3000, "n_users": 50, "n_items": 40}
    stream = load_stream(make_config(4, source="simulator", options=options))
    check_stream(stream)
    assert stream.schema.fields[-1] == "history" and stream.schema.dense
    with pytest.raises(InputError, match="data.options does not fit .*colour"):
        load_stream(make_config(source="simulator", options={"colour": 1}))


def test_bundled_log_carries_its_terms():
    folder = Path(str(data.__file__)).parent / "bundled"
    text = (folder / "ml-latest-small.README.txt").read_text()
    assert "may redistribute the data set" in text
    assert "Harper" in text
    assert "GroupLens" in load_stream(make_config()).licence


@pytest.mark.skipif(not ML_100K.is_dir(), reason=f"no MovieLens-100K at {ML_100K}")
def test_local_100k_by_fractions():
    stream = load_stream(make_config(name="100k", path=str(ML_100K), fractions=(0.9, 0.1)))
    check_stream(stream)
    first, last = (len(stage.time) for stage in stream.stages)
    assert first + last == 100_000
    assert 90_000 <= first < 90_100
    users = [v for v, f in zip(stream.values, stream.row_field, strict=True) if f == 0]
    assert len(users) == 943 + 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": "web"}, ("data.source", "'web'", "movielens")),
        ({"source": "criteo"}, ("data.path is empty", "download")),
        ({"name": "10m"}, ("data.name", "'10m'", "latest-small")),
        ({"min_count": 0}, ("data.min_count", "1 or more")),
        ({"threshold": -1.0}, ("ratings.csv", "row 1,", "'rating'", "threshold")),
        ({"path": "/no/such/place"}, ("/no/such/place", "data.path")),
        ({"source": "table", "label": ""}, ("data.path", "empty")),
    ],
)
def test_bad_configuration_is_one_line(change, words):
    with pytest.raises(InputError) as caught:
        load_stream(make_config(**change))
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_reading_is_silent_and_needs_neither_tensorflow_nor_jax():
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from test_data_load import load_stream, make_config\n"
        "load_stream(make_config(5))\n"
        "assert not {'tensorflow', 'tensorflow_datasets', 'jax'} & set(sys.modules)"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=root, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
