"""The codec `tiny`: its synthesis, its weights, and what it preserves of a sound."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ajbench import codec
from ajbench.codec.tiny import WEIGHTS
from ajbench.codec.tiny_network import (
    HOP,
    NOISE_HOP,
    NOISE_WINDOW,
    TONE_BINS,
    TONE_HOP,
    TONE_WINDOW,
    TinyCodec,
    overlap_add,
)
from ajbench.core.errors import IntegrityError, MissingError
from ajbench.data import audio
from ajbench.data.corpora import mini

SAMPLES = audio.clip_samples(1.26)


@pytest.fixture(scope="module")
def clips():
    return np.stack([audio.fit(mini.render(7, index)[0], SAMPLES) for index in range(4)])


def test_quantising_latents_of_codes_changes_little(tiny, clips):
    latents = tiny.latents(tiny.encode(clips))
    assert (tiny.latents(tiny.quantize(latents)) - latents).square().mean() < 0.05 * latents.var()


def test_decoded_clips_have_the_level_and_spectrum_of_the_originals(tiny, clips):
    decoded = tiny.decode(tiny.encode(clips)).numpy()
    settings = (1024, 1024, 256, 80, 0.0, 8000.0)
    mel, expected = (audio.log_mel(torch.from_numpy(x), *settings, floor=1e-4) for x in (decoded, clips))
    own = (mel - expected).abs().mean(dim=(1, 2))
    other = (mel - expected.roll(1, 0)).abs().mean(dim=(1, 2))
    assert (own < 0.3).all()
    assert (own < 0.5 * other).all()


def test_longer_clip_starts_with_the_noise_of_a_shorter_one():
    network = TinyCodec().eval()
    with torch.no_grad():
        network.head.weight.zero_()  # gains then do not depend on latents, and the output is noise
        network.head.bias[:TONE_BINS] = -20.0
        short, long = (network.decode(torch.zeros(1, 128, frames)) for frames in (21, 42))
    assert short.std() > 0
    torch.testing.assert_close(short[:, : 19 * HOP], long[:, : 19 * HOP], atol=1e-6, rtol=0)


def test_steady_bin_is_a_steady_sinusoid():
    network = TinyCodec()
    steady = torch.zeros(1, TONE_BINS, 42, dtype=torch.complex64)
    steady[0, 80] = 1.0  # 80 bins of 12.5 Hz
    wav = overlap_add(steady * network._carrier(42), torch.hann_window(TONE_WINDOW), TONE_HOP)[0, 2000:-2000]
    power = torch.fft.rfft(wav * torch.hann_window(len(wav))).abs().square()
    peak = int(power.argmax())
    assert peak * audio.SAMPLE_RATE / len(wav) == pytest.approx(1000, abs=1)
    assert power[peak - 3 : peak + 4].sum() / power.sum() > 0.9999


def test_overlap_add_inverts_the_transform():
    wav = torch.randn(2, 16 * NOISE_HOP, generator=torch.Generator().manual_seed(1))
    window, edge = torch.hann_window(NOISE_WINDOW), (NOISE_WINDOW - NOISE_HOP) // 2
    padded = torch.nn.functional.pad(wav, (edge, edge))
    how = {"window": window, "center": False, "return_complex": True}
    spectrum = torch.stft(padded, NOISE_WINDOW, NOISE_HOP, **how)
    torch.testing.assert_close(overlap_add(spectrum, window, NOISE_HOP), wav, atol=1e-5, rtol=0)


def test_missing_foreign_and_damaged_weights_are_refused(tmp_path):
    none, foreign, damaged = (tmp_path / f"{name}.safetensors" for name in ("none", "foreign", "damaged"))
    save_file({"x": torch.zeros(3)}, foreign)
    damaged.write_bytes(WEIGHTS.read_bytes()[:-100])
    for path, error in ((none, MissingError), (foreign, IntegrityError), (damaged, IntegrityError)):
        with pytest.raises(error, match=path.name):
            codec.load(str(path))


def test_tiny_weights_are_small(tiny):
    assert WEIGHTS.stat().st_size <= 16_000_000
    assert len(tiny.weights_hash) == 16
