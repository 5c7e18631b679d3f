"""Spearman's rank correlation of few pairs, with the exact p-value of a permutation test."""

from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
from scipy import stats

EXACT = 8  # pairs: up to 40,320 permutations
DRAWN = 20_000  # permutations of more pairs
_ROUNDING = 1e-9


class RankCorrelation(NamedTuple):
    """A rank correlation.

    `p` is two-sided: the share of permutations whose correlation is at least as far from 0. `smallest_p` is
    the p of the correlation 1, the smallest that so many pairs can have.
    """

    rho: float
    p: float
    smallest_p: float
    n: int


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
