"""Fréchet distance, inception score and KL divergence from features or logits, in float64."""

import contextlib
import itertools
import warnings
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.linalg import blas, lapack
from scipy.special import expit, log_expit, log_softmax, softmax, xlogy
from threadpoolctl import threadpool_limits

from ajbench.core.console import counted
from ajbench.core.device import Array, to_numpy
from ajbench.core.errors import NumericError, UsageError

Points = NDArray[np.float64]
Integers = NDArray[np.int64]
Link = Literal["softmax", "sigmoid"]
Direction = Literal["ref||gen", "gen||ref"]
# Largest relative error of the trace by rounding of small eigenvalues; above it, the slower way is taken.
_TOLERANCE = 1e-11
_TOLERANCE_OF_DRAWS = 1e-7  # of resamples, from which intervals are made
_NO_VARIANCE = 1e-12  # of the direction with the largest
_ROUNDING = 1e-13  # of a Fréchet distance, relative to the traces of the covariances
SMALL = 512  # dimensions of the matrices of a resample


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


def frechet_distance(x: Array, y: Array) -> float:
    """Return the Fréchet distance of Gaussians fitted to x [N, d] and y [M, d] (covariances over N−1, M−1).

    ‖μx−μy‖² + tr Σx + tr Σy − 2 tr (Σx Σy)^½, without a matrix square root. With A = x/√(N−1) and
    B = y/√(M−1), both centred, the last trace is the nuclear norm of A Bᵀ. Where both sets have more clips
    than dimensions it is Σ √λ(U Σy Uᵀ) with Σx = Uᵀ U by Cholesky; where a covariance is (nearly) singular,
    the nuclear norm of the product of QR factors.

    Raises:
        UsageError: not [clips, dimension], different dimensions, or fewer than two clips.
        NumericError: a feature is not finite.

    Warns:
        UserWarning: fewer clips than dimensions, where FD depends strongly on the number of clips.
    """
    a, b = pair(x, y)
    dimension, fewest = a.shape[1], min(len(a), len(b))
    if fewest < dimension:
        warnings.warn(
            f"FD of {fewest} clips in {dimension} dimensions: covariances are singular and the value depends "
            "on the number of clips; compare only with values of the same n",
            stacklevel=2,
        )
    gap = a.mean(axis=0) - b.mean(axis=0)
    for v in (a, b):  # copies
        v -= v.mean(axis=0)
        v *= 1 / np.sqrt(len(v) - 1)
    return distance_of_factors(gap, a, b)


def distance_of_factors(gap: Points, a: Points, b: Points) -> float:
    """Return the Fréchet distance of Gaussians with the covariances aᵀa and bᵀb, whose means differ by gap.

    Args:
        gap: [d].
        a: [N, d].
        b: [M, d].
    """
    traces = np.vdot(a, a) + np.vdot(b, b)
    distance = float(gap @ gap + traces - 2.0 * _trace_root(a, b))
    return distance if distance > _ROUNDING * traces else 0.0  # of a set with itself


