import numpy as np
import pytest
from scipy import stats

from ajbench.metrics import intervals
from ajbench.metrics.distribution import frechet_distance, frechet_draws


def test_one_variance_gives_student_s_interval():
    rng = np.random.default_rng(0)
    x = rng.normal(size=12)
    found = intervals.t_interval(x.mean(), [(x.var(ddof=1) / 12, 11)])
    assert found[1:] == pytest.approx(stats.t.interval(0.95, 11, x.mean(), stats.sem(x)))
    narrow = intervals.t_interval(x.mean(), [(x.var(ddof=1) / 12, 11)], level=0.5)
    assert narrow[1:] == pytest.approx(stats.t.interval(0.5, 11, x.mean(), stats.sem(x)))


def test_independent_variances_are_combined_as_in_welch_s_test():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=5), rng.normal(0, 3, size=9)
    parts = [(v.var(ddof=1) / len(v), len(v) - 1) for v in (x, y)]
    found = intervals.t_interval(x.mean() - y.mean(), parts)
    expected = stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
    assert found[1:] == pytest.approx(tuple(expected))
    assert intervals.t_interval(found.value, [*parts, (0.0, 1), (0.0, 0)]) == found


def test_bounds_are_clipped_and_absent_without_a_variance():
    assert intervals.t_interval(0.9, [(0.04, 30)], limits=(0, 1)).high == 1
    assert intervals.t_interval(0.3, [(0.0, 4)], limits=(0, 1)) == (0.3, 0.3, 0.3)
    assert intervals.t_interval(-1e-15, [(0.0, 4)], limits=(0, 1)) == (-1e-15,) * 3
    assert np.isnan(intervals.t_interval(0.3, [(np.nan, 0), (0.1, 3)])[1:]).all()


@pytest.mark.parametrize(("n", "p"), [(8, 0.5), (8, 0.9), (16, 0.06), (16, 0.9), (64, 0.06), (64, 0.9)])
def test_wilson_covers_the_share_of_few_clips(n, p):
    hits = np.arange(n + 1)
    found = [intervals.wilson(np.arange(n) < k, range(n)) for k in hits]
    inside = [one.low <= p <= one.high for one in found]
    assert stats.binom.pmf(hits, n, p) @ inside >= 0.925


@pytest.mark.parametrize(("hits", "n"), [(0, 8), (3, 8), (8, 8), (20, 30)])
def test_wilson_of_independent_clips(hits, n):
    found = intervals.wilson(np.arange(n) < hits, range(n))
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert found == pytest.approx((hits / n, expected.low, expected.high))
    assert 0 <= found.low <= found.value <= found.high <= 1


def level_of(groups):
    """Level at which the normal quantile is Student's 95 % quantile of this many groups."""
    return 2 * stats.norm.cdf(stats.t.ppf(0.975, groups - 1)) - 1


def test_wilson_counts_alike_clips_of_a_group_once():
    hits = np.array([1, 0, 1, 1, 0, 0, 1, 0])
    once = intervals.wilson(hits, range(8), level_of(8))
    assert intervals.wilson(np.repeat(hits, 4), np.repeat(np.arange(8), 4)) == pytest.approx(once)
    # Every group has two hits of four: the clips of a group are less alike than those of different groups.
    spread = intervals.wilson(np.tile([1, 0, 1, 0], 8), np.repeat(np.arange(8), 4))
    assert spread == pytest.approx(intervals.wilson(np.tile([1, 0], 16), range(32), level_of(8)))


def test_wilson_of_hits_only_has_a_width_for_the_number_of_groups():
    expected = intervals.wilson(np.ones(5), range(5), level_of(5))
    assert intervals.wilson(np.ones(20), np.repeat(np.arange(5), 4)) == pytest.approx(expected)
    one = intervals.wilson(np.array([1, 0, 1]), "aaa")
    assert 0 <= one.low < 0.1 and 0.9 < one.high <= 1


def test_correlation_within_groups_is_that_of_the_analysis_of_variance():
    rng = np.random.default_rng(2)
    of = rng.permutation(np.repeat(np.arange(3000), rng.integers(1, 8, 3000)))
    p = rng.beta(2, 2, 3000)[of]  # correlation 1 / (2 + 2 + 1)
    hits = rng.random(len(of)) < p
    sizes, shares = intervals._of_groups(hits.astype(float), of.tolist())
    assert intervals._correlation(sizes, shares) == pytest.approx(0.2, abs=0.02)


def test_mean_over_single_clips_is_student_s_and_over_groups_is_theirs():
    x = np.random.default_rng(3).normal(size=10)
    expected = stats.t.interval(0.95, 9, x.mean(), stats.sem(x))
    assert intervals.mean_interval(x, range(10))[1:] == pytest.approx(expected)
    grouped = intervals.mean_interval(np.repeat(x, 3), np.repeat(np.arange(10), 3))
    assert grouped[1:] == pytest.approx(expected)
    assert intervals.mean_interval(x, range(10), limits=(0.0, np.inf)).low >= min(0, x.mean())
    assert np.isnan(intervals.mean_interval(x, ["a"] * 10)[1:]).all()


