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
    """The papers' formulas, radii by scikit-learn, one clip after another."""
    tree = NearestNeighbors(n_neighbors=k + 1)
    generated, real = (list(zip(v, tree.fit(v).kneighbors(v)[0][:, k], strict=True)) for v in (x, y))
    inside = [[np.linalg.norm(g - r) < radius for r, radius in real] for g in x]
    within = [[np.linalg.norm(g - r) < radius for g, radius in generated] for r in y]
    return {
        "precision": np.mean([any(row) for row in inside]),
        "recall": np.mean([any(row) for row in within]),
        "density": np.mean([sum(row) for row in inside]) / k,
        "coverage": np.mean([min(np.linalg.norm(g - r) for g in x) < radius for r, radius in real]),
    }


@pytest.mark.parametrize("k", [1, 3, 5])
def test_values_are_those_of_the_papers_formulas(k):
    x, y = sets()
    expected = by_loops(x, y, k)
    assert values(x, y, k) == pytest.approx(expected, rel=1e-12)
    assert all(0.02 < value < 0.98 for value in expected.values())  # not trivial


def test_golden_values():
    # The formulas of clovaai/generative-evaluation-prdc on a line, by hand: the balls of the real points 0,
    # 1, 3, 7 have radii 1, 1, 2, 4 (k = 1), those of the generated 0.5, 2.5, 9 have 2, 2, 6.5.
    y, x = (np.array(points)[:, None] for points in ([0.0, 1.0, 3.0, 7.0], [0.5, 2.5, 9.0]))
    # 0.5 is in the balls of 0 and 1; 2.5 in that of 3 only (1 + 1 < 2.5, 7 − 4 > 2.5); 9 in that of 7.
    expected = {"precision": 1, "density": 4 / 3, "recall": 1, "coverage": 1}
    assert values(x, y, 1) == pytest.approx(expected, rel=1e-12)
    assert values(x + 100, y, 1) == dict.fromkeys(NAMES, 0)


@pytest.mark.parametrize("block", [1, 170, 1000, pairwise.BLOCK])
@pytest.mark.parametrize("d", [4, 300])
@pytest.mark.parametrize("copies", [1, 2, 9])
def test_a_set_against_itself(copies, d, block, monkeypatch):
    monkeypatch.setattr(pairwise, "BLOCK", block)
    rows = [*range(60), *[3, 20] * (copies - 1)]
    x = sets(d=d)[0][np.random.default_rng(1).permutation(rows)] + 100
    order = np.random.default_rng(2).permutation(len(x))
    found = neighbours(x[order], x)
    assert all((getattr(found, name) == 1).all() for name in ("precision", "recall", "coverage"))
    distances = np.square(x[:, None] - x).sum(axis=2)
    radii = np.sort(distances, axis=1)[:, 5]  # without the clip itself the fifth
    density = ((distances < radii) | (distances == 0)).sum(axis=1) / 5
    assert np.array_equal(found.density, density[order])
    # A clip lies in its own ball and, in the mean, in those of k - 1 others.
    if copies == 1:
        assert round(5 * found.density.sum()) == 5 * len(x)
        assert found.density.mean() == pytest.approx(1, rel=1e-15)


def test_ties_are_decided_by_the_rule_whatever_the_offset():
    # On a line of evenly spaced points a ball of k = 2 reaches to the next points and, being open, holds
    # its centre alone; at the two ends it reaches to the second and holds the first.
    line = np.arange(20.0)
    density = np.full(20, 0.5)
    density[[1, 18]] = 1.0
    for offset, spacing in ((0, 1), (1000, 0.125), (-7, 2.0**-10)):
        points = np.stack([line * spacing + offset, np.full(20, offset)], axis=1)
        found = neighbours(points, points[::-1], k=2)
        assert np.array_equal(found.density, density), (offset, spacing)
    copies = np.repeat(line, 3)[:, None]
    assert values(copies, copies, 2) == {"precision": 1, "recall": 1, "density": 1.5, "coverage": 1}


def test_clips_near_the_mean_are_precise_and_cover_little():
    _, y = sets(n=200, m=200)
    x = y[:200] * 0.2
    found = values(x, y)
    assert found["precision"] > 0.95 and found["density"] > 1.2 and found["coverage"] < 0.6


def test_order_and_block_size_do_not_matter(monkeypatch):
    x, y = sets()
    found = neighbours(x, y)
    order = np.random.default_rng(0).permutation(len(x))
    again = neighbours(x[order], y[::-1])
    assert np.array_equal(again.density, found.density[order])
    assert np.array_equal(again.coverage[::-1], found.coverage)
    monkeypatch.setattr(pairwise, "BLOCK", 110)
    small = neighbours(x, y)
    assert all(np.array_equal(getattr(small, name), getattr(found, name)) for name in NAMES)


def test_too_few_clips_are_refused():
    x, y = sets()
    with pytest.raises(UsageError, match="k=5 of 60"):
        neighbours(x, y[:5])
