"""Intervals from variances: Student's t, Wilson's score interval, means over groups of clips, the jackknife.

Clips of one recording are alike. They are a group, and the variance is that between groups.
"""

import heapq
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

LEVEL = 0.95
Limits = tuple[float, float]
UNLIMITED: Limits = (-np.inf, np.inf)
SHARE: Limits = (0.0, 1.0)

BLOCKS, PAIRS = 64, 72  # of a jackknife: FD of two sets takes 200 evaluations
FEWEST = 4  # blocks, of which two can be deleted
SUBTRACTED = (
    0.8  # of the terms of two blocks: they are estimated, and the interval should err to the wide side
)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Interval(NamedTuple):
    """A value and the bounds of its interval; NaN bounds: no interval."""

    value: float
    low: float
    high: float


def none(value: float) -> Interval:
    """Return the value without an interval."""
    return Interval(value, np.nan, np.nan)


def clipped(value: float, low: float, high: float, limits: Limits) -> Interval:
    """Return an interval that ends at the limits, or at the value where rounding has put that outside."""
    lowest, highest = min(limits[0], value), max(limits[1], value)
    return Interval(value, float(np.clip(low, lowest, highest)), float(np.clip(high, lowest, highest)))


def t_interval(
    value: float,
    parts: Sequence[tuple[float, float]],
    level: float = LEVEL,
    limits: Limits = UNLIMITED,
) -> Interval:
    """Return value ± t √V for the sum V of independent variances.

    t is Student's, with V² / Σ (V_i² / df_i) degrees of freedom (Satterthwaite).

    Args:
        value: the estimate.
        parts: variance V_i and its degrees of freedom df_i; a variance of 0 adds nothing, and NaN is a
            variance that cannot be estimated: there is no interval then.
        level: nominal coverage.
        limits: lowest and highest value of the statistic, to which the bounds are clipped.
    """
    known = np.array([part for part in parts if part[0] != 0], np.float64).reshape(-1, 2)
    total = float(known[:, 0].sum())
    if total == 0:
        return Interval(value, value, value)
    if not np.isfinite(total):
        return none(value)
    shares = known[:, 0] / total
    freedom = 1 / float(np.sum(shares**2 / known[:, 1]))
    half = float(student((1 + level) / 2, freedom)) * np.sqrt(total)
    return clipped(value, value - half, value + half, limits)


def wilson(hits: NDArray[np.generic], groups: Sequence[Hashable], level: float = LEVEL) -> Interval:
    """Return the share of hits and Wilson's score interval for the effective number of clips.

    That number is n / (1 + (Σ m_g² / n − 1) ρ) for n clips in groups of m_g, where ρ is the correlation
    within groups by analysis of variance, clipped to [0, 1]. If all clips are hits or none is, or there is
    one group, ρ cannot be estimated and is taken to be 1. The quantile is the normal one, or Student's with
    G − 1 degrees of freedom if a group has several clips, as ρ is estimated from G groups.

    Args:
        hits: 0 or 1 of each clip, [n], n > 0.
        groups: the group of each clip, [n].
        level: nominal coverage.
    """
    values = np.asarray(hits, np.float64)
    share = float(values.mean())
    sizes, means = _of_groups(values, groups)
    n = len(values) / (1 + (float(np.sum(sizes**2)) / len(values) - 1) * _correlation(sizes, means))
    tail, several = (1 + level) / 2, len(sizes) < len(values)
    z = float(student(tail, max(len(sizes) - 1, 1)) if several else ndtri(tail))
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return Interval(share, float(min(max(centre - half, 0), share)), float(max(min(centre + half, 1), share)))


def _correlation(sizes: Integers, shares: Floats) -> float:
    """Return the correlation within groups of 0/1 values, by analysis of variance, clipped to [0, 1].

    Args:
        sizes: clips of each group, [G].
        shares: share of ones in each group, [G].
    """
    n, count = int(sizes.sum()), len(sizes)
    mean = float(sizes @ shares) / n
    if count == n:
        return 0.0
    if count == 1 or not 0 < mean < 1:
        return 1.0
    between = float(sizes @ (shares - mean) ** 2) / (count - 1)
    within = float(sizes @ (shares * (1 - shares))) / (n - count)
    size = (n - float(np.sum(sizes**2)) / n) / (count - 1)
    return float(np.clip((between - within) / (between + (size - 1) * within), 0, 1))


def mean_interval(
    values: Floats, groups: Sequence[Hashable], level: float = LEVEL, limits: Limits = UNLIMITED
) -> Interval:
    """Return the mean and its interval, by Student's t with one degree of freedom less than groups.

    The variance is that of the ratio of sums over groups: G / (G − 1) Σ (m_g / n)² (mean_g − mean)².
    With one group there is no interval.

    Args:
        values: of each clip, [n], n > 0.
        groups: the group of each clip, [n].
        level: nominal coverage.
        limits: lowest and highest value of the mean.
    """
    sizes, means = _of_groups(np.asarray(values, np.float64), groups)
    part = _variance_of_mean(means, sizes), len(sizes) - 1
    return t_interval(float(np.mean(values)), [part], level, limits)


