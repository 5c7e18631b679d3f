"""Precision, recall, density and coverage of generated clips by nearest neighbours, in float64."""

from dataclasses import dataclass

import numpy as np

from ajbench.core.device import Array, to_numpy
from ajbench.core.errors import UsageError
from ajbench.metrics import pairwise
from ajbench.metrics.distribution import Points, centred_pair

K = 5


@dataclass(frozen=True)
class Neighbours:
    """The four measures clip by clip; their means are the published values.

    The ball of a clip holds all points nearer to it than its k-th nearest neighbour in its own set, and its
    centre: the ball is open, as in Naeem's `prdc`, but a clip with k or more copies still has one.

    Attributes:
        precision: whether a generated clip lies in the ball of a real one, float64 [N] of 0 and 1.
        density: number of balls of real clips that a generated clip lies in, divided by k, [N].
        recall: whether a real clip lies in the ball of a generated one, [M].
        coverage: whether the ball of a real clip holds a generated one, [M].
    """

    precision: Points
    density: Points
    recall: Points
    coverage: Points


def neighbours(x: Array, y: Array, k: int = K) -> Neighbours:
    """Return the four measures of generated x [N, d] and real y [M, d], in memory for one block of distances.

    Precision and recall of Kynkäänniemi et al. 2019, density and coverage of Naeem et al. 2020, by Euclidean
    distances.

    Args:
        x: features of generated clips.
        y: features of real clips.
        k: neighbours; 5 is the default of `prdc`.

    Raises:
        UsageError: not [clips, dimension], different dimensions, or a set of k clips or fewer.
        NumericError: a feature is not finite.
    """
    a, b = centred_pair(x, y)
    if k < 1 or min(len(a), len(b)) <= k:
        raise UsageError(
            f"precision, recall, density and coverage with k={k} of {len(a)} generated and {len(b)} real "
            f"clips: each set needs more than {max(k, 1)}"
        )
    x, y = to_numpy(x), to_numpy(y)
    radii_a, radii_b = _radii(x, a, k), _radii(y, b, k)
    density = np.zeros(len(a))
    recall, coverage = np.zeros(len(b), bool), np.zeros(len(b), bool)
    slack = pairwise.slack(a, b)
    for rows, block in pairwise.squared(a, b):
        real = np.broadcast_to(radii_b, block.shape)
        generated = np.broadcast_to(radii_a[rows, None], block.shape)
        in_real, in_generated = block < real, block < generated
        # A distance within rounding of a radius or of 0 is computed again.
        close = (abs(block - real) <= slack) | (abs(block - generated) <= slack) | (block <= slack)
        i, j = close.nonzero()
        distance = pairwise.exact(x[rows], y, i, j)
        in_real[i, j] = (distance < real[i, j]) | (distance == 0)
        in_generated[i, j] = (distance < generated[i, j]) | (distance == 0)
        density[rows] = in_real.sum(axis=1) / k
        recall |= in_generated.any(axis=0)
        coverage |= in_real.any(axis=0)
    return Neighbours((density > 0).astype(float), density, recall.astype(float), coverage.astype(float))


def _radii(features: np.ndarray, points: Points, k: int) -> Points:
    """Return the squared distance of each row of features (`points`: centred) to its k-th nearest other."""
    radii = np.empty(len(points))
    margin = 2 * pairwise.slack(points, points)
    for rows, block in pairwise.squared(points, points):
        block[np.arange(len(block)), np.arange(rows.start, rows.stop)] = np.inf
        limit = np.partition(block, k - 1, axis=1)[:, k - 1]
        # Those that can be among the k nearest, whatever the rounding.
        i, j = np.nonzero(block <= limit[:, None] + margin)
        distance = pairwise.exact(features[rows], features, i, j)
        ordered = distance[np.lexsort((distance, i))]
        radii[rows] = ordered[np.searchsorted(i, np.arange(len(block))) + k - 1]
    return radii
