"""Where a log is cut into stages."""

import bisect
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from diet_jax.types import InputError

_SECOND = 1_000_000
INTERVALS = {"hour": 3600 * _SECOND, "day": 86_400 * _SECOND, "week": 7 * 86_400 * _SECOND}
_MONDAY = 4 * 86_400 * _SECOND  # the first Monday after 1970-01-01, which was a Thursday


class Cuts(NamedTuple):
    """How a log is cut: by `interval` (hour, day or week, UTC) if given, else by the shares
    `fractions` if given, else into `count` stages of equal counts."""

    count: int
    fractions: tuple[float, ...] = ()
    interval: str = ""


def check(cuts: Cuts) -> None:
    """Raises InputError for cuts that no log can be given."""
    fractions = cuts.fractions
    if cuts.interval and cuts.interval not in INTERVALS:
        known = ", ".join(INTERVALS)
        raise InputError(f"stages.interval is {cuts.interval!r}; set it to {known} or ''")
    if not fractions and cuts.count < 1:
        raise InputError(f"stages.count is {cuts.count}; set it to 1 or more")
    for share in fractions:
        if not isinstance(share, int | float):
            raise InputError(f"stages.fractions has {share!r}; give positive shares that sum to 1")
    if fractions and not (min(fractions) > 0 and math.isclose(sum(fractions), 1, abs_tol=1e-6)):
        raise InputError(
            f"stages.fractions {fractions} sums to {sum(fractions):g}; give positive shares that "
            "sum to 1"
        )


def cut(time: Sequence[int] | np.ndarray, cuts: Cuts, where: str) -> np.ndarray:
    """Row borders int64 [stages + 1] from 0 to n: stage s is rows borders[s] .. borders[s + 1] - 1.

    time: microseconds since 1970, ascending; any sequence, of which only a few are looked at.
    cuts: good ones, see `check`. Rows of one time stay together, in the earlier stage. Raises
    InputError for fewer rows than stages, and for stages left empty.
    """
    if cuts.interval:
        return by_interval(time, cuts.interval)
    n, fractions = len(time), cuts.fractions
    stages = len(fractions) or cuts.count
    if n < stages:
        raise InputError(
            f"{where}: {n} rows are too few for {stages} stages; set --config.stages.count lower"
        )
    if fractions:
        ends = np.floor(np.cumsum(fractions) * n + 0.5).astype(np.int64)
        ends[-1] = n
    else:
        ends = np.arange(1, stages + 1, dtype=np.int64) * n // stages
    # A border inside a tie moves behind the tie. A border at 0 is an empty stage, refused below.
    ends = [bisect.bisect_right(time, time[end - 1]) if end > 0 else 0 for end in map(int, ends)]
    borders = np.array([0, *ends])
    empty = np.flatnonzero(np.diff(borders) == 0)
    if len(empty):
        s = int(empty[0])
        near = instant(time[max(int(borders[s]) - 1, 0)])
        raise InputError(
            f"{where}: stage {s + 1} of {stages} would be empty, since rows of one time stay "
            f"together (the stage before ends at {near} UTC); ask for fewer or larger stages"
        )
    return borders


def by_interval(time: Sequence[int] | np.ndarray, interval: str) -> np.ndarray:
    """Borders where an hour, day or week (from Monday) begins; those without rows are no stage."""
    size, borders = INTERVALS[interval], [0]
    while borders[-1] < len(time):
        begun = (int(time[borders[-1]]) - _MONDAY) // size
        borders.append(bisect.bisect_left(time, (begun + 1) * size + _MONDAY, borders[-1]))
    return np.array(borders)


def check_class(label_sum: float, time: np.ndarray, borders, s: int, where: str) -> None:
    """Raises InputError if all rows of stage `s` (0-based) have one label; label_sum: their sum."""
    first, last = int(borders[s]), int(borders[s + 1]) - 1
    n = last - first + 1
    wait = "wait for more rows, " if s == len(borders) - 2 else ""
    if label_sum in (0, n):
        raise InputError(
            f"{where}: stage {s + 1} of {len(borders) - 1} ({instant(time[first])} to "
            f"{instant(time[last])} UTC, {n} rows) has only label {label_sum / n:g}; "
            f"{wait}ask for fewer stages, or check the label column and data.threshold"
        )


def instant(micros: int) -> str:
    """The UTC time in words, for any int64: '2001-09-09 01:46:40'."""
    return str(np.datetime64(int(micros) // _SECOND, "s")).replace("T", " ")
