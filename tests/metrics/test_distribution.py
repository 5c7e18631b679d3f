import warnings

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.special import softmax
from scipy.stats import entropy

from ajbench.core.errors import UsageError
from ajbench.metrics.distribution import (
    frechet_distance,
    frechet_draws,
    inception_score,
    inception_subsets,
    kl_divergence,
)

# Values of haoheliu/audioldm_eval (commit 8dc07ee) and hkchengrex/av-benchmark (050a5cd) on the arrays below,
# in float64; benchmarks/evaluator_parity.py runs the tools on larger ones and on real clips.
# KL by epsilon and link: audioldm_eval adds 1e-6, av-benchmark 0.
KL = {
    (1e-6, "softmax"): 5.827806429833872,
    (1e-6, "sigmoid"): 13.969435407477235,
    (0.0, "softmax"): 8.976759478626665,
    (0.0, "sigmoid"): 18.111795123802445,
}


def whitened(rng, n, d):
    """n points with mean 0 and covariance exactly the identity (over n−1)."""
    x = rng.normal(size=(n, d))
    x -= x.mean(axis=0)
    return np.linalg.qr(x)[0] * np.sqrt(n - 1)


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_fd_of_scaled_axes_has_a_closed_form(scale):
    rng = np.random.default_rng(0)
    a, b, shift = rng.uniform(0.1, 2, 8), rng.uniform(0.1, 2, 8), rng.normal(size=8)
    x, y = whitened(rng, 50, 8) * a * scale, (whitened(rng, 70, 8) * b + shift) * scale
    expected = pytest.approx(scale**2 * (np.sum((a - b) ** 2) + shift @ shift), rel=1e-9)
    assert frechet_distance(x, y) == expected and frechet_distance(torch.tensor(y), x) == expected


def test_fd_with_fewer_clips_than_dimensions_warns_and_has_the_closed_form():
    # Both sets in 4 of 40 dimensions, axes scaled by a and b: the rest adds nothing.
    rng = np.random.default_rng(1)
    a, b = rng.uniform(0.5, 2, 4), rng.uniform(0.5, 2, 4)
    basis = np.linalg.qr(rng.normal(size=(40, 4)))[0]
    x, y = (whitened(rng, 20, 4) * a) @ basis.T, (whitened(rng, 15, 4) * b) @ basis.T
    with pytest.warns(UserWarning, match="15 clips"):
        assert frechet_distance(x, y) == pytest.approx(np.sum((a - b) ** 2), rel=1e-9)


