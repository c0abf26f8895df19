"""Eight devices make the memory that one makes, so the place of a run is no part of its recipe."""

import os
import subprocess
import sys
from pathlib import Path

import cli
import jax
import numpy as np
import pytest
import toy

from benchmarks.collectives import bytes_sent, collectives
from diet_jax import train
from diet_jax.bilevel import start_outer
from diet_jax.compact import pad_rows
from diet_jax.fed import epochs
from diet_jax.models import init_params, make_model
from diet_jax.optim import Optimizer
from diet_jax.scene import Engine
from diet_jax.sharding import ONE_DEVICE, Placement, make_place
from diet_jax.teacher import make_teacher
from diet_jax.trial import Recipe, make_trials
from diet_jax.types import InputError, Memory

STAGES = 3
TRAJECTORIES = (8, 1, 6, 12, 16)
MESHES = ((1, 8, 1), (1, 1, 8), (2, 2, 2))
SHARED = (2, 1, 4)  # where devices share the compact table of an outer step
MODEL = make_model("FM", dim=2, hidden=(), init_scale=0.3)


def outcome(engine: Engine) -> dict[str, np.ndarray]:
    """A meta-gradient, the memory after the first and the last stage, and what was compiled."""
    memories, facts = toy.stream(engine, STAGES)
    found: dict = {"overshoot": facts[-1]["overshoot"]}
    for number in (1, STAGES):
        leaves = memories[number]._asdict().items()
        found |= {f"memory {number} {k}": leaf for k, leaf in leaves if leaf is not None}
    _, gradient = toy.outer_gradient(engine, *toy.first_turn(engine))
    found |= {f"gradient {name}": leaf for name, leaf in gradient.items()}
    found["compiled"] = engine.outer_steps._cache_size(), engine.scores._cache_size()
    found["devices"] = [make_place(n).size("trajectory") for n in TRAJECTORIES]
    return found


def compiled(engine: Engine) -> str:
    """The program of an outer step (the engine takes one a call)."""
    scene, slots = toy.first_turn(engine)
    learned = {name: getattr(slots, name) for name in toy.LEARNED}
    state, key = start_outer(engine.plan, learned), jax.random.key(7)
    args = engine.place.replicate((state, slots, slots.valid, key))
    lowered = engine.outer_steps.lower(*args, np.int32(0), np.int32(1), scene.stage, scene.anchor)
    return lowered.compile().as_text()


def others(place: Placement) -> dict[str, np.ndarray]:
    """Meta-gradients where trajectories start at a teacher, by other optimizers and modes."""
    rows, found = np.arange(toy.VOCAB, dtype=np.int32), {}
    steady = {"damping": 1.0, "solves": 5}  # conjugate gradients enlarge rounding otherwise
    for optimizer, mode in (("rowwise_adagrad", "random"), ("sgd", "implicit")):
        proxy = toy.inner(
            model=MODEL, optimizer=Optimizer(optimizer), window=3, mode=mode, **steady
        )
        engine = toy.engine(place, (proxy,), start="mixed")
        teacher = jax.tree.map(np.asarray, init_params(MODEL, jax.random.key(5), rows, 3, 1))
        gradient = toy.outer_gradient(engine, *toy.first_turn(engine, teacher))[1]
        found |= {f"{mode} {name}": leaf for name, leaf in gradient.items()}
    return found


def full_data(place: Placement) -> dict[str, np.ndarray]:
    """A teacher and three seeds of a trial on one log, which lies on the devices or is fed to them,
    and what devices send in a sharded trial.

    Neither the 19 rows of the table nor the seeds can be shared evenly.
    """
    rng = np.random.default_rng(0)
    rows = toy.rows(rng, 100)
    teacher = make_teacher(MODEL, 0.05, 8, toy.VOCAB, 3, 1, n_stage=100, place=place)
    taught = teacher.advance(teacher.init(jax.random.key(0)), rows, 2.0, rng)
    trials = make_trials(MODEL, Recipe(Optimizer("adam"), 8), True, place)
    fit = trials.fit
    order = np.stack([epochs(rng, 100, 7, 8) for _ in range(3)])
    table = pad_rows(np.arange(toy.VOCAB, dtype=np.int32), place.even(toy.VOCAB))
    keys, rates = jax.random.split(jax.random.key(1), 3), (np.float32(0.1), np.float32(0.01))
    log = train.Examples(*rows)
    args = place.replicate((keys, *rates, table, table[:0], log, order, np.int32(7)))
    tried = place.fetch(fit(*args))
    fed_teacher = make_teacher(MODEL, 0.05, 8, toy.VOCAB, 3, 1, n_stage=100, place=place, chunk=5)
    filled = np.arange(place.filled(3)) % 3
    rest, chunks = (keys[filled], *args[1:4]), iter([order[filled, :4], order[filled, 3:]])
    fed_tried = place.fetch(trials.fit_fed(*place.replicate(rest), rows, chunks, 7))
    found = {
        "teacher": taught["table"],
        "bias": taught["net"]["bias"],
        "answers": teacher.predict(taught, rows.ids, rows.dense),
        "trials": tried["table"][:, : toy.VOCAB],
        "fed teacher": fed_teacher.advance(taught, rows, 2.0, rng)["table"],
        "fed trials": fed_tried["table"][:3, : toy.VOCAB],
    }
    if place.size("table") > 2:
        found["sent"] = collectives(fit.lower(*args).compile().as_text())
    return found


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """The outcome on eight simulated devices, which a process has from its start."""
    path = tmp_path_factory.mktemp("devices") / "eight.npz"
    subprocess.run(
        [sys.executable, __file__, path],
        env=os.environ | cli.devices(8) | {"PYTHONPATH": cli.PATHS},
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
    for name in set(Memory._fields) - {"mix", "rates"}:
        a, b = one[f"memory {number} {name}"], eight[f"memory {number} {name}"]
        if name in toy.LEARNED:
            np.testing.assert_allclose(b, a, rtol=0, atol=1e-5)
        else:
            assert np.array_equal(a, b), name


def test_one_compilation_serves_every_stage(eight):
    assert eight["compiled"].tolist() == [1, 1]


def test_an_outer_step_sends_the_gradient_of_the_memory_and_no_table(eight):
    loss, gradient = 4, sum(eight[f"gradient {name}"].nbytes for name in toy.LEARNED)
    assert eight["sent"].tolist() == [["all-reduce", str(gradient + loss)]]


def test_where_trajectories_are_not_spread_the_meta_gradient_is_the_same(one, eight):
    """1 x 8 instead of 8 x 1; the one device adds in the order that `eight` did not."""
    for name in toy.LEARNED:
        a, b = one[f"gradient {name}"], eight[f"1 x 8 {name}"]
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-5 * np.abs(a).max())


