"""Distances between the points of two sets, a block of rows at a time, in float64."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ajbench.core.device import Array, to_numpy
from ajbench.core.errors import NumericError, UsageError

# Distances held at once: 32 MB.
BLOCK = 4_000_000


def points(x: Array, y: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x [N, d] and y [M, d] in float64, both moved by y's mean, so that distances keep their digits.

    Raises:
        UsageError: the two are not [clips, dimension] of one dimension and two clips at least.
        NumericError: a feature is not finite.
    """
    a, b = to_numpy(x), to_numpy(y)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise UsageError(
            f"features must be [clips, dimension] of one extractor with at least 2 clips, got {a.shape} and "
            f"{b.shape}"
        )
    for what, values in (("x", a), ("y", b)):
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            raise NumericError(f"{what} holds a value that is not finite, first in row {finite.argmin()}")
    centre = b.mean(axis=0, dtype=np.float64)
    return a - centre, b - centre


def squared(x: NDArray[np.float64], y: NDArray[np.float64]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield squared Euclidean distances of x [N, d] to y [M, d] as (rows of x, block [b, M])."""
    step = max(1, BLOCK // len(y))
    sizes = np.einsum("md,md->m", y, y)
    for start in range(0, len(x), step):
        rows = slice(start, min(start + step, len(x)))
        block = x[rows] @ y.T
        block *= -2
        # Added up first, so that a to b is as far as b to a.
        block += np.einsum("nd,nd->n", x[rows], x[rows])[:, None] + sizes
        yield rows, np.maximum(block, 0, out=block)


def nearest(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the nearest row of y [M, d] to each of x, int64 [N], and its Euclidean distance [N]."""
    index, distance = np.empty(len(x), np.int64), np.empty(len(x))
    for rows, block in squared(x, y):
        index[rows], distance[rows] = block.argmin(axis=1), np.sqrt(block.min(axis=1))
    return index, distance
