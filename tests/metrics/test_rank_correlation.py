import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ajbench.metrics.rank_correlation import spearman

VALUES = st.lists(st.integers(-3, 3), min_size=4, max_size=6)


@given(VALUES, st.data())
def test_it_is_scipys_with_the_p_of_its_permutation_test(x, data):
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
