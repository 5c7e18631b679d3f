"""Scenarios of `coverage.py`: mAP and its paired differences, the verdict, AUC, accuracy."""

from functools import partial

import numpy as np

from ajbench.metrics.intervals import wilson

# Clips of each recording of each class in fold 5 of ESC-10: 80 clips of 57 recordings.
FOLD = [
    *([1] * 8, [1] * 8, [1] * 8, [1, 1, 1, 1, 1, 1, 2], [1, 1, 1, 1, 2, 2]),
    *([1, 2, 2, 3], [1, 1, 2, 2, 2], [1, 1, 2, 2, 2], [1, 1, 1, 5], [1, 7]),
]
RECORDINGS = [size for sizes in FOLD for size in sizes]


def clustered_shares(p: float, repetitions: int) -> list[tuple]:
    """Return the coverage of an accuracy's interval; half of the recordings are right or wrong as a whole."""
    rng = np.random.default_rng(int(1000 * p))
    groups = np.repeat(np.arange(len(RECORDINGS)), RECORDINGS)
    covered = 0
    for _ in range(repetitions):
        together = rng.random(len(RECORDINGS)) < 0.5
        whole, single = rng.random(len(RECORDINGS)) < p, rng.random(len(groups)) < p
        found = wilson(np.where(together[groups], whole[groups], single), groups.tolist())
        covered += found.low <= p <= found.high
    return [("accuracy", f"p = {p}, 80 clips of 57 recordings", 0.95, covered / repetitions, repetitions, "")]


SCENARIOS = {"accuracy": [partial(clustered_shares, p, 4000) for p in (0.5, 0.8, 0.95)]}
