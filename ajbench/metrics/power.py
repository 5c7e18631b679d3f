"""What a planned comparison can see: the smallest gain whose interval is likely to exclude zero.

Gains are differences of two mixes, averaged over S seeds in each of F folds, on clips of G recordings in all.
V_clips and s² are as in `bootstrap`, and so are the half widths of the intervals.
"""

from dataclasses import dataclass, replace
from functools import cache
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv, ndtr

from ajbench.metrics.bootstrap import shared_freedom
from ajbench.metrics.intervals import LEVEL, student

POWER = 0.8
_POINTS = 100  # quantiles of each estimated variance
_MANY = 10**8  # recordings, as good as without end
_SEEDS = 200  # the most that are proposed


@dataclass(frozen=True)
class Design:
    """A planned comparison.

    Attributes:
        recordings: G, of the evaluation clips.
        seeds: S, of each of both mixes, in each fold.
        level: nominal coverage of the interval.
        mixes: K, which share the estimate of s² (`bootstrap.family`); 0: one comparison by itself
            (`bootstrap.over_seeds`).
        folds: F, which together have these recordings.
    """

    recordings: int
    seeds: int
    level: float = LEVEL
    mixes: int = 0
    folds: int = 1


@cache
def smallest_gain(clips: float, between: float, design: Design, power: float = POWER) -> float:
    """Return the true gain δ for which the interval is above zero with the probability `power`.

    The estimated gain is normal with the variance V_clips + s²/(F S). The estimates of V_clips and s² vary by
    chance too, as χ² with their degrees of freedom, and with them the half width h of the interval. δ solves
    E[Φ((δ − h)/√(V_clips + s²/(F S)))] = `power`; the mean is over quantiles of both χ².

    Args:
        clips: V_clips times G, the variance of the gain for one recording.
        between: s², the variance of the gain between seeds; one seed does not show it.
        design: the comparison.
        power: the probability.

    Returns:
        δ, as a fraction; NaN with fewer than two recordings.
    """
    from scipy.optimize import brentq  # a slow import

    if design.recordings < 2:
        return float("nan")
    trainings = design.folds * design.seeds
    parts = clips / design.recordings, between / trainings if design.seeds > 1 else 0.0
    spread = float(np.sqrt(sum(parts)))
    if not spread:
        return 0.0
    half = _half_widths(*parts, design)

    def excess(gain: float) -> float:
        return float(ndtr((gain - half) / spread).mean()) - power

    return float(brentq(excess, 0, float(half.max()) + 10 * spread))


def _half_widths(clips: float, between: float, design: Design) -> NDArray[np.float64]:
    """Return the half widths of the interval for all pairs of quantiles of V_clips and s²/S, [Q, Q]."""
    tail, shares = (1 + design.level) / 2, (np.arange(_POINTS) + 0.5) / _POINTS
    within = max(1, design.recordings // design.folds - 1)  # a fold
    of_seeds = shared_freedom(max(1, design.mixes), design.folds * max(1, design.seeds - 1))
    freedom = design.folds * within, of_seeds
    first, second = (
        variance * 2 * gammaincinv(f / 2, shares) / f  # quantiles of χ²
        for variance, f in zip((clips, between), freedom, strict=True)
    )
    first, second = first[:, None], second[None]
    total = first + second
    if design.mixes:
        squares = [student(tail, f) ** 2 for f in (within, freedom[1])]
        return np.asarray(np.sqrt(squares[0] * first + squares[1] * second))
    welch = total**2 / (first**2 / freedom[0] + second**2 / freedom[1])
    return np.asarray(student(tail, welch) * np.sqrt(total))


@cache
def needed(gain: float, clips: float, between: float, design: Design) -> Design | None:
    """Return the smallest design, with at least as many seeds, that sees a gain; None: no number is enough.

    More seeds are proposed where the planned ones leave little room for the variance between recordings: the
    fewest that see √½ of the gain on clips without end.

    Args:
        gain: to see, as a fraction.
        clips: V_clips times G.
        between: s².
        design: the planned comparison.
    """

    def seen(recordings: int, seeds: int) -> float:
        return smallest_gain(clips, between, replace(design, recordings=recordings, seeds=seeds))

    more = (seeds for seeds in (*range(20), *range(20, _SEEDS + 1, 5)) if seeds > design.seeds)
    tried = chain((design.seeds,), more)
    seeds = next((s for s in tried if seen(_MANY, s) <= np.sqrt(0.5) * gain), None)
    if seeds is None:
        return None
    low, high = 2, _MANY
    while high - low > max(1, low // 100):
        middle = int(np.sqrt(low * high)) if high > 2 * low else (low + high) // 2
        low, high = (low, middle) if seen(middle, seeds) <= gain else (middle, high)
    return replace(design, recordings=high, seeds=seeds)
