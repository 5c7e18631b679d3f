"""The codec `tiny`: its synthesis, its weights, and what it preserves of a sound."""

import hashlib
import json
import math

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ajbench import codec
from ajbench.codec.subspace import narrowed
from ajbench.codec.tiny import FORMER, WEIGHTS
from ajbench.codec.tiny_network import (
    HOP,
    NOISE_BINS,
    NOISE_FRAMES,
    NOISE_HOP,
    NOISE_WINDOW,
    TONE_BINS,
    TONE_HOP,
    TONE_WINDOW,
    TinyCodec,
    overlap_add,
)
from ajbench.core import registry
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


def test_a_former_version_is_loaded_by_its_hash_and_codes_of_one_are_not_taken_for_those_of_the_other(
    tiny, clips
):
    for weights_hash, path in FORMER.items():
        former = codec.load("tiny", weights_hash=weights_hash)
        assert former.weights_hash == weights_hash == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        assert codec.load(f"tiny@{weights_hash}").weights_hash == weights_hash != tiny.weights_hash
        decoded = former.decode(former.encode(clips)).numpy()
        assert 0.5 < decoded.std() / clips.std() < 2
        assert (former.encode(clips) != tiny.encode(clips)).mean() > 0.9


def test_todays_version_has_a_name_that_stays(tiny):
    named = {name for name in registry.CODECS if name.startswith("tiny@")}
    assert named == {f"tiny@{tiny.weights_hash}", *(f"tiny@{former}" for former in FORMER)}
    assert codec.load(f"tiny@{tiny.weights_hash}").weights_hash == tiny.weights_hash


def test_the_noise_gains_of_the_first_version_are_ordered_by_bin_in_its_file():
    """Its file: rows of a bin, its two frames after each other; today: all bins of a frame."""
    (path,) = FORMER.values()
    rows = load_file(path)["head.weight"][3 * TONE_BINS :].float()
    network = codec.load(str(path)).network
    mine = network.head.weight[3 * TONE_BINS :].unflatten(0, (NOISE_FRAMES, NOISE_BINS))
    for frame in range(NOISE_FRAMES):
        assert torch.equal(mine[frame], rows[frame::NOISE_FRAMES])


def test_with_all_components_a_codec_gives_what_it_gave(clips):
    torch.manual_seed(0)
    wide, wave = TinyCodec(rank=None).eval(), torch.from_numpy(clips)
    with torch.no_grad():
        for layer in (
            wide.encoder_out[1],
            wide.head,
            wide.decoder_in,
        ):  # else little depends on the deep path
            layer.weight.mul_(3)
        latents = wide.embed(wave)
        same = narrowed(wide, latents.transpose(1, 2).flatten(0, 1), rank=128).eval()
        (tones, gains), (found, (noise, clicks)) = wide.spectrum(latents), same.spectrum(same.embed(wave))
    inside = slice(24, -24)  # the first convolution is padded with another value
    torch.testing.assert_close(
        found[:, inside], tones[:, inside], rtol=1e-2, atol=1e-3 * float(tones.abs().max())
    )
    wanted, got = (one.unflatten(1, (-1, 2))[:, inside].log() for one in (gains[0], noise))
    torch.testing.assert_close(got, wanted, rtol=0, atol=0.02)
    quiet = noise.unflatten(1, (-1, 2))[:, inside, :, ::5].mean(2) * math.exp(-2.65)
    ratio = clicks.unflatten(1, (-1, 5))[:, inside].mean(2) / quiet
    assert ratio.log().abs().mean() < 0.05, "clicks follow the noise, at a twentieth of its power"


def test_in_a_subspace_variances_come_closer_and_the_largest_components_are_kept(clips):
    torch.manual_seed(0)
    wide, wave = TinyCodec(rank=None).eval(), torch.from_numpy(clips)
    with torch.no_grad():
        latents = wide.embed(wave).transpose(1, 2).flatten(0, 1)
        inside = narrowed(wide, latents, rank=20).embed(wave).transpose(1, 2).flatten(0, 1)
    before, after = (torch.linalg.eigvalsh(torch.cov(one.T)).flip(0) for one in (latents, inside))
    torch.testing.assert_close(after[:20] / after[0], (before[:20] / before[0]).sqrt(), rtol=1e-2, atol=1e-4)
    assert after[20:].max() < 1e-4 * after[0]


def test_what_lies_outside_the_subspace_is_not_heard(tiny):
    latents = tiny.latents(np.zeros((1, 8, 21), int))
    stray = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    stray -= tiny.network.spread(tiny.network.coordinates(stray))
    assert stray.std() > 0.5
    torch.testing.assert_close(tiny.decode_latents(latents + stray), tiny.decode_latents(latents))


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
    steady = torch.zeros(1, 42, TONE_BINS, dtype=torch.complex64)
    steady[0, :, 80] = 1.0  # 80 bins of 12.5 Hz
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
    torch.testing.assert_close(
        overlap_add(spectrum.transpose(1, 2), window, NOISE_HOP), wav, atol=1e-5, rtol=0
    )


def test_missing_foreign_and_damaged_weights_are_refused(tmp_path):
    none, foreign, damaged = (tmp_path / f"{name}.safetensors" for name in ("none", "foreign", "damaged"))
    save_file({"x": torch.zeros(3)}, foreign)
    damaged.write_bytes(WEIGHTS.read_bytes()[:-100])
    for path, error in ((none, MissingError), (foreign, IntegrityError), (damaged, IntegrityError)):
        with pytest.raises(error, match=path.name):
            codec.load(str(path))


@pytest.mark.parametrize(
    "config",
    [
        {"encoder_blocks": 10**6}, {"decoder_blocks": 7}, {"encoder_dim": 10**6}, {"decoder_dim": 321},
        {"rank": 10**9}, {"rank": None}, {"encoder_dim": "256"}, {"width": 1}, {"encoder_dim": 10**12},
    ],
)  # fmt: skip
def test_sizes_in_the_header_that_its_tensors_do_not_have_are_refused_before_building(tmp_path, config):
    with safe_open(WEIGHTS, "pt") as file:
        header = json.loads(file.metadata()["config"]) | config
    save_file(load_file(WEIGHTS), tmp_path / "large.safetensors", {"config": json.dumps(header)})
    with pytest.raises(IntegrityError, match=r"large\.safetensors: not a tiny codec"):
        codec.load(str(tmp_path / "large.safetensors"))


def test_a_width_that_one_tensor_alone_has_is_refused_before_building(tmp_path):
    with safe_open(WEIGHTS, "pt") as file:
        header = json.loads(file.metadata()["config"]) | {"encoder_dim": 10**6}
    tensors = load_file(WEIGHTS) | {"encoder_in.weight": torch.zeros(10**6, 1, 1)}
    save_file(tensors, tmp_path / "wide.safetensors", {"config": json.dumps(header)})
    with pytest.raises(IntegrityError, match=r"has shape \(1000000, 1, 1\)"):
        codec.load(str(tmp_path / "wide.safetensors"))


def test_tiny_weights_are_small(tiny):
    assert WEIGHTS.stat().st_size <= 16_000_000
    assert len(tiny.weights_hash) == 16
