"""Training of the codec `tiny`: sounds, energy score, what is written."""

import copy
import types
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file

from ajbench import codec
from ajbench.codec import codebooks, train
from ajbench.codec.sounds import SEGMENT, gather, sampling_share
from ajbench.codec.subspace import narrowed
from ajbench.codec.tiny_network import TinyCodec
from ajbench.core.errors import UsageError
from ajbench.data import audio
from ajbench.data.corpora import mini
from tests.fakes import free_port, join_launch, launch


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
        # for what takes numbers
        monkeypatch.setattr(train, "energy_score", lambda codec, spectra, wav, **_: (wav.sum(), wav.sum()))
        monkeypatch.setattr(codebooks, "start", lambda _, latents, *__: seen.setdefault("start", latents))
        monkeypatch.setattr(codebooks, "revive", lambda _, latents: seen.setdefault("revive", latents))
        for index in (2, train.REVIVE_EVERY):
            step(module, batches(index).to("meta"), index)

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
    moved, revive = [], codebooks.revive

    def spy(quantizer, latents):
        moved.append(revive(quantizer, latents))
        return moved[-1]

    monkeypatch.setattr(train, "REVIVE_EVERY", 2)
    monkeypatch.setattr(codebooks, "revive", spy)
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


def launched(rank, processes, port, folder, settings):
    join_launch(rank, processes, port)
    torch.set_num_threads(1)
    PartialState(cpu=True)  # as a stage with several processes does
    train.REVIVE_EVERY = 2
    train.train_codec([], folder, start=small_codec(), **settings)


def small_codec():
    torch.manual_seed(1)
    return TinyCodec(encoder_dim=16, encoder_blocks=1, decoder_dim=16, decoder_blocks=1)


# Which code is the nearest hangs on the last bit, so that weights which move lead codebooks apart.
@pytest.mark.parametrize(("quantize_from", "lr", "close"), [(99, 1e-3, 1e-5), (2, 1e-9, 0.3)])
def test_two_processes_train_the_codec_of_one(tmp_path, monkeypatch, quantize_from, lr, close):
    settings = {
        "batch_size": 4,
        "mini_clips": 2,
        "precision": "fp32",
        "quantize_from": quantize_from,
        "lr": lr,
    }
    launch(launched, (2, free_port(), tmp_path / "two", {"steps": 7} | settings))
    monkeypatch.setattr(train, "REVIVE_EVERY", 2)
    train.train_codec([], tmp_path / "one", start=small_codec(), steps=7, **settings)
    curves = [pd.read_csv(tmp_path / name / "metrics.csv").loss for name in ("one", "two")]
    np.testing.assert_allclose(*curves, rtol=1e-5)
    one, two = (train_state(tmp_path / name) for name in ("one", "two"))
    assert one.keys() == two.keys() and any(name.endswith("embed_avg") for name in one)
    for name, expected in one.items():
        torch.testing.assert_close(two[name], expected, atol=close, rtol=0)


def train_state(folder):
    return load_file(folder / "checkpoints/step-00000007/weights.safetensors")


def test_the_processes_must_divide_the_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "PartialState", lambda: types.SimpleNamespace(num_processes=3))
    with pytest.raises(UsageError, match="--batch-size 4: not divisible by 3 processes"):
        train.train_codec([], tmp_path, steps=1, batch_size=4)
