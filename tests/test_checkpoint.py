"""A stage is saved once, whole, and opens on other devices; anything else is refused by name."""

import os
import subprocess
import sys

import cli
import jax
import numpy as np
import pytest
import toy
from orbax.checkpoint import v1 as ocp

from diet_jax import checkpoint
from diet_jax import memory as mem
from diet_jax.job import State
from diet_jax.types import InputError


def state(n_dense: int = 0) -> State:
    """A run's state; a log without dense features leaves leaves of size zero."""
    rng = np.random.default_rng(0)
    memory = mem.append(
        mem.empty(6, 3, n_dense),
        rng.integers(0, 9, (4, 3)),
        rng.normal(size=(4, n_dense)),
        rng.normal(size=4),
        0.5,
        2,
        np.arange(4) + 70,
    )
    table = rng.normal(size=(9, 2)).astype(np.float32)
    teacher = {"table": table, "net": {"bias": np.full((), 0.5, np.float32), "none": table[:0]}}
    teacher = teacher | {"more": (teacher,)}
    return State(memory, teacher, (memory, mem.empty(6, 3, n_dense)))


def same(a, b) -> bool:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("n_dense", [0, 2])
def test_a_state_comes_back_as_it_was(tmp_path, n_dense):
    facts = {"outer": [[10, 0.5]], "stage": 1, "born": [4]}
    checkpoint.save(tmp_path, 1, state(n_dense), facts)
    loaded, found = checkpoint.load(tmp_path, 1, state(n_dense))
    assert same(loaded, state(n_dense))
    assert found == facts


def test_stages_are_listed_and_all_kept(tmp_path, monkeypatch):
    assert checkpoint.stages(tmp_path) == []
    for stage in (1, 2, 3):
        checkpoint.save(tmp_path, stage, {"a": np.full(2, stage)}, {})
    assert checkpoint.stages(tmp_path) == [1, 2, 3]
    assert checkpoint.load(tmp_path, 1, {"a": np.zeros(2, int)})[0]["a"].tolist() == [1, 1]
    monkeypatch.chdir(tmp_path.parent)  # Orbax takes no relative path, a person does
    assert checkpoint.stages(tmp_path.relative_to(tmp_path.parent)) == [1, 2, 3]


def test_of_a_stage_under_way_the_latest_save_alone_is_kept(tmp_path):
    for chunks in (0, 2, 5):
        checkpoint.save(tmp_path, chunks, {"a": np.full(2, chunks)}, {}, checkpoint.PAUSED)
        assert checkpoint.stages(tmp_path, checkpoint.PAUSED) == [chunks]
    assert [path.name for path in (tmp_path / checkpoint.PAUSED).iterdir()] == ["5"]


def test_a_stage_is_never_overwritten(tmp_path):
    checkpoint.save(tmp_path, 1, {"a": np.zeros(2)}, {})
    with pytest.raises(ocp.training.errors.StepAlreadyExistsError):
        checkpoint.save(tmp_path, 1, {"a": np.ones(2)}, {})
    assert not checkpoint.load(tmp_path, 1, {"a": np.zeros(2)})[0]["a"].any()


def test_narrower_numbers_of_an_older_version_are_taken(tmp_path):
    checkpoint.save(tmp_path, 1, {"a": np.arange(3, dtype=np.int32)}, {})
    loaded, _ = checkpoint.load(tmp_path, 1, {"a": np.zeros(3, np.int64)})
    assert same(loaded, {"a": np.arange(3)})


def test_a_state_of_a_log_that_has_grown_begins_as_it_was(tmp_path):
    saved = {"slots": np.ones((2, 3)), "steps": np.int32(7), "net": np.ones((3, 2))}
    checkpoint.save(tmp_path, 1, saved, {})
    like = {"slots": np.zeros((4, 3)), "steps": np.int32(0), "net": np.zeros((3, 2))}
    loaded, _ = checkpoint.load(tmp_path, 1, like)
    assert same(loaded, saved | {"slots": np.repeat([[1.0], [0.0]], 2, 0) * np.ones(3)})
    assert not like["slots"].any()


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"a": np.zeros(1, np.float32), "b": np.zeros(1)}, r"a is \(\(2,\).*\(\(1,\)"),
        ({"a": np.zeros((2, 1), np.float32), "b": np.zeros(1)}, r"a is \(\(2,\).*\(\(2, 1\)"),
        ({"a": np.zeros(2, np.float16), "b": np.zeros(1)}, "a is .*float32.*float16"),
        ({"a": np.zeros(2, np.float32)}, "b is .* should be None"),
        (
            {"a": np.zeros(2, np.float32), "b": np.zeros(1), "c": np.zeros(1)},
            "c is None and should be",
        ),
    ],
)
def test_a_state_of_another_run_is_refused(tmp_path, other, named):
    checkpoint.save(tmp_path, 1, {"a": np.zeros(2, np.float32), "b": np.zeros(1)}, {})
    with pytest.raises(InputError, match=f"leaf {named}") as caught:
        checkpoint.load(tmp_path, 1, other)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_what_eight_devices_wrote_opens_on_one(tmp_path):
    subprocess.run(
        [sys.executable, __file__, tmp_path],
        env=os.environ | cli.devices(8) | {"PYTHONPATH": cli.PATHS},
        check=True,
    )
    loaded, facts = checkpoint.load(tmp_path, 1, state())
    assert same(loaded, state())
    assert facts == {"devices": 8}


if __name__ == "__main__":
    placement = toy.make_place(8)
    n = placement.mesh.size
    checkpoint.save(cli.Path(sys.argv[1]), 1, placement.replicate(state()), {"devices": n})
