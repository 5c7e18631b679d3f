"""Codecs compute where they were moved to: nothing is left on the CPU, nothing is fetched from there.

On the device `meta`, tensors have shapes but no values, and an operation that mixes devices fails: so this
needs no GPU.
"""

import numpy as np
import pytest
import torch
from fakes import small_encodec

from ajbench import codec as codecs
from ajbench.codec import encodec

META = torch.device("meta")


@pytest.fixture(scope="module")
def moved():
    small = encodec.from_model(small_encodec(n_q=8), "16k").to(META)
    return {"tiny": codecs.load("tiny", META), "encodec": small}


@pytest.mark.parametrize("name", ["tiny", "encodec"])
def test_latents_and_waves_come_out_where_the_codec_is(moved, name):
    codec, codes = moved[name], np.random.default_rng(0).integers(0, 1024, (2, 8, 42)).astype(np.uint16)
    latents = codec.latents(codes)
    assert latents.device == META and latents.shape == (2, 128, 42)
    for waves in (codec.decode(codes), codec.decode_latents(torch.zeros(2, 128, 42))):
        assert waves.device == META and waves.shape == (2, 42 * 320)


@pytest.mark.parametrize("name", ["tiny", "encodec"])
def test_codes_are_found_there_and_copied_here_at_the_end(moved, name):
    for call in (
        lambda: moved[name].encode(np.zeros((2, 42 * 320), np.float32)),
        lambda: moved[name].quantize(torch.zeros(2, 128, 42)),
    ):
        with pytest.raises(NotImplementedError, match="copy out of meta tensor"):
            call()
