"""Bootstrap intervals over clips and over training seeds, and paired differences.

Intervals are percentiles of the resampled values, shifted by (value − their mean). A resample repeats clips,
which raises the AP of rare classes and FD: plain percentiles can lie entirely above the value. Shifted, they
cover the expectation of the statistic over test sets of the same size at about the stated level
(`tests/metrics/test_bootstrap.py`).
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ajbench.core.device import Array, to_numpy
from ajbench.core.errors import UsageError
from ajbench.metrics.intervals import LEVEL, SHARE, UNLIMITED, Interval, Limits, clipped
from ajbench.metrics.ranking import check

Groups = Sequence[NDArray[np.int64]]
_BLOCK = 256  # resamples computed at once, which bounds memory


def interval(
    statistic: Callable[[np.ndarray], float],
    n: int,
    *,
    resamples: int = 1000,
    seed: int,
    level: float = LEVEL,
    limits: Limits = UNLIMITED,
) -> Interval:
    """Return the interval of a statistic of n clips.

    Args:
        statistic: clip indices int64 [n], with repetitions → a float; a resample that gives NaN is left out.
        n: clips.
        resamples: draws with replacement.
        seed: of the draws; the same seed gives the same interval.
        level: fraction of the resampled values between the bounds.
        limits: lowest and highest value of the statistic, to which the bounds are clipped.
    """
    rng = _generator(n, resamples, seed, level)
    values = np.array([statistic(rng.integers(0, n, n)) for _ in range(resamples)])
    return _interval(float(statistic(np.arange(n))), values, level, limits)


def groups_of(keys: Sequence[Hashable]) -> list[NDArray[np.int64]]:
    """Return the positions of each distinct key."""
    places: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    return [np.array(group) for group in places.values()]


def counts(groups: Groups, resamples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return how often each of n clips occurs in each resample of groups of clips, [R, n]."""
    member = np.zeros(sum(map(len, groups)), np.int64)
    for number, group in enumerate(groups):
        member[group] = number
    return _group_counts(len(groups), resamples, rng)[:, member]


