"""Fréchet distance of frames pooled over clips, where clips are drawn with all their frames."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from ajbench.core.device import Array
from ajbench.metrics import pairwise

# Numbers held at once in products of frames and in covariances of resamples: 64 MB.
_HELD = 8_000_000


def pooled_draws(
    x: Array,
    x_clips: NDArray[np.int64],
    y: Array,
    y_clips: NDArray[np.int64],
    x_counts: NDArray[np.int64],
    y_counts: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return the Fréchet distance of all frames of the drawn clips, float64 [R].

    Equal to `frechet_distance` of the repeated frames. Each clip's sums and products are taken once, so that
    a resample costs as much as it has clips, however many frames they have.

    Args:
        x: frames of generated clips [rows, d].
        x_clips: of which clip each row is, [rows].
        y: frames of real clips.
        y_clips: the same of y.
        x_counts: how often each generated clip is drawn, [R, N].
        y_counts: how often each real one, [R, M].

    Raises:
        UsageError: x and y are not [rows, dimension] of one dimension.
        NumericError: a feature is not finite.
    """
    a, b = pairwise.points(x, y)
    values = np.empty(len(x_counts))
    step = max(1, _HELD // a.shape[1] ** 2)
    for start in range(0, len(values), step):
        some = slice(start, start + step)
        sides = (_moments(a, x_clips, x_counts[some]), _moments(b, y_clips, y_counts[some]))
        values[some] = [_distance(*mine, *theirs) for mine, theirs in zip(*sides, strict=True)]
    return values


def _moments(
    rows: NDArray[np.float64], clips: NDArray[np.int64], counts: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield mean [d] and covariance [d, d] of the rows of each resample."""
    order = np.argsort(clips, kind="stable")
    edges = np.searchsorted(clips[order], np.arange(counts.shape[1] + 1))
    d = rows.shape[1]
    weights = counts.astype(np.float64)
    sums, products = np.zeros((len(counts), d)), np.zeros((len(counts), d * d))
    step = max(1, _HELD // d**2)
    for start in range(0, counts.shape[1], step):
        numbers = range(start, min(start + step, counts.shape[1]))
        parts = [rows[order[edges[n] : edges[n + 1]]] for n in numbers]
        drawn = weights[:, numbers.start : numbers.stop]
        sums += drawn @ np.stack([part.sum(axis=0) for part in parts])
        products += drawn @ np.stack([(part.T @ part).reshape(-1) for part in parts])
    for total, first, second in zip(weights @ np.diff(edges), sums, products, strict=True):
        mean = first / total
        yield mean, (second.reshape(d, d) - total * np.outer(mean, mean)) / (total - 1)


def _distance(
    mean: NDArray[np.float64],
    covariance: NDArray[np.float64],
    other_mean: NDArray[np.float64],
    other_covariance: NDArray[np.float64],
) -> float:
    squares, vectors = linalg.eigh(covariance)
    root = vectors * np.sqrt(squares.clip(0))
    trace = np.sqrt(linalg.eigvalsh(root.T @ other_covariance @ root).clip(0)).sum()
    gap = mean - other_mean
    return float(gap @ gap + np.trace(covariance) + np.trace(other_covariance) - 2 * trace)
