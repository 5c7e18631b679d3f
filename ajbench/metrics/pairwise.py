"""Euclidean distances between the rows of two feature matrices, in float64."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ajbench.core.device import Array, to_numpy
from ajbench.metrics.distribution import Points, centred_pair

BLOCK = 4_000_000  # distances held at once: 32 MB


def squared(x: Points, y: Points) -> Iterator[tuple[slice, Points]]:
    """Yield squared Euclidean distances of x [N, d] to y [M, d] as (rows of x, block [b, M])."""
    step = max(1, BLOCK // len(y))
    sizes = _sizes(y)
    for start in range(0, len(x), step):
        rows = slice(start, min(start + step, len(x)))
        block = x[rows] @ y.T
        block *= -2
        # The sum of the sizes first, so that the distance of a to b is that of b to a.
        block += _sizes(x[rows])[:, None] + sizes
        yield rows, np.maximum(block, 0, out=block)


def slack(x: Points, y: Points) -> float:
    """Return a bound on the rounding error of `squared`.

    Distances that differ by less can be in either order, depending on the processor and on the block that
    they were computed in; `exact` decides which is the smaller one.
    """
    return float(4 * x.shape[1] * np.finfo(float).eps * (_sizes(x).max() + _sizes(y).max()))


def exact(x: np.ndarray, y: np.ndarray, i: NDArray[np.int64], j: NDArray[np.int64]) -> Points:
    """Return the squared distance of row i[p] of x to row j[p] of y, [P], summed over differences.

    The same two rows have the same distance in any block and in either order; equal rows have 0. Given as
    they are, not centred, float32 features have no rounding in their differences.
    """
    step = max(1, BLOCK // x.shape[1])
    parts = (slice(start, start + step) for start in range(0, len(i), step))
    found = (np.square(x[i[p]].astype(np.float64) - y[j[p]]).sum(axis=1) for p in parts)
    return np.concatenate([np.zeros(0), *found])


def nearest(x: Array, y: Array) -> tuple[NDArray[np.int64], Points]:
    """Return the nearest row of y [M, d] to each row of x [N, d], int64 [N], and its Euclidean distance [N].

    Of rows at the same distance the first is taken. Raises as `pair`.
    """
    a, b = centred_pair(x, y)
    x, y = to_numpy(x), to_numpy(y)
    index, distance = np.empty(len(a), np.int64), np.empty(len(a))
    margin = 2 * slack(a, b)
    for rows, block in squared(a, b):
        i, j = np.nonzero(block <= block.min(axis=1, keepdims=True) + margin)
        found = exact(x[rows], y, i, j)
        order = np.lexsort((j, found, i))
        first = order[np.searchsorted(i, np.arange(len(block)))]
        index[rows], distance[rows] = j[first], np.sqrt(found[first])
    return index, distance


def _sizes(points: Points) -> Points:
    return np.einsum("nd,nd->n", points, points)