def means(values: NDArray[np.float64], drawn: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean of values [n] in each resample [R, n]."""
    return np.asarray(drawn @ values / drawn.sum(axis=1).clip(1))


def ends(
    value: float, draws: NDArray[np.float64], level: float = LEVEL, limits: Limits = UNLIMITED
) -> tuple[float, float]:
    """Return the bounds of the interval of a value from resampled values [R], NaN without any.

    Bounds outside `limits`, the range of the statistic, are clipped to it, or to the value where rounding
    has put that outside.
    """
    if not len(draws):
        return float("nan"), float("nan")
    low, high = np.quantile(draws - draws.mean(), ((1 - level) / 2, (1 + level) / 2)) + value
    return clipped(value, low, high, limits)[1:]


def seeds_and_clips(
    scores: Array, targets: Array, *, resamples: int = 1000, seed: int, level: float = LEVEL
) -> Interval:
    """Return the interval of the mAP averaged over training seeds, resampling seeds and clips.

    All seeds are scored on the same clips, so a resample draws one set of clips for all of them, and seeds
    with replacement. With few seeds, such as three, the interval understates the uncertainty.

    Args:
        scores: [S, N, C], or [N, C] of one run (then only clips are resampled).
        targets: [N, C] of 0 and 1.
        resamples: draws of clips and seeds.
        seed: of the draws.
        level: fraction of the resampled values between the bounds.
    """
    s, t = _stack(scores, targets)
    rng = _generator(len(t), resamples, seed, level)
    (values,) = _draw_maps([s], t, resamples, rng)
    drawn = _mean_of_drawn(values, rng.integers(0, len(s), (len(s), resamples)))
    return _interval(float(_map_of_all(s, t).mean()), drawn, level, SHARE)


def paired_difference(
    scores: Array,
    baseline: Array,
    targets: Array,
    *,
    pair_seeds: bool = True,
    resamples: int = 1000,
    seed: int,
    level: float = LEVEL,
) -> Interval:
    """Return the interval of mAP(scores) − mAP(baseline), both scored on the clips of each resample.

    Args:
        scores: [S, N, C] or [N, C].
        baseline: [S', N, C] or [N, C], of the same clips and classes.
        targets: [N, C] of 0 and 1.
        pair_seeds: run k has the same seed in both, and they are drawn together (S = S'); otherwise the two
            sets of runs are drawn independently.
        resamples: draws of clips and seeds.
        seed: of the draws.
        level: fraction of the resampled values between the bounds.

    Raises:
        UsageError: shapes do not match.
    """
    (a, t), (b, _) = _stack(scores, targets), _stack(baseline, targets)
    if pair_seeds and len(a) != len(b):
        raise UsageError(
            f"{len(a)} and {len(b)} seeds cannot be paired; give both the same seeds or pair_seeds=False"
        )
    rng = _generator(len(t), resamples, seed, level)
    values = _draw_maps([a, b], t, resamples, rng)
    seeds = [rng.integers(0, len(s), (len(s), resamples)) for s in (a, b)]
    if pair_seeds:
        seeds[1] = seeds[0]
    first, second = (_mean_of_drawn(v, k) for v, k in zip(values, seeds, strict=True))
    value = float(_map_of_all(a, t).mean() - _map_of_all(b, t).mean())
    return _interval(value, first - second, level, (-1.0, 1.0))


def clip_counts(n: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Return how often each of n clips occurs in each resample, float32 [n, R] (columns sum to n)."""
    return np.ascontiguousarray(_group_counts(n, resamples, rng).T, np.float32)


def _group_counts(n: int, resamples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    drawn = (rng.integers(0, n, n) for _ in range(resamples))
    return np.array([np.bincount(row, minlength=n) for row in drawn], np.int64).reshape(resamples, n)


def resampled_map(scores: np.ndarray, targets: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mAP of every run on every resample, float64 [S, R].

    A clip counts `counts` times in precision and recall; tied scores are one threshold. Classes without a
    positive in a resample are left out of its mean; a resample without a positive gives NaN.

    Args:
        scores: [S, N, C].
        targets: bool [N, C].
        counts: [N, R], whole numbers.
    """
    total = np.zeros((len(scores), counts.shape[1]))
    used = np.zeros(total.shape, np.int64)
    for s, run in enumerate(scores):
        for c in np.flatnonzero(targets.any(axis=0)):
            members, hits = (matrix @ counts for matrix in _threshold_members(run[:, c], targets[:, c]))
            seen, found = (np.cumsum(m, axis=0, dtype=np.float64) for m in (members, hits))
            precision = np.divide(found, seen, out=np.zeros_like(found), where=hits > 0)
            gain = np.einsum("gr,gr->r", hits, precision)
            total[s] += np.divide(gain, found[-1], out=np.zeros_like(gain), where=found[-1] > 0)
            used[s] += found[-1] > 0
    return np.divide(total, used, out=np.full_like(total, np.nan), where=used > 0)


def _threshold_members(scores: np.ndarray, positive: np.ndarray) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Return 0/1 matrices [G, N] over the G distinct scores of positives, descending: all clips, positives.

    A clip belongs to the first threshold that it reaches; clips below every positive affect no precision and
    are left out.
    """
    thresholds = np.unique(scores[positive])
    group = len(thresholds) - np.searchsorted(thresholds, scores, "right")
    members = np.flatnonzero(group < len(thresholds))
    shape = (len(thresholds), len(scores))
    both = []
    for chosen in (members, np.flatnonzero(positive)):
        ones = np.ones(len(chosen), np.float32)
        both.append(sparse.csr_array((ones, (group[chosen], chosen)), shape=shape))
    return both[0], both[1]


def _draw_maps(
    runs: list[np.ndarray], targets: np.ndarray, resamples: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Return the mAP [S, R] of each set of runs on the same resamples of clips."""
    blocks = []
    for start in range(0, resamples, _BLOCK):
        counts = clip_counts(len(targets), min(_BLOCK, resamples - start), rng)
        blocks.append([resampled_map(scores, targets, counts) for scores in runs])
    return [np.concatenate(parts, axis=1) for parts in zip(*blocks, strict=True)]


def _map_of_all(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return resampled_map(scores, targets, np.ones((len(targets), 1), np.float32))[:, 0]


def _stack(scores: Array, targets: Array) -> tuple[np.ndarray, np.ndarray]:
    s = to_numpy(scores)
    s = s[None] if s.ndim == 2 else s
    if s.ndim != 3 or not len(s):
        raise UsageError(f"scores must be [seeds, clips, classes] or [clips, classes], got {s.shape}")
    checked = [check(run, targets) for run in s]
    return np.stack([run for run, _ in checked]), checked[0][1]


def _generator(n: int, resamples: int, seed: int, level: float) -> np.random.Generator:
    if n < 1 or resamples < 1 or not 0 < level < 1:
        raise UsageError(
            f"bootstrap of {n} clips, {resamples} resamples at level {level}: all positive, level below 1"
        )
    return np.random.default_rng(seed)


def _mean_of_drawn(values: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Return the mean of values [S, R] over the drawn seeds [S, R], with the unbiased spread of S seeds."""
    centre = values.mean(axis=0)
    drawn = np.take_along_axis(values, seeds, axis=0).mean(axis=0)
    return centre + (drawn - centre) * np.sqrt(len(values) / max(len(values) - 1, 1))


def _interval(value: float, resampled: np.ndarray, level: float, limits: Limits) -> Interval:
    return Interval(value, *ends(value, resampled[np.isfinite(resampled)], level, limits))
