import numpy as np
import pytest
from scipy import stats

from ajbench.metrics import correlation as module
from ajbench.metrics.correlation import correlation


def test_values_are_scipys_and_unknown_scores_are_left_out(rng):
    x, y = rng.normal(size=(2, 40))
    y += x
    y[3] = x[7] = np.nan
    found = correlation(x, y, range(40))
    known = ~np.isnan(x + y)
    assert found.n == 38
    assert found.pearson.value == pytest.approx(stats.pearsonr(x[known], y[known])[0])
    assert found.spearman.value == pytest.approx(stats.spearmanr(x[known], y[known])[0])
    assert found == correlation(x, y, range(40))


def test_intervals_cover_the_correlation(rng, monkeypatch):
    monkeypatch.setattr(module, "RESAMPLES", 100)
    hits = 0
    for seed in range(200):
        x, noise = rng.normal(size=(2, 30))
        found = correlation(x, 0.6 * x + 0.8 * noise, range(30), seed=seed).pearson
        hits += found.low <= 0.6 <= found.high
    assert 180 <= hits <= 199


def test_clips_of_one_recording_are_drawn_together(rng):
    x = np.repeat(rng.normal(size=20), 10)
    y = np.repeat(rng.normal(size=20), 10)
    alone, together = (correlation(x, y, groups).pearson for groups in (range(200), np.arange(200) // 10))
    assert alone.value == together.value
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_many_clips_have_the_interval_of_all_of_them(rng, monkeypatch):
    x, y = rng.normal(size=(2, 4000))
    whole = correlation(x, x + y, range(4000))
    monkeypatch.setattr(module, "AT_MOST", 1000)
    part = correlation(x, x + y, range(4000))
    assert part.pearson.value == whole.pearson.value and part.n == 4000
    ratio = (part.pearson.high - part.pearson.low) / (whole.pearson.high - whole.pearson.low)
    assert 0.8 < ratio < 1.25


def test_extremes_have_no_interval_or_an_empty_one():
    x = np.arange(10.0)
    assert correlation(x, 2 * x, range(10)).pearson.low == pytest.approx(1)
    assert np.isnan(correlation(x, np.ones(10), range(10)).spearman.value)
    few = correlation(x, -x, [0] * 5 + [1] * 5).pearson
    assert few.value == pytest.approx(-1) and np.isnan(few.low)
    assert np.isnan(correlation(x[:1], x[:1], range(1)).pearson.value)
