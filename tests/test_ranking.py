"""Agreement of rankings: what its figures are on boards whose answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_jax.ranking import agreement, rate_transfer, tau

TRUE = np.linspace(0.70, 0.76, 7)


def board(rng, seeds, noise, means=TRUE):
    return means[:, None] + noise * rng.normal(size=(len(means), seeds))


def test_the_same_order_reaches_the_ceiling_and_loses_nothing():
    rng = np.random.default_rng(0)
    found = agreement(board(rng, 6, 1e-5), board(rng, 3, 1e-5) - 0.1)
    assert found["tau"] == found["ceiling"] == found["low"] == found["high"] == 1
    assert found["separable"] == 1 and found["pairs"] == 21
    assert found["regret"] == found["regret_top"] == 0


def test_the_opposite_order_is_minus_one_and_its_regret_the_whole_range():
    rng = np.random.default_rng(1)
    found = agreement(board(rng, 6, 1e-5), board(rng, 3, 1e-5, TRUE[::-1]), top=3)
    assert found["tau"] == found["spearman"] == -1 and found["separable"] == 0
    assert found["regret"] == pytest.approx(0.06, abs=1e-4)
    assert found["regret_top"] == pytest.approx(0.04, abs=1e-4)  # the third of the worst


def test_noise_lowers_the_ceiling_and_leaves_few_pairs_apart():
    rng = np.random.default_rng(2)
    full = board(rng, 6, 0.1)
    found = agreement(full, board(rng, 3, 1e-5))
    assert found["ceiling"] < 0.5 and found["pairs"] < 8
    # Another draw of the same noisy board agrees with it no better than its own halves do.
    again = agreement(full, board(rng, 3, 0.1))
    assert again["low"] < again["ceiling"] < 0.5


@settings(max_examples=10)
@given(st.integers(0, 100))
def test_only_the_order_counts(seed):
    rng = np.random.default_rng(seed)
    full, other = board(rng, 4, 0.01), board(rng, 1, 0.02)
    before, after = (agreement(full, x, draws=50) for x in (other, 2 * other + 1))
    assert before == pytest.approx(after)
    assert -1 <= before["low"] <= before["high"] <= 1 and before["regret"] >= before["regret_top"]


def test_a_board_that_says_nothing_has_tau_zero():
    assert tau(np.ones(4), np.arange(4)) == 0


def test_a_rate_carries_over_or_costs_what_full_data_loses():
    full = np.array([[0.7, 0.8, 0.6], [0.5, 0.6, 0.9]])
    assert rate_transfer(full, full - 0.2) == {"same": 1.0, "lost": 0.0}
    other = np.array([[0.9, 0.1, 0.1], [0.1, 0.1, 0.9]])
    assert rate_transfer(full, other) == pytest.approx({"same": 0.5, "lost": 0.05})
