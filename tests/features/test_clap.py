"""CLAP against transformers."""

import json
import shutil

import numpy as np
import pytest
import torch
from fakes import noise, save_text_encoder, set_config

from ajbench import features
from ajbench.core import weights
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.features.extractor import LazyExtractor

PROMPTS = ["The sound of dog, rain", "a clock nearby", "rain"]


@pytest.fixture(scope="module")
def clap(clap_folder):
    return features.load("clap", clap_folder)


def unit(found):
    vectors = getattr(found, "pooler_output", found)
    return (vectors / vectors.norm(dim=-1, keepdim=True)).numpy()


def test_embeddings_are_those_of_transformers(clap, clap_folder):
    from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

    model = ClapModel.from_pretrained(clap_folder).eval()
    wav = noise(0.3, 48_000)
    processor = ClapFeatureExtractor.from_pretrained(clap_folder)
    inputs = processor(list(wav), sampling_rate=48_000, return_tensors="pt")
    words = AutoTokenizer.from_pretrained(clap_folder)(PROMPTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        sound = unit(model.get_audio_features(**inputs))
        text = unit(model.get_text_features(**words))
    found, logits = clap(wav)
    assert found == pytest.approx(sound, abs=1e-5) and logits.shape == (2, 0)
    assert clap.text(PROMPTS) == pytest.approx(text, abs=1e-5)
    assert found.dtype == clap.text(PROMPTS).dtype == np.float32
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)
    assert np.abs(found[0] - found[1]).max() > 1e-3 and np.abs(text[0] - text[1]).max() > 1e-3


def test_only_the_first_seconds_count_and_nothing_is_drawn_at_random(clap):
    wav = noise(1.5, 48_000, clips=1)
    first, again, cut = clap(wav)[0], clap(wav)[0], clap(wav[:, :48_000])[0]
    assert np.array_equal(first, again) and np.array_equal(first, cut)
    assert (clap.sample_rate, clap.max_samples, clap.labels) == (48_000, 48_000, ())


def test_batches_of_text_do_not_change_its_embeddings(clap, clap_folder, monkeypatch):
    monkeypatch.setattr("ajbench.features.clap.PROMPTS", 2)
    lazy = LazyExtractor("clap", clap_folder)
    assert lazy.texts and not lazy.classes and not lazy.frames
    assert lazy.text(PROMPTS) == pytest.approx(clap.text(PROMPTS), abs=1e-5)
    assert lazy.weights_hash == weights.identity(clap_folder)


def test_faults_of_the_folder_are_named(clap_folder, tmp_path, empty_caches):
    folder = shutil.copytree(clap_folder, tmp_path / "clap")
    assert features.load("clap").text(["rain"]).shape == (1, 8)
    before = LazyExtractor("clap").weights_hash
    audio_config = json.loads((folder / "config.json").read_text())["audio_config"]
    set_config(folder, audio_config=audio_config | {"enable_fusion": True})
    assert LazyExtractor("clap").weights_hash != before
    with pytest.raises((UsageError, IntegrityError)):
        features.load("clap")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(MissingError, match=r"preprocessor_config.json"):
        features.load("clap")
    save_text_encoder("clip", tmp_path / "clip")
    with pytest.raises(UsageError, match="'clip"):
        features.load("clap", tmp_path / "clip")
    pickled = shutil.copytree(clap_folder, tmp_path / "pickled")
    (pickled / "model.safetensors").unlink()
    (pickled / "pytorch_model.bin").write_bytes(b"junk")
    with pytest.raises(IntegrityError, match=str(pickled)):
        features.load("clap", pickled)
