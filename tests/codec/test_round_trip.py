"""Wave → codes → latents → whitened grid and back, over clip lengths: exact but for what the codec loses."""

from functools import cache

import numpy as np
import pytest
from fakes import encodec_waves, small_encodec
from hypothesis import given, settings
from hypothesis import strategies as st

from ajbench import codec as codecs
from ajbench.codec import encodec
from ajbench.codec.whitening import Whitening
from ajbench.data.audio import FRAME_MULTIPLE, HOP

UNIT = FRAME_MULTIPLE * HOP


@cache
def codec_of(name):
    return codecs.load("tiny") if name == "tiny" else encodec.from_model(small_encodec(n_q=8), name)


@cache
def whitening_of(name, kind):
    codec = codec_of(name)
    return Whitening.fit([codec.latents(codec.encode(encodec_waves(6, 4 * UNIT, seed=1)))], kind)


@pytest.mark.parametrize("kind", ["channel", "pca"])
@pytest.mark.parametrize("name", ["tiny", "16k", "24k"])
@settings(max_examples=4)
@given(columns=st.integers(1, 6), clips=st.integers(1, 2), seed=st.integers(2, 99))
def test_everything_but_the_codec_is_undone(name, kind, columns, clips, seed):
    codec, white = codec_of(name), whitening_of(name, kind)
    if name == "24k":
        columns += columns % 2  # 31.5 frames a column of 16 kHz audio
    wav = encodec_waves(clips, columns * UNIT, seed)
    codes = codec.encode(wav)
    frames = columns * FRAME_MULTIPLE * (3 if name == "24k" else 2) // 2
    assert codes.shape == (clips, 8, frames)
    latents = codec.latents(codes)
    grid = white.grid(latents)
    assert grid.shape == (clips, 128, frames // FRAME_MULTIPLE, FRAME_MULTIPLE)
    if kind == "channel":
        mean, std = (np.array(values)[:, None] for values in (white.mean, white.std))
        expected = ((latents.double().numpy() - mean) / std).reshape(grid.shape)  # row-major
        scale = np.abs(latents.numpy()).max(axis=(0, 2)) / std[:, 0]
        assert (np.abs(grid.numpy() - expected).max(axis=(0, 2, 3)) <= 1e-6 * (1 + scale)).all()
    back = white.latents(grid)
    assert back.shape == latents.shape
    assert (back - latents).abs().max() <= 1e-5 * latents.abs().max()
    sound = codec.decode(codes)
    assert sound.shape == wav.shape
    assert (codec.decode_latents(back) - sound).abs().max() <= 1e-4
    if name == "tiny":  # its codebooks do not promise the same codes again, but the grid must not change them
        assert (codec.quantize(back) == codec.quantize(latents)).mean() > 0.99
    else:
        np.testing.assert_array_equal(codec.quantize(latents), codes)
        np.testing.assert_array_equal(codec.quantize(back), codes)
