"""The encoder of the codec `tiny` as an extractor."""

import pytest
import torch
from fakes import noise

from ajbench import codec, features
from ajbench.core import weights
from ajbench.core.errors import MissingError
from ajbench.features.extractor import LazyExtractor


def test_frames_are_the_latents_of_the_first_version_before_the_quantiser(empty_caches):
    extractor, wav = features.load("tiny"), noise(0.5, 16_000)
    found, logits = extractor(wav)
    assert found.shape == (2, 25, 128) and logits.shape == (2, 0)
    with torch.no_grad():
        expected = codec.load("tiny@ff1b92258faaad59").network.embed(torch.from_numpy(wav[1:]))[0].T
    assert found[1] == pytest.approx(expected.numpy(), abs=1e-5) and found.std() > 1e-3
    assert extractor(wav[:, :7999])[0].shape == (2, 25, 128)  # a frame that is not whole is completed


def test_its_weights_come_with_ajbench(empty_caches, tmp_path):
    lazy = LazyExtractor("tiny")
    assert lazy.frames and not lazy.classes and lazy.weights_hash == weights.identity(lazy.weights)
    with pytest.raises(MissingError, match="nowhere"):
        features.load("tiny", tmp_path / "nowhere.safetensors")
