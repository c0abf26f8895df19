"""Training on the few touched rows is training on the whole table, so vocabularies cost nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diet_jax import train
from diet_jax.compact import among_trained, capacity, compact, cut, join, pad_to
from diet_jax.models import init_params
from diet_jax.optim import INNER, Optimizer, untouched

VOCAB = 300
ids_of = hnp.arrays(
    np.int32, hnp.array_shapes(max_dims=2, max_side=6), elements=st.integers(-1, 40)
)


@pytest.mark.parametrize("name", INNER)
def test_training_on_the_compact_table_is_training_on_the_whole_one(name):
    rng = np.random.default_rng(0)
    optimizer = Optimizer(name, momentum=0.5, decay=0.4)
    inner = toy.inner(optimizer=optimizer)
    data = toy.examples(rng, 12)
    data = data._replace(ids=rng.integers(0, VOCAB, data.ids.shape, dtype=np.int32))
    order = rng.integers(0, 12, (6, 4))
    touched = np.unique(data.ids)

    def fit(rows, ids):
        params = init_params(inner.model, jax.random.key(3), jnp.asarray(rows), 3, 1)
        batches = jax.tree.map(jnp.asarray, data._replace(ids=ids))
        state = train.start(inner.tx(), params)
        fitted = train.fit(inner.model, inner.tx(), state, batches, jnp.asarray(order), 6, inner.l2)
        return params["table"], fitted.params["table"], fitted.params["net"]

    before, whole, whole_net = fit(np.arange(VOCAB), data.ids)
    table = compact(data.ids, np.arange(0, VOCAB, 7), floor=16)
    _, small, small_net = fit(table.rows, table.positions(data.ids))
    small = small[table.positions(touched)]
    np.testing.assert_allclose(small, whole[touched], rtol=0, atol=1e-7)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-7), small_net, whole_net
    )
    others = np.setdiff1d(np.arange(VOCAB), touched)
    left = untouched(optimizer, inner.lr, len(order))
    np.testing.assert_allclose(whole[others], left * before[others], rtol=1e-6)
    if name != "adamw":  # the only one that moves them
        assert np.array_equal(whole[others], before[others])
    assert not np.array_equal(whole[touched], before[touched])


@given(ids_of, ids_of, st.integers(1, 64), st.sampled_from([None, 41]))
def test_ids_come_back_from_the_compact_table(trained, looked_up, floor, most):
    assume((trained >= 0).any())  # nothing trained: nothing to tell apart
    table = compact(trained, looked_up, floor, most=most)
    assert table.rows.dtype == np.int32
    assert most is None or max(table.n_trained, len(table.rows) - table.n_trained) <= most
    for ids in (trained, looked_up):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("diet_jax.compact.BLOCK", 3)
            positions = table.positions(ids)
        assert positions.dtype == np.int32
        assert np.array_equal(np.where(positions < 0, -1, table.rows[positions]), ids)
    # What training touches lies in the part that training carries, the rest outside of it.
    assert np.all(table.positions(trained) < table.n_trained)
    others = np.setdiff1d(looked_up, [-1, *trained.flat])
    assert np.all(table.positions(others) >= table.n_trained)
    # One position a row: a padded one would get another's gradient.
    used = table.positions(np.union1d(trained, looked_up))
    used = used[used >= 0]  # -1 is no row
    assert len(np.unique(used)) == len(used)


@given(ids_of, ids_of, st.integers(1, 8), st.integers(2, 5))
def test_devices_that_share_a_compact_table_hold_equal_shares_of_its_trained_rows(
    trained, looked_up, floor, parts
):
    assume((trained >= 0).any())
    plain, table = compact(trained, looked_up, floor), compact(trained, looked_up, floor, parts)
    for ids in (trained, looked_up):
        at = table.positions(ids)
        assert np.array_equal(np.where(at < 0, -1, table.rows[at]), ids)
    first, rest = cut(table.rows, table.n_trained, parts)
    assert len(first) % parts == len(rest) % parts == 0
    known = plain.rows[: plain.n_trained], plain.rows[plain.n_trained :]
    for mine, want in zip((first, rest), known, strict=True):  # padded by more of the last one
        assert np.array_equal(mine[: len(want)], want) and set(mine) == set(want)
    assert np.array_equal(join(first, rest, parts), table.rows)
    at = np.asarray(among_trained(table.positions(trained), len(first), len(rest), parts))
    assert np.array_equal(np.where(at < 0, -1, first[at]), trained)


@given(ids_of, st.integers(41, 50))
def test_an_id_that_is_absent_is_refused(ids, absent):
    with pytest.raises(ValueError, match="not among"):
        compact(ids, ids, floor=8).positions(np.append(ids, absent))


def test_too_many_rows_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        pad_to(np.zeros((5, 2)), 4)


@given(st.integers(0, 10**7), st.integers(1, 10**4))
def test_capacity_is_the_next_power_of_two(n, floor):
    size = capacity(n, floor)
    assert size >= max(n, floor) and size & (size - 1) == 0
    assert size == 1 or size < 2 * max(n, floor)


def test_padding_appends_zeros():
    assert pad_to(np.array([[1, 2]]), 3).tolist() == [[1, 2], [0, 0], [0, 0]]
