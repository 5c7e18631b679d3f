import numpy as np
import pytest

from ajbench.metrics import bootstrap, power
from ajbench.metrics.power import Design, needed, smallest_gain

PATTERN = np.tile([1.0, -1.0], 50) * np.sqrt(0.99)  # resampled values of variance 1


def made(rng, gain, clips, between, design):
    """Trainings of K mixes and real clips only: the gain's variances are V_clips and s²/(F S)."""
    folds = [made_in(fold, rng, gain, clips, between, design) for fold in range(design.folds)]
    sides = [[*mixes, real] for mixes, real in folds]
    *mixes, real = ([run for runs in same for run in runs] for same in zip(*sides, strict=True))
    return mixes, real


def made_in(fold, rng, gain, clips, between, design):
    """Trainings of one fold, which has its share of the recordings."""
    g, mixes = design.recordings // design.folds, max(1, design.mixes)
    of_clips = np.sqrt(clips / g) * rng.standard_normal(mixes)
    of_seeds = np.sqrt(between / 2) * rng.standard_normal((mixes + 1, design.seeds))
    estimated = np.sqrt(clips / g * rng.chisquare(g - 1, mixes) / g)  # × G/(G − 1) in `bootstrap`

    def runs(seeds, shift=0.0, spread=0.0):
        return [bootstrap.Resampled(shift + value, spread * PATTERN, g, fold) for value in seeds]

    parts = zip(of_seeds[1:], gain + of_clips, estimated, strict=True)
    return [runs(*part) for part in parts], runs(of_seeds[0])


@pytest.mark.parametrize(
    ("clips", "seed_sd", "design"),
    [
        (0.09, 0.02, Design(57, 3)),
        (0.03, 0.04, Design(57, 3)),
        (0.09, 0.02, Design(280, 5)),
        (0.09, 0.0, Design(12, 1)),
        (0.06, 0.03, Design(57, 3, 1 - 0.05 / 9, 3)),
        (0.06, 0.03, Design(285, 2, 1 - 0.05 / 9, 3, folds=5)),
        (0.09, 0.03, Design(285, 2, folds=5)),
    ],
)
def test_the_smallest_gain_is_seen_four_times_in_five(clips, seed_sd, design):
    rng, between = np.random.default_rng(7), seed_sd**2
    gain = smallest_gain(clips, between, design)
    seen = []
    for _ in range(1500):
        mixes, real = made(rng, gain, clips, between, design)
        if design.mixes:
            seen += [found.low > 0 for found in bootstrap.family(mixes, real, design.level)]
        else:
            found = bootstrap.over_seeds(bootstrap.difference(mixes[0], real), design.level, (-1, 1))
            seen.append(found.low > 0)
    assert np.mean(seen) == pytest.approx(power.POWER, abs=0.03)


def test_more_recordings_more_seeds_and_fewer_comparisons_show_smaller_gains():
    plan = 0.09, 0.03**2
    some = smallest_gain(*plan, Design(57, 3))
    assert smallest_gain(*plan, Design(280, 3)) < some and smallest_gain(*plan, Design(57, 5)) < some
    assert smallest_gain(*plan, Design(57, 3, 1 - 0.05 / 9)) > some
    assert smallest_gain(*plan, Design(57, 3), power=0.5) < some


def test_without_variance_any_gain_is_seen_and_one_recording_shows_nothing():
    assert smallest_gain(0, 0, Design(57, 3)) == 0
    assert np.isnan(smallest_gain(0.1, 0, Design(1, 3)))


@pytest.mark.parametrize("mixes", [0, 3])
def test_what_is_needed_is_just_enough(mixes):
    design = Design(57, 3, mixes=mixes)
    found = needed(0.03, 0.09, 0.02**2, design)
    assert found.seeds > 3 and smallest_gain(0.09, 0.02**2, found) <= 0.03
    fewer = Design(int(0.97 * found.recordings), found.seeds, found.level, mixes)
    assert smallest_gain(0.09, 0.02**2, fewer) > 0.03
    assert needed(0.03, 0.09, 0, design).seeds == 3
    assert [needed(0.03, 0.09, 0, Design(57, seeds)).seeds for seeds in (19, 20, 23, 250)] == [
        19,
        20,
        23,
        250,
    ]
    assert needed(0.001, 0.09, 0.2, design) is None