def test_where_the_compact_table_is_shared_the_memory_is_the_same(one, eight):
    """Influence, which chooses its rows, and meta-gradients too; but for rounding."""
    for name, want in one.items():
        if name not in ("compiled", "devices"):
            size = np.abs(want).max() if name.startswith("gradient") else 1
            got = eight[f"shared {name}"]
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * size, err_msg=name)
    assert eight["shared compiled"].tolist() == [1, 1]


def test_an_outer_step_sends_looked_up_rows_of_a_shared_table_and_no_more(eight):
    """For a batch, forward and again to differentiate, and for the outer rows."""
    runs, row = 8 // SHARED[0], len(toy.FIELDS) * MODEL.width * 4
    batch, outer = runs * 8 * row, runs * (16 + 8) * row
    loss, gradient = 4, sum(eight[f"gradient {name}"].nbytes for name in toy.LEARNED)
    once = [outer] + [gradient + loss]
    sizes = [batch] * 4 + once
    assert sorted(eight["shared sent"].tolist()) == sorted(["all-reduce", str(n)] for n in sizes)
    before, window = 1, 4  # steps
    assert eight["shared in all"] == batch * (before + 3 * window) + sum(once)


def test_teachers_and_other_modes_bear_a_shared_table(eight):
    for name, want in others(ONE_DEVICE).items():
        assert np.abs(want).max() > 1e-5, name
        got = eight[f"others {name}"]
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max(), err_msg=name)


@pytest.fixture(scope="module")
def plain():
    return full_data(ONE_DEVICE)


@pytest.mark.parametrize("mesh", MESHES)
def test_full_data_training_is_the_same_on_every_mesh(plain, eight, mesh):
    for name, want in plain.items():
        np.testing.assert_allclose(eight[f"{mesh} {name}"], want, rtol=0, atol=1e-5, err_msg=name)


def test_a_sharded_table_stays_where_it_is(eight):
    """The devices send one another the embeddings of a batch, once."""
    seeds, batch, fields = 3, 8, 3
    looked_up = seeds * batch * fields * MODEL.width * 4
    assert eight["(1, 1, 8) sent"].tolist() == [["all-reduce", str(looked_up)]]


def test_what_the_devices_cannot_do_is_said():
    assert make_place(6, trajectory=1).mesh.shape == {"trajectory": 1, "data": 1, "table": 1}
    for words, args in {
        "mesh.trajectory is 4, and outer.trajectories 6": (6, 4),
        "mesh.data x mesh.table is 1 x 2 x 1, and there are 1 devices": (6, 0, 2),
    }.items():
        with pytest.raises(InputError, match=words):
            make_place(*args)


def eight_devices(path: str) -> None:
    """All that this file wants to know of eight devices."""
    jax.config.update("jax_compilation_cache_dir", str(Path(path).parent / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # for what is read as HLO
    engine = toy.engine()
    found = outcome(engine)
    found["sent"] = collectives(compiled(engine))
    engine = toy.engine(make_place(8, trajectory=1))
    gradient = toy.outer_gradient(engine, *toy.first_turn(engine))[1]
    found |= {f"1 x 8 {name}": leaf for name, leaf in gradient.items()}
    place = make_place(8, *SHARED)
    engine = toy.engine(place)
    found |= {f"shared {name}": leaf for name, leaf in outcome(engine).items()}
    program = compiled(engine)
    found["shared sent"], found["shared in all"] = (
        collectives(program),
        bytes_sent(program, passes=1),
    )
    found |= {f"others {name}": leaf for name, leaf in others(place).items()}
    for mesh in MESHES:
        leaves = full_data(make_place(8, *mesh))
        found |= {f"{mesh} {name}": leaf for name, leaf in leaves.items()}
    np.savez(path, **found)


if __name__ == "__main__":
    eight_devices(sys.argv[1])