def frechet_draws(x: Array, y: Array, x_counts: np.ndarray, y_counts: np.ndarray) -> Points:
    """Return the Fréchet distance of resamples of x [N, d] and y [M, d], float64 [R].

    Equal to `frechet_distance` of the repeated rows, without repeating them: a row that is drawn k times is
    one row times √k, and with fewer clips than dimensions all resamples share the products of x and y. With
    more, the trace has a relative error of at most 1e-7, estimated from its eigenvalues.

    Args:
        x: features.
        y: features.
        x_counts: how often each row of x is drawn, whole numbers [R, N].
        y_counts: the same of y, [R, M].
    """
    a, b = centred_pair(x, y)
    means = [counts @ v / counts.sum(axis=1, keepdims=True) for counts, v in ((x_counts, a), (y_counts, b))]
    weights = [counts / (counts.sum(axis=1, keepdims=True) - 1) for counts in (x_counts, y_counts)]
    values = np.sum((means[0] - means[1]) ** 2, axis=1)
    for v, w, mean in zip((a, b), weights, means, strict=True):
        values += w @ np.einsum("nd,nd->n", v, v) - w.sum(axis=1) * np.einsum("rd,rd->r", mean, mean)
    few = min(len(a), len(b)) <= a.shape[1]
    if few:
        products, rows, columns = a @ b.T, a @ means[1].T, b @ means[0].T
    else:
        basis = _spanned(a, b)
        a, b, means = a @ basis, b @ basis, [mean @ basis for mean in means]
    with limited_threads(few or a.shape[1] <= SMALL):
        for r, (v, w) in enumerate(zip(*weights, strict=True)):
            i, j = np.flatnonzero(v), np.flatnonzero(w)
            scale = np.sqrt(v[i])[:, None], np.sqrt(w[j])[:, None]
            if few:
                shift = rows[i, r, None] + columns[j, r] - means[0][r] @ means[1][r]
                centred = scale[0] * (products[np.ix_(i, j)] - shift) * scale[1].T
                root = float(np.linalg.svd(centred, compute_uv=False).sum())
            else:
                centred = scale[0] * (a[i] - means[0][r]), scale[1] * (b[j] - means[1][r])
                root = _trace_root(*centred, _TOLERANCE_OF_DRAWS)
            values[r] -= 2.0 * root
    return np.asarray(values)


def limited_threads(small: bool) -> contextlib.AbstractContextManager[object]:
    """Let BLAS use one thread for many small matrices: two take twice as long, on busy cores 50 times."""
    return threadpool_limits(1, "blas") if small else contextlib.nullcontext()


def inception_score(logits: Array, splits: int = 10, seed: int = 2020) -> tuple[float, float]:
    """Return mean and standard deviation over splits of exp(mean KL(p(class|clip) ‖ mean of the split)).

    As in audioldm_eval and torch-fidelity: softmax of logits [N, C] in float64, shuffled once by
    `RandomState(seed)`.

    Raises:
        UsageError: fewer clips than splits.
    """
    z = checked(logits, "logits")
    if not 1 <= splits <= len(z):
        raise UsageError(
            f"inception score of {counted(len(z), 'clip')} in {counted(splits, 'split')}: each needs one"
        )
    (scores,) = _split_scores(z, np.ones((1, len(z))), splits, seed)
    return float(np.mean(scores)), float(np.std(scores))


def inception_subsets(logits: Array, kept: Integers, splits: int = 10, seed: int = 2020) -> Points:
    """Return the inception score of subsets of logits [N, C], float64 [R].

    Every clip stays in its split of `inception_score`; a split without a clip is left out of the mean.

    Args:
        logits: of all clips.
        kept: 0 or 1 for each clip, [R, N].
        splits: of all clips.
        seed: of the shuffle.
    """
    return np.asarray(np.nanmean(_split_scores(checked(logits, "logits"), kept, splits, seed), axis=1))


