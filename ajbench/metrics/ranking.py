"""Ranking metrics of multi-label scores in float64: average precision, AUC, d-prime, accuracy.

The values are those of scikit-learn's `average_precision_score` and `roc_auc_score`, where tied scores are
one threshold. They are faster because only the positives are ranked, each among the few clips with close
scores.
"""

import numpy as np
from scipy.special import ndtri

from ajbench.core.device import Array, to_numpy
from ajbench.core.errors import NumericError, UsageError

CODES = 1 << 14


def check(scores: Array, targets: Array) -> tuple[np.ndarray, np.ndarray]:
    """Return scores [N, C] and boolean targets [N, C] as NumPy.

    Raises:
        UsageError: the shapes differ or are not [N, C], or a target is neither 0 nor 1.
        NumericError: a score is NaN.
    """
    s, t = to_numpy(scores), to_numpy(targets)
    if s.ndim != 2 or s.shape != t.shape:
        raise UsageError(f"scores {s.shape} and targets {t.shape} must both be [clips, classes]")
    positive = t if t.dtype == bool else t != 0
    if t.dtype != bool and not np.array_equal(positive, t):
        raise UsageError("targets must be 0 or 1; threshold soft labels before scoring them")
    if np.isnan(s).any():
        row, column = np.argwhere(np.isnan(s))[0]
        raise NumericError(f"score of clip {row}, class {column} is NaN: the predictions are unusable")
    return s, positive


def average_precision(scores: Array, targets: Array) -> np.ndarray:
    """Return the average precision of every class, float64 [C], NaN for a class without a positive.

    Args:
        scores: [N, C], higher is more confident; monotone transforms do not matter.
        targets: [N, C] of 0 and 1.
    """
    return _per_class(*check(scores, targets))[0]


def roc_auc(scores: Array, targets: Array) -> np.ndarray:
    """Return the area under the ROC curve of every class, float64 [C], NaN without positives or negatives."""
    return _per_class(*check(scores, targets))[1]


def d_prime(auc: float, pairs: float = np.inf) -> float:
    """Return d′ = √2 · Φ⁻¹(AUC); infinite at an AUC of 0 or 1, unless a number of pairs is given.

    Args:
        auc: area under the ROC curve.
        pairs: of a positive and a negative clip, of which AUC is the share ranked correctly. AUC is clipped
            to half a pair from 0 and 1, as in signal detection.
    """
    closest = 1 / (2 * pairs) if pairs else 0.5
    return float(np.sqrt(2.0) * ndtri(np.clip(auc, closest, 1 - closest)))


def pairs_of(targets: Array) -> int:
    """Return the number of pairs of a positive and a negative clip, over all classes of targets [N, C]."""
    positives = (to_numpy(targets) != 0).sum(axis=0, dtype=np.int64)
    return int((positives * (len(targets) - positives)).sum())


def accuracy(scores: Array, targets: Array) -> float:
    """Return the share of clips whose label has the highest score; NaN unless each has exactly one label."""
    return _accuracy(*check(scores, targets))


def summary(scores: Array, targets: Array) -> dict[str, float | int]:
    """Return map, auc, dprime, accuracy, n (clips) and classes_used (with positives, averaged in map).

    `auc` is the mean over classes with positives and negatives, `dprime` the d′ of that mean, as in the logs
    of AST and PSLA, but finite (`d_prime` with the pairs of all classes).
    """
    s, t = check(scores, targets)
    ap, auc = _per_class(s, t)
    mean_auc = _mean(auc)
    return {
        "map": _mean(ap),
        "auc": mean_auc,
        "dprime": d_prime(mean_auc, pairs_of(t)),
        "accuracy": _accuracy(s, t),
        "n": len(s),
        "classes_used": int(np.isfinite(ap).sum()),
    }


def _mean(values: np.ndarray) -> float:
    used = values[np.isfinite(values)]
    return float(used.mean()) if used.size else float("nan")


def _accuracy(scores: np.ndarray, positive: np.ndarray) -> float:
    n, n_classes = scores.shape
    labels = np.bincount(np.flatnonzero(positive) // n_classes, minlength=n) if n_classes else np.zeros(n)
    if not n or (labels != 1).any():
        return float("nan")
    return float(positive[np.arange(len(scores)), scores.argmax(axis=1)].mean())


def _per_class(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return average precision and AUC of each column, from the ranks of its positives.

    The precision at a positive's threshold is (positives at or above it) / (clips at or above it); AP is its
    mean over the positives, equal to sklearn's sum over distinct thresholds. AUC counts the negatives below
    and half of those tied.
    """
    n, n_classes = scores.shape
    ap, auc = np.full(n_classes, np.nan), np.full(n_classes, np.nan)
    if not positive.any():
        return ap, auc
    columns = _columns(scores)
    rows, classes = np.divmod(np.flatnonzero(positive), n_classes)
    ends = np.bincount(classes, minlength=n_classes).cumsum()
    for c, mine in enumerate(np.split(rows[np.argsort(classes, kind="stable")], ends[:-1])):
        if not len(mine):
            continue
        hits, below, through = _ranks(columns[c], mine)
        below_hits = np.searchsorted(hits, hits)
        ap[c] = np.mean((len(hits) - below_hits) / (n - below))
        if n > len(hits):
            through -= np.searchsorted(hits, hits, "right")
            auc[c] = np.mean(below - below_hits + through) / (2 * (n - len(hits)))
    return ap, auc


def _columns(scores: np.ndarray) -> np.ndarray:
    """Return scores [N, C] as contiguous [C, N], float32 or float64, without −0.0."""
    kind = np.float32 if scores.dtype in (np.float16, np.float32) else np.float64
    columns = np.empty(scores.shape[::-1], kind)
    for start in range(0, len(scores), 512):  # a block stays in the cache while it is transposed
        columns[:, start : start + 512] = scores[start : start + 512].T
    np.add(columns, 0.0, out=columns)  # −0.0 equals 0.0 but has other bits
    return columns


def _ranks(column: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rank some of the scores [N] among all of them without sorting them all.

    Scores whose coarse code differs from that of a wanted score are counted; only those that share one are
    sorted.

    Returns:
        The scores at `rows`, ascending, and how many of all are below, and below or equal, int64 [len(rows)].
    """
    codes = _codes(column)
    wanted, marks = np.sort(column.take(rows)), np.sort(codes.take(rows))
    shared = np.zeros(CODES, bool)
    shared[marks] = True
    close = np.sort(column.compress(shared.take(codes)))
    counts = np.bincount(codes, minlength=CODES)
    counts[marks] = 0
    others = counts.cumsum()[marks]
    return wanted, others + np.searchsorted(close, wanted), others + np.searchsorted(close, wanted, "right")


def _codes(scores: np.ndarray) -> np.ndarray:
    """Return int16 codes in [0, CODES) of scores [N], monotone in the score: the leading bits of float16.

    Their relative spacing suits logits as well as probabilities; scores too large become infinite.
    """
    import torch

    bits = torch.from_numpy(scores).half().numpy().view(np.int16)
    rising = bits ^ ((bits >> 15) & 0x7FFF)  # the bits of negative numbers increase towards −∞
    return (rising >> 2) + np.int16(CODES // 2)
