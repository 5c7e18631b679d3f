"""FD as a function of the number of generated clips n, and FD∞, its linear extrapolation to 1/n = 0."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ajbench.core.console import counted
from ajbench.core.errors import UsageError
from ajbench.metrics.distribution import Points

POINTS, DRAWS = 15, 4
MIN_CLIPS = 8
Distances = Callable[[NDArray[np.int64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Line:
    """Distances of subsets, and the least-squares line through them over 1/n.

    Attributes:
        sizes: clips of each subset, int64 [P].
        values: distances, float64 [P, D].
        limit: the line's value at 1/n = 0.
        slope: the line's slope.
    """

    sizes: NDArray[np.int64]
    values: NDArray[np.float64]
    limit: float
    slope: float


def line(
    distances: Distances, n: int, sizes: Sequence[int] | None = None, draws: int = DRAWS, seed: int = 0
) -> Line:
    """Measure subsets of n generated clips, drawn without replacement, and fit a line to them.

    As Chong & Forsyth 2020 (FID∞) and fadtk: subsets of the generated clips against all real ones, ordinary
    least squares over 1/n. The bias due to the number of real clips remains.

    Args:
        distances: subsets as 0 and 1 for each clip [S, n] → distances [S].
        n: number of clips.
        sizes: of subsets; None: `linear_sizes(n)`.
        draws: subsets of each size.
        seed: with its size and its number, determines a subset.

    Raises:
        UsageError: fewer than 8 clips, or fewer than two sizes.
    """
    if n < MIN_CLIPS:
        raise UsageError(f"FD∞ of {counted(n, 'clip')}: at least {MIN_CLIPS} are needed")
    numbers = np.array(linear_sizes(n) if sizes is None else sizes, np.int64)
    if len(set(numbers.tolist())) < 2:
        raise UsageError(f"FD∞ from subsets of {', '.join(map(str, numbers))} clips: give at least two sizes")
    drawn = [(size, draw) for size in numbers.tolist() for draw in range(draws if size < n else 1)]
    subsets = np.zeros((len(drawn), n), np.int64)
    for subset, (size, draw) in zip(subsets, drawn, strict=True):
        subset[np.random.default_rng([seed, size, draw]).permutation(n)[:size]] = 1
    found = dict(zip(drawn, distances(subsets), strict=True))
    # All clips are one subset only.
    rows = [[found.get((size, d), found[size, 0]) for d in range(draws)] for size in numbers.tolist()]
    values = np.array(rows)
    limit, slope = _fit(numbers, values.mean(axis=1))
    return Line(numbers, values, float(limit), float(slope))


def linear_sizes(n: int, points: int = POINTS) -> list[int]:
    """Return evenly spaced sizes from a quarter of n to n.

    Smaller subsets, such as the tenth of Chong & Forsyth, are not on the line if clips are few for the
    dimension.
    """
    return sorted(set(np.linspace(max(n // 4, 2), n, points).round().astype(int).tolist()))


def doubling_sizes(n: int, first: int = 50) -> list[int]:
    """Return 50, 100, 200, … below n, then n; the first is smaller if there are few clips."""
    start = min(first, max(2, n // 8))
    sizes = [start * 2**k for k in range(64) if start * 2**k < n]
    return [*sizes, n]


def _fit(sizes: NDArray[np.int64], values: Points) -> tuple[Points, Points]:
    """Return limit and slope of the lines over 1/n fitted to values [..., P]."""
    x = 1 / sizes
    centred = x - x.mean()
    slope = values @ centred / (centred @ centred)
    return values.mean(axis=-1) - slope * x.mean(), slope
