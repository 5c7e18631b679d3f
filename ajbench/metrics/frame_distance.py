"""Fréchet distance of the frames of all clips together (FAD), read clip by clip, in float64."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from ajbench.core.errors import NumericError, UsageError
from ajbench.metrics.distribution import SMALL, Points, distance_of_factors, limited_threads

Frames = Sequence[NDArray[np.floating]]  # of each clip, [k, d]
Counts = NDArray[np.int64]
# Numbers held at once: of frames, of their products, and of the covariances of resamples; 64 MB each.
_HELD = 8_000_000


def pooled_distance(x: Frames, y: Frames) -> float:
    """Return `frechet_distance` of the frames of all clips of x and of y.

    Both are read twice, block by block: for the means, and for the triangular factors of the covariances,
    which lose no digits where one is singular.

    Raises:
        UsageError: no clip, fewer than two frames, or different dimensions.
        NumericError: a feature is not finite.
    """
    centre, sides = _centre(x, y), []
    with limited_threads(len(centre) <= SMALL):
        for kind, frames in (("generated", x), ("real", y)):
            total, n = np.zeros_like(centre), 0
            for _, rows in _blocks(frames, centre, kind):
                total += rows.sum(axis=0)
                n += len(rows)
            if n < 2:
                raise UsageError(f"FD of {n} frame{'s' if n != 1 else ''}: each set needs at least two")
            mean, factor = total / n, np.zeros((0, len(centre)))
            for _, rows in _blocks(frames, centre + mean, kind):
                factor = np.asarray(np.linalg.qr(np.concatenate([factor, rows]), mode="r"))
            sides.append((mean, factor / np.sqrt(n - 1)))
        return distance_of_factors(sides[0][0] - sides[1][0], sides[0][1], sides[1][1])


def pooled_draws(x: Frames, y: Frames, x_counts: Counts, y_counts: Counts) -> Points:
    """Return the Fréchet distance of the frames of resamples of clips, float64 [R].

    A clip is drawn with all its frames. Equal to `pooled_distance` of the repeated clips; each clip's sums
    and products are computed once, so that a resample costs as much as it has clips.

    Args:
        x: generated clips.
        y: real clips.
        x_counts: how often each generated clip is drawn, [R, N].
        y_counts: how often each real clip is drawn, [R, M].

    Raises:
        UsageError: no clip, or different dimensions.
        NumericError: a feature is not finite.
    """
    centre, values = _centre(x, y), np.empty(len(x_counts))
    step = max(1, _HELD // len(centre) ** 2)
    with limited_threads(len(centre) <= SMALL):
        for start in range(0, len(values), step):
            some = slice(start, start + step)
            sides = (
                _moments(x, centre, x_counts[some], "generated"),
                _moments(y, centre, y_counts[some], "real"),
            )
            values[some] = [_gaussian_distance(*mine, *other) for mine, other in zip(*sides, strict=True)]
    return values


def _centre(x: Frames, y: Frames) -> Points:
    """Return a point among the frames: distances from it keep more digits than those from zero."""
    widths = {one.shape[1] for one in (*x, *y)}
    if not len(x) or not len(y) or len(widths) != 1:
        raise UsageError(
            f"frames of {len(x)} and {len(y)} clips in {', '.join(map(str, sorted(widths))) or 'no'} "
            "dimensions; both sets need clips, and the same extractor"
        )
    centre = np.asarray(y[0].mean(axis=0, dtype=np.float64))
    if not np.isfinite(centre).all():
        raise NumericError("features have a value that is not finite, first in real clip 0")
    return centre


def _blocks(frames: Frames, centre: Points, kind: str) -> Iterator[tuple[list[tuple[int, int]], Points]]:
    """Yield the frames less the centre [rows, d], and the clip and number of the rows of each of its parts.

    Raises:
        NumericError: a feature is not finite.
    """
    most = max(1, _HELD // len(centre))
    parts: list[tuple[int, int]] = []
    held: list[NDArray[np.floating]] = []

    def block() -> tuple[list[tuple[int, int]], Points]:
        rows = np.concatenate(held).astype(np.float64) - centre
        if not (finite := np.isfinite(rows).all(axis=1)).all():
            owners = np.repeat([clip for clip, _ in parts], [n for _, n in parts])
            raise NumericError(
                f"features have a value that is not finite, first in {kind} clip {owners[~finite][0]}"
            )
        return parts, rows

    for clip, own in enumerate(frames):
        for start in range(0, len(own), most):
            piece = own[start : start + most]
            if held and sum(map(len, held)) + len(piece) > most:
                yield block()
                parts, held = [], []
            parts.append((clip, len(piece)))
            held.append(piece)
    if held:
        yield block()


def _moments(frames: Frames, centre: Points, counts: Counts, kind: str) -> Iterator[tuple[Points, Points]]:
    """Yield mean [d], less the centre, and covariance [d, d] of the frames of each resample."""
    d = len(centre)
    sums, products = np.zeros((len(counts), d)), np.zeros((len(counts), d * d))
    for parts, rows in _blocks(frames, centre, kind):
        edges = np.cumsum([0, *(n for _, n in parts)])
        step = max(1, _HELD // d**2)
        for start in range(0, len(parts), step):
            some = [rows[edges[k] : edges[k + 1]] for k in range(start, min(start + step, len(parts)))]
            drawn = counts[:, [clip for clip, _ in parts[start : start + step]]].astype(np.float64)
            sums += drawn @ np.stack([part.sum(axis=0) for part in some])
            products += drawn @ np.stack([(part.T @ part).reshape(-1) for part in some])
    totals = counts @ np.array([len(own) for own in frames], np.float64)
    for total, first, second in zip(totals, sums, products, strict=True):
        mean = first / total
        yield mean, (second.reshape(d, d) - total * np.outer(mean, mean)) / (total - 1)


def _gaussian_distance(
    mean: Points, covariance: Points, other_mean: Points, other_covariance: Points
) -> float:
    """Return the Fréchet distance of two Gaussians."""
    squares, vectors = linalg.eigh(covariance)
    root = vectors * np.sqrt(squares.clip(0))
    trace = np.sqrt(linalg.eigvalsh(root.T @ other_covariance @ root).clip(0)).sum()
    gap = mean - other_mean
    return float(gap @ gap + np.trace(covariance) + np.trace(other_covariance) - 2 * trace)
