"""Video tokens: torchvision's own trunk on the same frames; statistics that tell pictures apart; times."""

import time

import numpy as np
import pytest
import torch
from fakes import video_bytes

from ajbench.core import weights
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.data.manifest import Row
from ajbench.data.video import VideoDefect, frames
from ajbench.fusion import video_tokens
from ajbench.fusion.video_tokens import R2Plus1d, TinyVideo, read_pixels, see

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """A state dict of the published layout with random weights, in a file."""
    from torchvision.models.video import r2plus1d_18

    torch.manual_seed(0)
    network = r2plus1d_18()
    assert sum(part.numel() for part in network.parameters()) == 31_505_325
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(network.state_dict(), path)
    return path


def moving(seconds=2.0, fps=25, size=(48, 64), **options):
    rng = np.random.default_rng(4)
    scene = rng.integers(0, 256, (size[0] // 8, 2 * size[1] // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    shots = [(k / fps, scene[:, k % size[1] : k % size[1] + size[1]]) for k in range(round(seconds * fps))]
    return video_bytes(shots, size, **options)


def test_r2plus1d_equals_torchvision_on_the_same_frames(state):
    from torchvision.models.video import R2Plus1D_18_Weights, r2plus1d_18

    content, duration = moving(10.0, size=(120, 160)), 10.0
    encoder = R2Plus1d(state)
    pixels = read_pixels(encoder, content, 0.0, duration)
    assert pixels.shape == (10, 16, 112, 112, 3)
    network = r2plus1d_18()
    network.load_state_dict(torch.load(state, weights_only=True))
    network.fc = torch.nn.Identity()
    transform = R2Plus1D_18_Weights.KINETICS400_V1.transforms()
    for window in (0, 7):
        times = window + 0.5 + (np.arange(16) - 7.5) / 15
        shown = torch.from_numpy(frames(content, times.clip(0, duration))).permute(0, 3, 1, 2)
        with torch.inference_mode():
            expected = network.eval()(transform(shown)[None])[0].numpy()
        found = encoder.encode(pixels[window : window + 1])
        assert found.shape == (1, 512) and found.dtype == np.float32
        np.testing.assert_allclose(found[0], expected, atol=1e-5)
    assert encoder.weights_hash == weights.identity(state)


def test_r2plus1d_needs_its_own_published_weights(state, tmp_path, monkeypatch):
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(MissingError, match=r"r2plus1d_18-91a641e6\.pth"):
        video_tokens.load("r2plus1d")
    (tmp_path / "r2plus1d_18-91a641e6.pth").write_bytes(state.read_bytes())
    with pytest.raises(IntegrityError, match="91a641e6"):
        video_tokens.load("r2plus1d")
    other = tmp_path / "other.pth"
    torch.save({"conv.weight": torch.zeros(1)}, other)
    with pytest.raises(IntegrityError, match="other"):
        R2Plus1d(other)
    with pytest.raises(UsageError, match=r"data\.video=tiny-video"):
        video_tokens.load("tiny-video")


def test_a_linear_classifier_of_tiny_video_reads_handwritten_digits():
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    images, digits = load_digits(return_X_y=True)
    levels = (images.reshape(-1, 8, 8) * 15).astype(np.uint8).repeat(8, 1).repeat(8, 2)
    pixels = np.broadcast_to(levels[:, None, ..., None], (len(levels), 2, 64, 64, 3))
    encoder = TinyVideo()
    tokens = np.concatenate([encoder.encode(pixels[k : k + 200]) for k in range(0, len(pixels), 200)])
    probe = LogisticRegression(max_iter=500).fit(tokens[:1200], digits[:1200])
    accuracy = probe.score(tokens[1200:], digits[1200:])
    assert accuracy > 0.9, accuracy


def test_tiny_video_sees_colour_direction_place_and_motion():
    black = np.zeros((1, 2, 64, 64, 3), np.uint8)

    def changed(where, value):
        picture = black.copy()
        picture[where] = value
        return TinyVideo().encode(picture)[0] - TinyVideo().encode(black)[0]

    red, blue = (changed((...,), colour) for colour in ((200, 0, 0), (0, 0, 200)))
    assert np.abs(red[64:96] - blue[64:96]).min() > 0.5
    corner = changed((0, slice(None), slice(0, 8), slice(0, 8)), 255)
    assert np.flatnonzero(np.abs(corner[:64]) > 0.1).tolist() == [0]
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[::4] = 255
    across, along = changed((...,), stripes), changed((...,), stripes.transpose(1, 0, 2))
    assert np.abs(across[96:112] - along[96:112]).max() > 0.5
    moved = changed((0, 1, slice(0, 16), slice(0, 16)), 255)
    assert np.flatnonzero(moved[112:] > 0.1).tolist() == [0] and not red[112:].any()


def test_tiny_video_is_deterministic_and_fast():
    encoder, content = TinyVideo(), moving(5.0, size=(64, 64))
    first = encoder.encode(read_pixels(encoder, content, 0.0, 5.0))
    assert first.shape == (10, 128) and np.abs(first).max() < 10
    start = time.process_time()
    for _ in range(10):
        np.testing.assert_array_equal(encoder.encode(read_pixels(encoder, content, 0.0, 5.0)), first)
    assert (time.process_time() - start) / 10 < 1  # 20 clips a second on an idle core take 0.05 s


def test_windows_are_centred_in_their_tenth_of_the_clip():
    shots = [(k / 10, 2 * k) for k in range(100)]
    content = video_bytes(shots, (64, 64))
    for start, duration, longest in ((0.0, 5.0, None), (3.0, 2.0, None), (0.0, 10.0, 4.0)):
        pixels = read_pixels(TinyVideo(), content, start, duration, longest)
        levels = pixels.mean(axis=(2, 3, 4))
        centres = (np.arange(10) + 0.5) * duration / 10
        times = (centres[:, None] + np.array([-0.25, 0.25]) * duration / 10).clip(
            0, longest or duration
        ) + start
        np.testing.assert_allclose(levels, 2 * np.floor(times * 10 + 1e-6), atol=3)


def test_a_clip_without_a_usable_video_has_a_reason(tmp_path):
    encoder = TinyVideo()
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"text")
    for video, outcome in (
        (None, "missing"),
        (str(tmp_path / "no.mp4"), "missing"),
        (str(bad), "undecodable"),
    ):
        seen = see(encoder, Row("a", "a.wav", video=video), 1.0)
        assert seen.pixels is None and seen.reason and seen.outcome == outcome
    with pytest.raises(VideoDefect):
        read_pixels(encoder, moving(1.0), 30.0, 1.0)
    good = tmp_path / "good.mp4"
    good.write_bytes(moving(1.0))
    assert see(encoder, Row("a", "a.wav", video=str(good)), 1.0).outcome == "usable"
