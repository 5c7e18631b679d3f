"""Kernel audio distance: unbiased squared maximum mean discrepancy with a Gaussian kernel, in float64."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ajbench.core.device import Array
from ajbench.core.errors import NumericError
from ajbench.metrics import pairwise
from ajbench.metrics.distribution import Points, centred_pair

SCALE = 100.0
EPS = 1e-8
_BINS = 1 << 16
_FEW = 4_000_000  # distances that are sorted at once to find the median: 32 MB

Weights = NDArray[np.int64]


def kernel_distance(x: Array, y: Array, bandwidth: float | None = None) -> float:
    """Return the kernel distance of generated x [N, d] to real y [M, d], as KAD's paper defines it.

    100 · (mean k(x, x′) + mean k(y, y′) − 2 mean k(x, y)), without pairs of a clip with itself, where
    k(a, b) = exp(−‖a − b‖² / (2 σ² + 1e-8)). It is unbiased, so it does not depend on the number of clips;
    for two sets from one distribution it is around 0, and as often below as above.

    The bandwidth is computed from the reference, as in the paper and kadtk's README. kadtk's code computes it
    from the evaluated set: it gives this value with the folders exchanged. It also pools the frames of all
    clips, while eval-gen takes the mean of each clip.

    Args:
        x: features of generated clips.
        y: features of real clips.
        bandwidth: σ; None: `median_distance(y)`.

    Raises:
        UsageError: not [clips, dimension], different dimensions, or fewer than two clips.
        NumericError: a feature is not finite, or the bandwidth is 0.
    """
    x_counts, y_counts = (np.ones((1, len(v)), np.int64) for v in (x, y))
    return float(kernel_draws(x, y, x_counts, y_counts, bandwidth)[0])


def kernel_draws(
    x: Array, y: Array, x_counts: Weights, y_counts: Weights, bandwidth: float | None = None
) -> Points:
    """Return the kernel distance of resamples of x [N, d] and y [M, d], float64 [R].

    Kernels are computed once for all resamples (w K w), a block of rows at a time. Pairs of a clip with its
    copy in a resample are left out, like pairs of a clip with itself.

    Args:
        x: features of generated clips.
        y: features of real clips.
        x_counts: how often each row of x is drawn, [R, N].
        y_counts: the same of y, [R, M].
        bandwidth: σ of all resamples; None: `median_distance(y)`.

    Raises as `kernel_distance`.
    """
    a, b = centred_pair(x, y)
    sigma = median_distance(b) if bandwidth is None else bandwidth
    if not sigma > 0:
        raise NumericError("KAD: the bandwidth is 0, as most real clips have the same features")
    gamma = 1 / (2 * sigma**2 + EPS)
    within = [_within(v, w, gamma) for v, w in ((a, x_counts), (b, y_counts))]
    across = _across(a, b, x_counts, y_counts, gamma) / (x_counts.sum(axis=1) * y_counts.sum(axis=1))
    return np.asarray(SCALE * (within[0] + within[1] - 2 * across))


def median_distance(y: Array) -> float:
    """Return the median distance between two rows of y [M, d]; the lower one of an even number, as in kadtk.

    Exact without holding all distances: they are counted in bins, refined until that of the median has few.

    Raises:
        UsageError: fewer than two rows.
        NumericError: a feature is not finite.
    """
    b, _ = centred_pair(y, y)
    rank = (len(b) * (len(b) - 1) // 2 - 1) // 2
    low, high = 0.0, 2 * float(np.sqrt(np.einsum("md,md->m", b, b).max())) + 1e-300
    while True:
        below, found = 0, np.zeros(_BINS, np.int64)
        for distances in _pairs(b):
            below += int((distances < low).sum())
            counted, edges = np.histogram(distances, _BINS, (low, high))
            found += counted
        place = min(int(np.searchsorted(below + np.cumsum(found), rank, side="right")), _BINS - 1)
        before = below + int(found[:place].sum())
        low, high = float(edges[place]), float(edges[place + 1])
        if found[place] <= _FEW:
            break
        if high - low <= 1e-12 * high:
            return low
    values = np.concatenate([part[(part >= low) & (part <= high)] for part in _pairs(b)])
    return float(np.partition(values, rank - before)[rank - before])


def _pairs(points: Points) -> Iterator[Points]:
    """Yield the distances of all pairs of rows, each pair once, in parts."""
    for rows, block in pairwise.squared(points, points):
        upper = np.arange(len(points)) > np.arange(rows.start, rows.stop)[:, None]
        yield np.sqrt(block[upper])


def _within(points: Points, counts: Weights, gamma: float) -> Points:
    """Return the mean kernel of two different rows in each resample."""
    weights = counts.astype(np.float64)
    total = np.zeros(len(weights))
    for rows, block in pairwise.squared(points, points):
        kernel = np.exp(-gamma * block)
        kernel[np.arange(len(kernel)), np.arange(rows.start, rows.stop)] = 0
        total += np.einsum("rn,rn->r", weights[:, rows] @ kernel, weights)
    pairs = weights.sum(axis=1) ** 2 - (weights**2).sum(axis=1)
    return total / np.where(pairs > 0, pairs, np.nan)


def _across(a: Points, b: Points, a_counts: Weights, b_counts: Weights, gamma: float) -> Points:
    total = np.zeros(len(a_counts))
    for rows, block in pairwise.squared(a, b):
        total += np.einsum("rn,rn->r", a_counts[:, rows] @ np.exp(-gamma * block), b_counts)
    return total
