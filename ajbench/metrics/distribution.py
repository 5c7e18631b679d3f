"""Distances between sets of clips from their features or logits, in float64: FD, inception score, KL."""

import itertools
import warnings
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.special import expit, log_expit, log_softmax, softmax, xlogy

from ajbench.errors import NumericError, UsageError
from ajbench.metrics.ranking import Array, to_numpy

# Rounding of small eigenvalues may move the trace of the root by this fraction before the slower way is
# taken.
_TOLERANCE = 1e-11


def frechet_distance(x: Array, y: Array) -> float:
    """Return the Fréchet distance of Gaussians fitted to x [N, d] and y [M, d] (covariances over N−1, M−1).

    ‖μx−μy‖² + tr Σx + tr Σy − 2 tr (Σx Σy)^½ without a matrix square root: with centred A = x/√(N−1) and B =
    y/√(M−1) the last trace is the nuclear norm of A Bᵀ, and where both sets outnumber the dimension it is Σ
    √λ(Lᵀ Σy L), L the Cholesky factor of Σx; where a covariance is (nearly) singular, the nuclear norm of the
    product of QR factors.

    Raises:
        UsageError: the two are not [clips, dimension] of one dimension and two clips at least.
        NumericError: a feature is not finite.

    Warns:
        UserWarning: fewer clips than dimensions, where FD depends strongly on the number of clips.
    """
    a, b = (_checked(to_numpy(v), what) for v, what in ((x, "x"), (y, "y")))
    dimension = a.shape[1]
    if b.shape[1] != dimension:
        raise UsageError(
            f"features have {dimension} and {b.shape[1]} dimensions; both sets need the same extractor"
        )
    fewest = min(len(a), len(b))
    if fewest < dimension:
        warnings.warn(
            f"FD of {fewest} clips in {dimension} dimensions: covariances are singular and the value depends "
            "on the number of clips; compare only with values of the same n",
            stacklevel=2,
        )
    gap = a.mean(axis=0) - b.mean(axis=0)
    a = (a - a.mean(axis=0)) / np.sqrt(len(a) - 1)
    b = (b - b.mean(axis=0)) / np.sqrt(len(b) - 1)
    return float(gap @ gap + np.vdot(a, a) + np.vdot(b, b) - 2.0 * _trace_root(a, b))


def frechet_draws(x: Array, y: Array, x_counts: np.ndarray, y_counts: np.ndarray) -> NDArray[np.float64]:
    """Return the Fréchet distance of resamples of x [N, d] and y [M, d], float64 [R].

    Equal to `frechet_distance` of the repeated rows, without repeating them: a row that is drawn k times is
    one row times √k, and where clips are fewer than dimensions all resamples share the products of x and y.

    Args:
        x: features.
        y: features.
        x_counts: how often each row of x is drawn, whole numbers [R, N].
        y_counts: the same of y, [R, M].
    """
    a, b = (_checked(to_numpy(v), what) for v, what in ((x, "x"), (y, "y")))
    centre = b.mean(axis=0)  # for precision: what is shared by all rows would drown the rest
    a, b = a - centre, b - centre
    products = a @ b.T if min(len(a), len(b)) <= a.shape[1] else None
    squares = [np.einsum("nd,nd->n", v, v) for v in (a, b)]
    values = np.empty(len(x_counts))
    for r, counts in enumerate(zip(x_counts, y_counts, strict=True)):
        means = [w @ v / w.sum() for w, v in zip(counts, (a, b), strict=True)]
        weights = [w / (w.sum() - 1) for w in counts]
        spread = sum(
            w @ s - w.sum() * mean @ mean for w, s, mean in zip(weights, squares, means, strict=True)
        )
        i, j = (np.flatnonzero(w) for w in counts)
        scale = [np.sqrt(w[k])[:, None] for w, k in zip(weights, (i, j), strict=True)]
        if products is None:
            root = _trace_root(scale[0] * (a[i] - means[0]), scale[1] * (b[j] - means[1]))
        else:
            centred = (
                products[np.ix_(i, j)] - (a[i] @ means[1])[:, None] - b[j] @ means[0] + means[0] @ means[1]
            )
            root = float(linalg.svdvals(scale[0] * centred * scale[1].T, check_finite=False).sum())
        gap = means[0] - means[1]
        values[r] = gap @ gap + spread - 2.0 * root
    return values


