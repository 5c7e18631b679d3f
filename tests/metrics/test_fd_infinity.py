import numpy as np
import pytest

from ajbench.core.errors import UsageError
from ajbench.metrics.distribution import frechet_distance, frechet_draws
from ajbench.metrics.fd_infinity import doubling_sizes, line, linear_sizes

D = 16
SCALES = np.linspace(0.5, 2, D)
TRUTH = 0.25 + float(((SCALES - 1) ** 2).sum())  # means half apart, independent dimensions


def gaussians(n, m, seed=0):
    rng = np.random.default_rng(seed)
    gap = np.full(D, 0.5 / np.sqrt(D))
    return rng.normal(size=(n, D)) * SCALES + gap, rng.normal(size=(m, D))


def against(x, y):
    return lambda subsets: frechet_draws(x, y, subsets, np.ones((len(subsets), len(y)), int))


def test_the_limit_for_gaussians_is_closer_to_the_truth_than_fd():
    errors = []
    for seed in range(6):
        x, y = gaussians(150, 4000, seed)
        errors.append((line(against(x, y), len(x), seed=seed).limit - TRUTH, frechet_distance(x, y) - TRUTH))
    limit, plain = np.mean(errors, axis=0)
    assert plain > 0.5  # FD of 150 clips is too large
    assert abs(limit) < min(0.15 * plain, 0.05 * TRUTH)


def test_the_line_is_the_least_squares_fit_to_all_subsets():
    x, y = gaussians(60, 200)
    found = line(against(x, y), 60, sizes=[20, 30, 60], draws=3, seed=4)
    slope, limit = np.polyfit(np.repeat(1 / np.array([20, 30, 60]), 3), found.values.ravel(), 1)
    assert (found.limit, found.slope) == pytest.approx((limit, slope), rel=1e-9)
    assert found.values[2] == pytest.approx([frechet_distance(x, y)] * 3, rel=1e-9)


def test_a_subset_is_determined_by_seed_size_and_number():
    seen = []
    keep = lambda subsets: seen.append(subsets) or subsets.sum(axis=1).astype(float)  # noqa: E731
    for sizes, draws, seed in (([10, 20, 40], 3, 0), ([20, 30], 2, 0), ([20, 30], 2, 1)):
        line(keep, 40, sizes, draws, seed)
    first, second, other = seen
    assert set(np.unique(first)) == {0, 1}
    assert first.sum(axis=1).tolist() == [10] * 3 + [20] * 3 + [40]  # all clips are one subset only
    assert np.array_equal(first[3:5], second[:2]) and not np.array_equal(second, other)
    assert len({row.tobytes() for row in first}) == 7
    assert first[0] @ first[3] < 10  # a small subset is not part of a larger one


def test_sizes():
    assert linear_sizes(1000)[0] == 250 and linear_sizes(1000)[-1] == 1000 and len(linear_sizes(1000)) == 15
    assert linear_sizes(8) == [2, 3, 4, 5, 6, 7, 8]
    assert doubling_sizes(500) == [50, 100, 200, 400, 500]
    assert doubling_sizes(400) == [50, 100, 200, 400]
    assert doubling_sizes(20) == [2, 4, 8, 16, 20]


def test_too_few_clips_or_sizes_are_refused():
    with pytest.raises(UsageError, match="7 clips"):
        line(lambda subsets: subsets.sum(axis=1).astype(float), 7)
    with pytest.raises(UsageError, match="10, 10"):
        line(lambda subsets: subsets.sum(axis=1).astype(float), 20, [10, 10])
