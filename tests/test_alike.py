"""Rows that are alike: which of them share a slot."""

import jax
import numpy as np
import pytest
import toy
from hypothesis import given
from hypothesis import strategies as st
from test_metagrad import linear

from diet_jax import memory as mem
from diet_jax.alike import alike, weigh
from diet_jax.distill import distill_stage

SIZES = {"size": st.integers(1, 5), "parts": st.integers(1, 40), "seed": st.integers(0, 99)}


@given(**SIZES, width=st.integers(1, 40))
def test_every_row_comes_once(size, parts, seed, width):
    x = np.random.default_rng(seed).integers(0, 3, (size * parts, width)).astype(np.float32)
    assert np.array_equal(np.sort(alike(x, size)), np.arange(size * parts))


@given(**SIZES)
def test_along_one_line_the_nearest_are_together(size, parts, seed):
    x = np.random.default_rng(seed).normal(size=(size * parts, 1)) * [1, 2, -1]
    found, want = alike(x, size), np.argsort(x[:, 0])
    assert {*map(frozenset, found.reshape(-1, size))} == {*map(frozenset, want.reshape(-1, size))}


@given(**SIZES)
def test_clusters_that_lie_apart_are_found(size, parts, seed):
    rng = np.random.default_rng(seed)
    centre = 10 * rng.normal(size=(parts, 30))
    cluster = rng.permutation(np.repeat(np.arange(parts), size))
    x = centre[cluster] + 1e-4 * rng.normal(size=(len(cluster), 30))
    together = cluster[alike(x, size)].reshape(-1, size)
    assert np.all(together == together[:, :1])


def test_the_label_counts_as_much_as_all_columns_of_the_embedding():
    rng = np.random.default_rng(0)
    points = weigh(7 * rng.normal(size=50), rng.normal(size=(50, 6)))
    np.testing.assert_allclose(points[:, 0].var(), 1, rtol=1e-6)
    np.testing.assert_allclose(points[:, 1:].var(0).sum(), 1, rtol=1e-6)
    assert np.all(weigh(np.ones(3), np.ones((3, 2))) == 1)  # all alike: nothing to scale


@pytest.mark.parametrize("mix_by", ["teacher", "label"])
def test_slots_mix_rows_that_the_teacher_sees_alike(mix_by):
    """Two kinds of rows with labels that do not tell them apart."""
    engine = toy.engine(proxies=(linear(),), learn=(*toy.LEARNED, "mix"), mix_by=mix_by)
    memory, stage = mem.empty(toy.CAPACITY, len(toy.FIELDS), 1, 2), toy.stage(1)
    kind = np.arange(toy.ROWS_A_STAGE) % 2
    stage = stage._replace(embed=lambda at: kind[at, None].astype(np.float32))
    rows = np.arange(16)
    memory, _ = distill_stage(engine, memory, stage, 8, 2, 1, jax.random.key(0), rows=rows)
    mixed = kind[memory.source[memory.valid]]
    together = np.all(mixed == mixed[:, :1], axis=1)
    assert together.all() if mix_by == "teacher" else not together.all()
