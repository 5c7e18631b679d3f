"""Macro-F1 and mean recall of predicted labels, on all clips or on resamples of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ajbench.core.device import Array
from ajbench.metrics import ranking

Floats = NDArray[np.float64]


class Outcome(NamedTuple):
    """Predicted and true labels of clips, sparse 0/1 float32 [C, N], and their intersection."""

    predicted: sparse.csr_array
    positive: sparse.csr_array
    hits: sparse.csr_array


def outcome(scores: Array, targets: Array) -> Outcome:
    """Return which labels are predicted: of a clip with one label the class of its highest logit.

    Of a clip with none or several it is every class whose probability, the sigmoid of its logit, is above
    0.5. Each clip has its own rule, so that one with two labels does not change what the others count for.

    Args:
        scores: logits [N, C].
        targets: [N, C] of 0 and 1.
    """
    s, positive = ranking.check(scores, targets)
    predicted = s > 0
    single = np.flatnonzero(positive.sum(axis=1) == 1)
    predicted[single] = False
    predicted[single, s[single].argmax(axis=1)] = True
    parts = (predicted, positive, predicted & positive)
    return Outcome(*(sparse.csr_array(part.T, dtype=np.float32) for part in parts))


def f1_and_recall(
    found: Outcome, classes: Sequence[int], counts: NDArray[np.float32] | None = None
) -> Floats:
    """Return macro-F1 over all classes and the mean recall of some classes, on every resample, [2, R].

    F1 = 2 hits / (predicted + positive), recall = hits / positive. Classes without a positive in a resample
    are left out of its means; with none left, the mean is NaN.

    Args:
        found: predicted and true labels of N clips.
        classes: indices of those whose recall counts.
        counts: how often each clip counts, [N, R], whole numbers; None: once, and R = 1.
    """
    if counts is None:
        counts = np.ones((found.positive.shape[1], 1), np.float32)
    predicted, positive, hits = (np.asarray(part @ counts, np.float64) for part in found)
    some = list(classes)
    f1 = _mean(2 * hits, predicted + positive, positive > 0)
    return np.stack([f1, _mean(hits[some], positive[some], positive[some] > 0)])


def _mean(part: Floats, whole: Floats, used: NDArray[np.bool_]) -> Floats:
    """Return the mean over classes of part / whole [C, R] where they are `used`, [R]; NaN if none is."""
    shares = np.divide(part, whole, out=np.zeros_like(part), where=used).sum(axis=0)
    number = used.sum(axis=0)
    return np.divide(shares, number, out=np.full(shares.shape, np.nan), where=number > 0)
