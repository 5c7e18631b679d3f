"""Every codec: geometry, round trips through the whitened grid, and the device of what it returns."""

from functools import cache

import numpy as np
import pytest
import torch
from fakes import encodec_waves, small_encodec
from hypothesis import given, settings
from hypothesis import strategies as st

from ajbench import codec as codecs
from ajbench.codec import encodec
from ajbench.codec.whitening import Whitening
from ajbench.core.errors import IntegrityError, UsageError
from ajbench.data.audio import FRAME_MULTIPLE, HOP

UNIT = FRAME_MULTIPLE * HOP
# Tensors without values, and operations that mix devices fail: shows device placement without a GPU.
META = torch.device("meta")


def make_codec(name):
    return codecs.load("tiny") if name == "tiny" else encodec.from_model(small_encodec(n_q=8), name)


codec_of = cache(make_codec)


@cache
def whitening_of(name, kind):
    codec = codec_of(name)
    return Whitening.fit([codec.latents(codec.encode(encodec_waves(6, 4 * UNIT, seed=1)))], kind)


@pytest.mark.parametrize("name", ["tiny", "16k"])
def test_shapes_types_and_independence_of_batch_and_container(name):
    codec, wav = codec_of(name), encodec_waves(3)
    codes = codec.encode(wav)
    assert codes.shape == (3, 8, 42) and codes.dtype == np.uint16
    assert codes.max() < 1024 and len(np.unique(codes)) > 100
    latents, waves = codec.latents(codes), codec.decode(codes)
    assert latents.shape == (3, 128, 42) and latents.dtype == torch.float32
    assert waves.shape == wav.shape and torch.equal(codec.decode_latents(latents), waves)
    assert (codec.sample_rate, codec.hop, codec.n_codebooks, codec.dim) == (16_000, 320, 8, 128)
    np.testing.assert_array_equal(codec.encode(wav[2:3]), codes[2:3])
    np.testing.assert_array_equal(codec.encode(wav.numpy()), codes)
    assert torch.equal(codec.decode(codes[2:3]), waves[2:3])


@pytest.mark.parametrize("name", ["tiny", "16k"])
def test_latents_are_sums_of_codewords(name):
    codec = codec_of(name)
    codes = codec.encode(encodec_waves(2))
    books = [layer._codebook.embed.double() for layer in codec.network.quantizer.vq.layers]
    expected = sum(books[q][codes[:, q].astype(np.int64)] for q in range(8)).transpose(1, 2)
    assert (codec.latents(codes) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_codes_without_a_codeword_are_refused():
    codec = codec_of("tiny")
    with pytest.raises(IntegrityError, match="65535"):
        codec.latents(np.full((1, 8, 21), 65_535, np.uint16))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("16k", (1, 13_441)), ("24k", (1, 320)), ("16k", (1, 0)), ("16k", (1, 1, 13_440)), ("16k", (13_440,)),
     ("tiny", (13_440,)), ("tiny", (1, 13_441)), ("tiny", (1, 0))],
)  # fmt: skip
def test_waves_without_a_whole_number_of_frames_are_refused(name, shape):
    with pytest.raises(UsageError, match="tiny" if name == "tiny" else "encodec_24khz"):
        codec_of(name).encode(np.zeros(shape, np.float32))


@pytest.mark.parametrize("kind", ["channel", "pca"])
@pytest.mark.parametrize("name", ["tiny", "16k", "24k"])
@settings(max_examples=4)
@given(columns=st.integers(1, 6), clips=st.integers(1, 2), seed=st.integers(2, 99))
def test_everything_but_the_codec_is_inverted(name, kind, columns, clips, seed):
    codec, white = codec_of(name), whitening_of(name, kind)
    if name == "24k":
        columns += columns % 2  # a column of 16 kHz audio is 31.5 frames
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
    if name == "tiny":  # its codebooks do not give the same codes again, but the grid must not change them
        assert (codec.quantize(back) == codec.quantize(latents)).mean() > 0.99
    else:
        np.testing.assert_array_equal(codec.quantize(latents), codes)
        np.testing.assert_array_equal(codec.quantize(back), codes)


@pytest.mark.parametrize("name", ["tiny", "16k"])
def test_all_is_computed_on_the_device_of_the_codec_and_codes_are_copied_at_the_end(name):
    codec, wav = make_codec(name).to(META), np.zeros((2, 42 * 320), np.float32)
    codes = np.random.default_rng(0).integers(0, 1024, (2, 8, 42)).astype(np.uint16)
    latents = codec.latents(codes)
    assert latents.device == META and latents.shape == (2, 128, 42)
    for waves in (codec.decode(codes), codec.decode_latents(torch.zeros(2, 128, 42))):
        assert waves.device == META and waves.shape == (2, 42 * 320)
    for call, argument in ((codec.encode, wav), (codec.quantize, torch.zeros(2, 128, 42))):
        with pytest.raises(NotImplementedError, match="meta"):
            call(argument)


@pytest.mark.parametrize("name", ["tiny", "16k"])
def test_nothing_is_rounded_to_tf32(name):
    codec, seen = make_codec(name), []
    for module in codec.network.modules():
        if isinstance(module, torch.nn.Identity):  # multiplies nothing
            continue
        module.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    codec.decode(codec.encode(encodec_waves(1, 2 * UNIT)))
    assert seen and not any(seen)


@pytest.mark.parametrize("name", ["tiny", "16k"])
def test_latents_leave_the_setting_of_tf32_to_other_threads(name, monkeypatch):
    codec, seen = make_codec(name), []
    codes, decode = codec.encode(encodec_waves(1, 2 * UNIT)), codec.network.quantizer.decode

    def looking(indices):
        seen.append(torch.backends.cudnn.allow_tf32)
        return decode(indices)

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(codec.network.quantizer, "decode", looking)
    codec.latents(codes)
    assert seen == [True]


@pytest.mark.gpu
def test_on_cuda_codes_do_not_depend_on_the_setting_of_tf32(cuda):
    codec, wav = make_codec("16k").to(cuda), encodec_waves(2, 4 * UNIT)
    codes = []
    for allowed in (False, True):  # the fixture restores it
        torch.backends.cudnn.allow_tf32 = allowed
        codes.append(codec.encode(wav))
    np.testing.assert_array_equal(*codes)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["tiny", "16k", "24k"])
def test_on_cuda_a_codec_gives_the_latents_and_waves_of_the_cpu(name, cuda):
    here, there = make_codec(name), make_codec(name).to(cuda)
    wav = encodec_waves(3, 4 * UNIT)
    codes = here.encode(wav)
    assert (there.encode(wav) == codes).mean() > 0.99  # a few nearest codewords are nearly tied
    latents = there.latents(codes)
    waves = there.decode_latents(latents)
    assert latents.device == waves.device == cuda
    torch.testing.assert_close(latents.cpu(), here.latents(codes), atol=1e-4, rtol=0)
    torch.testing.assert_close(waves.cpu(), here.decode(codes), atol=1e-4, rtol=0)
