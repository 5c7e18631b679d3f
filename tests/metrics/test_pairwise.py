"""Distances between the rows of two feature matrices."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from ajbench.core.errors import NumericError, UsageError
from ajbench.metrics import distribution, pairwise


def test_nearest_rows_are_those_of_scikit_learn(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)) + 0.8, rng.normal(size=(50, 4))
    monkeypatch.setattr(pairwise, "BLOCK", 110)
    index, distance = pairwise.nearest(x, y)
    expected = NearestNeighbors(n_neighbors=1).fit(y).kneighbors(x)
    assert np.array_equal(index, expected[1][:, 0])
    assert distance == pytest.approx(expected[0][:, 0], rel=1e-9)
    index, distance = pairwise.nearest(y + 100, np.concatenate([y, y]) + 100)
    assert np.array_equal(index, np.arange(len(y))) and not distance.any()  # of equal clips the first


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_are_within_their_bound_of_the_exact_distances(dtype):
    rng = np.random.default_rng(1)
    x, y = (rng.normal(size=(n, 300)).astype(dtype) * 3 + 1000 for n in (40, 30))
    a, b = distribution.centred_pair(x, y)
    i, j = np.indices((40, 30)).reshape(2, -1)
    exact = pairwise.exact(x, y, i, j).reshape(40, 30)
    assert exact == pytest.approx(np.square(x[:, None].astype(float) - y).sum(axis=2), rel=1e-13)
    assert np.array_equal(exact, pairwise.exact(y, x, j, i).reshape(40, 30))
    ((_, block),) = pairwise.squared(a, b)
    assert 0 < abs(block - exact).max() < pairwise.slack(a, b) < 1e-6 * exact.min()


def test_bad_features_are_refused():
    ones = np.ones((4, 3))
    for bad in (ones[:, 0], ones[:1]):
        with pytest.raises(UsageError, match=r"^x "):
            distribution.pair(bad, ones)
    with pytest.raises(UsageError, match="3 and 2"):
        distribution.pair(ones, ones[:, :2])
    for value in (np.nan, np.inf):
        with pytest.raises(NumericError, match=r"^y .* row 2"):
            distribution.pair(ones, np.where(np.arange(4)[:, None] == 2, value, ones))
