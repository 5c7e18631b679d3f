"""Scenarios of `coverage.py`: mAP and its paired differences, the verdict, AUC, accuracy.

Test sets have the clips, classes and recordings of fold 5 of ESC-10: 80 clips of 57 recordings, up to 7 of
one. A score is normal, plus the skill of the training where the clip has the class. Half of its variance is
that of the clip for every training, the rest that of the clip for the mix and for the seed; half of each is
shared by the clips of a recording. Seeds shift the skill. The truth is the expectation over fresh test sets
and seeds.
"""

import zlib
from functools import partial

import numpy as np

from ajbench.core.rows import Context
from ajbench.data.labels import Scores
from ajbench.evaluation.classification import TableCell, compare_to_real, measure
from ajbench.metrics import bootstrap, ranking
from ajbench.metrics.intervals import wilson

# Clips of each recording of each class.
FOLD = [
    *([1] * 8, [1] * 8, [1] * 8, [1, 1, 1, 1, 1, 1, 2], [1, 1, 1, 1, 2, 2]),
    *([1, 2, 2, 3], [1, 1, 2, 2, 2], [1, 1, 2, 2, 2], [1, 1, 1, 5], [1, 7]),
]
SIZES = [size for sizes in FOLD for size in sizes]
RECORDING = np.repeat(np.arange(len(SIZES)), SIZES)
TARGETS = np.repeat(np.eye(len(FOLD), dtype=bool), 8, axis=0)
SEED_SPREAD = {"no": 0.0, "small": 0.1, "large": 0.3}  # of the skill
# Of the method before, percentiles over resampled clips and seeds, in the same settings (or seeds alone).
PAIRED_BEFORE = {("no", 3): 0.947, ("small", 3): 0.937, ("large", 3): 0.88}
AUC_BEFORE = {2.7: 0.86, 3.35: 0.827}  # by skill
# Of the method before, which took all columns to vary alike, by mixes and folds.
FAMILY_BEFORE = {(3, 1): 0.069, (9, 1): 0.124, (3, 5): 0.089, (5, 5): 0.11}
SEEDS_BEFORE = {2: 0.62, 3: 0.81, 5: 0.87, 8: 0.90}


def seeded(*about: object) -> np.random.Generator:
    """Return a generator that is the same in every process."""
    return np.random.default_rng(zlib.crc32(repr(about).encode()))


