"""Scenarios of `coverage.py`: paired differences and means over the folds of a corpus.

Each fold is a test set of its own, as in `coverage_classifiers`, and has classifiers of its own skill. The
truth is the mean over folds of the expectation over fresh test sets and seeds.
"""

from functools import partial

import numpy as np
from coverage_classifiers import RECORDING, SEED_SPREAD, TARGETS, mean_ap, seeded, trained

from ajbench.metrics import bootstrap

SKILLS = (1.8, 2.0, 2.2, 2.4, 2.6)  # of real clips only, by fold
GAIN = 0.3  # in skill


def resampled(runs: np.ndarray, fold: int, seed: int) -> list[bootstrap.Resampled]:
    """Return the mAP of trainings [seeds, N, C] of one fold on resamples of its clips."""
    how = {"recordings": RECORDING.tolist(), "resamples": 200, "seed": seed}
    return [bootstrap.map_and_auc(run, TARGETS, **how)[0]._replace(fold=fold) for run in runs]


def pooled(variance: str, seeds: int, repetitions: int) -> list[tuple]:
    """Return the coverage of the difference of two mixes and of the mAP of one, over seeds and five folds."""
    rng, spread = seeded("folds", variance, seeds), SEED_SPREAD[variance]

    def fold(skill: float, seeds: int) -> np.ndarray:
        return trained(rng, [skill, skill + GAIN], seeds, spread)

    fresh = [[mean_ap(runs[0]) for runs in fold(skill, 1)] for skill in SKILLS for _ in range(400)]
    real, mix = np.mean(fresh, axis=0)
    truths = {"map_delta": mix - real, "map_mean": real}
    covered = dict.fromkeys(truths, 0)
    for k in range(repetitions):
        made = [[resampled(runs, i, k) for runs in fold(skill, seeds)] for i, skill in enumerate(SKILLS)]
        base, more = ([run for runs in side for run in runs] for side in zip(*made, strict=True))
        gain = bootstrap.over_seeds(bootstrap.difference(more, base), limits=(-1, 1))
        for name, found in (("map_delta", gain), ("map_mean", bootstrap.over_seeds(base))):
            covered[name] += found.low <= truths[name] <= found.high
    setting = f"five folds, {variance} variance between seeds, {seeds} seeds"
    return [(name, setting, 0.95, hits / repetitions, repetitions, "") for name, hits in covered.items()]


SCENARIOS = {"folds": [partial(pooled, variance, 2, 200) for variance in SEED_SPREAD]}
