import numpy as np
import pytest
from scipy import stats

from ajbench.metrics import intervals


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


@pytest.mark.parametrize(("hits", "n"), [(0, 8), (3, 8), (8, 8), (20, 30)])
def test_wilson_of_independent_clips(hits, n):
    found = intervals.wilson(np.arange(n) < hits, range(n))
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert found == pytest.approx((hits / n, expected.low, expected.high))
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_wilson_counts_alike_clips_of_a_group_once():
    hits = np.array([1, 0, 1, 1, 0, 0, 1, 0])
    once = intervals.wilson(hits, range(8))
    assert intervals.wilson(np.repeat(hits, 4), np.repeat(np.arange(8), 4)) == pytest.approx(once)
    # Every group has two hits of four: the clips of a group are less alike than those of different groups.
    spread = intervals.wilson(np.tile([1, 0, 1, 0], 8), np.repeat(np.arange(8), 4))
    assert spread == pytest.approx(intervals.wilson(np.tile([1, 0], 16), range(32)))


def test_wilson_of_hits_only_has_a_width_for_the_number_of_groups():
    expected = intervals.wilson(np.ones(5), range(5))
    assert intervals.wilson(np.ones(20), np.repeat(np.arange(5), 4)) == pytest.approx(expected)
    one = intervals.wilson(np.array([1, 0, 1]), "aaa")
    assert one.high - one.low > 0.75


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


def test_blocks_are_whole_groups_of_nearly_equal_size():
    rng = np.random.default_rng(5)
    groups = rng.permutation(np.repeat(np.arange(900), rng.integers(1, 8, 900))).tolist()
    found = intervals.blocks(groups)
    sizes = np.bincount(found)
    assert len(sizes) == 100 and sizes.max() - sizes.min() <= 1
    assert len(set(zip(groups, found.tolist(), strict=True))) == 900
    assert np.array_equal(found, intervals.blocks(groups))
    assert np.abs(np.diff(found[np.argsort(groups, kind="stable")])).mean() > 5  # not in the order of groups
    assert intervals.blocks(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]