@pytest.mark.parametrize("order", ["C", "F"])
def test_fd_of_correlated_dimensions_equals_the_matrix_square_root_in_either_memory_order(order):
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(90, 24)) @ rng.normal(size=(24, 24)), rng.normal(size=(70, 24)) + 1
    a, b = (np.cov(v, rowvar=False) for v in (x, y))
    gap = x.mean(axis=0) - y.mean(axis=0)
    expected = gap @ gap + np.trace(a + b - 2 * sqrtm(a @ b).real)
    x, y = (np.asarray(v, order=order) for v in (x, y))
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("n", "m", "d"), [(30, 25, 60), (80, 90, 12), (80, 9, 12), (30, 25, 1)])
def test_fd_of_resamples_is_that_of_the_repeated_rows(n, m, d):
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(n, d)) + 3, rng.normal(size=(m, d)) * 1.3 + 2
    counts = [np.stack([np.bincount(rng.integers(0, k, k), minlength=k) for _ in range(6)]) for k in (n, m)]
    draws = frechet_draws(x, y, *counts)
    for value, mine, theirs in zip(draws, *counts, strict=True):
        repeated = np.repeat(x, mine, axis=0), np.repeat(y, theirs, axis=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            assert value == pytest.approx(frechet_distance(*repeated), rel=1e-9)


def test_fd_of_resamples_after_a_layer_norm_needs_no_qr(monkeypatch):
    rng = np.random.default_rng(7)
    scale = np.geomspace(1, 3e-4, 24)  # as of a small classifier's embeddings
    raw = [rng.normal(size=(n, 24)) * scale @ np.linalg.qr(rng.normal(size=(24, 24)))[0] for n in (90, 80)]
    x, y = (np.float32(v - v.mean(axis=1, keepdims=True)) for v in raw)
    counts = np.ones((5, 90), int) - np.eye(5, 90, dtype=int), np.ones((5, 80), int)
    expected = [frechet_distance(x[mine > 0], y) for mine in counts[0]]
    monkeypatch.setattr(np.linalg, "qr", None)
    assert frechet_draws(x, y, *counts) == pytest.approx(expected, rel=1e-7)


def test_fd_of_resamples_of_equal_features_is_the_gap_of_their_means():
    x, y = np.ones((30, 4)), np.zeros((25, 4))
    counts = np.ones((3, 30), int) - np.eye(3, 30, dtype=int), np.ones((3, 25), int)
    assert frechet_draws(x, y, *counts) == pytest.approx(4.0)


def test_fd_of_singular_covariances_with_many_clips():
    rng = np.random.default_rng(2)
    a, b = rng.uniform(0.5, 2, 5), rng.uniform(0.5, 2, 5)
    x, y = np.zeros((100, 30)), np.zeros((90, 30))
    x[:, :5], y[:, :5] = whitened(rng, 100, 5) * a, whitened(rng, 90, 5) * b
    for turn in np.eye(30), np.linalg.qr(rng.normal(size=(30, 30)))[0]:
        assert frechet_distance(x @ turn, y @ turn) == pytest.approx(np.sum((a - b) ** 2), rel=1e-9)
    assert frechet_distance(x, x + 1.0) == pytest.approx(30.0, rel=1e-9)


def test_fd_of_a_nearly_singular_set_to_itself_is_zero():
    # One weak axis: Cholesky succeeds, but its square drowns in the rounding of the others.
    for seed in range(10):
        rng = np.random.default_rng(seed)
        axes = np.append(rng.uniform(0.5, 2, 9), 1e-6)
        x = (whitened(rng, 100, 10) * axes) @ np.linalg.qr(rng.normal(size=(10, 10)))[0]
        assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize("splits", [1, 10])
def test_inception_score_is_the_definition_with_the_splits_of_audioldm_eval(splits):
    logits = np.random.default_rng(5).normal(size=(43, 7)) * 3
    p = softmax(logits, axis=1)[np.random.RandomState(2020).permutation(43)]
    chunks = [p[i * 43 // splits : (i + 1) * 43 // splits] for i in range(splits)]
    scores = [np.exp(np.mean([entropy(row, c.mean(axis=0)) for row in c])) for c in chunks]
    expected = np.mean(scores), np.std(scores)
    assert inception_score(torch.tensor(logits), splits) == pytest.approx(expected, rel=1e-12)


def test_inception_score_of_subsets_keeps_every_clip_in_its_split():
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 2, (40, 7))
    kept = np.array([np.ones(40, int), rng.random(40) < 0.8, rng.random(40) < 0.5])
    order = np.random.RandomState(2020).permutation(40)
    expected = []
    for row in kept > 0:
        parts = [order[start : start + 10][row[order[start : start + 10]]] for start in range(0, 40, 10)]
        expected.append(np.mean([inception_score(logits[part], 1)[0] for part in parts]))
    np.testing.assert_allclose(inception_subsets(logits, kept, 4), expected, rtol=1e-12)
    kept[0, order[:10]] = 0  # a split without a clip
    rest = np.mean([inception_score(logits[order[k : k + 10]], 1)[0] for k in (10, 20, 30)])
    assert inception_subsets(logits, kept[:1], 4) == pytest.approx([rest])


def test_inception_score_of_certain_and_of_constant_predictions():
    assert inception_score(np.eye(5) * 2000.0, splits=1)[0] == pytest.approx(5.0)
    assert inception_score(np.ones((20, 5)))[0] == pytest.approx(1.0)
    with pytest.raises(UsageError, match="10 splits"):
        inception_score(np.ones((3, 5)))


def test_kl_directions():
    rng = np.random.default_rng(6)
    gen, ref = rng.normal(size=(9, 5)), rng.normal(size=(9, 5))
    p, q = softmax(ref, axis=1), softmax(gen, axis=1)
    forward = np.mean([entropy(a, b) for a, b in zip(p, q, strict=True)])
    backward = np.mean([entropy(b, a) for a, b in zip(p, q, strict=True)])
    assert kl_divergence(gen, ref, eps=0.0) == pytest.approx(forward, rel=1e-12)
    assert kl_divergence(gen, ref, direction="gen||ref", eps=0.0) == pytest.approx(backward, rel=1e-12)
    assert kl_divergence(gen, gen, eps=0.0) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_kl_equals_torch_kl_div_as_audioldm_eval_calls_it(link):
    rng = np.random.default_rng(7)
    gen, ref = (torch.tensor(rng.normal(size=(9, 5)) * 20) for _ in range(2))
    p, q = (z.softmax(1) if link == "softmax" else z.sigmoid() for z in (ref, gen))
    expected = torch.nn.functional.kl_div((q + 1e-6).log(), p, reduction="none").sum().item() / 9
    assert kl_divergence(gen, ref, link) == pytest.approx(expected, rel=1e-9)


def test_bad_input_is_refused():
    ones = np.ones((4, 3))
    with pytest.raises(UsageError, match="3 and 2"):
        frechet_distance(ones, ones[:, :2])
    with pytest.raises(UsageError, match=r"\(4, 3\).*\(2, 3\)"):
        kl_divergence(ones, ones[:2])
    with pytest.raises(UsageError, match="direction 'both'"):
        kl_divergence(ones, ones, direction="both")


@pytest.fixture
def arrays():
    """Features [40, 16] and [50, 16], rectified, and two [40, 20] of logits whose scale differs by clip."""
    rng = np.random.default_rng(42)
    x, y = (np.maximum(rng.normal(size=(n, 16)) @ rng.normal(size=(16, 16)) + 0.5, 0) for n in (40, 50))
    gen, ref = (rng.normal(size=(40, 20)) * rng.lognormal(1, 1, (40, 1)) for _ in range(2))
    return x, y, gen, ref


def test_fd_and_inception_score_are_those_of_the_tools(arrays):
    x, y, gen, _ = arrays
    assert frechet_distance(x, y) == pytest.approx(54.76786010145699, rel=1e-12)
    with pytest.warns(UserWarning, match="10 clips"):  # fewer than the 16 dimensions
        few = frechet_distance(x[:10], y[:10])
    # Their matrix root of a singular matrix is off by 1e-8.
    assert few == pytest.approx(101.39252972519378, rel=1e-7)
    assert inception_score(gen) == pytest.approx((2.6402209840855, 0.6207100510455293), rel=1e-12)


@pytest.mark.parametrize(("eps", "link"), KL)
def test_kl_is_that_of_the_tools(arrays, eps, link):
    _, _, gen, ref = arrays
    assert kl_divergence(gen, ref, link, eps=eps) == pytest.approx(KL[eps, link], rel=1e-12)
