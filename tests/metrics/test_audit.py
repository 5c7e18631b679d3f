import numpy as np
import pytest
import torch

from ajbench.errors import UsageError
from ajbench.metrics import audit


@pytest.fixture(scope="module")
def clips():
    """Eight different coloured, modulated noises [8, n] of 64 frames."""
    rng = np.random.default_rng(0)
    n = 320 * 64
    spectrum = np.fft.rfft(rng.normal(size=(8, n)))
    low, high = rng.integers(0, 3000, (8, 1)), rng.integers(3500, 9000, (8, 1))
    frequency = np.arange(spectrum.shape[1])[None]
    coloured = np.fft.irfft(spectrum * ((frequency > low) & (frequency < high)), n)
    envelope = np.repeat(rng.random((8, 64)) ** 3, 320, axis=1)
    return torch.tensor(0.1 * coloured * envelope + 1e-4 * rng.normal(size=(8, n)), dtype=torch.float32)


def test_a_shifted_quieter_copy_is_its_own_nearest(clips):
    references = audit.fingerprints(clips)
    copies = audit.fingerprints(0.03 * torch.roll(clips, 320 * 20, dims=1)[[5, 2, 7]])
    index, cosine = audit.nearest(copies, references)
    assert index.tolist() == [5, 2, 7]
    assert (cosine > 0.95).all()
    same, one = audit.nearest(references, references)
    assert same.tolist() == list(range(8)) and one == pytest.approx(1.0, abs=1e-5)
    others = np.array(
        [audit.nearest(references[[i]], np.delete(references, i, axis=0))[1][0] for i in range(8)]
    )
    assert others.max() < cosine.min() - 0.02


def test_cosine_is_the_best_over_circular_shifts_whatever_the_block(clips, monkeypatch):
    # Independent definition: roll the frames of one log-mel and take the largest dot product.
    feats = audit.fingerprints(clips)
    frames = np.fft.irfft(feats, axis=1, norm="ortho")
    expected = np.array(
        [
            [max(np.vdot(np.roll(a, k, axis=0), b) for k in range(len(a))) for b in frames[3:]]
            for a in frames[:3]
        ]
    )
    monkeypatch.setattr(audit, "_BLOCK", 4 * feats.shape[1])
    index, cosine = audit.nearest(feats[:3], feats[3:])
    assert np.array_equal(index, expected.argmax(axis=1))
    assert cosine == pytest.approx(expected.max(axis=1), abs=1e-5)


def test_bad_input_is_refused(clips):
    feats = audit.fingerprints(clips)
    with pytest.raises(UsageError, match="same clip length"):
        audit.nearest(feats, feats[:, :-1])
    with pytest.raises(UsageError, match="nearest"):
        audit.nearest(feats, feats[:0])


def test_overlap():
    assert audit.overlap(["c", "a", "b", "a"], iter(["b", "d", "a"])) == ["a", "b"]
