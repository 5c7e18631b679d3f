import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from ajbench.core.errors import UsageError
from ajbench.metrics import pairwise
from ajbench.metrics.precision_recall import neighbours

NAMES = ("precision", "recall", "density", "coverage")


def sets(n=60, m=50, d=4, gap=0.8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) * 0.8 + gap, rng.normal(size=(m, d))


def values(x, y, k=5):
    found = neighbours(x, y, k)
    return {name: float(getattr(found, name).mean()) for name in NAMES}


def by_loops(x, y, k):
    """The papers' formulas, radii by scikit-learn, one clip after the other."""
    radii = {}
    for name, points in (("x", x), ("y", y)):
        radii[name] = NearestNeighbors(n_neighbors=k + 1).fit(points).kneighbors(points)[0][:, k]
    inside = [[np.linalg.norm(g - r) < radius for r, radius in zip(y, radii["y"], strict=True)] for g in x]
    within = [[np.linalg.norm(g - r) < radius for g, radius in zip(x, radii["x"], strict=True)] for r in y]
    covered = [
        min(np.linalg.norm(g - r) for g in x) < radius for r, radius in zip(y, radii["y"], strict=True)
    ]
    return {
        "precision": np.mean([any(row) for row in inside]),
        "recall": np.mean([any(row) for row in within]),
        "density": np.mean([sum(row) for row in inside]) / k,
        "coverage": np.mean(covered),
    }


@pytest.mark.parametrize("k", [1, 3, 5])
def test_they_are_the_papers(k):
    x, y = sets()
    expected = by_loops(x, y, k)
    assert values(x, y, k) == pytest.approx(expected, rel=1e-12)
    assert all(0.02 < value < 0.98 for value in expected.values())  # a case that tells something


def test_golden_values():
    # By `prdc` of clovaai/generative-evaluation-prdc's own formulas on a line, worked out by hand: balls of
    # real points 0, 1, 3, 7 have radii 1, 1, 2, 4 (k = 1), those of generated 0.5, 2.5, 9 radii 2, 2, 6.5.
    y, x = (np.array(points)[:, None] for points in ([0.0, 1.0, 3.0, 7.0], [0.5, 2.5, 9.0]))
    # 0.5: balls of 0, 1; 2.5: of 3 only (1 + 1 < 2.5, 7 − 4 > 2.5); 9: of 7 only.
    assert values(x, y, 1) == pytest.approx(
        {"precision": 1, "density": 4 / 3, "recall": 1, "coverage": 1}, rel=1e-12
    )
    far = x + 100
    assert values(far, y, 1) == {"precision": 0, "density": 0, "recall": 0, "coverage": 0}


def test_the_same_set_is_covered_wholly_and_dense_by_its_neighbours():
    x, _ = sets()
    found = values(x, x)
    # A point is in its own ball, and in those of whom it is one of the k − 1 nearest: k in the mean.
    assert found == pytest.approx({"precision": 1, "recall": 1, "density": 1, "coverage": 1}, rel=1e-12)


def test_sharper_clips_are_precise_and_cover_little():
    _, y = sets(n=200, m=200)
    x = y[:200] * 0.2
    found = values(x, y)
    assert found["precision"] > 0.95 and found["density"] > 1.2 and found["coverage"] < 0.6


def test_neither_the_order_nor_the_size_of_blocks_matters(monkeypatch):
    x, y = sets()
    found = neighbours(x, y)
    order = np.random.default_rng(0).permutation(len(x))
    again = neighbours(x[order], y[::-1])
    assert np.array_equal(again.density, found.density[order])
    assert np.array_equal(again.coverage[::-1], found.coverage)
    monkeypatch.setattr(pairwise, "BLOCK", 110)
    small = neighbours(x, y)
    assert all(np.array_equal(getattr(small, name), getattr(found, name)) for name in NAMES)


def test_the_nearest_is_scikit_learn_s(monkeypatch):
    x, y = sets()
    monkeypatch.setattr(pairwise, "BLOCK", 110)
    index, distance = pairwise.nearest(*pairwise.points(x, y))
    expected = NearestNeighbors(n_neighbors=1).fit(y).kneighbors(x)
    assert np.array_equal(index, expected[1][:, 0])
    assert distance == pytest.approx(expected[0][:, 0], rel=1e-9)


def test_too_few_clips_are_refused():
    x, y = sets()
    with pytest.raises(UsageError, match="by 5 neighbours of 60 generated and 5 real clips: more than 5"):
        neighbours(x, y[:5])
