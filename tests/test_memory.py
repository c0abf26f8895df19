"""Whatever the stream brings, the memory only appends, picks within its cap, keeps to its share."""

import jax
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diet_jax import memory as mem

CAPACITY = 10
scores = st.floats(-5, 5, width=32) | st.just(-np.inf)


def rows(rng, k):
    return (
        rng.integers(0, 50, (k, 2), dtype=np.int32),
        rng.normal(size=(k, 1)).astype(np.float32),
        rng.normal(size=k).astype(np.float32),
    )


@given(st.lists(st.integers(0, 5), max_size=6), st.integers(0, 99))
def test_append_writes_free_slots_only(sizes, seed):
    rng = np.random.default_rng(seed)
    memory = mem.empty(CAPACITY, 2, 1)
    for stage, k in enumerate(sizes, 1):
        ids, dense, logit = rows(rng, k)
        source = rng.integers(0, 1000, k)
        before = jax.tree.map(np.copy, memory)
        used = int(memory.valid.sum())
        if used + k > CAPACITY:
            with pytest.raises(ValueError, match="free slots"):
                mem.append(memory, ids, dense, logit, 0.5, stage, source)
            break
        grown = mem.append(memory, ids, dense, logit, 0.5, stage, source)
        for old, now, new in zip(*map(jax.tree.leaves, (before, memory, grown)), strict=True):
            assert np.array_equal(old, now)  # the memory that was given is left alone
            assert new.dtype == old.dtype and new.shape == old.shape
            assert np.array_equal(old[:used], new[:used])
            assert np.array_equal(old[used + k :], new[used + k :])
        at = slice(used, used + k)
        assert np.array_equal(grown.ids[at], ids) and np.array_equal(grown.dense[at], dense)
        assert np.array_equal(grown.label_logit[at], logit)
        assert np.array_equal(grown.source[at], source)
        assert np.all(grown.log_weight[at] == 0.5) and np.all(grown.born[at] == stage)
        assert grown.valid.sum() == used + k and grown.valid[at].all()
        memory = grown


@given(st.data(), st.integers(0, 12), st.integers(1, 3))
def test_pick_takes_the_best_within_the_cap(data, k, cap):
    score = data.draw(hnp.arrays(np.float32, st.integers(0, 12), elements=scores))
    group = data.draw(hnp.arrays(np.int32, len(score), elements=st.integers(0, 3)))
    chosen = mem.pick(score, k, group, cap)
    assert np.all(np.isfinite(score[chosen]))
    assert len(np.unique(chosen)) == len(chosen) == min(k, int(np.isfinite(score).sum()))

    capped, seen = [], {}
    for row in sorted(range(len(score)), key=lambda row: -score[row]):
        seen[group[row]] = seen.get(group[row], 0) + 1
        if np.isfinite(score[row]) and seen[group[row]] <= cap:
            capped.append(row)
    assert chosen[: len(capped)].tolist() == capped[:k]
    fill = score[chosen[len(capped) :]]  # beyond the cap only when the cap leaves too few
    assert np.all(np.diff(fill) <= 0)


@given(st.data(), st.floats(0, 1))
def test_address_takes_the_strongest_share_of_the_valid_slots(data, share):
    strength = data.draw(hnp.arrays(np.float32, 9, elements=st.floats(-5, 5, width=32)))
    valid = data.draw(hnp.arrays(bool, 9))
    writable = mem.address(strength, valid, share)
    assert writable.dtype == bool
    assert writable.sum() == np.ceil(share * valid.sum())
    assert not np.any(writable & ~valid)
    assume(writable.any() and np.any(valid & ~writable))
    assert strength[writable].min() >= strength[valid & ~writable].max()


@given(st.data(), st.floats(0, 4))
def test_slots_matter_whose_influence_is_so_many_times_the_mean(data, times):
    influence = data.draw(hnp.arrays(np.float64, 9, elements=st.floats(-5, 5, width=16)))
    valid = data.draw(hnp.arrays(bool, 9))
    found = mem.matter(influence, valid, times)
    strength = np.abs(influence[valid])
    mean = strength.mean() if valid.any() else 0
    assume(np.all(np.abs(strength - times * mean) > 1e-9) or times == 0)
    assert found[valid].tolist() == (strength >= times * mean).tolist()
    assert not np.any(found & ~valid)


def test_strength_is_influence_of_either_sign_or_drawn_by_it_or_by_nothing():
    influence, rng = np.array([0.1, -10.0, 0.0, 1.0]), np.random.default_rng(0)
    assert np.argmax(mem.ADDRESSING["influence"](influence, rng)) == 1
    first = {
        name: [np.argmax(mem.ADDRESSING[name](influence, rng)) for _ in range(2000)]
        for name in ("sampled", "random")
    }
    shares = {name: np.bincount(rows, minlength=4) / 2000 for name, rows in first.items()}
    np.testing.assert_allclose(shares["sampled"], np.abs(influence) / 11.1, atol=0.04)
    np.testing.assert_allclose(shares["random"], 0.25, atol=0.04)
