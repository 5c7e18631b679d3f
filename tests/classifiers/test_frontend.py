"""Front ends against torchaudio, augmentations against their definitions."""

import numpy as np
import pytest
import torch
import torchaudio
from scipy import stats

from ajbench.classifiers import frontend
from ajbench.classifiers.frontend import Fbank, TalMel
from ajbench.data import audio

SAMPLES = 80_640


def kaldi(wav):
    return torchaudio.compliance.kaldi.fbank(
        (wav - wav.mean())[None], htk_compat=True, sample_frequency=16_000, use_energy=False,
        window_type="hanning", num_mel_bins=128, dither=0.0, frame_shift=10,
    )  # fmt: skip


def check_fbank(waves):
    front = Fbank()
    expected = torch.stack([kaldi(wav) for wav in waves])
    assert torch.equal(front.reference(waves), expected)
    assert torch.equal(Fbank(exact=True).log_mel(waves), expected)
    difference = front.log_mel(waves) - expected
    assert difference.abs().max() <= 1e-2 and difference.abs().mean() <= 1e-5
    assert torch.equal(front.log_mel(waves), front.log_mel(waves))


def noise(clips, samples=SAMPLES, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(clips, samples, generator=g) * torch.tensor([1e-3, 0.1, 0.5])[:clips, None]


def test_fbank_equals_kaldi_on_noise():
    check_fbank(noise(3))


def test_fbank_equals_kaldi_on_recordings(esc10_dir):
    files = sorted((esc10_dir / "audio").iterdir())[::16]
    assert len(files) == 25
    check_fbank(torch.from_numpy(np.stack([audio.fit(audio.read(f), SAMPLES) for f in files])))


def test_fbank_rounds_no_worse_than_kaldi_at_any_level_or_offset():
    n = noise(3)[2:]
    offset, walk = n / 50 + 0.5, (n / 50).cumsum(dim=1)
    waves = torch.cat([n * 60, n * 2e-4, offset, walk])
    front = Fbank()
    bank, _ = torchaudio.compliance.kaldi.get_mel_banks(128, 512, 16_000, 20.0, 0.0, 100.0, -500.0, 1.0)
    centred = waves.double() - waves.double().mean(dim=1, keepdim=True)
    frames = centred.unfold(1, 400, 160)
    frames = frames - frames.mean(dim=2, keepdim=True)
    frames = frames - 0.97 * torch.nn.functional.pad(frames, (1, -1))
    spectrum = torch.fft.rfft(frames * torch.hann_window(400, periodic=False).double(), n=512)
    truth = (spectrum.abs().square()[..., :256] @ bank.T.double()).clamp_min(2**-23).log()
    for found in (front.reference(waves), front.log_mel(waves)):
        # Measured: 1.8e-6 at most, on the walk, and 4.5e-6 where sums are not vectorised
        # (ATEN_CPU_CAPABILITY=default), whose order of additions loses more of a large offset.
        assert (found - truth).abs().mean(dim=(1, 2)).max() <= 6e-6
        assert (found - truth).abs().max() <= 1e-2


@pytest.mark.parametrize("front", [Fbank(), Fbank(exact=True), TalMel(), TalMel(1024)])
@pytest.mark.parametrize("samples", [80_640, 20_001])
def test_features_have_the_same_bits_in_any_batch(front, samples):
    waves = torch.cat([noise(3, samples, seed) for seed in range(3)])
    together, turned = front(waves), front(waves.flip(0)).flip(0)
    alone = torch.cat([front(wav[None].clone()) for wav in waves])
    assert torch.equal(together, alone) and torch.equal(together, turned)
    assert torch.equal(together[2:5], front(waves[2:5]))


@pytest.mark.gpu
@pytest.mark.parametrize("front", [Fbank(), TalMel()])
def test_features_on_cuda_are_those_of_the_cpu(front, cuda):
    waves = noise(3, 20_001)
    expected = front(waves)
    features = front.to(cuda)(waves.to(cuda))
    assert features.device == cuda
    torch.testing.assert_close(features.cpu(), expected, atol=1e-4, rtol=0)
    front.to("cpu")


@pytest.mark.parametrize("front", [Fbank(), TalMel()])
def test_whole_batches_as_on_a_gpu_give_the_same_features(front, monkeypatch):
    waves = noise(3, 20_001)
    expected = front(waves)
    monkeypatch.setattr(frontend, "_clips_at_once", len)
    torch.testing.assert_close(front(waves), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("front", [Fbank(), TalMel()])
def test_features_are_float32_under_autocast_and_finite_for_silence(front):
    expected = front(noise(2))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(front(noise(2)), expected)
    assert torch.isfinite(front(torch.zeros(1, SAMPLES))).all()


LENGTHS = [(80_640, 512), (160_000, 1024), (161_280, 1024), (6_720, 64)]


@pytest.mark.parametrize(("samples", "frames"), LENGTHS)
def test_fbank_features_have_the_published_lengths_and_scale(samples, frames):
    features = Fbank()(noise(1, samples))
    assert features.shape == (1, frames, 128) == (1, Fbank().frames(samples), 128)
    natural = 1 + (samples - 400) // 160
    expected = (kaldi(noise(1, samples)[0]) + 4.2677393) / (4.5689974 * 2)
    torch.testing.assert_close(features[0, :natural], expected, atol=2e-3, rtol=0)
    assert features[0, natural:].unique().tolist() in ([], [pytest.approx(4.2677393 / (4.5689974 * 2))])


def slaney_bank(bins, bands):
    """Triangles of unit area, equally wide below 1 kHz and in equal ratios above: [bins, bands], float64."""
    linear, step = 3 / 200, np.log(6.4) / 27  # mels per Hz, and the logarithm's step per mel
    top = 15 + np.log(8000 / 1000) / step
    mels = np.linspace(0, top, bands + 2)
    edges = np.where(mels < 15, mels / linear, 1000 * np.exp(step * (mels - 15)))
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    hertz = np.linspace(0, 8000, bins)[:, None]
    triangles = np.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle))
    return np.maximum(triangles, 0) * 2 / (high - low)


