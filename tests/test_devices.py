"""Eight devices make the memory that one makes, so the place of a run is no part of its recipe."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import toy

from diet_jax.distill import Engine
from diet_jax.sharding import all_devices
from diet_jax.types import Memory

ROOT = Path(__file__).parents[1]
STAGES = 3
TRAJECTORIES = (8, 1, 6, 12, 16)


def outcome(engine: Engine) -> dict[str, np.ndarray]:
    """A meta-gradient, the memory after the first and the last stage, and what was compiled."""
    memories, _ = toy.stream(engine, STAGES)
    found = {}
    for number in (1, STAGES):
        leaves = memories[number]._asdict().items()
        found |= {f"memory {number} {name}": leaf for name, leaf in leaves}
    _, gradient = toy.outer_gradient(engine, *toy.first_turn(engine))
    found |= {f"gradient {name}": leaf for name, leaf in gradient.items()}
    found["compiled"] = engine.outer_steps._cache_size(), engine.scores._cache_size()
    found["devices"] = [all_devices(n).size("trajectory") for n in TRAJECTORIES]
    return found


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """The outcome on eight simulated devices, which a process has from its start."""
    path = tmp_path_factory.mktemp("devices") / "eight.npz"
    flags = "--xla_force_host_platform_device_count=8"
    subprocess.run(
        [sys.executable, __file__, path],
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        check=True,
    )
    return np.load(path)


@pytest.fixture(scope="module")
def one(engine):
    return outcome(engine)


def test_as_many_devices_work_as_share_the_trajectories_evenly(one, eight):
    assert list(one["devices"]) == [1, 1, 1, 1, 1]
    assert list(eight["devices"]) == [8, 1, 6, 6, 8]


def test_the_meta_gradient_is_the_same(one, eight):
    for name in toy.LEARNED:
        a, b = one[f"gradient {name}"], eight[f"gradient {name}"]
        assert np.abs(a).max() > 1e-4
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-5 * np.abs(a).max())


@pytest.mark.parametrize("number", [1, STAGES])
def test_the_memory_is_the_same(one, eight, number):
    """But for rounding: sums over devices add in another order."""
    for name in Memory._fields:
        a, b = one[f"memory {number} {name}"], eight[f"memory {number} {name}"]
        if name in toy.LEARNED:
            np.testing.assert_allclose(b, a, rtol=0, atol=1e-5)
        else:
            assert np.array_equal(a, b), name


def test_one_compilation_serves_every_stage(eight):
    assert eight["compiled"].tolist() == [1, 1]


if __name__ == "__main__":
    np.savez(sys.argv[1], **outcome(toy.engine()))
