"""Whether a memory ranks models as the full log does, beside how well the full log ranks them."""

import itertools
from typing import Any

import numpy as np
from scipy.stats import kendalltau, spearmanr

from diet_jax.types import Array

SPLITS = 50  # halves of the seeds looked at, at most


def agreement(full: Array, other: Array, top: int = 3, draws: int = 1000) -> dict[str, Any]:
    """How the ranking of A models by `other` agrees with that by full data.

    full: AUC [A, 2 S], a column for each seed; other: [A, S], of models trained on something else.
    Every tau compares two boards of S seeds each, so that they stand on one footing.

    Returns a dict:
        tau: Kendall's tau_b of `other` with a half of the full seeds, the mean over halves;
        low, high: its 95 % interval over bootstrap draws of the seeds of both;
        ceiling: tau_b between the two halves, the mean over ways to halve;
        spearman: like tau;
        separable: of the pairs whose full means differ by more than two standard errors of their
            difference, the share that `other` puts in the same order; NaN without such pairs;
        pairs: how many these are;
        regret: AUC on full data of the best model minus that of the one that `other` puts first;
        regret_top: the same for the best of the first `top` of `other`.
    """
    rng = np.random.default_rng(0)
    n_models, n_seeds = full.shape
    shown, truth = other.mean(1), full.mean(1)
    halves = [list(half) for half in itertools.combinations(range(n_seeds), n_seeds // 2)]
    if len(halves) > SPLITS:
        halves = [halves[k] for k in rng.choice(len(halves), SPLITS, replace=False)]
    rest = [[s for s in range(n_seeds) if s not in half] for half in halves]
    boards = [full[:, half].mean(1) for half in halves]
    drawn = [
        tau(other[:, rng.integers(other.shape[1], size=other.shape[1])].mean(1), board.mean(1))
        for board in (full[:, rng.integers(n_seeds, size=other.shape[1])] for _ in range(draws))
    ]
    first, second = np.triu_indices(n_models, 1)
    gap = truth[first] - truth[second]
    variance = full.var(1, ddof=1) / n_seeds
    apart = np.abs(gap) > 2 * np.sqrt(variance[first] + variance[second])
    same = np.sign(gap) == np.sign(shown[first] - shown[second])
    order = np.argsort(-shown, kind="stable")
    return {
        "tau": float(np.mean([tau(shown, board) for board in boards])),
        "low": float(np.quantile(drawn, 0.025)),
        "high": float(np.quantile(drawn, 0.975)),
        "ceiling": float(
            np.mean([tau(a, full[:, b].mean(1)) for a, b in zip(boards, rest, strict=True) if b])
        ),
        "spearman": float(np.mean([rho(shown, board) for board in boards])),
        "separable": float(same[apart].mean()) if apart.any() else float("nan"),
        "pairs": int(apart.sum()),
        "regret": float(truth.max() - truth[order[0]]),
        "regret_top": float(truth.max() - truth[order[:top]].max()),
    }


def tau(a: Array, b: Array) -> float:
    """Kendall's tau_b; 0 where one of the two puts all models level."""
    found: Any = kendalltau(a, b)
    return 0.0 if np.isnan(found.statistic) else float(found.statistic)


def rho(a: Array, b: Array) -> float:
    """Spearman's correlation."""
    found: Any = spearmanr(a, b)
    return float(found.statistic)


def rate_transfer(full: Array, other: Array) -> dict[str, float]:
    """Whether the learning rate that is best on `other` is good on full data.

    full, other: AUC [A, L] of A models at the same L rates.
    Returns the share of models whose best rate is the same, and the mean AUC that full data loses
    at the rate chosen on `other`.
    """
    mine, best = other.argmax(1), full.argmax(1)
    lost = full.max(1) - full[np.arange(len(full)), mine]
    return {"same": float((mine == best).mean()), "lost": float(lost.mean())}