def taltrans_definition(wav):
    """TALtrans' features of waves [B, n], in float64: [B, 1 + n // 400, 64]."""
    wav = wav.numpy().astype(np.float64)
    padded = np.pad(wav - wav.mean(axis=1, keepdims=True), ((0, 0), (2048, 2048)))
    window = np.pad(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024), (1536, 1536))
    starts = range(0, wav.shape[1] + 1, 400)
    frames = np.stack([padded[:, start : start + 4096] for start in starts], axis=1)
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    decibel = 20 * np.log10(np.maximum(power @ slaney_bank(2049, 64), 1e-10))
    return (decibel + 29.686901) / (2 * 40.898224)


@pytest.mark.parametrize(("samples", "frames"), [(160_000, 400), (161_280, 400), (80_640, 200), (6_720, 16)])
def test_talmel_equals_its_definition_up_to_the_edges(samples, frames):
    waves = noise(2, samples) + torch.tensor([[0.0], [0.2]])
    found, expected = TalMel()(waves).numpy(), taltrans_definition(waves)
    assert found.shape == (2, frames, 64) == (2, TalMel().frames(samples), 64)
    np.testing.assert_allclose(found, expected[:, :frames], rtol=1e-6, atol=1e-6)


def test_talmel_pads_a_clip_of_few_frames_with_0_db():
    waves = noise(2, 1_000)
    found = TalMel()(waves).numpy()
    assert found.shape == (2, 8, 64)
    np.testing.assert_allclose(found[:, :3], taltrans_definition(waves), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found[:, 3:], 29.686901 / (2 * 40.898224), rtol=1e-6)


def test_talmel_keeps_its_level_with_a_smaller_transform():
    waves = noise(2)
    assert (TalMel(1024)(waves) - TalMel()(waves)).mean().abs() < 0.005


def test_spec_augment_masks_one_span_per_axis_of_uniform_width():
    clips, frames, bands, widest, deepest = 4000, 60, 30, 20, 10
    draws = torch.rand(clips, 4, generator=torch.Generator().manual_seed(1))
    out = frontend.spec_augment(torch.ones(clips, frames, bands), draws, time=widest, freq=deepest, fill=7.0)
    assert set(out.unique().tolist()) == {1.0, 7.0}
    masked = out == 7.0
    across, down = masked.all(dim=2), masked.all(dim=1)
    assert torch.equal(masked, across[:, :, None] | down[:, None, :])
    for span, limit in ((across, widest), (down, deepest)):
        edges = torch.nn.functional.pad(span.int(), (1, 1)).diff(dim=1).abs().sum(dim=1)
        assert set(edges.tolist()) <= {0, 2}
        widths = np.bincount(span.sum(dim=1).numpy(), minlength=limit)
        assert len(widths) == limit
        assert stats.chisquare(widths).pvalue > 0.01
    assert across[:, [0, -1]].any(dim=0).all()


def test_spec_augment_depends_on_the_draws_of_a_clip_only_and_can_be_off():
    x, draws = torch.randn(3, 20, 10), torch.rand(3, 4)
    out = frontend.spec_augment(x, draws, time=8, freq=4)
    assert torch.equal(frontend.spec_augment(x[1:], draws[1:], time=8, freq=4), out[1:])
    assert not torch.equal(frontend.spec_augment(x, draws.flip(0), time=8, freq=4), out)
    assert torch.equal(frontend.spec_augment(x, draws, time=0, freq=0), x)


def test_mixup_is_the_formula_of_ast():
    g = torch.Generator().manual_seed(3)
    wav, targets = torch.randn(5, 100, generator=g) + 0.4, torch.eye(5)
    mixed, keep = torch.tensor([0, 2]), torch.tensor([0.3, 0.6])
    before = wav.clone()
    out, labels = frontend.mixup(wav, targets, mixed, keep)
    assert torch.equal(wav, before) and torch.equal(targets, torch.eye(5))
    centred = [w - w.mean() for w in wav]
    for place, partner, lam in ((0, 3, 0.3), (2, 4, 0.6)):
        blend = lam * centred[place] + (1 - lam) * centred[partner]
        torch.testing.assert_close(out[place], blend - blend.mean())
        torch.testing.assert_close(labels[place], lam * targets[place] + (1 - lam) * targets[partner])
    torch.testing.assert_close(out[1], centred[1])
    assert torch.equal(labels[1], targets[1])
    assert out.shape == (3, 100)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("where", [(), (0, 2), (0, 1, 2, 3)])
def test_mixup_clip_by_clip_has_the_bits_of_the_whole_batch(threads, where, rng):
    waves = rng.integers(-32768, 32767, (4 + len(where), 40_320), np.int16)
    waves[-1] = waves[0]  # a clip may be the partner of another
    targets = torch.rand(len(waves), 3)
    mixed = torch.tensor(where, dtype=torch.long), torch.rand(len(where))
    rows = [wave if k % 2 else wave.astype(np.float32) / 32768 for k, wave in enumerate(waves)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole = frontend.mixup(torch.from_numpy(waves.astype(np.float32) / 32768), targets, *mixed)
        found = frontend.mixup_rows(rows, targets, *mixed)
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, found, whole))
    assert (waves[-1] == waves[0]).all()
