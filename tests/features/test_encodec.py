"""EnCodec's encoder against the package."""

import numpy as np
import pytest
import torch
from fakes import noise

from ajbench import features
from ajbench.features.extractor import LazyExtractor


def test_frames_are_the_encoders_output_before_the_quantiser(encodec_file):
    model, path = encodec_file
    extractor = features.load("encodec", path)  # a file that the user names is not compared with a hash
    wav = noise(0.5, 24_000)
    found, logits = extractor(wav)
    with torch.no_grad():  # the way of frechet-audio-distance, for one clip
        expected = [model.encoder(torch.tensor(clip)[None, None]).squeeze(0).numpy().T for clip in wav]
    assert found.shape == (2, 38, 128) and logits.shape == (2, 0) and LazyExtractor("encodec", path).frames
    assert found == pytest.approx(np.stack(expected), abs=1e-6) and found.std() > 1e-4
    assert extractor(wav[:, : extractor.min_samples])[0].shape == (2, 19, 128)
