"""Pearson's and Spearman's correlations: of scores of clips with intervals, of few pairs with an exact p."""

from collections.abc import Hashable, Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ajbench.metrics.intervals import LEVEL, Interval, none, numbered

RESAMPLES = 1000
FEWEST = 4  # groups, of which an interval is made
AT_MOST = 10_000  # clips whose correlation is resampled; of more, drawn ones
EXACT = 8  # pairs: up to 40,320 permutations
DRAWN = 20_000  # permutations of more pairs
_ROUNDING = 1e-9
_LARGEST = 1 - 1e-12  # whose inverse hyperbolic tangent is finite

Floats = NDArray[np.float64]


class Correlation(NamedTuple):
    """Correlations of two scores of n clips."""

    pearson: Interval
    spearman: Interval
    n: int

    def __str__(self) -> str:
        parts = [
            f"{name} {one.value:.2f} [{one.low:.2f}, {one.high:.2f}]"
            for name, one in (("Pearson", self.pearson), ("Spearman", self.spearman))
        ]
        return f"{', '.join(parts)}, n = {self.n}"


class RankCorrelation(NamedTuple):
    """A rank correlation.

    `p` is two-sided: the share of permutations whose correlation is at least as far from 0. `smallest_p` is
    the p of the correlation 1, the smallest that so many pairs can have.
    """

    rho: float
    p: float
    smallest_p: float
    n: int


def correlation(
    x: Floats, y: Floats, groups: Sequence[Hashable], *, seed: int = 0, level: float = LEVEL
) -> Correlation:
    """Return the correlations of two scores of clips and their intervals over groups such as recordings.

    The interval is tanh(atanh(r) ± t σ): σ is the deviation of atanh(r) over resamples of G groups, t is
    Student's with G − 1 degrees of freedom. Clips without one of the scores (NaN) are left out. Of more than
    10,000 clips, as many are drawn, and σ is scaled.

    Args:
        x: [N].
        y: [N].
        groups: the group of each clip, [N].
        seed: of all draws.
        level: nominal coverage.

    Returns:
        NaN where fewer than two clips have both scores or one of them is constant; no interval with fewer
        than four groups.
    """
    known = np.flatnonzero(~(np.isnan(x) | np.isnan(y)))
    n, rng = len(known), np.random.default_rng(seed)
    value = _both(x[known], y[known])
    if n > AT_MOST:
        known = np.sort(rng.choice(known, AT_MOST, replace=False))
    number = numbered([groups[i] for i in known.tolist()])
    count = len(np.unique(number))
    if count < FEWEST or not np.isfinite(value).all():
        return Correlation(none(value[0]), none(value[1]), n)
    x, y = x[known], y[known]
    draws = np.empty((RESAMPLES, 2))
    for draw in draws:
        times = np.bincount(rng.integers(0, count, count), minlength=count)[number]
        draw[:] = _both(np.repeat(x, times), np.repeat(y, times))
    spread = np.nanstd(np.arctanh(np.clip(draws, -_LARGEST, _LARGEST)), axis=0)
    half = stats.t.ppf((1 + level) / 2, count - 1) * spread * np.sqrt(len(known) / n)
    centre = np.arctanh(np.clip(value, -_LARGEST, _LARGEST))
    low, high = np.tanh(centre - half), np.tanh(centre + half)
    pearson, spearman = (Interval(*map(float, found)) for found in zip(value, low, high, strict=True))
    return Correlation(pearson, spearman, n)


def spearman(x: Sequence[float], y: Sequence[float], seed: int = 0) -> RankCorrelation:
    """Return Spearman's ρ of n pairs: Pearson's correlation of their ranks, equal values at their mean rank.

    Args:
        x: [n].
        y: [n].
        seed: of the drawn permutations, if there are more than eight pairs.

    Returns:
        NaN for every number with fewer than two pairs, or if all x or all y are equal.
    """
    n = len(x)
    ranks = [stats.rankdata(values) - (n + 1) / 2 for values in (x, y)]
    scale = float(np.sqrt(np.prod([values @ values for values in ranks])))
    if n < 2 or not scale:
        return RankCorrelation(float("nan"), float("nan"), float("nan"), n)
    if n <= EXACT:
        orders = np.array(list(permutations(range(n))))
    else:
        # The given order is one of them, so that p is never 0.
        rng = np.random.default_rng(seed)
        orders = np.array([np.arange(n), *(rng.permutation(n) for _ in range(DRAWN - 1))])
    found = np.abs(ranks[1][orders] @ ranks[0]) / scale
    rho = float(ranks[0] @ ranks[1]) / scale
    p = float(np.mean(found >= abs(rho) - _ROUNDING))
    return RankCorrelation(rho, p, float(np.mean(found >= found.max() - _ROUNDING)), n)


def _both(x: Floats, y: Floats) -> tuple[float, float]:
    """Return Pearson's correlation of the values and of their ranks."""
    return _pearson(x, y), _pearson(stats.rankdata(x), stats.rankdata(y))


def _pearson(x: Floats, y: Floats) -> float:
    if len(x) < 2:
        return float("nan")
    a, b = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(np.clip(a @ b / scale, -1, 1)) if scale > 1e-12 else float("nan")
