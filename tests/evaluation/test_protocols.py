"""Preprocessing of each protocol, compared with the same steps written in torch and torchaudio."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import soxr
import torch
import torchaudio

from ajbench.core.errors import UsageError
from ajbench.data.audio import AudioError
from ajbench.data.clip_set import open_set
from ajbench.evaluation import protocols
from ajbench.evaluation.long_clips import levelled


@pytest.fixture
def stereo(rng):
    left = rng.normal(size=22_050) * 0.1 + 0.05
    return np.stack([left, rng.normal(size=22_050) * 0.2], axis=1).astype(np.float32)


def test_audioldm_eval_takes_the_first_channel_without_its_mean_and_pads_to_32000(stereo):
    made = protocols.find("audioldm_eval").wave(stereo, 44_100, 16_000)
    wave = torch.from_numpy(stereo.T)[0:1]
    wave = torchaudio.functional.resample(wave - wave.mean(), 44_100, 16_000)
    expected = torch.nn.functional.pad(wave, (0, 32_000 - wave.shape[1]))[0].numpy()
    assert made.dtype == np.float32 and made.shape == (32_000,)
    assert np.abs(made - expected).max() <= 1e-7


def test_av_benchmark_takes_the_mean_channel_and_cuts_at_8_seconds(rng):
    samples = rng.normal(size=(9 * 24_000, 2)).astype(np.float32) * 0.1 + 0.02
    made = protocols.find("av-benchmark").wave(samples, 24_000, 16_000)
    wave = torch.from_numpy(samples.T).mean(dim=0)
    expected = torchaudio.transforms.Resample(24_000, 16_000)(wave - wave.mean())[: 8 * 16_000].numpy()
    assert made.shape == (8 * 16_000,) and np.abs(made - expected).max() <= 1e-6


def test_stable_audio_metrics_brings_the_peak_to_minus_1_db(stereo):
    made = protocols.find("stable-audio-metrics").wave(stereo, 44_100, 32_000)
    expected = soxr.resample(stereo.mean(axis=1), 44_100, 32_000, quality="HQ")
    assert np.abs(made).max() == pytest.approx(10 ** (-1 / 20), rel=1e-6)
    assert np.allclose(made, expected * (np.abs(made).max() / np.abs(expected).max()), atol=1e-6)


def test_ajbench_keeps_level_and_length(stereo):
    protocol = protocols.find("ajbench")
    assert np.array_equal(protocol.wave(stereo, 16_000, 16_000), stereo.mean(axis=1, dtype=np.float32))
    assert protocol.wave(stereo, 44_100, 16_000).shape == (8_000,)


@pytest.mark.parametrize(
    ("seconds", "starts"), [(1, None), (3, [0]), (10, [0]), (12, [0, 5]), (16, [0, 5, 10]), (20, [0, 5, 10])]
)
def test_windows_of_ten_seconds_start_every_five(seconds, starts):
    wave = np.arange(1, seconds * 100 + 1, dtype=np.float32)
    windows = protocols.find("stable-audio-metrics").windows(wave, 100)
    if starts is None:  # too short to pad
        assert np.array_equal(windows, wave[None])
        return
    assert windows.shape == (len(starts), 1000)
    for window, start in zip(windows, starts, strict=True):
        piece = wave[start * 100 : start * 100 + 1000]
        assert np.array_equal(window[: len(piece)], piece) and not window[len(piece) :].any()


def test_other_protocols_have_one_window(rng):
    wave = rng.normal(size=50).astype(np.float32)
    for name in ("ajbench", "audioldm_eval", "av-benchmark"):
        assert np.array_equal(protocols.find(name).windows(wave, 10), wave[None])


def test_a_rate_that_would_cost_torchaudio_gigabytes_is_refused(stereo):
    with pytest.raises(AudioError, match="44101 Hz"):
        protocols.find("audioldm_eval").wave(stereo, 44_101, 16_000)
    assert protocols.find("audioldm_eval").wave(stereo, 11_025, 16_000).shape == (32_000,)
    assert protocols.find("ajbench").wave(stereo, 44_101, 16_000).shape == (8_000,)


def test_an_unknown_protocol_is_refused():
    with pytest.raises(UsageError, match=r"--protocol audioldm-eval: .*'audioldm_eval'"):
        protocols.find("audioldm-eval")


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_a_long_clip_has_the_mean_and_level_of_the_whole_clip(tmp_path, rng, name):
    loud, quiet = rng.normal(0.02, 0.2, 60 * 4_000), rng.normal(0.02, 0.002, 70 * 4_000)
    wave = np.concatenate([loud, quiet]).astype(np.float32)[:, None]
    soundfile.write(tmp_path / "a.wav", wave.clip(-1, 1), 4_000, subtype="FLOAT")
    protocol = replace(protocols.find(name), max_s=None, min_samples=0)
    found = np.concatenate([*levelled(open_set(tmp_path), 0, protocol, 4_000)])
    np.testing.assert_allclose(found, protocol.wave(wave.clip(-1, 1), 4_000, 4_000), atol=1e-6)