def _split_scores(z: Points, kept: np.ndarray, splits: int, seed: int) -> Points:
    """Return the score of each split of each subset, [R, splits]; NaN without a clip."""
    p = softmax(z, axis=1)
    entropy = np.sum(p * log_softmax(z, axis=1), axis=1)  # Σ p log p
    order = np.random.RandomState(seed).permutation(len(z))
    scores = []
    for start, stop in itertools.pairwise(i * len(z) // splits for i in range(splits + 1)):
        part = order[start:stop]
        weights = kept[:, part] / np.where(some := kept[:, part].sum(axis=1), some, np.nan)[:, None]
        mean = weights @ p[part]
        scores.append(np.exp(weights @ entropy[part] - xlogy(mean, mean).sum(axis=1)))
    return np.stack(scores, axis=1)


def kl_divergence(
    gen_logits: Array,
    ref_logits: Array,
    link: Link = "softmax",
    direction: Direction = "ref||gen",
    eps: float = 1e-6,
) -> float:
    """Return the mean of `kl_of_pairs`; same arguments and errors."""
    return float(kl_of_pairs(gen_logits, ref_logits, link, direction, eps).mean())


def kl_of_pairs(
    gen_logits: Array,
    ref_logits: Array,
    link: Link = "softmax",
    direction: Direction = "ref||gen",
    eps: float = 1e-6,
) -> NDArray[np.float64]:
    """Return Σ_c p (log p − log(q + eps)) of each pair, [N], from logits [N, C] whose rows are paired.

    "ref||gen" (p reference, q generated) is the KL of audioldm_eval, and with eps 0 that of av-benchmark;
    "gen||ref" that of stable-audio-metrics. With the sigmoid link, classes are summed without their 1−p
    terms, as in kl_sigmoid of the first two: the value can be negative.

    Raises:
        UsageError: shapes differ, or link or direction is unknown.
        NumericError: a logit is not finite.
    """
    gen, ref = checked(gen_logits, "gen_logits", 1), checked(ref_logits, "ref_logits", 1)
    if gen.shape != ref.shape:
        raise UsageError(f"KL pairs clips by row: gen_logits {gen.shape} and ref_logits {ref.shape} differ")
    if link not in ("softmax", "sigmoid"):
        raise UsageError(f"link {link!r} is unknown; allowed: softmax, sigmoid")
    if direction not in ("ref||gen", "gen||ref"):
        raise UsageError(f"direction {direction!r} is unknown; allowed: ref||gen, gen||ref")
    z_p, z_q = (ref, gen) if direction == "ref||gen" else (gen, ref)
    p, q = (softmax(z, axis=1) if link == "softmax" else expit(z) for z in (z_p, z_q))
    if eps:
        return np.asarray(np.sum(xlogy(p, p) - p * np.log(q + eps), axis=1))
    logs = (log_softmax(z, axis=1) if link == "softmax" else log_expit(z) for z in (z_p, z_q))
    return np.asarray(np.sum(p * np.subtract(*logs), axis=1))


def _spanned(a: Points, b: Points) -> Points:
    """Return an orthonormal basis of the directions in which the rows of a or b [N, d] vary, [d, k].

    Features after a layer norm vary in one direction less than they have dimensions, so that every covariance
    is singular. What is left out adds less than 1e-12 of the largest variance to a trace.
    """
    covariances = (np.atleast_2d(np.cov(points, rowvar=False)) for points in (a, b))
    variances, directions = np.linalg.eigh(sum(covariances))
    found: Points = directions[:, variances >= _NO_VARIANCE * variances[-1]]  # all, if none varies
    return found


def _trace_root(a: np.ndarray, b: np.ndarray, tolerance: float = _TOLERANCE) -> float:
    """Return the trace of (aᵀa bᵀb)^½ of centred, scaled a [N, d] and b [M, d]."""
    dimension = a.shape[1]
    if min(len(a), len(b)) > dimension:
        # Fortran order, hence the transpose; only upper triangles are computed and read.
        mine, theirs = (blas.dsyrk(1.0, v.T) for v in (a, b))
        upper, singular = lapack.dpotrf(mine, overwrite_a=True, clean=False)
        if not singular:
            product, _ = lapack.dsygst(theirs, upper, itype=2, overwrite_a=True)  # U Σ Uᵀ
            squares = linalg.eigvalsh(product, lower=False, overwrite_a=True, check_finite=False, driver="ev")
            if squares[0] > 0:
                roots = np.sqrt(squares)
                rounding = np.finfo(float).eps * squares[-1] * np.sum(0.5 / roots)
                if rounding < tolerance * roots.sum():
                    return float(roots.sum())
    left, right = (np.linalg.qr(v, mode="r") if len(v) > dimension else v for v in (a, b))
    return float(np.linalg.svd(np.asarray(left) @ np.asarray(right).T, compute_uv=False).sum())