def inception_score(logits: Array, splits: int = 10, seed: int = 2020) -> tuple[float, float]:
    """Return mean and standard deviation over splits of exp(mean KL(p(class|clip) ‖ mean of the split)).

    As audioldm_eval and torch-fidelity: softmax of logits [N, C] in float64, one shuffle by
    `RandomState(seed)`.

    Raises:
        UsageError: fewer clips than splits.
    """
    z = _checked(to_numpy(logits), "logits")
    if not 1 <= splits <= len(z):
        raise UsageError(f"inception score with {splits} splits of {len(z)} clips: each split needs a clip")
    z = z[np.random.RandomState(seed).permutation(len(z))]
    edges = [i * len(z) // splits for i in range(splits + 1)]
    p = softmax(z, axis=1)
    entropy = np.sum(p * log_softmax(z, axis=1), axis=1)
    scores = []
    for start, stop in itertools.pairwise(edges):
        mean = p[start:stop].mean(axis=0)
        scores.append(np.exp(entropy[start:stop].mean() - xlogy(mean, mean).sum()))
    return float(np.mean(scores)), float(np.std(scores))


def kl_divergence(
    gen_logits: Array,
    ref_logits: Array,
    link: Literal["softmax", "sigmoid"] = "softmax",
    direction: Literal["ref||gen", "gen||ref"] = "ref||gen",
    eps: float = 1e-6,
) -> float:
    """Return the mean of `kl_of_pairs`, whose arguments and errors it has."""
    return float(kl_of_pairs(gen_logits, ref_logits, link, direction, eps).mean())


def kl_of_pairs(
    gen_logits: Array,
    ref_logits: Array,
    link: Literal["softmax", "sigmoid"] = "softmax",
    direction: Literal["ref||gen", "gen||ref"] = "ref||gen",
    eps: float = 1e-6,
) -> NDArray[np.float64]:
    """Return Σ_c p (log p − log(q + eps)) of each pair, [N], of logits [N, C], clips paired by row.

    "ref||gen" (p reference, q generated) is audioldm_eval's KL, "gen||ref" that of stable-audio-metrics.
    av-benchmark's is "ref||gen" with eps 0. The sigmoid link sums classes without their 1−p terms, as both
    tools' kl_sigmoid: it can be negative.

    Raises:
        UsageError: shapes differ, or link or direction is unknown.
        NumericError: a logit is not finite.
    """
    gen = _checked(to_numpy(gen_logits), "gen_logits", 1)
    ref = _checked(to_numpy(ref_logits), "ref_logits", 1)
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


def _checked(values: np.ndarray, what: str, at_least: int = 2) -> np.ndarray:
    if values.ndim != 2 or len(values) < at_least:
        raise UsageError(
            f"{what} must be [clips, dimension] with at least {at_least} clips, got {values.shape}"
        )
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        raise NumericError(f"{what} holds a value that is not finite, first in row {finite.argmin()}")
    return values.astype(np.float64)


def _trace_root(a: np.ndarray, b: np.ndarray) -> float:
    """Trace of (aᵀa bᵀb)^½ for centred, scaled a [N, d] and b [M, d]."""
    dimension = a.shape[1]
    if min(len(a), len(b)) > dimension:
        try:
            lower = linalg.cholesky(a.T @ a, lower=True, check_finite=False)
        except linalg.LinAlgError:
            lower = None
        if lower is not None:
            squares = linalg.eigvalsh(lower.T @ (b.T @ b) @ lower, check_finite=False)
            if squares[0] > 0:
                roots = np.sqrt(squares)
                rounding = np.finfo(float).eps * squares[-1] * np.sum(0.5 / roots)
                if rounding < _TOLERANCE * roots.sum():
                    return float(roots.sum())
    a, b = (
        linalg.qr(v, mode="r", check_finite=False)[0][:dimension] if len(v) > dimension else v for v in (a, b)
    )
    return float(linalg.svdvals(a @ b.T, check_finite=False).sum())
