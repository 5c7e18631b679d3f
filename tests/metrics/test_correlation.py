import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ajbench.metrics import correlation as module
from ajbench.metrics.correlation import correlation, spearman

VALUES = st.lists(st.integers(-3, 3), min_size=4, max_size=6)


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


def test_a_resample_has_the_correlations_of_its_clips(rng):
    x, y = np.round(rng.normal(size=(2, 25)), 1)  # some are equal
    times = rng.integers(0, 4, (6, 25)).astype(float)
    found = module._resampled(x, y, times)
    for (pearson, ranks), count in zip(found, times.astype(int), strict=True):
        pair = np.repeat(x, count), np.repeat(y, count)
        assert pearson == pytest.approx(stats.pearsonr(*pair)[0])
        assert ranks == pytest.approx(stats.spearmanr(*pair)[0])
    assert np.isnan(module._resampled(x, y, np.eye(25)[:2])).all()


def test_infinite_scores_have_ranks_and_unknown_ones_have_none():
    assert spearman([1, 2, np.inf, np.inf], [1, 2, 3, 3]).rho == pytest.approx(1)
    assert np.isnan(spearman([1, 2, 3, np.nan], [1, 2, 3, 4])[:3]).all()


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


@settings(max_examples=40)
@given(VALUES, st.data())
def test_spearman_is_scipys_with_the_p_of_its_permutation_test(x, data):
    y = data.draw(st.lists(st.integers(-3, 3), min_size=len(x), max_size=len(x)))
    found = spearman(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert np.isnan(found[:3]).all()
        return
    expected = stats.permutation_test(
        (x,),
        lambda one: abs(stats.spearmanr(one, y).statistic) + 1e-12,
        permutation_type="pairings",
        alternative="greater",
        n_resamples=np.inf,
    )
    assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.p == pytest.approx(expected.pvalue, abs=1e-9)
    assert 0 < found.smallest_p <= found.p <= 1


def test_four_pairs_in_the_same_or_the_opposite_order_have_two_of_24_permutations():
    assert spearman([1, 2, 3, 4], [0.1, 0.2, 0.5, 9]) == (1, 2 / 24, 2 / 24, 4)
    assert spearman([1, 2, 3, 4], [4, 3, 1, 0]) == (-1, 2 / 24, 2 / 24, 4)


def test_many_pairs_are_permuted_at_random_with_nearly_the_p_of_the_t_distribution(rng):
    x = rng.normal(size=40)
    y = x + rng.normal(0, 2.5, 40)
    found, expected = spearman(x, y), stats.spearmanr(x, y)
    assert found.rho == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue, abs=0.01)
    assert found == spearman(x, y)


def test_one_pair_has_no_correlation():
    assert np.isnan(spearman([1], [2]).rho)
