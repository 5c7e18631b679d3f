"""Bootstrap over recordings: mAP and AUC of trainings on the same resamples, and their intervals.

All clips of a recording are drawn together. Intervals use only the variance over resamples: their mean is
biased, because repeated clips rank together, which raises the AP of rare classes.
"""

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import expit, logit

from ajbench.core.console import counted
from ajbench.core.device import Array
from ajbench.core.errors import UsageError
from ajbench.metrics import macro_averages, ranking
from ajbench.metrics.intervals import (
    LEVEL,
    SHARE,
    UNLIMITED,
    Interval,
    Limits,
    clipped,
    none,
    student,
    t_interval,
    wilson,
)

Groups = Sequence[NDArray[np.int64]]
GAIN: Limits = (-1.0, 1.0)  # of a difference of shares
ROUNDING = 1e-12  # less is no difference
_BLOCK = 256  # resamples computed at once, which bounds memory


class Resampled(NamedTuple):
    """A statistic of one training."""

    value: float  # on all clips
    draws: NDArray[np.float64]  # on each resample of recordings, [R]; NaN where it is undefined
    recordings: int
    fold: int | None = None  # whose clips these are; resamples of different folds are independent


def map_and_auc(
    scores: Array, targets: Array, recordings: Sequence[Hashable], *, resamples: int = 1000, seed: int = 0
) -> tuple[Resampled, Resampled]:
    """Return mAP and AUC of one training; the same seed draws the same resamples for every training.

    Args:
        scores: [N, C].
        targets: [N, C] of 0 and 1.
        recordings: the recording of each clip, [N].
        resamples: draws of recordings, with replacement.
        seed: of the draws.

    Raises:
        UsageError: no clips, or fewer than two resamples.
    """
    s, t = ranking.check(scores, targets)
    draws = [resampled(s, t, block) for block in _drawn(recordings, resamples, seed)]
    value, number = ranking.summary(s, t), len({*recordings})
    mean_ap, auc = np.concatenate(draws, axis=1)
    return Resampled(value["map"], mean_ap, number), Resampled(value["auc"], auc, number)


