"""How good a list of scores is: AUC, GAUC, log loss, calibration."""

import numpy as np
from scipy.special import expit
from scipy.stats import rankdata
from sklearn.metrics import roc_auc_score


def auc(label: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve of float scores [n] for 0/1 labels [n]; NaN with one class.

    One half where a score is not finite, as of a training that diverged: that orders nothing.
    """
    if not 0 < label.sum() < len(label):
        return float("nan")
    return float(roc_auc_score(label, score)) if np.isfinite(score).all() else 0.5


def gauc(label: np.ndarray, score: np.ndarray, user: np.ndarray) -> float:
    """AUC within each user (int [n]), averaged with the users' row counts as weights.

    Users with one class only are left out (as in Zhou et al. 2018, DIN, eq. 9, and FuxiCTR); NaN if
    that leaves none. One half where a score is not finite, as `auc`.
    """
    if not len(user):
        return float("nan")
    if not np.isfinite(score).all():
        score = np.zeros(len(score))  # which orders nothing either
    by_user = np.argsort(user, kind="stable")
    user, label, score = user[by_user], label[by_user], score[by_user]
    start = np.flatnonzero(np.r_[True, user[1:] != user[:-1]])
    # Shifting each user's dense ranks past those of the users before ranks all groups at once.
    group = np.cumsum(np.r_[False, user[1:] != user[:-1]])
    rank_all = rankdata(group * (len(score) + 1.0) + rankdata(score, method="dense"))
    n = np.diff(np.r_[start, len(user)])
    positives = np.add.reduceat(label.astype(np.float64), start)
    rank_sum = np.add.reduceat((rank_all - start[group]) * label, start)
    mixed = (positives > 0) & (positives < n)
    if not mixed.any():
        return float("nan")
    n, positives, rank_sum = n[mixed], positives[mixed], rank_sum[mixed]
    area = (rank_sum - positives * (positives + 1) / 2) / (positives * (n - positives))
    return float(np.average(area, weights=n))


def mean_known(values: list[float]) -> float:
    """The mean of those that are not NaN; NaN without any."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def log_loss(label: np.ndarray, logit: np.ndarray) -> float:
    """Mean cross-entropy in nats of 0/1 labels [n] under logits [n]; NaN if one is not finite."""
    if not np.isfinite(logit).all():
        return float("nan")
    return float(np.mean(np.logaddexp(0.0, logit) - label * logit))


def calibration(label: np.ndarray, logit: np.ndarray, bins: int = 15) -> tuple[float, float]:
    """Expected calibration error, and predicted clicks over observed ones (NaN without any).

    The error is that of Naeini et al. 2015 in `bins` bins of equal counts: the mean distance, over
    bins by their rows, of the mean prediction from the mean label.
    """
    p = expit(logit)
    order = np.argsort(p, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    error = sum(abs(p[part].sum() - label[part].sum()) for part in parts) / len(label)
    clicks = float(label.sum())
    return float(error), float(p.sum() / clicks) if clicks else float("nan")


def score(label: np.ndarray, logit: np.ndarray, user: np.ndarray) -> dict[str, float]:
    """The figures of one model on one stage, by their record names."""
    logit = np.asarray(logit, np.float64)
    ece, ctr_ratio = calibration(label, logit)
    return {
        "auc": auc(label, logit),
        "gauc": gauc(label, logit, user),
        "logloss": log_loss(label, logit),
        "ece": ece,
        "ctr_ratio": ctr_ratio,
    }
