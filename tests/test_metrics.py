"""The figures in every report mean what their names mean elsewhere."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from diet_jax.metrics import auc, calibration, gauc, log_loss, score

# Few distinct scores, so that ties are common.
rows = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([-1.5, 0.0, 0.25, 2.0]), st.integers(0, 4)),
    min_size=1,
    max_size=40,
)


def columns(rows):
    label, score, user = zip(*rows, strict=True)
    return np.array(label, np.float32), np.array(score, np.float64), np.array(user, np.int32)


def naive_auc(label, score):
    """The share of (positive, negative) pairs in the right order, a tie counting half."""
    positive, negative = score[label == 1], score[label == 0]
    if not len(positive) or not len(negative):
        return math.nan
    wins = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    return sum(wins) / len(wins)


@given(rows)
def test_auc_counts_pairs(rows):
    label, score, _ = columns(rows)
    np.testing.assert_allclose(auc(label, score), naive_auc(label, score), rtol=1e-12)


@given(rows)
def test_gauc_averages_users_of_both_classes_by_their_rows(rows):
    label, score, user = columns(rows)
    total, weight = 0.0, 0
    for one in set(user):
        mine = user == one
        area = naive_auc(label[mine], score[mine])
        if not math.isnan(area):
            total, weight = total + mine.sum() * area, weight + mine.sum()
    want = total / weight if weight else math.nan
    np.testing.assert_allclose(gauc(label, score, user), want, rtol=1e-12)


def test_gauc_leaves_out_users_of_one_class():
    label, user = np.array([1, 0, 1, 1, 1]), np.array([0, 0, 7, 7, 7])
    assert gauc(label, np.array([2.0, 1.0, 0.0, 5.0, 9.0]), user) == 1
    assert math.isnan(gauc(label[2:], np.array([0.0, 5.0, 9.0]), user[2:]))


def test_scores_that_are_not_finite_order_nothing():
    """As of a training that diverged, which is told and no reason to end."""
    label, user = np.array([1, 0, 1, 0, 1]), np.array([0, 0, 7, 7, 7])
    found = score(label, np.array([2.0, 1.0, np.nan, np.inf, -np.inf]), user)
    assert found["auc"] == found["gauc"] == 0.5 and math.isnan(found["logloss"])


def test_one_class_has_no_auc():
    assert math.isnan(auc(np.ones(3), np.arange(3.0)))
    assert math.isnan(auc(np.zeros(3), np.arange(3.0)))


@given(rows)
def test_log_loss_against_sklearn(rows):
    label, logit, _ = columns(rows)
    want = sklearn.log_loss(label, 1 / (1 + np.exp(-logit)), labels=[0, 1])
    np.testing.assert_allclose(log_loss(label, logit), want, rtol=1e-10)


def test_log_loss_of_a_far_logit_is_finite():
    assert log_loss(np.array([0.0, 1.0]), np.array([800.0, -800.0])) == pytest.approx(800)


def test_score_names_the_figures_and_takes_float32():
    label, logit = np.array([0, 1, 0, 1], np.float32), np.array([0, 1, 2, 3], np.float32)
    figures = score(label, logit, np.array([0, 0, 1, 1]))
    ece, ratio = calibration(label, logit.astype(np.float64))
    want = {"auc": 0.75, "gauc": 1.0, "logloss": log_loss(label, logit)}
    assert figures == pytest.approx(want | {"ece": ece, "ctr_ratio": ratio})
    assert all(type(value) is float for value in figures.values())


@given(rows)
def test_calibration_error_is_the_distance_of_predictions_from_labels_bin_by_bin(rows):
    label, logit, _ = columns(rows)
    label = label.astype(np.float64)
    p = 1 / (1 + np.exp(-logit))
    one_bin, ratio = calibration(label, logit, bins=1)
    assert one_bin == pytest.approx(abs(p.mean() - label.mean()), abs=1e-12)
    assert math.isnan(ratio) if not label.any() else ratio == pytest.approx(p.sum() / label.sum())
    # A bin for each row: how far each prediction is from its label.
    error, _ = calibration(label, logit, bins=len(rows))
    assert error == pytest.approx(np.abs(p - label).mean(), abs=1e-12)


def test_a_far_logit_is_calibrated_without_a_warning():
    assert calibration(np.array([0.0, 1.0]), np.array([-1e4, 1e4])) == pytest.approx((0, 1))
