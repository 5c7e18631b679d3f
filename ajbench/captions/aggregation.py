"""Entailment scores of clips from those of pairs of texts: by predicted or true labels; scaling, controls."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ajbench.core.errors import UsageError

Floats = NDArray[np.float64]
QUANTILES = (0.05, 0.95)  # of the raw scores of the train split: they become 0 and 1


def class_texts(names: Sequence[str]) -> list[str]:
    """Return the text that a visual caption is compared with for each class, as captions of one label."""
    return [f"The sound of {name}" for name in names]


def top_classes(probabilities: NDArray[np.floating], k: int) -> tuple[NDArray[np.int64], Floats]:
    """Return the k most probable classes of each clip and their weights, probabilities that are normalised.

    Args:
        probabilities: [N, C], of a model, or 0 and 1 for true labels; not negative.
        k: at most C count.

    Returns:
        Classes [N, k], most probable first (ties: first class first), and weights [N, k], which add up to 1;
        of a clip without any probability, they are 0.

    Raises:
        UsageError: probabilities that are negative or not finite.
    """
    p = np.asarray(probabilities, np.float64)
    if not (np.isfinite(p).all() and (p >= 0).all()):
        raise UsageError("probabilities of classes: negative or not finite")
    classes = np.argsort(-p, axis=1, kind="stable")[:, :k]
    weights = np.take_along_axis(p, classes, axis=1)
    total = weights.sum(axis=1, keepdims=True)
    return classes, np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)


def weighted(weights: Floats, scores: Floats) -> Floats:
    """Return s = Σ_c w_c e(v, c) of each clip; NaN for one whose weights are all 0.

    Args:
        weights: of classes [N, k].
        scores: e(v, c), raw scores of the clip's visual caption and the text of the class [N, k].
    """
    # A class of weight 0 has no influence, not even if its score is unknown.
    total = np.where(weights > 0, weights * scores, 0.0).sum(axis=1)
    return np.where((weights > 0).any(axis=1), total, np.nan)


def noisy_or(probabilities: Floats, scores: Floats) -> Floats:
    """Return s = 1 − Π_c (1 − p_c e(v, c)): some class is audible and seen. NaN if all p_c are 0.

    Args:
        probabilities: p_c [N, k], not normalised.
        scores: e(v, c) [N, k], clipped to [0, 1] here.
    """
    known = np.where(probabilities > 0, np.clip(scores, 0.0, 1.0), 0.0)
    found = 1 - np.prod(1 - np.minimum(probabilities, 1.0) * known, axis=1)
    return np.where((probabilities > 0).any(axis=1), found, np.nan)


def overlap(audio: Floats, video: Floats) -> Floats:
    """Return s = Σ_c √(p_A(c) p_V(c)) in [0, 1], without any text (Bhattacharyya's coefficient).

    Args:
        audio: probabilities by an audio model [N, C]; normalised here.
        video: the same by a video model [N, C]; NaN for clips that it did not predict.

    Returns:
        [N]; NaN where a model gives no class any probability.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        a, v = (p / p.sum(axis=1, keepdims=True) for p in (audio, video))
    found: Floats = np.sqrt(a * v).sum(axis=1)
    return np.minimum(found, 1.0)


def over_repeats(raw: Floats) -> tuple[Floats, Floats]:
    """Return mean and standard deviation [N] over the repeats of raw scores [k, N], NaN left out.

    The deviation of a single number is 0; both are NaN where there is none.
    """
    known = ~np.isnan(raw)
    n = known.sum(axis=0)
    nothing = np.full(raw.shape[1], np.nan)
    mean = np.divide(np.where(known, raw, 0).sum(axis=0), n, out=nothing, where=n > 0)
    squares = np.where(known, (raw - mean) ** 2, 0).sum(axis=0)
    return mean, np.sqrt(np.divide(squares, n - 1, out=np.where(n > 0, 0.0, np.nan), where=n > 1))


class Scaling(NamedTuple):
    """Raw scores that become 0 and 1."""

    low: float
    high: float

    def __call__(self, raw: Floats) -> Floats:
        """Return raw scores mapped linearly to [0, 1] and clipped; NaN stays NaN.

        If all train clips have one score, the scores are 0 below it, 1 above it, and 0.5 at it.
        """
        if self.high <= self.low:
            return np.where(np.isnan(raw), np.nan, 0.5 + 0.5 * np.sign(raw - self.low))
        return np.clip((raw - self.low) / (self.high - self.low), 0.0, 1.0)


def scaling(raw: Floats) -> Scaling:
    """Return the scaling by the quantiles (QUANTILES) of raw scores of the train split; NaN is left out.

    Raises:
        UsageError: no train clip has a score.
    """
    known = raw[np.isfinite(raw)]
    if not len(known):
        raise UsageError("entailment: no train clip has a score; are there visual captions?")
    return Scaling(*(float(value) for value in np.quantile(known, QUANTILES)))


def constant(scores: Floats, train: NDArray[np.bool_]) -> Floats:
    """Return a control: every clip has the mean score of the train clips (bool [N])."""
    return np.full(len(scores), np.nanmean(scores[train]))


def shuffled(scores: Floats, groups: Sequence[str], seed: int) -> Floats:
    """Return a control: scores permuted among the clips of a group, such as a split [N]."""
    out, rng, names = scores.copy(), np.random.default_rng(seed), np.asarray(groups)
    for name in np.unique(names):
        places = np.flatnonzero(names == name)
        out[places] = scores[rng.permutation(places)]
    return out
