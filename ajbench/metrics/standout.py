"""How far the score of two clips stands out from their scores with others, and the threshold for a copy.

Scores of barks are higher than those of rain, and of short clips higher than of long ones; standouts compare.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Spread:
    """Median and upper decile of each clip's scores with other clips, both [n] or, for each score, [Q, n]."""

    median: NDArray[np.float64]
    high: NDArray[np.float64]


def spread(scores: Scores) -> Spread:
    """Return the spread of each row of scores [n, m] without its maximum, which may be a copy."""
    others = np.sort(scores, axis=1)[:, : max(1, scores.shape[1] - 1)]
    median, high = np.quantile(others, (0.5, 0.9), axis=1)
    return Spread(median, high)


def spread_of_others(scores: Scores) -> Spread:
    """Return, for each of the scores [n, m], the `spread` of its row without this score, both [m, n].

    A calibration clip must not take part in the spread that its own scores are compared with: no synthetic
    clip does.

    Args:
        scores: with m ≥ 4.
    """
    ordered = np.sort(scores, axis=1)
    place = np.argsort(np.argsort(scores, axis=1), axis=1)

    def quantile(q: float) -> NDArray[np.float64]:
        part, lower = np.modf(q * (scores.shape[1] - 3))
        k = int(lower)
        low, high = (np.where(place > k, ordered[:, k, None], ordered[:, k + 1, None]) for k in (k, k + 1))
        return (low + part * (high - low)).T

    return Spread(quantile(0.5), quantile(0.9))


def standout(scores: Scores, columns: Spread, epsilon: float = 0.01) -> NDArray[np.float64]:
    """Return how far scores [Q, R] exceed what both clips reach with other clips, float64 [Q, R].

    (s − median) / (upper decile − median + ε), averaged over the query's and the reference's spread: one in
    ten other clips reaches 1. Barks are more alike than rain; the standout makes them comparable.

    Args:
        scores: of queries with references.
        columns: spread of the references, from clips that are independent of them; for each query, or one
            for all.
        epsilon: ε, added to the spread.
    """
    rows = spread(scores)
    by_query = (scores - rows.median[:, None]) / (rows.high - rows.median + epsilon)[:, None]
    by_reference = (scores - columns.median) / (columns.high - columns.median + epsilon)
    found: NDArray[np.float64] = (by_query + by_reference) / 2
    return found


def tail(scores: NDArray[np.float64], share: float, through: tuple[float, float] = (0.5, 0.9)) -> float:
    """Return the score that a share of independent clips exceeds if scores follow a Gumbel distribution.

    Nearest neighbours are maxima. The distribution goes through two quantiles, the median and the upper
    decile unless others are given, so copies among the clips, up to a tenth, hardly change it.

    Args:
        scores: of independent clips with their nearest references, [n].
        share: of clips above.
        through: quantiles that the distribution goes through.
    """
    (low, high), (first, second) = np.quantile(scores, through), map(_gumbel, through)
    return float(low + (high - low) / (second - first) * (_gumbel(1 - share) - first))


def threshold(scores: NDArray[np.float64], share: float) -> tuple[float, int]:
    """Return the score above which a clip is flagged, and its rank r among the calibration scores.

    The threshold is the r-th largest of n calibration scores, r = max(1, ⌊share · (n + 1)⌋). Whatever the
    distribution of scores, another independent clip exceeds it with a probability P ~ Beta(r, n + 1 − r):
    r / (n + 1) on average, which is more than `share` if n is small.

    Copies among the calibration clips would raise the threshold. It is therefore at most the score that
    share / 100 of clips exceed under a Gumbel distribution (`tail`); r is then 1 + the number of calibration
    clips above it.

    Args:
        scores: of independent clips with their nearest references, [n].
        share: of independent clips that may be flagged.
    """
    rank = max(1, int(share * (len(scores) + 1)))
    limit = min(float(np.sort(scores)[-rank]), tail(scores, share / 100))
    return limit, max(rank, 1 + int((scores > limit).sum()))


def _gumbel(probability: float) -> float:
    return float(-np.log(-np.log(probability)))
