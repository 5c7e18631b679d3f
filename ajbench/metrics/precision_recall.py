"""Precision, recall, density and coverage of generated clips by nearest neighbours, in float64."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ajbench.core.device import Array
from ajbench.core.errors import UsageError
from ajbench.metrics import pairwise

K = 5


@dataclass(frozen=True)
class Neighbours:
    """What each clip is to the other set; the means over clips are the four measures.

    A clip's ball is all that is nearer to it than its k-th nearest neighbour in its own set.

    Attributes:
        precision: whether a generated clip lies in the ball of a real one, float64 [N] of 0 and 1.
        density: in how many balls of real clips a generated one lies, divided by k, [N].
        recall: whether a real clip lies in the ball of a generated one, [M].
        coverage: whether the ball of a real clip has a generated one in it, [M].
    """

    precision: NDArray[np.float64]
    density: NDArray[np.float64]
    recall: NDArray[np.float64]
    coverage: NDArray[np.float64]


def neighbours(x: Array, y: Array, k: int = K) -> Neighbours:
    """Return how generated x [N, d] and real y [M, d] lie to each other.

    Precision and recall of Kynkäänniemi et al. 2019, density and coverage of Naeem et al. 2020, by Euclidean
    distances; a block of distances is held at a time.

    Args:
        x: features of generated clips.
        y: features of real clips.
        k: neighbours; 5 is the default of Naeem's own `prdc`.

    Raises:
        UsageError: the two are not [clips, dimension] of one dimension, or a set has not more than k clips.
        NumericError: a feature is not finite.
    """
    a, b = pairwise.points(x, y)
    if k < 1 or min(len(a), len(b)) <= k:
        raise UsageError(
            f"precision, recall, density and coverage by {k} neighbours of {len(a)} generated and {len(b)} "
            f"real clips: more than {max(k, 1)} are needed in each"
        )
    mine, theirs = _radii(a, k), _radii(b, k)
    density, recalled = np.zeros(len(a)), np.zeros(len(b), bool)
    closest = np.full(len(b), np.inf)
    for rows, block in pairwise.squared(a, b):
        density[rows] = (block < theirs).sum(axis=1) / k
        recalled |= (block < mine[rows, None]).any(axis=0)
        closest = np.minimum(closest, block.min(axis=0))
    precision, coverage = (density > 0).astype(float), (closest < theirs).astype(float)
    return Neighbours(precision, density, recalled.astype(float), coverage)


def _radii(points: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Squared distance of each row to its k-th nearest other."""
    radii = np.empty(len(points))
    for rows, block in pairwise.squared(points, points):
        block[np.arange(len(block)), np.arange(rows.start, rows.stop)] = np.inf
        radii[rows] = np.partition(block, k - 1, axis=1)[:, k - 1]
    return radii
