"""Feature matrices, checked, and Euclidean distances between the rows of two of them, in float64."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ajbench.core.device import Array, to_numpy
from ajbench.core.errors import NumericError, UsageError

Points = NDArray[np.float64]
# Distances held at once: 32 MB.
BLOCK = 4_000_000


def checked(values: Array, what: str, at_least: int = 2) -> Points:
    """Return features or logits [N, d] as a float64 copy.

    Raises:
        UsageError: not [clips, dimension], or fewer than `at_least` clips.
        NumericError: a value is not finite.
    """
    found = to_numpy(values)
    if found.ndim != 2 or len(found) < at_least:
        clips = f"{at_least} clip{'s' if at_least > 1 else ''}"
        raise UsageError(f"{what} must be [clips, dimension] with at least {clips}, got {found.shape}")
    finite = np.isfinite(found).all(axis=1)
    if not finite.all():
        raise NumericError(f"{what} has a value that is not finite, first in row {finite.argmin()}")
    return found.astype(np.float64)


def pair(x: Array, y: Array) -> tuple[Points, Points]:
    """Return features x [N, d] and y [M, d] as float64 copies.

    Raises:
        UsageError: different dimensions, or fewer than 2 clips in a set.
        NumericError: a value is not finite.
    """
    a, b = checked(x, "x"), checked(y, "y")
    if a.shape[1] != b.shape[1]:
        raise UsageError(
            f"features have {a.shape[1]} and {b.shape[1]} dimensions; both sets need the same extractor"
        )
    return a, b


def centred_pair(x: Array, y: Array) -> tuple[Points, Points]:
    """Return `pair`, both sets less the mean of y: distances then keep more digits."""
    a, b = pair(x, y)
    centre = b.mean(axis=0)
    a -= centre
    b -= centre
    return a, b


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
