"""A slot that mixes several real rows: how it is read, differentiated, grown and judged."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import toy
from test_metagrad import central_differences, late_losses, linear

from diet_jax import memory as mem
from diet_jax import run, train, trials
from diet_jax.distill import distill_stage
from diet_jax.metagrad import Slots, outer_loss
from diet_jax.models import init_params, logits, look_up, make_model, penalty
from diet_jax.optim import Optimizer, make
from diet_jax.types import InputError

M = 3
STAGES, NEW = 2, 5


def mixtures(rng: np.random.Generator) -> Slots:
    """`toy.slots`, each with two more rows."""
    one = toy.slots(rng)
    more = [toy.rows(rng, toy.SLOTS)[0] for _ in range(M - 1)]
    mix = rng.normal(size=(toy.SLOTS, M)).astype(np.float32)
    return one._replace(ids=np.stack([one.ids, *more], 1), mix=mix)


@pytest.mark.parametrize("name", ["LR", "FM", "DCNv2"])
def test_a_mixture_is_read_as_the_weighted_mean_of_its_rows(name):
    rng = np.random.default_rng(0)
    model = make_model(name, 2, (4,), init_scale=0.3)
    params = init_params(model, jax.random.key(0), jnp.arange(toy.VOCAB), 3, 1)
    params["table"] += 0.1  # first-order weights start at zero
    slots = mixtures(rng)
    batch = slots.examples(np.arange(toy.SLOTS))
    np.testing.assert_allclose(batch.mix.sum(1), 1, rtol=1e-6)
    mean = np.einsum("nmfd,nm->nfd", params["table"][slots.ids], batch.mix)
    table = np.concatenate([params["table"], mean.reshape(-1, mean.shape[-1])])
    places = toy.VOCAB + np.arange(mean.shape[0] * mean.shape[1]).reshape(mean.shape[:2])
    want = logits(model, {**params, "table": table}, places, slots.dense)
    got = logits(model, params, batch.ids, batch.dense, batch.mix)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_a_mixture_of_one_row_is_that_row():
    """In logits and penalty, and beside members that are no row at all."""
    rng = np.random.default_rng(0)
    model = make_model("DeepFM", 2, (4,), init_scale=0.3)
    params = init_params(model, jax.random.key(0), jnp.arange(toy.VOCAB), 3, 1)
    slots = mixtures(rng)
    alone = np.tile(np.eye(M, dtype=np.float32)[1], (toy.SLOTS, 1))
    ids = np.where(alone[..., None] > 0, slots.ids, -1)
    for some in (slots.ids, ids):
        got = logits(model, params, some, slots.dense, alone)
        want = logits(model, params, slots.ids[:, 1], slots.dense)
        np.testing.assert_allclose(got, want, rtol=1e-6)
        first = slots.ids[:, 1]
        np.testing.assert_allclose(
            penalty(model, look_up(params, some), some, alone),
            penalty(model, look_up(params, first), first),
            rtol=1e-6,
        )


@pytest.mark.parametrize("forward", [False, True], ids=["reverse", "mixed"])
def test_the_meta_gradient_of_the_weights_against_central_differences(x64, forward):
    rng = np.random.default_rng(0)
    slots, outer = toy.in_double((mixtures(rng), toy.examples(rng, 20)))
    inner, run = linear(window=3, mixed=forward), toy.trajectory(end=5)

    def losses(mix):
        return late_losses(inner, slots, {"mix": jnp.asarray(mix)}, run, outer)

    def loss(mix):
        return outer_loss(inner, slots._replace(mix=mix), run, outer)

    rough = central_differences(losses, np.asarray(slots.mix))
    exact = jax.jit(jax.grad(loss))(slots.mix)
    assert np.linalg.norm(exact - rough) <= 1e-6 * np.linalg.norm(rough)
    assert not exact[toy.VALID :].any() and np.abs(exact[: toy.VALID]).min() > 0


@pytest.fixture(scope="module")
def streamed():
    """The memory before the first of two stages and after each."""
    engine = toy.engine(proxies=(linear(),), learn=(*toy.LEARNED, "mix"), trajectories=1)
    memories = [mem.empty(toy.CAPACITY, len(toy.FIELDS), 1, M)]
    for number in range(1, STAGES + 1):
        stage, key = toy.stage(number), jax.random.key(0)
        memories.append(distill_stage(engine, memories[-1], stage, NEW, 6, number, key)[0])
    assert engine.outer_steps._cache_size() == 1
    return memories


def test_a_stage_adds_slots_of_distinct_rows_whose_labels_are_close(streamed):
    for number, (old, new) in enumerate(zip(streamed[:-1], streamed[1:], strict=True), 1):
        added = np.flatnonzero(new.valid & ~old.valid)
        assert len(added) == NEW and np.all(new.born[added] == number)
        stage = toy.stage(number)
        at = new.source[added] - stage.source[0]
        assert len(np.unique(at)) == NEW * M
        assert np.array_equal(new.ids[added], stage.rows.ids[at])
        if number == 1:  # rows of one round, so that no slot's labels overlap with another's
            logit = np.sort(stage.teacher_logit[at], axis=1)
            low, high = logit[:, 0], logit[:, -1]
            assert np.sum(high - low) < 0.8 * NEW * np.ptp(logit)


def test_weights_are_learned_and_slots_that_are_not_addressed_stay(streamed):
    old, new = streamed[1:]
    changed = np.any(old.mix != new.mix, axis=1) & old.valid
    assert 0 < changed.sum() <= np.ceil(0.3 * old.valid.sum())  # toy's share
    assert np.isfinite(new.mix).all() and np.any(new.mix[new.valid] != 0, axis=1).all()
    still = old.valid & ~changed
    for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True):
        assert a[still].tobytes() == b[still].tobytes()


@pytest.mark.parametrize("select,own", [("influence", 0), ("influence", 1), ("random", 1)], ids=str)
def test_a_run_with_mixtures_is_judged_and_exported(tmp_path, select, own):
    pl.DataFrame(toy.log()).write_parquet(tmp_path / "log.parquet")
    learn = ("label_logit", "log_weight", "mix", "rates")
    change = {"memory.mix": 2, "memory.own": own, "growth.select": select, "outer.learn": learn}
    config = toy.config(str(tmp_path / "log.parquet"), **change)
    run.run(config, str(tmp_path / "run"), {})
    table = pq.read_table(tmp_path / "run" / "export" / "memory.parquet")
    slots = run.slots_after(config, toy.ROWS_A_STAGE * 3)
    assert table.num_rows == 2 * slots
    named = table["source_row"].to_numpy().reshape(-1, 2)
    assert len(np.unique(named)) == (own or 2) * slots
    assert (named[:, 0] != named[:, 1]).all()
    share = table["share"].to_numpy().reshape(-1, 2)
    np.testing.assert_allclose(share.sum(1), 1, rtol=1e-6)
    assert np.any(share != 0.5)
    rates = json.loads((tmp_path / "run" / "export" / "recipe.json").read_text())["rates"]
    assert rates["LR"]["table"] > 0 and rates["LR"]["table"] != 1


@pytest.mark.parametrize("mix", [1, 2])
def test_a_teacher_whose_training_diverges_is_named(tmp_path, mix):
    pl.DataFrame(toy.log()).write_parquet(tmp_path / "log.parquet")
    change = {"memory.mix": mix, "teacher.lr": 1e30}
    config = toy.config(str(tmp_path / "log.parquet"), **change)
    with pytest.raises(InputError, match="stage 1 are not finite.*set --config.teacher.lr lower"):
        run.run(config, str(tmp_path / "run"), {})


def test_a_memory_of_mixtures_trains_like_its_plain_twin():
    """Where all members of a slot are the same row, whatever their weights."""
    rng = np.random.default_rng(0)
    plain = mem.append(
        mem.empty(8, 3, 1), *toy.rows(rng, 8)[:2], rng.normal(size=8), 0.0, 1, np.arange(8)
    )
    mix = rng.normal(size=(8, 2)).astype(np.float32)
    twin = plain._replace(
        ids=np.repeat(plain.ids[:, None], 2, 1),
        source=np.repeat(plain.source[:, None], 2, 1),
        mix=mix,
    )
    model = make_model("DeepFM", 2, (4,), init_scale=0.3)
    params = init_params(model, jax.random.key(0), jnp.arange(toy.VOCAB), 3, 1)
    a, b = (
        logits(model, params, e.ids, e.dense, e.mix) for e in map(trials.examples, (plain, twin))
    )
    np.testing.assert_allclose(a, b, rtol=1e-5)


def test_a_step_scatters_into_the_table_once():
    """Loss and penalty share their look-up: a second scatter is a fifth of a step on a CPU."""
    model, tx = make_model("DeepFM", 2, (4,)), make(Optimizer("adam"), 0.1)
    slots = mixtures(np.random.default_rng(0))
    params = init_params(model, jax.random.key(0), jnp.arange(toy.VOCAB), 3, 1)
    state, batch = train.start(tx, params), slots.examples(np.arange(4))
    step = jax.make_jaxpr(lambda state, batch, l2: train.step(model, tx, state, batch, l2))
    assert str(step(state, batch, 0.1)).count("scatter-add[") == 1
