import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from ajbench import audio
from ajbench.errors import IntegrityError, MissingError
from ajbench.metrics import features
from ajbench.metrics.mobilenet import WEIGHTS, MobileNet

# One sweep through EfficientAT's own MN and AugmentMelSTFT (commit a425fdc) with the published weights.
SWEEP_TOP = {501: -0.5374063, 503: -1.7402337, 137: -2.4173343, 158: -3.6631305}
SWEEP_MEAN = -8.9187555
SWEEP_EMBEDDING = [-0.2924272, -0.0470684, -0.1135480, 0.1491927]
SWEEP_NORM = 4.1169558


@pytest.fixture(scope="module")
def tagger(tagger_path):
    return features.load("mn04", tagger_path)


@pytest.fixture(scope="module")
def judge():
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "judge.py"
    spec = importlib.util.spec_from_file_location("judge", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_equals_the_original_implementation(tagger):
    t = torch.arange(160_000) / 32_000
    sweep = 0.3 * torch.sin(6.283185307 * (300 * t + 200 * t * t))
    with torch.inference_mode():
        embedding, logits = (v[0].numpy() for v in tagger.model(sweep[None]))
    assert np.argsort(-logits)[:4].tolist() == list(SWEEP_TOP)
    assert logits[list(SWEEP_TOP)] == pytest.approx(list(SWEEP_TOP.values()), abs=1e-4)
    assert logits.mean() == pytest.approx(SWEEP_MEAN, abs=1e-4)
    assert embedding[:4] == pytest.approx(SWEEP_EMBEDDING, abs=1e-4)
    assert np.linalg.norm(embedding) == pytest.approx(SWEEP_NORM, abs=1e-4)


def test_extractor_gives_named_logits_and_embeddings(tagger, tone):
    wav = np.stack([tone(440, 2.0), tone(3000, 2.0)])
    embedding, logits = tagger(wav)
    assert embedding.shape == (2, 384) and logits.shape == (2, 527)
    assert embedding.dtype == logits.dtype == np.float32
    assert np.array_equal(tagger.features(wav), embedding)
    assert np.array_equal(tagger.logits(torch.tensor(wav)), logits)
    assert tagger.labels[0] == "Speech" and tagger.mids[0] == "/m/09x0r" and len(tagger.labels) == 527
    assert tagger.labels[int(logits[0].argmax())] in ("Sine wave", "Beep, bleep", "Tuning fork")


def test_judge_hears_the_categories_of_esc10(tagger, judge, esc10_dir):
    by_category = sorted(judge.clips(esc10_dir), key=lambda clip: (clip[1], clip[0]))
    assert len(by_category) == 400
    chosen = by_category[::20]
    wavs = np.stack([audio.fit(audio.read(path), 80_640) for path, _ in chosen])
    heard = judge.rank_esc10(wavs, tagger)
    assert np.mean(heard == [category for _, category in chosen]) >= 0.85


def test_missing_weights_say_where_and_what_else(tmp_path, monkeypatch):
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(tmp_path))
    with pytest.raises(MissingError, match=rf"{tmp_path}/{WEIGHTS} is missing.*features=reference"):
        features.load("mn04")
    monkeypatch.delenv("AJBENCH_WEIGHTS")
    with pytest.raises(MissingError, match="set AJBENCH_WEIGHTS"):
        features.load("mn04")


def test_other_files_are_refused(tmp_path):
    path = tmp_path / WEIGHTS
    state = MobileNet().state_dict()
    torch.save(state | {"classifier.5.bias": torch.zeros(10)}, path)
    with pytest.raises(IntegrityError, match="other tensors"):
        features.load("mn04", path)
    torch.save([1, 2], path)
    with pytest.raises(IntegrityError, match="not a state dict"):
        features.load("mn04", path)
    path.write_bytes(b"no such thing")
    with pytest.raises(IntegrityError, match="not a state dict"):
        features.load("mn04", path)
    path.write_bytes(b"")
    with pytest.raises(IntegrityError, match="not a state dict"):
        features.load("mn04", path)
