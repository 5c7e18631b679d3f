"""Scenarios of `coverage.py`: intervals of eval-gen's metrics.

`before` is of percentiles of 200 resamples of clips or recordings, shifted to the value; of independent
clips, of the limit of many resamples. Coverage of independent clips is exact, without repetitions: with 8
clips and p = 0.06 an interval can cover 0.921 or 0.990, but nothing between, and likewise at p = 0.5.
"""

from functools import partial

import numpy as np
from scipy import stats

from ajbench.evaluation.generation_metrics import SPLIT_SEED, SPLITS
from ajbench.metrics import intervals
from ajbench.metrics.distribution import (
    frechet_distance,
    frechet_draws,
    inception_score,
    inception_subsets,
    kl_of_pairs,
)

LEVEL = intervals.LEVEL
# FD by dimensions and distance of the means; agreement by clips or recordings and share.
FD_BEFORE = {(16, 1.5): 0.975, (16, 6): 0.975, (64, 1.5): 1.0, (64, 6): 1.0}
CLIPS_BEFORE = {
    (8, 0.06): 0.381, (8, 0.5): 0.930, (8, 0.9): 0.531,
    (16, 0.06): 0.615, (16, 0.5): 0.979, (16, 0.9): 0.798,
    (64, 0.06): 0.889, (64, 0.5): 0.967, (64, 0.9): 0.951,
}  # fmt: skip
RECORDINGS_BEFORE = {
    (8, 0.06): 0.63, (8, 0.5): 0.89, (8, 0.9): 0.71,
    (16, 0.06): 0.69, (16, 0.5): 0.93, (16, 0.9): 0.81,
    (64, 0.06): 0.87, (64, 0.5): 0.94, (64, 0.9): 0.90,
}  # fmt: skip


def sizes(groups: int, rng: np.random.Generator) -> np.ndarray:
    """Return the group of each clip, for groups of 1 to 7 clips."""
    return np.repeat(np.arange(groups), rng.integers(1, 8, groups))


def fd(d: int, shift: float, groups: tuple[int, int] | None, repetitions: int) -> list[tuple]:
    """Return the coverage of the mean FD of two Gaussian sets, 80 and 200 clips or groups of 1 to 7 clips.

    Args:
        d: dimensions.
        shift: distance of the means.
        groups: numbers of groups in both sets, of clips that correlate by 0.5; None: 80 and 200 single clips.
        repetitions: pairs of sets.
    """
    rng = np.random.default_rng([d, int(10 * shift), bool(groups)])
    of = [sizes(count, rng) for count in groups] if groups else [np.arange(80), np.arange(200)]

    def draw() -> list[np.ndarray]:
        found = []
        for member, gap in zip(of, (shift / np.sqrt(d), 0), strict=True):
            alike, alone = (rng.normal(size=(len(member), d)) for _ in range(2))
            found.append((np.sqrt(0.5) * (alike[member] + alone) if groups else alone) + gap)
        return found

    truth = np.mean([frechet_distance(*draw()) for _ in range(2000)])
    covered = 0
    for _ in range(repetitions):
        x, y = draw()
        distances = partial(frechet_draws, x, y)
        found = intervals.jackknife(frechet_distance(x, y), distances, [member.tolist() for member in of])
        covered += found.low <= truth <= found.high
    clips = f"{groups[0]} and {groups[1]} recordings of 1-7" if groups else "n = 80, m = 200"
    setting, before = (
        f"{clips}, d = {d}, means {shift:g} apart",
        "" if groups else FD_BEFORE.get((d, shift), ""),
    )
    return [("fd, spread at this n", setting, LEVEL, covered / repetitions, repetitions, before)]


def agreement(n: int, p: float) -> list[tuple]:
    """Return the exact coverage of a share of n independent clips, over all numbers of hits."""
    hits = np.arange(n + 1)
    found = [intervals.wilson(np.arange(n) < k, range(n)) for k in hits]
    covered = stats.binom.pmf(hits, n, p) @ [one.low <= p <= one.high for one in found]
    setting = f"n = {n}, p = {p:g}, independent clips"
    return [("agreement", setting, LEVEL, round(float(covered), 3), 0, CLIPS_BEFORE[n, p])]


def agreement_of_groups(groups: int, p: float, repetitions: int) -> list[tuple]:
    """Return the coverage of a share of clips of recordings, within which hits correlate by 0.5."""
    rng, covered = np.random.default_rng([groups, int(100 * p)]), 0
    for _ in range(repetitions):
        of = sizes(groups, rng)
        hits = rng.random(len(of)) < rng.beta(p, 1 - p, groups)[of]
        found = intervals.wilson(hits, of.tolist())
        covered += found.low <= p <= found.high
    setting = f"{groups} recordings of 1-7 clips, p = {p:g}"
    before = RECORDINGS_BEFORE[groups, p]
    return [("agreement", setting, LEVEL, covered / repetitions, repetitions, before)]


def inception(n: int, classes: int, repetitions: int) -> list[tuple]:
    """Return the coverage of the mean inception score of n clips, half of the classes generated."""
    rng = np.random.default_rng([n, classes])

    def draw() -> np.ndarray:
        logits = rng.normal(0, 2, (n, classes))
        logits[np.arange(n), rng.integers(0, classes // 2, n)] += 6
        return logits

    truth = np.mean([inception_score(draw(), SPLITS, SPLIT_SEED)[0] for _ in range(4000)])
    covered = 0
    for _ in range(repetitions):
        logits = draw()
        subsets = partial(inception_subsets, logits, splits=SPLITS, seed=SPLIT_SEED)
        found = intervals.jackknife(inception_score(logits, SPLITS, SPLIT_SEED)[0], subsets, [range(n)])
        covered += found.low <= truth <= found.high
    return [("is", f"n = {n}, {classes} classes", LEVEL, covered / repetitions, repetitions, "")]


def divergence(groups: int, repetitions: int) -> list[tuple]:
    """Return the coverage of the mean KL of clips of recordings, 1 to 7 clips each."""
    rng = np.random.default_rng(groups)

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        of = sizes(count, rng)
        ref = rng.normal(0, 2, (count, 10))[of]
        away = 0.5 + 1.5 * rng.random(count)[of]  # clips of some recordings are all far from it
        return kl_of_pairs(ref + away[:, None] * rng.normal(size=ref.shape), ref), of

    truth, covered = draw(100_000)[0].mean(), 0
    for _ in range(repetitions):
        each, of = draw(groups)
        found = intervals.mean_interval(each, of.tolist())
        covered += found.low <= truth <= found.high
    setting = f"{groups} recordings of 1-7 clips"
    return [("kl", setting, LEVEL, covered / repetitions, repetitions, "")]


SHARES = (0.06, 0.5, 0.9)
SCENARIOS = {
    "fd": [
        *(partial(fd, d, shift, None, 600) for d, shift in ((16, 0), (16, 1.5), (16, 6), (64, 1.5), (64, 6))),
        partial(fd, 16, 1.5, (40, 80), 600),
    ],
    "agreement": [
        *(partial(agreement, n, p) for n in (8, 16, 64) for p in SHARES),
        *(partial(agreement_of_groups, groups, p, 4000) for groups in (8, 16, 64) for p in SHARES),
    ],
    "is": [partial(inception, *how, 1000) for how in ((80, 10), (80, 50), (400, 50))],
    "kl": [partial(divergence, groups, 4000) for groups in (16, 64)],
}
