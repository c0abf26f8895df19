"""What a row's features say of the past: counts, histories, and scales fitted before the row.

Each works chunk by chunk along the stream and carries a state that is bounded by the number of
users or values, never by the length of the log.
"""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import numpy as np

from diet_jax.data.source import Dense

KNOTS = 256  # points of a quantile scale
SAMPLE = 1 << 18  # rows that a quantile scale is fitted on at most


def seen_before(counts: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """int32 [n]: floor(log2(1 + c)), c: how many rows before this one have the same code.

    counts: int64 [values], the rows so far by code; brought up to date in place.
    """
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    nth = np.empty(len(codes), np.int64)
    nth[order] = np.arange(len(codes)) - np.searchsorted(ordered, ordered)
    before = counts[codes] + nth
    np.add.at(counts, codes, 1)
    # frexp is exact, which a logarithm in floats is not: some powers of two come out too small.
    return (np.frexp(before + 1)[1] - 1).astype(np.int32)


class Past(NamedTuple):
    """The last positive items of every user, and those of the moment that is still going on.

    last: int32 [users, L], -1 for none, the latest at the end. time: of the latest row so far;
    users, items: the positive rows of that time, which count as past only once time has moved on.
    """

    last: np.ndarray
    time: int
    users: np.ndarray
    items: np.ndarray


def no_past(n_users: int, length: int) -> Past:
    nobody = np.zeros(0, np.int64)
    return Past(np.full((n_users, length), -1, np.int32), -1, nobody, nobody.astype(np.int32))


def histories(past: Past, user, item, time, positive) -> tuple[np.ndarray, Past]:
    """int32 [n, L]: each row's last positive items of its user before its time, -1 for none.

    user, item: int [n]; time: int64 [n], ascending and not before `past`; positive: bool [n].
    `past.last` is brought up to date in place.
    """
    length = past.last.shape[1]
    who = np.concatenate([past.users, user[positive]])
    what = np.concatenate([past.items, item[positive]]).astype(np.int32)
    when = np.concatenate([np.full(len(past.users), past.time), time[positive]])
    # Events in order of (user, time); a row's past is the part of its user's that is before it.
    users, place = np.unique(np.concatenate([who, user]), return_inverse=True)
    _, moment = np.unique(np.concatenate([when, time]), return_inverse=True)
    key = place.astype(np.int64) * (int(moment.max()) + 1) + moment
    event, row = key[: len(who)], key[len(who) :]
    order = np.argsort(event, kind="stable")
    event, what_sorted = event[order], what[order]
    begin = np.searchsorted(event, np.arange(len(users)) * (int(moment.max()) + 1))
    before = np.searchsorted(event, row)
    # One line of items: for each user what was known, then the new events.
    line = np.empty(len(users) * length + len(who), np.int32)
    base = begin + np.arange(len(users)) * length
    line[base[:, None] + np.arange(length)] = past.last[users]
    owner = place[: len(who)][order]
    line[np.arange(len(who)) + (owner + 1) * length] = what_sorted
    mine = place[len(who) :]
    ends = before + mine * length  # where the L items that end at a row's past begin
    found = line[ends[:, None] + np.arange(length)]

    now = when == time[-1]
    closed = np.searchsorted(event, np.arange(len(users)) * (int(moment.max()) + 1) + moment[-1])
    past.last[users] = line[(closed + np.arange(len(users)) * length)[:, None] + np.arange(length)]
    return found, Past(past.last, int(time[-1]), who[now], what[now])


class Scale(NamedTuple):
    """A dense feature's transformation: sign(x) log(1 + |x|) first if `log`; then (x - mean) / sd,
    or its position among `knots` (quantiles of the first stage), mapped to -1 .. 1."""

    log: bool
    mean: float
    sd: float
    knots: tuple[float, ...]


def bend(dense: np.ndarray, features: tuple[Dense, ...]) -> np.ndarray:
    """float64 [n, G], with the logarithm taken of the features that ask for it."""
    x = dense.astype(np.float64)
    for g, feature in enumerate(features):
        if feature.scale == "log":
            x[:, g] = np.sign(x[:, g]) * np.log1p(np.abs(x[:, g]))
    return x


class Powers(NamedTuple):
    """What scales are fitted on: sums of x and x^2, extremes [G], and a sample [.., G]."""

    total: np.ndarray
    squares: np.ndarray
    low: np.ndarray
    high: np.ndarray
    sample: np.ndarray


def powers(x: np.ndarray, shift: np.ndarray, start: int, n: int) -> Powers:
    """Of the rows start .. of n, x float64 [m, G]; shift: near the mean, against cancellation."""
    step = -(-n // SAMPLE)
    y = x - shift
    sample = x[-start % step :: step].copy()  # a view would keep all rows in memory
    return Powers(y.sum(0), (y**2).sum(0), x.min(0), x.max(0), sample)


def fit_scales(chunks, n: int, features: tuple[Dense, ...]) -> tuple[Scale, ...]:
    """Scales fitted on the rows of the first stage. chunks: dense [m, G] each, n rows together."""
    found, start, shift = [], 0, np.zeros(len(features))
    for chunk in chunks:
        x = bend(chunk, features)
        shift = x.mean(0) if not start else shift
        found.append(powers(x, shift, start, n))
        start += len(x)
    return scales_of(found, shift, n, features)


def scales_of(
    found: Sequence[Powers], shift: np.ndarray, n: int, features: tuple[Dense, ...]
) -> tuple[Scale, ...]:
    """The scales of n rows in order.

    A feature that is constant there has the standard deviation 1, so that it passes on unscaled.
    """
    total, squares, low, high, sample = zip(*found, strict=True)
    offset = reduce(np.add, total) / n
    spread = np.sqrt(np.maximum(reduce(np.add, squares) / n - offset**2, 0))
    spread = np.where(np.min(low, 0) < np.max(high, 0), spread, 1.0)
    rows, scales = np.concatenate(sample), []
    for g, feature in enumerate(features):
        mean, sd, knots = shift[g] + offset[g], spread[g], ()
        if feature.scale == "none":
            mean, sd = 0.0, 1.0
        if feature.scale == "quantile":
            points = np.linspace(0, 1, KNOTS)
            knots = tuple(np.unique(np.quantile(rows[:, g], points)).tolist())
        scales.append(Scale(feature.scale == "log", float(mean), float(sd), knots))
    return tuple(scales)


def rescale(dense: np.ndarray, scales: tuple[Scale, ...], features: tuple[Dense, ...]):
    """float32 [n, G]."""
    x = bend(dense, features)
    for g, scale in enumerate(scales):
        if scale.knots:
            x[:, g] = np.interp(x[:, g], scale.knots, np.linspace(-1, 1, len(scale.knots)))
        else:
            x[:, g] = (x[:, g] - scale.mean) / scale.sd
    most = np.finfo(np.float32).max  # what hardly varied in the first stage may be huge later
    return np.clip(x, -most, most).astype(np.float32)


def unscale(dense: np.ndarray, scales: tuple[Scale, ...]) -> np.ndarray:
    """float32 [n, G]: the inverse of `rescale`, in the units of the log."""
    x = dense.astype(np.float64)
    for g, scale in enumerate(scales):
        if scale.knots:
            x[:, g] = np.interp(x[:, g], np.linspace(-1, 1, len(scale.knots)), scale.knots)
        else:
            x[:, g] = x[:, g] * scale.sd + scale.mean
        if scale.log:
            x[:, g] = np.sign(x[:, g]) * np.expm1(np.abs(x[:, g]))
    return x.astype(np.float32)
