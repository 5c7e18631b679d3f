import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from ajbench.codec.whitening import Whitening
from ajbench.core.errors import NumericError, UsageError

EPS = torch.finfo(torch.float32).eps


def latents(batch, channels, frames, seed, offset=0.0):
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.05, 20, (1, channels, 1))
    shift = offset + rng.normal(0, 3, (1, channels, 1))
    return torch.from_numpy((rng.normal(size=(batch, channels, frames)) * scale + shift).astype(np.float32))


def frames_of(parts):
    """Return the frames of latents [B, C, T] below each other, float64 [n, C]."""
    return np.concatenate([part.double().transpose(1, 2).flatten(0, 1).numpy() for part in parts])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 26), st.integers(1, 9), st.integers(0, 999))
def test_grid_and_latents_are_inverses_up_to_rounding(batch, columns, channels, seed):
    x = latents(batch, channels, 21 * columns, seed)
    white = Whitening.fit([x])
    grid = white.grid(x)
    assert grid.shape == (batch, channels, columns, 21)
    assert grid.dtype == torch.float32
    back = white.latents(grid)
    mean = torch.tensor(white.mean, dtype=torch.float32)[:, None]
    # one rounding each of difference, quotient and product (all relative to x - mean) and of the sum
    assert torch.all((back - x).abs() <= 2 * EPS * (x - mean).abs() + EPS * x.abs())


def test_statistics_of_a_stream_are_those_of_all_frames_together():
    # A mean of 3,000 deviations: a sum of squares in float32 would lose every digit of the deviation.
    parts = [latents(b, 5, t, seed=4, offset=3000.0) for b, t in ((2, 21), (1, 42), (3, 7), (1, 1))]
    white = Whitening.fit(iter(parts))
    expected = StandardScaler().fit(frames_of(parts))
    np.testing.assert_allclose(white.mean, expected.mean_, rtol=1e-13)
    np.testing.assert_allclose(white.std, expected.scale_, rtol=1e-10)


def test_whitened_train_latents_have_zero_mean_and_unit_deviation():
    x = latents(4, 128, 252, seed=1)
    grid = Whitening.fit([x]).grid(x)
    assert grid.shape == (4, 128, 12, 21)
    assert grid.double().mean((0, 2, 3)).abs().max() < 1e-5
    assert (grid.double().std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5


def test_grid_is_the_row_major_view():
    x = torch.arange(2 * 3 * 42, dtype=torch.float32).reshape(2, 3, 42)
    grid = Whitening((0.0,) * 3, (1.0,) * 3).grid(x)
    assert grid[1, 2, 1, 4] == x[1, 2, 21 + 4]
    assert grid[0, 1, 0, 20] == x[0, 1, 20]


def test_json_keeps_all_digits():
    white = Whitening.fit([latents(2, 7, 21, seed=8)])
    assert Whitening.from_json(json.loads(json.dumps(white.to_json()))) == white


def correlated(batch, channels, frames, seed):
    """Latents of which one component is a thousand times another."""
    g = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(channels, channels, generator=g))[0]
    components = torch.logspace(1, -2, channels)[:, None] * torch.randn(batch, channels, frames, generator=g)
    return turn @ components + 5 * torch.randn(channels, 1, generator=g)


def test_components_are_those_of_scikit_learn_and_uncorrelated():
    parts = [correlated(b, 16, t, 3) for b, t in ((4, 252), (1, 42), (7, 63))]
    white = Whitening.fit(iter(parts), "pca")
    frames = frames_of(parts)
    expected = PCA(whiten=False).fit(frames)
    deviations = np.sqrt(expected.explained_variance_ * (1 - 1 / len(frames)))
    stds = np.array(white.std)
    np.testing.assert_allclose(stds / stds[0], np.sqrt(deviations / deviations[0]), rtol=1e-6)
    ours, theirs = np.array(white.basis), expected.components_
    np.testing.assert_allclose(np.abs((ours * theirs).sum(1)), 1, rtol=1e-6)
    assert (ours[np.arange(16), np.abs(ours).argmax(1)] > 0).all()
    covariance = np.cov(frames_of(white.grid(part).flatten(2) for part in parts).T, ddof=0)
    wanted = np.diag(deviations) * len(deviations) / deviations.sum()  # mean variance 1
    np.testing.assert_allclose(covariance, wanted, atol=1e-3 * wanted.max())


def test_components_are_inverted_and_do_not_depend_on_the_batch():
    x = correlated(5, 16, 42, 6)
    white = Whitening.fit([x], "pca")
    grid = white.grid(x)
    assert (white.latents(grid) - x).abs().max() < 1e-4
    assert torch.equal(white.grid(x[3:4]), grid[3:4])
    assert torch.equal(white.latents(grid[1:2]), white.latents(grid)[1:2])
    assert Whitening.from_json(json.loads(json.dumps(white.to_json()))) == white


def test_rounding_errors_of_a_constant_component_stay_small():
    x = correlated(3, 4, 63, 1)
    x[:, 3] = x[:, 0] + x[:, 1]
    white = Whitening.fit([x], "pca")
    assert min(white.std) > 1e-2 * max(white.std)
    assert white.grid(x)[:, 3].abs().max() < 1e-3
    assert (white.latents(white.grid(x)) - x).abs().max() < 1e-4


@pytest.mark.parametrize("frames", [1, 20, 22, 500])
def test_frames_that_are_not_a_multiple_of_21_are_refused(frames):
    with pytest.raises(UsageError, match=f"{frames} frames"):
        Whitening((0.0, 0.0), (1.0, 1.0)).grid(torch.zeros(1, 2, frames))


def test_other_shapes_are_refused():
    white = Whitening((0.0, 0.0), (1.0, 1.0))
    wrong = [(white.grid, shape) for shape in ((2, 21), (1, 3, 21))]
    wrong += [(white.latents, shape) for shape in ((1, 2, 21), (1, 2, 3, 20), (1, 1, 3, 21))]
    for call, shape in wrong:
        with pytest.raises(UsageError, match="expected"):
            call(torch.zeros(shape))


def test_a_constant_or_nan_channel_is_a_numeric_error():
    x = latents(2, 3, 21, seed=0)
    x[:, 1] = 0.25
    for kind in ("channel", "pca"):
        with pytest.raises(NumericError, match="channel 1"):
            Whitening.fit([x], kind)
    x[0, 2, 3] = float("nan")
    x[:, 1] = torch.arange(21)
    with pytest.raises(NumericError, match="channel 2"):
        Whitening.fit([x])


def test_an_empty_stream_is_refused():
    with pytest.raises(UsageError, match="whitening"):
        Whitening.fit([])
