"""Pearson's and Spearman's correlations: of scores of clips with intervals, of few pairs with an exact p."""

from collections.abc import Hashable, Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ajbench.metrics.intervals import LEVEL, Interval, none, numbered, student

RESAMPLES = 1000
FEWEST = 4  # groups, of which an interval is made
AT_MOST = 10_000  # clips whose correlation is resampled; of more, drawn ones
EXACT = 8  # pairs: up to 40,320 permutations
DRAWN = 20_000  # permutations of more pairs
_ROUNDING = 1e-9
_LARGEST = 1 - 1e-12  # whose inverse hyperbolic tangent is finite
_NUMBERS = 1_000_000  # in an array of resamples

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
    value = _resampled(x[known], y[known], np.ones((1, n)))[0].tolist()
    if n > AT_MOST:
        known = np.sort(rng.choice(known, AT_MOST, replace=False))
    number = numbered([groups[i] for i in known.tolist()])
    count = len(np.unique(number))
    if count < FEWEST or not np.isfinite(value).all():
        return Correlation(none(value[0]), none(value[1]), n)
    blocks, at_once = [], max(1, _NUMBERS // len(known))
    for first in range(0, RESAMPLES, at_once):
        picks = (rng.integers(0, count, count) for _ in range(first, min(first + at_once, RESAMPLES)))
        times = np.array([np.bincount(pick, minlength=count)[number] for pick in picks], np.float64)
        blocks.append(_resampled(x[known], y[known], times))
    spread = np.nanstd(np.arctanh(np.clip(np.concatenate(blocks), -_LARGEST, _LARGEST)), axis=0)
    half = student((1 + level) / 2, count - 1) * spread * np.sqrt(len(known) / n)
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
        NaN for every number with fewer than two pairs, or if all x or all y are equal or one is NaN.
    """
    n, nothing = len(x), RankCorrelation(float("nan"), float("nan"), float("nan"), len(x))
    if n < 2 or np.isnan([*x, *y]).any():
        return nothing
    ranks = [_ranks(np.asarray(values, np.float64), np.ones((1, n)))[0] - (n + 1) / 2 for values in (x, y)]
    scale = float(np.sqrt(np.prod([values @ values for values in ranks])))
    if not scale:
        return nothing
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


def _resampled(x: Floats, y: Floats, times: Floats) -> Floats:
    """Return Pearson's correlation of the values and of their ranks if each pair is there so many times.

    Args:
        x: [N].
        y: [N].
        times: [R, N], in each of R resamples.

    Returns:
        [R, 2], NaN where x or y is constant.
    """
    if len(x) < 2:
        return np.full((len(times), 2), np.nan)
    return np.stack([_pearson(x, y, times), _pearson(_ranks(x, times), _ranks(y, times), times)], axis=1)


def _ranks(x: Floats, times: Floats) -> Floats:
    """Return the mean ranks of equal values, [R, N]; of a value that is not there, any number."""
    order = np.argsort(x, kind="stable")
    firsts = np.flatnonzero(np.concatenate([[True], x[order][1:] != x[order][:-1]]))
    counts = np.add.reduceat(times[:, order], firsts, axis=1)
    ranks = np.cumsum(counts, axis=1) - (counts - 1) / 2
    return ranks[:, np.searchsorted(x[order][firsts], x)]


def _pearson(a: Floats, b: Floats, times: Floats) -> Floats:
    """Return the correlations [R] of values [N] or [R, N]."""
    n = times.sum(axis=1, keepdims=True)
    a, b = (values - (times * values).sum(axis=1, keepdims=True) / n for values in (a, b))
    products = (times * a * b, times * a * a, times * b * b)
    both, first, second = (product.sum(axis=1) for product in products)
    scale = np.sqrt(first * second)
    return np.where(scale > 1e-12, np.clip(both / np.where(scale > 1e-12, scale, 1), -1, 1), np.nan)