def jackknife(
    value: float,
    statistic: Callable[..., Floats],
    samples: Sequence[Sequence[Hashable]],
    level: float = LEVEL,
    limits: Limits = UNLIMITED,
    pairs: int = PAIRS,
) -> Interval:
    """Return the interval of a statistic of one or several independent samples, by the jackknife.

    V is the sum of the variances of all samples by deleting one block of groups, less what they count twice:
    a term of two blocks is part of the variance once, but of the jackknife's for each of the two (Efron &
    Stein 1981). The sum of squares of these terms, estimated from random pairs of blocks i and j, is that of
    θ − θ₍ᵢ₎ − θ₍ⱼ₎ + θ₍ᵢⱼ₎; four fifths of it are subtracted, and at most half of V. Student's t as in
    `t_interval`. There is no interval if a sample has fewer than four groups.

    Args:
        value: θ, of all clips.
        statistic: 0 or 1 for each clip of each sample, int64 [R, n] per sample → values float64 [R].
        samples: the group of each clip of each sample.
        level: nominal coverage.
        limits: lowest and highest value of the statistic.
        pairs: random pairs of blocks, of one sample or two.
    """
    members = [blocks(groups) for groups in samples]
    sizes = [np.bincount(member) for member in members]
    if min(map(len, sizes)) < FEWEST:
        return none(value)
    edges = np.cumsum([0, *map(len, sizes)])
    count = int(edges[-1])
    rng = np.random.default_rng(0)
    first = rng.integers(0, count, pairs)
    second = (first + rng.integers(1, count, pairs)) % count
    kept = np.ones((count + pairs, count), np.int64)
    kept[np.arange(count), np.arange(count)] = 0
    kept[count + np.arange(pairs), first] = kept[count + np.arange(pairs), second] = 0
    values = statistic(*(kept[:, start + member] for start, member in zip(edges, members, strict=False)))
    without, of_pairs = values[:count], values[count:]
    variances = [
        jackknife_variance(value, without[start : start + len(clips)], clips)
        for start, clips in zip(edges, sizes, strict=False)
    ]
    joint = value - without[first] - without[second] + of_pairs
    twice = count * (count - 1) / 2 * float(np.mean(joint**2)) if pairs else 0.0
    total = sum(variances)
    share = max(1 - SUBTRACTED * twice / total, 0.5) if total > 0 else 1.0
    parts = [(share * variance, len(clips) - 1) for variance, clips in zip(variances, sizes, strict=True)]
    return t_interval(value, parts, level, limits)


def jackknife_variance(value: float, without: Floats, sizes: Integers) -> float:
    """Return the delete-one-block jackknife variance of a statistic; NaN with fewer than two blocks.

    With equal blocks it is (g − 1)/g Σ (θ₍ⱼ₎ − their mean)². In general block j of m_j of n clips has the
    pseudo-value θ̃_j = θ + (n − m_j)/m_j (θ − θ₍ⱼ₎), and the variance is that of the mean of the θ̃_j
    weighted by m_j. A bias of 1/n, such as FD's, is the same in every θ̃_j and adds nothing.

    Args:
        value: θ, of all clips.
        without: θ₍ⱼ₎, of all clips but those of block j, [g].
        sizes: clips of each block, [g].
    """
    weights = (sizes.sum() - sizes) / sizes
    return _variance_of_mean(value + weights * (value - without), sizes)


def blocks(groups: Sequence[Hashable], at_most: int = BLOCKS) -> Integers:
    """Return the block of each clip, [n]: whole groups, merged into blocks of nearly equal size.

    Groups are merged in a fixed random order, as clips are often sorted by class.

    Args:
        groups: the group of each clip, [n].
        at_most: blocks; fewer groups are a block each.
    """
    member = numbered(groups)
    sizes = np.bincount(member)
    if len(sizes) <= at_most:
        return member
    shuffled = np.random.default_rng(0).permutation(len(sizes))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    filled = [(0, block) for block in range(at_most)]
    chosen = np.empty(len(sizes), np.int64)
    for group in order.tolist():  # the largest groups first, each to the smallest block
        clips, block = filled[0]
        chosen[group] = block
        heapq.heapreplace(filled, (clips + int(sizes[group]), block))
    return chosen[member]


def student(probability: float, freedom: ArrayLike) -> Any:
    """Return the quantile of Student's t for degrees of freedom of any shape.

    As `scipy.stats.t.ppf`, without that module's slow import, which every command would wait for.
    """
    return stdtrit(freedom, probability)


def numbered(groups: Sequence[Hashable]) -> Integers:
    """Return the number of the group of each clip, [n], in order of first appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], np.int64)


def _of_groups(values: Floats, groups: Sequence[Hashable]) -> tuple[Integers, Floats]:
    """Return the number of clips and the mean value of each group."""
    member = numbered(groups)
    sizes = np.bincount(member)
    return sizes, np.bincount(member, values) / sizes


def _variance_of_mean(means: Floats, sizes: Integers) -> float:
    """Return the variance of the mean of all clips from the means of groups; NaN with fewer than two."""
    count = len(means)
    if count < 2:
        return float("nan")
    weights = sizes / sizes.sum()
    return count / (count - 1) * float(np.sum((weights * (means - weights @ means)) ** 2))
