import numpy as np
import pytest
import torch
import torchaudio

from ajbench import classifiers
from ajbench.core.device import device_of
from ajbench.core.errors import MissingError, UsageError
from ajbench.data import audio
from ajbench.features import extractor as features
from ajbench.features.mobilenet import MN


class Means:
    name, labels, mids, sample_rate = "means", ("low", "high"), None, 16_000

    def __call__(self, wav):
        self.largest = max(len(wav), getattr(self, "largest", 0))
        return self.features(wav), self.logits(wav)

    def features(self, wav):
        return np.asarray(wav)[:, :3]

    def logits(self, wav):
        return np.stack([wav.min(axis=1), wav.max(axis=1)], axis=1)


def test_extract_keeps_the_order_of_clips():
    wav = np.random.default_rng(0).normal(size=(7, 20)).astype(np.float32)
    embedded, logits = features.extract(Means(), (wav[i : i + 3] for i in range(0, 7, 3)))
    assert np.array_equal(embedded, wav[:, :3])
    assert np.array_equal(logits, Means().logits(wav))


def test_extract_reads_a_store_by_batches(monkeypatch):
    class Store:
        wav = np.random.default_rng(0).normal(size=(7, 20)).astype(np.float32)

        def __len__(self):
            return 7

        def audio(self, indices):
            return self.wav[indices]

    monkeypatch.setattr(features, "ClipStore", Store)
    extractor = Means()
    embedded, _ = features.extract(extractor, Store(), batch=2)
    assert np.array_equal(embedded, Store.wav[:, :3]) and extractor.largest == 2
    with pytest.raises(MissingError, match="no clip"):
        features.extract(extractor, [])


def test_extract_converts_for_an_extractor_of_another_rate():
    class Pitch(Means):
        sample_rate = 32_000

        def features(self, wav):
            assert wav.shape == (2, 32_000)
            spectrum = np.abs(np.fft.rfft(np.asarray(wav)))
            return np.stack([spectrum.argmax(axis=1), spectrum.max(axis=1) / 16_000], axis=1)

        def logits(self, wav):
            return super().logits(np.asarray(wav))

    t = np.arange(16_000) / 16_000
    wav = np.stack([np.sin(2 * np.pi * f * t) for f in (440, 3000)]).astype(np.float32)
    found, logits = features.extract(Pitch(), [wav, torch.tensor(wav[::-1].copy())])
    assert found[:, 0].tolist() == [440, 3000, 3000, 440]
    assert found[:, 1] == pytest.approx(1, abs=0.01)
    # As both tools convert.
    expected = torchaudio.functional.resample(torch.tensor(wav), 16_000, 32_000)
    assert np.array_equal(logits[:2], Means().logits(expected.numpy()))


def test_extractors_of_sixteen_kilohertz_get_the_waves_themselves():
    wav = np.zeros((2, 100), np.float32)
    assert audio.at_rate(wav, 16_000) is wav
    assert features.Reference.sample_rate == MN.sample_rate == 16_000


def test_reference_is_a_trained_classifier(tmp_path):
    module = classifiers.build("taltrans-small", 2)
    saved = {"name": "taltrans-small", "labels": ["rain", "dog"], "clip_samples": 80_640, "options": {}}
    classifiers.save(module, tmp_path, **saved, extra={})
    extractor = features.load("reference", tmp_path)
    wav = np.random.default_rng(0).normal(size=(2, 80_640)).astype(np.float32)
    embedded, logits = extractor(wav)
    assert extractor.labels == ("rain", "dog") and logits.shape == (2, 2)
    assert embedded.shape[0] == 2 and embedded.dtype == logits.dtype == np.float32
    assert np.array_equal(logits, extractor.classifier.predict(wav).numpy())


def test_loading_waits_for_no_other_process_of_a_launch(tmp_path, monkeypatch):
    def wait(*_args, **_more):
        raise AssertionError("joins the group of processes, one of which may never come")

    saved = {"name": "taltrans-small", "labels": ["rain", "dog"], "clip_samples": 80_640, "options": {}}
    classifiers.save(classifiers.build("taltrans-small", 2), tmp_path, **saved, extra={})
    monkeypatch.setattr("accelerate.PartialState.__init__", wait)
    assert features.load("reference", tmp_path).classifier.device == device_of(0)


def test_unknown_and_missing_extractors():
    with pytest.raises(UsageError, match="did you mean 'mn04'"):
        features.load("mn4")
    with pytest.raises(MissingError, match="train-cls first"):
        features.load("reference")
