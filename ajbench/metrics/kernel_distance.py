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

Integers = NDArray[np.int64]


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
    of_x, of_y = (np.zeros(len(v), np.int64) for v in (x, y))  # one group, drawn once
    once = np.ones((1, 1), np.int64)
    return float(kernel_draws(x, y, of_x, of_y, once, once, bandwidth)[0])


def kernel_draws(
    x: Array,
    y: Array,
    x_groups: Integers,
    y_groups: Integers,
    x_counts: Integers,
    y_counts: Integers,
    bandwidth: float | None = None,
) -> Points:
    """Return the kernel distance of resamples of groups of x [N, d] and y [M, d], float64 [R].

    Kernels are computed once, a block of rows at a time, and summed over pairs of groups. Pairs of a clip
    with its copy in a resample are left out, like pairs of a clip with itself.

    Args:
        x: features of generated clips.
        y: features of real clips.
        x_groups: group of each row of x, whole numbers below G, [N].
        y_groups: the same of y, below H, [M].
        x_counts: how often each group of x is drawn, [R, G].
        y_counts: the same of y, [R, H].
        bandwidth: σ of all resamples; None: `median_distance(y)`.

    Raises as `kernel_distance`.
    """
    a, b = centred_pair(x, y)
    sigma = median_distance(b) if bandwidth is None else bandwidth
    if not sigma > 0:
        raise NumericError("KAD: the bandwidth is 0, as most real clips have the same features")
    gamma = 1 / (2 * sigma**2 + EPS)
    total = np.zeros(len(x_counts))
    sides = []
    for points, groups, counts in ((a, x_groups, x_counts), (b, y_groups, y_counts)):
        order, drawn = np.argsort(groups, kind="stable"), counts.astype(np.float64)
        points, groups = points[order], groups[order]
        sums, size = _sums(points, points, groups, groups, gamma, itself=False), np.bincount(groups)
        pairs = (drawn @ size) ** 2 - drawn**2 @ size
        total += np.einsum("rg,rg->r", drawn @ sums, drawn) / np.where(pairs > 0, pairs, np.nan)
        sides.append((points, groups, drawn, drawn @ size))
    (a, x_groups, ours, n), (b, y_groups, theirs, m) = sides
    across = np.einsum("rh,rh->r", ours @ _sums(a, b, x_groups, y_groups, gamma), theirs) / (n * m)
    return np.asarray(SCALE * (total - 2 * across))


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


def _sums(
    a: Points, b: Points, a_groups: Integers, b_groups: Integers, gamma: float, *, itself: bool = True
) -> Points:
    """Return the sums of kernels over pairs of rows by their groups, [G, H], of rows in order of groups.

    Without `itself`, row i of a and row i of b are no pair.
    """
    found = np.zeros((int(a_groups[-1]) + 1, int(b_groups[-1]) + 1))
    columns, first_columns = np.unique(b_groups, return_index=True)
    for rows, block in pairwise.squared(a, b):
        kernel = np.exp(-gamma * block)
        if not itself:
            kernel[np.arange(len(kernel)), np.arange(rows.start, rows.stop)] = 0
        present, first_rows = np.unique(a_groups[rows], return_index=True)
        sums = np.add.reduceat(np.add.reduceat(kernel, first_columns, axis=1), first_rows, axis=0)
        found[np.ix_(present, columns)] += sums
    return found
