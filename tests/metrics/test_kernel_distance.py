import itertools

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from sklearn.metrics.pairwise import rbf_kernel

from ajbench.core.errors import NumericError, UsageError
from ajbench.metrics import kernel_distance as kernel
from ajbench.metrics import pairwise
from ajbench.metrics.kernel_distance import kernel_distance, kernel_draws, median_distance


def sets(n=30, m=41, d=7, gap=0.4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) + gap + 50, rng.normal(size=(m, d)) * 1.2 + 50


def by_scikit_learn(x, y):
    """As in kadtk: means of off-diagonal kernels, with the kernel of scikit-learn and the median of torch."""
    sigma = float(torch.median(torch.pdist(torch.from_numpy(y))))
    gamma = 1 / (2 * sigma**2 + 1e-8)
    within = [(rbf_kernel(v, gamma=gamma).sum() - len(v)) / (len(v) * (len(v) - 1)) for v in (x, y)]
    return 100 * (sum(within) - 2 * rbf_kernel(x, y, gamma=gamma).mean())


def test_it_is_the_definition_of_kadtk():
    x, y = sets()
    assert kernel_distance(x, y) == pytest.approx(by_scikit_learn(x, y), rel=1e-9)
    assert kernel_distance(y, x) != pytest.approx(kernel_distance(x, y), rel=1e-3)  # the bandwidth is y's


@pytest.mark.parametrize("m", [40, 41])  # an even and an odd number of pairs
def test_the_bandwidth_is_the_lower_median_of_distances(m, monkeypatch):
    y = sets(m=m)[1]
    expected = np.sort(pdist(y))[(m * (m - 1) // 2 - 1) // 2]
    assert median_distance(y) == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr(kernel, "_BINS", 3)
    monkeypatch.setattr(kernel, "_FEW", 5)
    monkeypatch.setattr(pairwise, "BLOCK", 100)
    assert median_distance(y) == pytest.approx(expected, rel=1e-12)


def test_equal_distances_are_their_own_median(monkeypatch):
    monkeypatch.setattr(kernel, "_FEW", 5)
    assert median_distance(np.eye(20) * 3) == pytest.approx(np.sqrt(18), rel=1e-9)


def test_a_set_against_itself_has_a_closed_form_below_zero():
    # The sums are those of one matrix: 100 · 2 (S/(n(n−1)) − (S + n)/n²), S that of its pairs.
    _, y = sets()
    sigma, n = median_distance(y), len(y)
    total = 2 * np.exp(-(pdist(y) ** 2) / (2 * sigma**2 + 1e-8)).sum()
    expected = 200 * (total / (n * (n - 1)) - (total + n) / n**2)
    assert expected < 0
    assert kernel_distance(y, y) == pytest.approx(expected, rel=1e-9)


def test_it_does_not_depend_on_the_number_of_clips():
    few = [kernel_distance(*sets(n=6, m=12, seed=seed), bandwidth=3.0) for seed in range(400)]
    many = [kernel_distance(*sets(n=1000, m=1000, seed=seed), bandwidth=3.0) for seed in range(4)]
    error = np.std(few) / np.sqrt(len(few))
    assert np.mean(few) == pytest.approx(np.mean(many), abs=3 * error)
    # Counting the pairs of a clip with itself would add far more than that.
    assert 3 * error < 100 * (1 - 0.6) * (1 / 6 + 1 / 12) / 4


def test_resamples_leave_out_pairs_of_a_clip_with_its_copy():
    x, y = sets(n=9, m=8)
    rng = np.random.default_rng(1)
    k = lambda a, b: np.exp(-((a - b) ** 2).sum() / (2 * 2.5**2 + 1e-8))  # noqa: E731
    # Clips of one group are drawn together.
    x_groups, y_groups = np.array([0, 1, 1, 2, 3, 4, 4, 4, 5]), np.array([5, 4, 3, 2, 1, 0, 0, 2])
    x_drawn, y_drawn = (rng.multinomial(6, np.ones(6) / 6, 5) for _ in range(2))
    x_counts, y_counts = x_drawn[:, x_groups], y_drawn[:, y_groups]
    for r, value in enumerate(kernel_draws(x, y, x_groups, y_groups, x_drawn, y_drawn, 2.5)):
        mine, theirs = np.repeat(np.arange(9), x_counts[r]), np.repeat(np.arange(8), y_counts[r])
        means = [
            np.mean([k(points[i], points[j]) for i, j in itertools.permutations(drawn, 2) if i != j])
            for points, drawn in ((x, mine), (y, theirs))
        ]
        across = np.mean([k(x[i], y[j]) for i, j in itertools.product(mine, theirs)])
        assert value == pytest.approx(100 * (sum(means) - 2 * across), rel=1e-9)


def test_order_and_block_size_do_not_matter(monkeypatch):
    x, y = sets()
    value = kernel_distance(x, y)
    assert kernel_distance(x[::-1], y[::-1]) == pytest.approx(value, rel=1e-9)
    monkeypatch.setattr(pairwise, "BLOCK", 90)  # two rows at a time
    assert kernel_distance(x, y) == pytest.approx(value, rel=1e-9)


def test_a_bandwidth_of_0_and_other_dimensions_are_refused():
    x, y = sets()
    with pytest.raises(NumericError, match="bandwidth"):
        kernel_distance(x, np.ones_like(y))
    with pytest.raises(UsageError, match="7 and 3"):
        kernel_distance(x, y[:, :3])
