import time

import numpy as np
import pytest

from ajbench.core.errors import UsageError
from ajbench.metrics import bootstrap, ranking


def single_label(rng, runs, n=80, classes=10, lift=1.5):
    targets = np.eye(classes, dtype=bool)[np.arange(n) % classes]
    return rng.normal(size=(runs, n, classes)) + lift * targets, targets


@pytest.mark.parametrize("kind", ["distinct", "ties", "all equal"])
def test_weighted_map_equals_map_of_the_resampled_clips(kind):
    rng = np.random.default_rng(0)
    scores, targets = rng.normal(size=(2, 30, 6)), rng.random((30, 6)) < 0.12
    targets[:, 3] = False
    scores = {"distinct": scores, "ties": np.round(scores), "all equal": np.zeros_like(scores)}[kind]
    counts = bootstrap.clip_counts(30, 40, rng)
    assert (counts.sum(axis=0) == 30).all()
    values = bootstrap.resampled_map(scores, targets, counts)
    for r in range(40):
        clips = np.repeat(np.arange(30), counts[:, r].astype(int))
        for s in range(2):
            expected = ranking.summary(scores[s, clips], targets[clips])["map"]
            assert values[s, r] == pytest.approx(expected, abs=1e-12)


def test_a_resample_without_positives_is_left_out():
    scores, targets = np.array([[[0.9], [0.1]]]), np.array([[True], [False]])
    counts = np.array([[0, 2], [2, 0]], np.float32)
    values = bootstrap.resampled_map(scores, targets, counts)
    assert np.isnan(values[0, 0]) and values[0, 1] == 1.0


def test_interval_of_a_mean_is_that_of_the_normal_law():
    x = np.random.default_rng(1).normal(size=400)
    value, low, high = bootstrap.interval(lambda i: float(x[i].mean()), 400, resamples=4000, seed=0)
    half = 1.96 * x.std() / np.sqrt(400)
    assert value == pytest.approx(x.mean()) and low < value < high
    assert (value - low, high - value) == pytest.approx((half, half), rel=0.06)
    assert bootstrap.interval(lambda i: 1.0, 5, seed=0, resamples=9, limits=(0.0, 1.0)) == (1.0, 1.0, 1.0)


def test_the_value_is_inside_although_resampling_raises_ap():
    # With rare classes, repeated positives rank together, and plain percentiles are above the value.
    rng = np.random.default_rng(2)
    targets = rng.random((1000, 200)) < 0.002
    scores = rng.normal(size=targets.shape) + 2 * targets
    values = bootstrap.resampled_map(scores[None], targets, bootstrap.clip_counts(1000, 100, rng))[0]
    whole = ranking.summary(scores, targets)["map"]
    assert np.quantile(values, 0.025) > whole
    value, low, high = bootstrap.seeds_and_clips(scores, targets, resamples=100, seed=0)
    assert value == pytest.approx(whole, abs=1e-12) and low < value < high


def test_coverage_over_redrawn_test_sets():
    rng = np.random.default_rng(3)
    redrawn = (single_label(rng, 1) for _ in range(200))
    expected = np.mean([ranking.summary(scores[0], targets)["map"] for scores, targets in redrawn])
    found = [bootstrap.seeds_and_clips(*single_label(rng, 1), resamples=100, seed=k) for k in range(60)]
    assert sum(low <= expected <= high for _, low, high in found) >= 52


def test_spread_over_seeds_widens_the_interval():
    rng = np.random.default_rng(4)
    scores, targets = single_label(rng, 1)
    same = bootstrap.seeds_and_clips(np.repeat(scores, 3, axis=0), targets, seed=0)
    assert same == bootstrap.seeds_and_clips(scores, targets, seed=0)
    uneven = np.concatenate([scores, scores + 3 * targets, scores - targets])
    wide = bootstrap.seeds_and_clips(uneven, targets, seed=0)
    assert wide.high - wide.low > 1.5 * (same.high - same.low)


def test_few_seeds_are_drawn_with_their_unbiased_spread():
    # Run 1 is always right, run 2 is constant: mAP is 1 and the share of positives, for almost any clips.
    targets = np.arange(4000)[:, None] % 2 == 0
    scores = np.stack([targets, np.zeros_like(targets)]).astype(float)
    value, low, high = bootstrap.seeds_and_clips(scores, targets, resamples=300, seed=0)
    assert value == pytest.approx(0.75, abs=1e-12)
    # Means of two draws are 1, ¾ or ½; about ¾ their deviations are stretched by √(2/1).
    assert low == pytest.approx(0.75 - 0.25 * np.sqrt(2), abs=0.03) and high == 1.0


def test_paired_difference_is_sharper_than_two_intervals():
    rng = np.random.default_rng(5)
    base, targets = single_label(rng, 3)
    better = base + 0.2 * targets + 0.05 * rng.normal(size=base.shape)
    value, low, high = bootstrap.paired_difference(better, base, targets, seed=0)
    assert 0 < low < value < high
    alone = bootstrap.seeds_and_clips(base, targets, seed=0)
    assert high - low < 0.5 * (alone.high - alone.low)
    assert bootstrap.paired_difference(base, base, targets, seed=0) == (0.0, 0.0, 0.0)
    mirrored = bootstrap.paired_difference(base, better, targets, seed=0)
    assert mirrored == pytest.approx((-value, -high, -low), abs=1e-12)


def test_same_seed_same_interval_and_speed():
    scores, targets = single_label(np.random.default_rng(6), 3)
    start = time.process_time()
    first = bootstrap.seeds_and_clips(scores, targets, resamples=1000, seed=0)
    assert time.process_time() - start < 2.0
    assert first == bootstrap.seeds_and_clips(scores, targets, resamples=1000, seed=0)
    assert first != bootstrap.seeds_and_clips(scores, targets, resamples=1000, seed=1)


def test_bad_input_is_refused():
    scores, targets = single_label(np.random.default_rng(7), 3)
    with pytest.raises(UsageError, match="3 and 2"):
        bootstrap.paired_difference(scores, scores[:2], targets, seed=0)
    assert bootstrap.paired_difference(scores, scores[:2], targets, pair_seeds=False, seed=0, resamples=9)
    with pytest.raises(UsageError, match="level"):
        bootstrap.interval(lambda i: 0.0, 3, seed=0, level=95)


def test_ends_are_centred_on_the_value_and_clipped_to_the_limits():
    draws = np.linspace(0.3, 0.9, 601)  # their mean is 0.6
    assert bootstrap.ends(0.8, draws) == pytest.approx((0.515, 1.085))
    assert bootstrap.ends(0.8, draws, limits=(0, 1)) == pytest.approx((0.515, 1))
    assert bootstrap.ends(0.1, draws, limits=(0, 1)) == pytest.approx((0, 0.385))
    assert bootstrap.ends(-1e-14, draws * 1e-15, limits=(0, np.inf))[0] == -1e-14  # two equal sets
    assert np.isnan(bootstrap.ends(0.8, draws[:0], limits=(0, 1))).all()


def test_clips_of_one_group_are_drawn_together():
    groups = bootstrap.groups_of(["a", "b", "a", "c", "b"])
    counts = bootstrap.counts(groups, 300, np.random.default_rng(0))
    assert counts.shape == (300, 5)
    assert (counts[:, 0] == counts[:, 2]).all() and (counts[:, 1] == counts[:, 4]).all()
    assert (counts[:, 0] + counts[:, 1] + counts[:, 3] == 3).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(5), abs=0.2)
