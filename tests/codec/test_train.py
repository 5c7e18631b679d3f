"""Training of the codec `tiny`: sounds, energy score, what is written."""

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from ajbench import codec
from ajbench.codec import train
from ajbench.codec.sounds import SEGMENT, gather, sampling_share
from ajbench.codec.subspace import narrowed
from ajbench.codec.tiny_network import TinyCodec
from ajbench.data import audio
from ajbench.data.corpora import mini


def _noise(level: float, seed: int) -> torch.Tensor:
    return level * torch.randn(8, SEGMENT, generator=torch.Generator().manual_seed(seed))


def _score(target: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> float:
    spectra = train.Spectra()
    x, y, z = (spectra(signal) for signal in (target, first, second))
    return float(0.5 * (train.distance(x, y) + train.distance(x, z) - train.distance(y, z)))


def test_energy_score_is_lowest_for_noise_at_the_level_of_the_target():
    target = _noise(0.1, 0)
    scores = {level: _score(target, _noise(level, 1), _noise(level, 2)) for level in (0.07, 0.1, 0.14)}
    assert min(scores, key=scores.get) == 0.1


def test_energy_score_is_lower_for_noise_than_for_one_fixed_output():
    """A fixed output is what a regression loss would choose."""
    target, steady = _noise(0.1, 0), _noise(0.1, 3)
    assert _score(target, _noise(0.1, 1), _noise(0.1, 2)) < 0.8 * _score(target, steady, steady)


def test_short_training_lowers_the_score_and_writes_weights(tmp_path):
    sounds = gather([], tmp_path, mini_clips=3, mini_seed=0)
    target = torch.from_numpy(sounds.draw(np.random.default_rng(9), 8, sampling_share(sounds)))

    def score(network):
        torch.manual_seed(0)
        with torch.no_grad():
            return float(train.energy_score(network, train.Spectra(), target, quantize=False)[0])

    torch.manual_seed(0)
    untrained = score(TinyCodec(rank=None))
    settings = {"batch_size": 2, "lr": 2e-3, "quantize_from": 19, "mini_clips": 3, "precision": "fp32"}
    assert score(train.train_codec([], tmp_path, steps=20, **settings)) < 0.9 * untrained
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 21
    loaded = codec.load(str(tmp_path / "tiny.safetensors"))
    wav = np.random.default_rng(0).normal(0, 0.1, (1, 6720)).astype(np.float32)
    assert loaded.decode(loaded.encode(wav)).shape == (1, 6720)


def test_a_training_continues_from_another_codec(tmp_path, tiny):
    settings = {"batch_size": 2, "lr": 1e-6, "mini_clips": 3, "precision": "fp32", "seed": 1}
    train.train_codec([], tmp_path, steps=2, start=copy.deepcopy(tiny.network), **settings)
    wav = np.stack([audio.fit(mini.render(7, index)[0], 20_160) for index in range(2)])
    made = codec.load(str(tmp_path / "tiny.safetensors"))
    own, given = made.decode(made.encode(wav)), tiny.decode(tiny.encode(wav))
    spectra = train.Spectra()
    apart = float(train.distance(spectra(own), spectra(given)))
    assert made.weights_hash != tiny.weights_hash
    assert apart < 0.5 * float(train.distance(spectra(own), spectra(own.roll(1, 0))))


def test_everything_that_a_step_needs_is_on_the_device_of_the_training(tmp_path, monkeypatch):
    seen = {}

    def fit(module, step, batches, **how):
        seen["loss"] = step(module.to("meta"), batches(0).to("meta"), 0)
        spy("energy_score", lambda codec, spectra, wav, **_: (wav.sum(), wav.sum()))
        spy("start_codebooks", lambda codec, latents, *_: seen.setdefault("start", latents))
        spy("revive_codes", lambda codec, latents: seen.setdefault("revive", latents))
        for index in (2, train.REVIVE_EVERY):
            step(module, batches(index).to("meta"), index)

    def spy(name, stand_in):  # for what takes numbers
        monkeypatch.setattr(train, name, stand_in)

    monkeypatch.setattr(train, "device_of", lambda: torch.device("meta"))
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it does not know meta
    monkeypatch.setattr(train.loop, "fit", fit)
    monkeypatch.setattr(train, "save", lambda module, path: None)
    # started with a subspace: to find one takes numbers
    train.train_codec([], tmp_path, steps=40, batch_size=2, quantize_from=2, mini_clips=1, start=TinyCodec())
    assert {*seen} == {"loss", "start", "revive"}
    assert {tensor.device.type for tensor in seen.values()} == {"meta"}


@pytest.mark.gpu
def test_on_cuda_the_codec_is_trained_with_codebooks_started_and_revived(tmp_path, cuda, monkeypatch):
    moved, revive = [], train.revive_codes

    def spy(codec, latents):
        moved.append(revive(codec, latents))
        return moved[-1]

    monkeypatch.setattr(train, "REVIVE_EVERY", 2)
    monkeypatch.setattr(train, "revive_codes", spy)
    made = train.train_codec([], tmp_path, steps=12, batch_size=2, quantize_from=2, mini_clips=2)
    assert next(made.parameters()).device == cuda and sum(moved) > 0
    assert codec.load(str(tmp_path / "tiny.safetensors")).latents(np.zeros((1, 8, 21), int)).isfinite().all()


def test_in_bf16_spectra_are_fp32_and_the_score_is_similar_and_has_gradients():
    torch.manual_seed(0)
    wide, spectra, target = TinyCodec(rank=None), train.Spectra(), _noise(0.1, 0)[:1, : SEGMENT // 4]
    network = narrowed(wide, _noise(1.0, 1)[:, :16_384].reshape(-1, 128)).eval()
    scores, kinds = [], set()
    spectra.register_forward_hook(lambda module, given, out: kinds.update(one.dtype for one in out))
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            score, penalty = train.energy_score(network, spectra, target, quantize=True)
        scores.append(float(score.detach()))
    assert kinds == {torch.float32} and scores[1] == pytest.approx(scores[0], rel=0.2)
    (score + penalty).backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in gradients)
    assert sum(bool(g.any()) for g in gradients) > len(gradients) / 2


def test_codebooks_start_on_the_residuals_and_unused_codes_are_revived():
    torch.manual_seed(0)
    network = TinyCodec()
    latents = torch.randn(4096, 128) @ torch.diag(torch.linspace(2, 0.1, 128))
    train.start_codebooks(network, latents, frames_per_step=1024, iterations=2)
    books = [layer._codebook for layer in network.quantizer.vq.layers]
    codes = network.quantizer.eval().encode(latents.T[None], 50, None)
    error = (network.quantizer.decode(codes)[0].T - latents).square().mean() / latents.var()
    assert error < 0.25
    assert sum(float(book.cluster_size.sum()) for book in books) == pytest.approx(8 * 1024, rel=1e-3)
    books[3].cluster_size[:100] = 0.0
    books[3].embed[:100] = 1e6
    assert train.revive_codes(network, latents) >= 100
    assert books[3].embed.abs().max() < 10
    assert float(books[3].cluster_size[:100].min()) == 0.5