def of_clips(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return noise of variance 1, [*shape, N, C], half of it shared by the clips of a recording."""
    shared = rng.standard_normal((*shape, len(SIZES), len(FOLD)))[..., RECORDING, :]
    return np.sqrt(0.5) * (shared + rng.standard_normal((*shape, *TARGETS.shape)))


def trained(rng: np.random.Generator, skills: list[float], seeds: int, spread: float) -> np.ndarray:
    """Return scores of one test set, [mixes, seeds, N, C], of mixes of different skill."""
    mixes = len(skills)
    noise = np.sqrt(0.5) * of_clips(rng) + 0.5 * of_clips(rng, mixes, 1) + 0.5 * of_clips(rng, mixes, seeds)
    shift = rng.standard_normal((mixes, seeds, 1, 1)) + 0.5 * rng.standard_normal(
        (mixes, seeds, 1, len(FOLD))
    )
    return noise + (np.reshape(skills, (mixes, 1, 1, 1)) + spread * shift) * TARGETS


def mean_ap(scores: np.ndarray) -> float:
    """Return the mAP of one training."""
    return float(np.nanmean(ranking.average_precision(scores, TARGETS)))


def paired(variance: str, seeds: int, repetitions: int, resamples: int = 200) -> list[tuple]:
    """Return the coverage of the difference of two mixes and of the mAP of one, averaged over seeds."""
    rng, skills, spread = seeded("paired", variance, seeds), [2.2, 2.5], SEED_SPREAD[variance]
    fresh = (trained(rng, skills, 1, spread) for _ in range(2000))
    expected = np.mean([[mean_ap(runs[0]) for runs in scores] for scores in fresh], axis=0)
    truths = {"map_delta": expected[1] - expected[0], "map_mean": expected[0]}
    covered = dict.fromkeys(truths, 0)
    for k in range(repetitions):
        how = {"recordings": RECORDING.tolist(), "resamples": resamples, "seed": k}
        base, mix = (
            [bootstrap.map_and_auc(run, TARGETS, **how)[0] for run in runs]
            for runs in trained(rng, skills, seeds, spread)
        )
        gain = bootstrap.over_seeds(bootstrap.difference(mix, base), limits=(-1, 1))
        for name, found in (("map_delta", gain), ("map_mean", bootstrap.over_seeds(base))):
            covered[name] += found.low <= truths[name] <= found.high
    setting = f"{variance} variance between seeds, {seeds} seeds"
    before = {"map_delta": PAIRED_BEFORE.get((variance, seeds), "")}
    return [
        (name, setting, 0.95, hits / repetitions, repetitions, before.get(name, ""))
        for name, hits in covered.items()
    ]


def one_training(skill: float, repetitions: int) -> list[tuple]:
    """Return the coverage of the mAP of one training."""
    rng = seeded("one training", skill)
    truth = np.mean([mean_ap(trained(rng, [skill], 1, 0)[0, 0]) for _ in range(2000)])
    covered = 0
    for k in range(repetitions):
        scores = trained(rng, [skill], 1, 0)[0, 0]
        run = bootstrap.map_and_auc(scores, TARGETS, RECORDING.tolist(), resamples=200, seed=k)[0]
        found = bootstrap.over_seeds([run])
        covered += found.low <= truth <= found.high
    return [("map", f"one training, mAP {truth:.2f}", 0.95, covered / repetitions, repetitions, "")]


def seeds_alone(seeds: int, repetitions: int) -> list[tuple]:
    """Return the coverage of a mean over seeds where test clips add no variance."""
    rng = seeded("seeds alone", seeds)
    draws, covered = np.zeros(10), 0
    for _ in range(repetitions):
        runs = [bootstrap.Resampled(value, draws, 80) for value in rng.standard_normal(seeds)]
        found = bootstrap.over_seeds(runs, limits=(-np.inf, np.inf))
        covered += found.low <= 0 <= found.high
    setting = f"variance between {seeds} seeds alone"
    return [("map_delta", setting, 0.95, covered / repetitions, repetitions, SEEDS_BEFORE[seeds])]


def family(variance: str, repetitions: int) -> list[tuple]:
    """Return the share of experiments of 3 classifiers and 3 doses, none of which helps, with a verdict."""
    rng, context = seeded("family", variance), Context("run", "esc10", "", "", "")
    labels, ids = tuple(map(str, range(10))), tuple(map(str, range(80)))
    columns = ["esc10", "+160G", "+320G", "+640G"]
    erred = 0
    for k in range(repetitions):
        scores = trained(rng, [2.2] * 12, 3, SEED_SPREAD[variance])
        cells = {}
        for i, runs in enumerate(scores):
            for seed, run in enumerate(runs):
                cell = TableCell(f"model{i // 4}", "-", "none", columns[i % 4], seed)
                made = Scores(run, TARGETS, ids, labels, tuple(map(str, RECORDING)))
                cells[cell] = measure(made, resamples=200, seed=k)
        rows = compare_to_real(cells, "esc10", context)
        found = [row for row in rows if row["metric"] == "map_delta_family"]
        erred += any(row["ci_low"] > 0 or row["ci_high"] < 0 for row in found)
    setting = f"9 null comparisons, 3 seeds, {variance} variance between seeds"
    return [("verdict", setting, 0.05, erred / repetitions, repetitions, "")]


def unequal_family(mixes: int, folds: int, repetitions: int) -> list[tuple]:
    """Return the share of null families with a verdict; real clips only vary twice as much between seeds."""
    rng, still, erred = seeded("unequal family", mixes, folds), np.zeros(2), 0
    for _ in range(repetitions):
        *added, real = [
            [bootstrap.Resampled(v / 100, still, 80, f) for f in range(folds) for v in rng.normal(0, sd, 3)]
            for sd in (*[1] * mixes, 2)
        ]
        found = bootstrap.family(added, real, 1 - 0.05 / mixes)
        erred += any(one.low > 0 or one.high < 0 for one in found)
    setting = (
        f"{mixes} null mixes, 3 seeds alone, {folds} fold{'s' * (folds > 1)}, real clips vary twice as much"
    )
    return [("verdict", setting, 0.05, erred / repetitions, repetitions, FAMILY_BEFORE[mixes, folds])]


def near_one(skill: float, repetitions: int) -> list[tuple]:
    """Return the coverage of the macro AUC of a good classifier."""
    rng, covered, before = seeded("auc", skill), 0, AUC_BEFORE.get(skill, "")

    def scores() -> np.ndarray:
        return trained(rng, [skill], 1, 0)[0, 0]

    truth = np.mean([ranking.roc_auc(scores(), TARGETS).mean() for _ in range(4000)])
    for k in range(repetitions):
        how = {"recordings": RECORDING.tolist(), "resamples": 200, "seed": k}
        found = bootstrap.auc_interval(bootstrap.map_and_auc(scores(), TARGETS, **how)[1])
        covered += found.low <= truth <= found.high
    return [("auc", f"macro AUC {truth:.3f}", 0.95, covered / repetitions, repetitions, before)]


def clustered_share(p: float, repetitions: int) -> list[tuple]:
    """Return the coverage of an accuracy; half of the recordings are right or wrong as a whole."""
    rng, covered = seeded("accuracy", p), 0
    for _ in range(repetitions):
        together = rng.random(len(SIZES)) < 0.5
        whole, single = rng.random(len(SIZES)) < p, rng.random(len(RECORDING)) < p
        found = wilson(np.where(together[RECORDING], whole[RECORDING], single), RECORDING.tolist())
        covered += found.low <= p <= found.high
    return [
        ("accuracy", f"p = {p}, half of the recordings alike", 0.95, covered / repetitions, repetitions, "")
    ]


SCENARIOS = {
    "map": [
        *(partial(paired, variance, seeds, 500) for variance in SEED_SPREAD for seeds in (3, 5, 8)),
        *(partial(seeds_alone, seeds, 8000) for seeds in SEEDS_BEFORE),
        *(partial(one_training, skill, 1000) for skill in (2.2, 3.5)),
    ],
    "verdict": [
        *(partial(family, variance, 200) for variance in SEED_SPREAD),
        *(partial(unequal_family, *sizes, 4000) for sizes in FAMILY_BEFORE),
    ],
    "auc": [partial(near_one, skill, 1500) for skill in (2.7, 3.35, 4.1)],
    "accuracy": [partial(clustered_share, p, 4000) for p in (0.5, 0.8, 0.95)],
}
