"""VGGish against its published input processing and the network written out in functions."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from ajbench import features
from ajbench.core.errors import IntegrityError, UsageError
from ajbench.features import vggish

# Names and shapes in torchvggish's checkpoint.
PUBLISHED = {
    **{f"features.{i}.weight": (o, c, 3, 3) for i, c, o in ((0, 1, 64), (3, 64, 128), (6, 128, 256))},
    **{f"features.{i}.weight": (o, c, 3, 3) for i, c, o in ((8, 256, 256), (11, 256, 512), (13, 512, 512))},
    **{f"features.{i}.bias": (o,) for i, o in ((0, 64), (3, 128), (6, 256), (8, 256), (11, 512), (13, 512))},
    **{"embeddings.0.weight": (4096, 12288), "embeddings.2.weight": (4096, 4096)},
    **{"embeddings.4.weight": (128, 4096), "embeddings.0.bias": (4096,)},
    **{"embeddings.2.bias": (4096,), "embeddings.4.bias": (128,)},
}


@pytest.fixture
def small(monkeypatch, tmp_path):
    """(extractor, state) of a VGGish of few channels from a file."""
    monkeypatch.setattr(vggish, "LAYERS", (3, 0, 4, 0, 5, 5, 0, 6, 6, 0))
    monkeypatch.setattr(vggish, "HIDDEN", 16)
    rng = np.random.default_rng(0)
    shapes = {name: value.shape for name, value in vggish.VGG().state_dict().items()}
    draw = lambda shape: rng.normal(0, 1.5 / np.sqrt(np.prod(shape[1:])), shape)  # noqa: E731
    state = {name: torch.tensor(draw(shape), dtype=torch.float32) for name, shape in shapes.items()}
    torch.save(state, tmp_path / "vggish.pth")
    return features.load("vggish", tmp_path / "vggish.pth"), state


def log_mel(wave):
    """[T, 64] by the published definition, with NumPy alone, in float64."""
    n = 1 + (len(wave) - 400) // 160
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = np.stack([wave[160 * i : 160 * i + 400] * window for i in range(n)])
    magnitude = np.abs(np.fft.rfft(frames, 512))
    mel = lambda hertz: 1127.0 * np.log(1.0 + np.asarray(hertz) / 700.0)  # noqa: E731
    edges, bins = np.linspace(mel(125.0), mel(7500.0), 66), mel(np.linspace(0, 8000, 257))
    bank = np.zeros((257, 64))
    for band, (low, centre, high) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
        bank[:, band] = np.minimum(rising, falling).clip(0)
    return np.log(magnitude @ bank + 0.01)


def waves(n, seed=0):
    t = np.arange(n) / 16_000
    noise = np.random.default_rng(seed).normal(0, 0.02, (2, n))
    tones = [0.3 * np.sin(2 * np.pi * f * t * (1 + t)) for f in (300, 900)]
    return (np.stack(tones) + noise).astype(np.float32)


def test_the_published_checkpoint_fits():
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in vggish.VGG().state_dict().items()}
    assert shapes == PUBLISHED
    assert sum(np.prod(shape) for shape in PUBLISHED.values()) * 4 == pytest.approx(288_567_937, abs=20_000)


def test_examples_are_those_of_the_published_input_processing(small):
    wave = waves(16_000 * 3)
    found = small[0].examples(torch.tensor(wave)).numpy()
    assert found.shape == (2, 3, 96, 64)
    for clip, examples in zip(wave, found, strict=True):
        expected = log_mel(clip.astype(np.float64))[: 3 * 96].reshape(3, 96, 64)
        assert examples == pytest.approx(expected, abs=2e-4) and expected.std() > 1


def test_frames_are_those_of_the_network_written_out(small):
    extractor, state = small
    wave = waves(16_000 * 2, seed=1)
    found, logits = extractor(wave)
    assert found.shape == (2, 2, 128) and found.dtype == np.float32 and logits.shape == (2, 0)
    x = torch.tensor(np.stack([log_mel(clip)[:192] for clip in wave]).reshape(4, 1, 96, 64)).float()
    for layer in (0, 3, 6, 8, 11, 13):
        weight, bias = state[f"features.{layer}.weight"], state[f"features.{layer}.bias"]
        x = functional.relu(functional.conv2d(x, weight, bias, padding=1))
        if layer not in (6, 11):
            x = functional.max_pool2d(x, 2)
    # Channels last: the value of channel c at (t, f) is number (t · F + f) · C + c.
    flat = torch.stack([x[:, c, t, f] for t in range(6) for f in range(4) for c in range(x.shape[1])], dim=1)
    for layer in (0, 2, 4):
        flat = functional.linear(flat, state[f"embeddings.{layer}.weight"], state[f"embeddings.{layer}.bias"])
        flat = functional.relu(flat) if layer < 4 else flat
    assert found.reshape(4, 128) == pytest.approx(flat.numpy(), abs=2e-3)
    assert (flat < 0).any() and flat.std() > 0.05  # no ReLU at the end


def test_only_whole_examples_count_and_shorter_clips_are_refused(small):
    extractor, _ = small
    shortest = extractor.min_samples
    assert shortest == 15_600 and extractor(waves(shortest))[0].shape[1] == 1
    assert extractor(waves(shortest + 15_359))[0].shape[1] == 1
    assert extractor(waves(shortest + 15_360))[0].shape[1] == 2
    with pytest.raises(UsageError, match="vggish"):
        extractor(waves(shortest - 1))
    assert extractor.labels == () and extractor.sample_rate == 16_000


def test_weights_of_another_shape_are_refused(small, tmp_path):
    path = tmp_path / "other.pth"
    torch.save(small[1] | {"embeddings.4.bias": torch.zeros(3)}, path)
    with pytest.raises(IntegrityError, match=str(path)) as error:
        features.load("vggish", path)
    assert "\n" not in str(error.value)