def f1_and_recall(
    scores: Array,
    targets: Array,
    classes: Sequence[int],
    recordings: Sequence[Hashable],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[Resampled, Resampled]:
    """Return macro-F1 and the mean recall of some classes, on the resamples of `map_and_auc`.

    The recordings of the recall are those of clips with one of these classes. It is NaN without any.

    Args:
        scores: logits [N, C].
        targets: [N, C] of 0 and 1.
        classes: indices of the classes whose recall is averaged.
        recordings: the recording of each clip, [N].
        resamples: draws of recordings, with replacement.
        seed: of the draws.

    Raises:
        UsageError: as `map_and_auc`.
    """
    found = macro_averages.outcome(scores, targets)
    blocks = _drawn(recordings, resamples, seed)
    draws = [macro_averages.f1_and_recall(found, classes, block) for block in blocks]
    values = macro_averages.f1_and_recall(found, classes)[:, 0].tolist()
    of_classes = np.unique(found.positive[list(classes)].indices).tolist()
    numbers = len({*recordings}), len({recordings[clip] for clip in of_classes})
    f1, recall = map(Resampled, values, np.concatenate(draws, axis=1), numbers)
    return f1, recall


def _drawn(recordings: Sequence[Hashable], resamples: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """Yield how often each clip occurs in each resample, [N, r] for r resamples at a time."""
    if not len(recordings) or resamples < 2:
        given = f"{counted(len(recordings), 'clip')} with {counted(resamples, 'resample')}"
        raise UsageError(f"bootstrap of {given}: at least 1 clip and 2 resamples are needed")
    groups, rng = groups_of(recordings), np.random.default_rng(seed)
    for start in range(0, resamples, _BLOCK):
        drawn = counts(groups, min(_BLOCK, resamples - start), rng)
        yield np.ascontiguousarray(drawn.T, np.float32)


def difference(runs: Sequence[Resampled], baseline: Sequence[Resampled]) -> list[Resampled]:
    """Return the differences of pairs of trainings: of one seed, on the same clips and resamples."""
    pairs = zip(runs, baseline, strict=True)
    return [a._replace(value=a.value - b.value, draws=a.draws - b.draws) for a, b in pairs]


def over_seeds(runs: Sequence[Resampled], level: float = LEVEL, limits: Limits = SHARE) -> Interval:
    """Return the mean over trainings with S seeds in each of F folds, and its interval.

    The interval is over recordings and seeds. The value is the mean over folds of the mean over seeds, and
    V = Σ V_clips,f / F² + s²/(F S). V_clips,f is the variance of the mean of fold f over resamples, with
    G_f − 1 degrees of freedom for its G_f recordings; s² is the variance of the values on all clips between
    the seeds of a fold, pooled over folds, with F (S − 1) (Student's t, Satterthwaite). The variation from
    seed to seed that differs between clips is in both: with few seeds, V is rather too large than too small.
    The interval of one training covers other clips, not other seeds.

    Args:
        runs: a training for each seed and fold, or the `difference` of two.
        level: nominal coverage.
        limits: lowest and highest value.
    """
    folds = _by_fold(runs)
    value, parts = _over_folds(folds)
    freedom = sum(len(fold) - 1 for fold in folds)
    if freedom:
        squares = sum(float(np.var([run.value for run in fold])) * len(fold) for fold in folds)
        parts.append((squares / freedom * _per_seed(folds), freedom))
    return t_interval(value, parts, level, limits)


def share_interval(runs: Sequence[Resampled]) -> Interval:
    """Return `over_seeds` of a share of few clips, which is often exactly 0 or 1.

    There V is 0, and the interval is Wilson's for as many trials as recordings, all alike. Where V is 0 at
    another value, as of a class that is always found and one that never is, there is no interval.
    """
    found = over_seeds(runs)
    if found.value not in SHARE:
        return found if found.high - found.low >= ROUNDING else none(found.value)
    number = sum(fold[0].recordings for fold in _by_fold(runs))
    return wilson(np.full(number, found.value), range(number))


def gain_interval(runs: Sequence[Resampled], baseline: Sequence[Resampled]) -> Interval:
    """Return `over_seeds` of the `difference` of two mixes; without an interval if no resample differs.

    Then V is 0, which says little of other clips: both may rank all of these perfectly.
    """
    found = over_seeds(difference(runs, baseline), limits=GAIN)
    return none(found.value) if found.high - found.low < ROUNDING else found


def family(
    mixes: Sequence[Sequence[Resampled]], baseline: Sequence[Resampled], level: float
) -> list[Interval]:
    """Return the intervals of the gains of K mixes over one baseline that hold together at a high level.

    Satterthwaite's t is too narrow in the far tails, where s² of few seeds is small by chance. The half
    width is √(Σ t²(G_f − 1) V_clips,f / F² + t²(d) s²/(F S)) instead, which is rather too wide, with s² and
    d of `between_seeds`, but at least that of `over_seeds`: the family sees no gain that this does not. A
    half width of 0 is no interval, as in `gain_interval`.

    Args:
        mixes: for each mix, a training for each of S seeds (two or more) of each of F folds.
        baseline: a training for each of the same seeds and folds, in the same order.
        level: nominal coverage of each interval.
    """
    variance, freedom = between_seeds(mixes, baseline)
    between = variance * _per_seed(_by_fold(baseline)), freedom
    found = []
    for runs in mixes:
        gains = difference(runs, baseline)
        value, of_clips = _over_folds(_by_fold(gains))
        parts = *of_clips, between
        alone = over_seeds(gains, limits=UNLIMITED)
        squares = (student((1 + level) / 2, f) ** 2 * variance for variance, f in parts)
        half = max(np.sqrt(sum(squares)), alone.high - alone.value)
        found.append(clipped(value, value - half, value + half, GAIN) if half > ROUNDING else none(value))
    return found


def between_seeds(mixes: Sequence[Sequence[Resampled]], baseline: Sequence[Resampled]) -> tuple[float, float]:
    """Return s² of the gains of K mixes over one baseline, pooled, and its degrees of freedom (`family`).

    s² is the mean over mixes of the variance of the gain between the seeds of a fold. All gains contain the
    baseline: of columns that vary alike their s² correlate by 1/4, and d = 4 K / (K + 3) · F (S − 1).
    """
    gains = [_by_fold(difference(runs, baseline)) for runs in mixes]
    squares = sum(float(np.var([run.value for run in fold])) * len(fold) for mix in gains for fold in mix)
    number, freedom = len(mixes), sum(len(fold) - 1 for fold in _by_fold(baseline))
    return squares / (number * freedom), shared_freedom(number, freedom)


def shared_freedom(mixes: int, freedom: int) -> float:
    """Return the degrees of freedom of `between_seeds` from those of one gain."""
    return 4 * mixes / (mixes + 3) * freedom


def per_recording(runs: Sequence[Resampled]) -> float:
    """Return V_clips of a mean over trainings (or of their `difference`), times its number of recordings."""
    folds = _by_fold(runs)
    return sum(fold[0].recordings for fold in folds) * sum(part for part, _ in _over_folds(folds)[1])


def auc_interval(auc: Resampled, level: float = LEVEL) -> Interval:
    """Return the interval of an AUC over recordings, by Student's t on the scale of its logit.

    The variance of the logit is V / (AUC (1 − AUC))². At an AUC of exactly 0 or 1, where V is 0, the
    interval is Wilson's for as many trials as recordings, all alike.

    Args:
        auc: of one training.
        level: nominal coverage.
    """
    value = auc.value
    if np.isnan(value):
        return none(value)
    if value in SHARE:
        return wilson(np.full(auc.recordings, value), range(auc.recordings), level)
    variance, freedom = _variance(auc)
    part = variance / (value * (1 - value)) ** 2, freedom
    _, low, high = t_interval(float(logit(value)), [part], level)
    return Interval(value, float(expit(low)), float(expit(high)))


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
    return group_counts(len(groups), resamples, rng)[:, member]


def group_counts(groups: int, resamples: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return how often each of G groups occurs in each resample of as many, [R, G]."""
    found = np.zeros((resamples, groups), np.int64)
    for row in found:
        row += np.bincount(rng.integers(0, groups, groups), minlength=groups)
    return found


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


def _by_fold(runs: Sequence[Resampled]) -> list[list[Resampled]]:
    return [[run for run in runs if run.fold == fold] for fold in dict.fromkeys(run.fold for run in runs)]


def _over_folds(folds: Sequence[Sequence[Resampled]]) -> tuple[float, list[tuple[float, int]]]:
    """Return the mean over folds and, of each fold, its variance over test sets with degrees of freedom."""
    means = [_mean(fold) for fold in folds]
    parts = [(variance / len(folds) ** 2, freedom) for variance, freedom in map(_variance, means)]
    return float(np.mean([mean.value for mean in means])), parts


def _per_seed(folds: Sequence[Sequence[Resampled]]) -> float:
    """Return the variance of the mean over folds if that between the seeds of a fold is 1."""
    return sum(1 / len(fold) for fold in folds) / len(folds) ** 2


def _mean(runs: Sequence[Resampled]) -> Resampled:
    draws = np.mean([run.draws for run in runs], axis=0)
    return Resampled(float(np.mean([run.value for run in runs])), draws, runs[0].recordings)


def _variance(statistic: Resampled) -> tuple[float, int]:
    """Return the variance over test sets and its degrees of freedom; NaN with one recording."""
    count, draws = statistic.recordings, statistic.draws[np.isfinite(statistic.draws)]
    if count < 2 or len(draws) < 2:
        return float("nan"), 1
    return float(draws.var(ddof=1)) * count / (count - 1), count - 1


def resampled(
    scores: NDArray[np.generic], targets: NDArray[np.bool_], counts: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return mAP and macro AUC on every resample, [2, R].

    A clip counts `counts` times; tied scores are one threshold. Classes without a positive in a resample, or
    for AUC without a negative, are left out of its mean; with none left, the mean is NaN.

    Args:
        scores: [N, C].
        targets: [N, C].
        counts: [N, R], whole numbers.
    """
    total = np.zeros((2, counts.shape[1]))
    used = np.zeros(total.shape, np.int64)
    clips = counts.sum(axis=0, dtype=np.float64)
    for c in np.flatnonzero(targets.any(axis=0)):
        members, hits, tied = (matrix @ counts for matrix in _thresholds(scores[:, c], targets[:, c]))
        seen, found = (np.cumsum(m, axis=0, dtype=np.float64) for m in (members, hits))
        positives, negatives = found[-1], clips - found[-1]
        precision = np.divide(found, seen, out=np.zeros_like(found), where=hits > 0)
        below = negatives - (seen - found) + tied / 2  # of negatives, half of those tied
        for i, (gain, most) in enumerate(((precision, positives), (below, positives * negatives))):
            mean = np.einsum("gr,gr->r", hits, gain)
            total[i] += np.divide(mean, most, out=np.zeros_like(mean), where=most > 0)
            used[i] += most > 0
    return np.divide(total, used, out=np.full_like(total, np.nan), where=used > 0)


def _thresholds(scores: NDArray[np.generic], positive: NDArray[np.bool_]) -> list[sparse.csr_array]:
    """Return 0/1 matrices [G, N] over the G distinct scores of positives, descending.

    In the first, a clip belongs to the first threshold that it reaches; clips below every positive affect
    nothing and are left out. The second holds the positives, the third the negatives tied with a positive.
    """
    thresholds = np.unique(scores[positive])
    group = len(thresholds) - np.searchsorted(thresholds, scores, "right")
    reached = group < len(thresholds)
    tied = reached & ~positive
    tied[tied] = thresholds[len(thresholds) - 1 - group[tied]] == scores[tied]
    made = []
    for chosen in map(np.flatnonzero, (reached, positive, tied)):
        ones = np.ones(len(chosen), np.float32)
        made.append(sparse.csr_array((ones, (group[chosen], chosen)), (len(thresholds), len(scores))))
    return made