def test_jackknife_of_a_mean_is_its_variance_whatever_the_blocks():
    x = np.random.default_rng(4).normal(size=20)
    without = np.array([np.delete(x, j).mean() for j in range(20)])
    assert intervals.jackknife_variance(x.mean(), without, np.ones(20, int)) == pytest.approx(
        x.var(ddof=1) / 20
    )
    assert intervals.jackknife_variance(x.mean(), without, np.ones(20, int)) == pytest.approx(
        19 / 20 * np.sum((without - without.mean()) ** 2)
    )
    block = np.repeat(np.arange(6), [1, 2, 3, 4, 5, 5])
    without = np.array([x[block != j].mean() for j in range(6)])
    half = stats.t.ppf(0.975, 5) * np.sqrt(
        intervals.jackknife_variance(x.mean(), without, np.bincount(block))
    )
    assert intervals.mean_interval(x, block.tolist()).high == pytest.approx(x.mean() + half)
    assert np.isnan(intervals.jackknife_variance(1.0, np.ones(1), np.array([7])))


def test_jackknife_leaves_out_a_bias_of_one_over_n():
    sizes = np.array([1, 2, 3, 4, 7])
    without = 2 + 30 / (17 - sizes)
    assert intervals.jackknife_variance(2 + 30 / 17, without, sizes) == pytest.approx(0, abs=1e-20)


def subset_means(x):
    return lambda kept: kept @ x / kept.sum(axis=1)


def test_jackknife_of_a_difference_of_means_is_welch_s_interval():
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=40), rng.normal(0, 2, size=30)
    both = subset_means(x), subset_means(y)
    value = x.mean() - y.mean()
    found = intervals.jackknife(value, lambda a, b: both[0](a) - both[1](b), [range(40), range(30)])
    expected = stats.ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
    assert found == pytest.approx((value, *expected), rel=0.02)
    copies = np.repeat(x, 3), np.repeat(np.arange(40), 3)
    of_groups = intervals.jackknife(x.mean(), subset_means(copies[0]), [copies[1].tolist()])
    assert of_groups == pytest.approx(intervals.jackknife(x.mean(), both[0], [range(40)]))
    three = intervals.jackknife(0.0, both[0], [[0, 1, 2] * 13 + [0]])
    assert np.isnan(three[1:]).all()


def test_jackknife_counts_a_term_of_two_clips_once():
    rng, squares = np.random.default_rng(7), []
    for _ in range(60):
        x, y = rng.normal(size=(2, 30))
        both = subset_means(x), subset_means(y)
        how = x.mean() * y.mean(), lambda a, b, both=both: both[0](a) * both[1](b), [range(30)] * 2
        found = (intervals.jackknife(*how, pairs=pairs) for pairs in (0, 72))
        squares.append([((high - low) / 4) ** 2 for _, low, high in found])
    # The variance of the product is 1/30²; the plain jackknife's is twice that.
    plain, less = np.mean(squares, axis=0) * 30**2
    assert plain == pytest.approx(2, rel=0.4) and 0.5 * plain <= less < 0.85 * plain


def test_fd_s_interval_covers_its_expectation_at_this_n():
    n, m, d, rng = 80, 200, 64, np.random.default_rng(8)
    draw = lambda: (rng.normal(size=(n, d)) + 0.2, rng.normal(size=(m, d)))  # noqa: E731
    redrawn = [frechet_distance(*draw()) for _ in range(200)]
    found = []
    for x, y in (draw() for _ in range(40)):
        distances = lambda a, b, x=x, y=y: frechet_draws(x, y, a, b)  # noqa: E731
        found.append(intervals.jackknife(frechet_distance(x, y), distances, [range(n), range(m)]))
    inside = [low <= np.mean(redrawn) <= high for _, low, high in found]
    assert np.mean(inside) >= 0.87
    width = np.mean([high - low for _, low, high in found])
    assert width == pytest.approx(2 * 1.99 * np.std(redrawn), rel=0.25)  # resamples of clips: 3 times as wide


def test_blocks_are_whole_groups_of_nearly_equal_size():
    rng = np.random.default_rng(5)
    groups = rng.permutation(np.repeat(np.arange(900), rng.integers(1, 8, 900))).tolist()
    found = intervals.blocks(groups)
    sizes = np.bincount(found)
    assert len(sizes) == intervals.BLOCKS and sizes.max() - sizes.min() <= 1
    assert len(set(zip(groups, found.tolist(), strict=True))) == 900
    assert np.array_equal(found, intervals.blocks(groups))
    assert np.abs(np.diff(found[np.argsort(groups, kind="stable")])).mean() > 5  # not in the order of groups
    assert intervals.blocks(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]
