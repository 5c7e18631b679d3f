"""Scenarios of `coverage.py`: how often the audit finds leaks among independent clips."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from fakes import audit_of_standouts

from ajbench.data.corpora import mini
from ajbench.evaluation.audit_findings import ALPHA
from ajbench.evaluation.audit_similarity import scores
from ajbench.metrics.audio_fingerprint import fingerprints
from ajbench.metrics.standout import spread, spread_of_others, standout

DRAWS = {
    "Gumbel": lambda rng, shape: rng.gumbel(size=shape),
    "log-normal": lambda rng, shape: rng.lognormal(size=shape),
    "t with 1.5 degrees of freedom": lambda rng, shape: rng.standard_t(1.5, shape),
}
# With Binomial(clips, 0.01), and a threshold between two quantiles of a fitted Gumbel distribution.
BEFORE = {
    ("Gumbel", 320): 0.0,
    ("Gumbel", 640): 0.0,
    ("log-normal", 320): 0.044,
    ("log-normal", 640): 0.045,
    ("t with 1.5 degrees of freedom", 320): 0.237,
    ("t with 1.5 degrees of freedom", 640): 0.284,
}


def independent_clips(
    draw: str, real: int, clips: int, views: int, per_guide: int, repetitions: int
) -> list[tuple]:
    """Return how often leaks are found where standouts of real and synthetic clips have one distribution.

    With several clips per guide, half of a guide's clips sound alike. With two views, the standouts of a clip
    are independent.
    """
    rng, make = np.random.default_rng([len(draw), real, clips, views, per_guide]), DRAWS[draw]
    origins = {f"s{k}": f"guide {k // per_guide}" for k in range(clips)}
    found = 0
    for _ in range(repetitions):
        made = make(rng, (views, clips))
        alike = rng.random(clips) < (0.5 if per_guide > 1 else 0.0)
        made = np.where(alike, make(rng, (views, clips // per_guide)).repeat(per_guide, axis=1), made)
        found += audit_of_standouts(make(rng, (views, real)), made, origins).tally("leak").p < ALPHA
    setting = f"{clips} synthetic, {real} real clips; standouts: {draw}"
    setting += f"; {views} views" * (views > 1) + f"; {per_guide} clips per guide" * (per_guide > 1)
    before = BEFORE.get((draw, clips), "") if (real, views, per_guide) == (320, 1, 1) else ""
    return [("audit", setting, ALPHA, found / repetitions, repetitions, before)]


def rendered_clips(real: int, clips: int, corpora: int, repetitions: int) -> list[tuple]:
    """Return how often leaks are found where all sets are clips of the corpus mini, compared by fingerprints.

    Every corpus has its own 40 eval clips; real and synthetic clips are drawn from the rest.
    """
    found = 0
    for seed in range(corpora):
        rng = np.random.default_rng(seed)
        waves = np.stack([mini.render(seed, k, 1.26)[0] for k in range(40 + 2 * (real + clips))])
        prints = list(fingerprints(torch.from_numpy(waves)))
        _, every = scores(prints[40:], prints[:40])
        for _ in range(repetitions // corpora):
            mine, theirs = np.split(every[rng.permutation(len(every))[: real + clips]], [real])
            nearest = standout(mine, spread_of_others(mine.T)).max(axis=1)
            made = standout(theirs, spread(mine.T)).max(axis=1)
            found += audit_of_standouts(nearest[None], made[None]).tally("leak").p < ALPHA
    setting = f"{clips} synthetic, {real} real clips; fingerprints of mini"
    return [("audit", setting, ALPHA, found / repetitions, repetitions, "")]


SCENARIOS = {
    "audit": [
        *(partial(independent_clips, draw, 320, clips, 1, 1, 4000) for draw, clips in BEFORE),
        partial(independent_clips, "log-normal", 12, 100, 1, 1, 4000),
        partial(independent_clips, "log-normal", 320, 640, 2, 1, 4000),
        partial(independent_clips, "log-normal", 320, 640, 1, 2, 4000),
        *(partial(rendered_clips, 320, clips, 4, 1000) for clips in (320, 640)),
    ]
}
