import numpy as np
import pytest
import soxr
import torch
from fakes import ENCODEC_SAMPLES, encodec_waves, small_encodec

from ajbench.codec import encodec
from ajbench.core.errors import UsageError


@pytest.fixture(scope="module")
def codec():
    return encodec.from_model(small_encodec(), "16k")


@pytest.fixture(scope="module")
def package():
    model = small_encodec()
    model.set_target_bandwidth(6.0)
    return model


def test_shapes_and_types(codec):
    wav = encodec_waves(3)
    codes = codec.encode(wav)
    assert codes.shape == (3, 8, 42)
    assert codes.dtype == np.uint16
    assert codes.max() < 1024
    assert len(np.unique(codes)) > 100
    latents = codec.latents(codes)
    assert latents.shape == (3, 128, 42)
    assert latents.dtype == torch.float32
    assert codec.decode(codes).shape == (3, ENCODEC_SAMPLES)
    assert codec.name == "encodec_24khz@16k"
    assert (codec.sample_rate, codec.hop, codec.n_codebooks, codec.dim) == (16_000, 320, 8, 128)


def test_the_paper_s_clip_gives_504_frames(codec):
    codes = codec.encode(encodec_waves(1, 161_280))
    assert codes.shape == (1, 8, 504)
    assert codec.decode(codes).shape == (1, 161_280)


def test_codes_and_waves_are_those_of_the_encodec_package(codec, package):
    wav = encodec_waves(2)
    for row in range(2):
        with torch.no_grad():
            frames = package.encode(wav[row : row + 1, None])
            np.testing.assert_array_equal(codec.encode(wav)[row : row + 1], frames[0][0].numpy())
            expected = package.decode(frames)[:, 0]
        got = codec.decode(frames[0][0])
        assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_latents_are_sums_of_codewords(codec):
    codes = codec.encode(encodec_waves(1))
    books = [layer._codebook.embed.double().numpy() for layer in codec._model.quantizer.vq.layers[:8]]
    expected = sum(book[codes[0, k].astype(int)] for k, book in enumerate(books)).T
    tolerance = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(codec.latents(codes)[0].numpy(), expected, rtol=0, atol=tolerance)


def test_folding_weight_norm_leaves_the_network_as_it_was(package):
    folded = encodec.from_model(small_encodec(), "16k")._model
    assert not any(hasattr(module, "weight_g") for module in folded.modules())
    assert any(hasattr(module, "weight_g") for module in package.modules())
    with torch.no_grad():
        x = encodec_waves(1)[:, None]
        latents, expected = folded.encoder(x), package.encoder(x)
        assert (latents - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert (folded.decoder(expected) - package.decoder(expected)).abs().max() <= 1e-5


def test_quantize_finds_the_codes_of_latents_again(codec):
    codes = np.random.default_rng(0).integers(0, 1024, (2, 8, 42)).astype(np.uint16)
    np.testing.assert_array_equal(codec.quantize(codec.latents(codes)), codes)


def test_codes_do_not_depend_on_companions_batch_size_or_container(codec):
    wav = encodec_waves(4)
    together = codec.encode(wav)
    np.testing.assert_array_equal(codec.encode(wav[2:3]), together[2:3])
    np.testing.assert_array_equal(codec.encode(wav.numpy()), together)
    assert torch.equal(codec.decode(together)[2:3], codec.decode(together[2:3]))


def test_results_may_enter_a_training_graph(codec):
    latents = codec.latents(codec.encode(encodec_waves(1)))
    weight = torch.ones(128, 1, requires_grad=True)
    (latents * weight).square().sum().backward()
    assert weight.grad is not None


def test_24k_mode_resamples_properly():
    codec = encodec.from_model(small_encodec(), "24k")
    model = small_encodec()
    model.set_target_bandwidth(6.0)
    wav = encodec_waves(2)
    codes = codec.encode(wav)
    assert codes.shape == (2, 8, 63)
    for row in range(2):
        up = soxr.resample(wav[row].numpy(), 16_000, 24_000, quality="HQ")
        with torch.no_grad():
            frames = model.encode(torch.from_numpy(up)[None, None])
            np.testing.assert_array_equal(codes[row], frames[0][0][0].numpy())
            down = soxr.resample(model.decode(frames)[0, 0].numpy(), 24_000, 16_000, quality="HQ")
        got = codec.decode(codes)[row].numpy()
        assert got.shape == (ENCODEC_SAMPLES,)
        np.testing.assert_allclose(got, down, rtol=0, atol=1e-5 * np.abs(down).max())
    assert codec.encode(encodec_waves(1, 161_280)).shape == (1, 8, 756)


def test_the_mode_is_part_of_the_name_and_the_hash_of_the_weights_is_not():
    narrow, wide = encodec.from_model(small_encodec(), "16k"), encodec.from_model(small_encodec(), "24k")
    assert (narrow.name, wide.name) == ("encodec_24khz@16k", "encodec_24khz@24k")
    assert (
        narrow.weights_hash
        == wide.weights_hash
        != encodec.from_model(small_encodec(seed=1), "16k").weights_hash
    )


@pytest.mark.parametrize(
    ("mode", "shape"),
    [
        ("16k", (1, ENCODEC_SAMPLES + 1)),
        ("24k", (1, 320)),
        ("16k", (1, 0)),
        ("16k", (1, 1, ENCODEC_SAMPLES)),
        ("16k", (ENCODEC_SAMPLES,)),
    ],
)
def test_waves_without_a_whole_number_of_frames_are_refused(mode, shape):
    with pytest.raises(UsageError, match=r"whole number of frames|expected \[B, n\]"):
        encodec.from_model(small_encodec(), mode).encode(np.zeros(shape, np.float32))


def test_a_model_of_another_shape_is_refused():
    with pytest.raises(UsageError, match="4 codebooks"):
        encodec.from_model(small_encodec(n_q=4), "16k")
