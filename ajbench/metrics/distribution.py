"""Distances between sets of clips from their features or logits, in float64: FD, inception score, KL."""

import itertools
import warnings
from typing import Literal

import numpy as np
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
    """Return the mean over pairs of Σ_c p (log p − log(q + eps)) of logits [N, C], clips paired by row.

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
        return float(np.sum(xlogy(p, p) - p * np.log(q + eps)) / len(p))
    logs = (log_softmax(z, axis=1) if link == "softmax" else log_expit(z) for z in (z_p, z_q))
    return float(np.sum(p * np.subtract(*logs)) / len(p))


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
