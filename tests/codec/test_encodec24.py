import hashlib
import warnings

import numpy as np
import pytest
import soxr
import torch
from encodec import EncodecModel
from encodec.modules import SEANetDecoder, SEANetEncoder
from encodec.quantization import ResidualVectorQuantizer

from ajbench.codec import encodec24
from ajbench.errors import IntegrityError, MissingError, UsageError

N = 21 * 640  # 42 frames at 16 kHz, 63 at 24 kHz


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(seed=0, n_q=32):
    """EnCodec's 24 kHz network with 4 filters, not 32, and random weights; codebooks shrink by 2 a stage."""
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(seed)
        model = EncodecModel(
            SEANetEncoder(channels=1, n_filters=4, norm="weight_norm", causal=True),
            SEANetDecoder(channels=1, n_filters=4, norm="weight_norm", causal=True),
            ResidualVectorQuantizer(dimension=128, n_q=n_q, bins=1024),
            [1.5, 3.0, 6, 12.0, 24.0],
            24_000,
            1,
        ).eval()
        # Codebooks drawn from the encoder's own range, so that many different entries are used.
        spread, mean = torch.std_mean(model.encoder(wave(4)[:, None]).detach(), (0, 2))
        for stage, layer in enumerate(model.quantizer.vq.layers):
            layer._codebook.embed.copy_(torch.randn(1024, 128) * spread * 0.5**stage)
            layer._codebook.inited.fill_(1)
        model.quantizer.vq.layers[0]._codebook.embed.add_(mean)
    return model


def wave(batch, n=N, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(n) / 16_000
    pitch, beat = rng.uniform(100, 4000, (batch, 1)), rng.uniform(1, 9, (batch, 1))
    tones = np.sin(2 * np.pi * pitch * t) * np.sin(2 * np.pi * beat * t)
    return torch.from_numpy((0.3 * tones + 0.02 * rng.normal(size=(batch, n))).astype(np.float32))


@pytest.fixture(scope="module")
def codec():
    return encodec24.from_model(build(), "16k")


@pytest.fixture(scope="module")
def package():
    model = build()
    model.set_target_bandwidth(6.0)
    return model


def test_shapes_and_types(codec):
    wav = wave(3)
    codes = codec.encode(wav)
    assert codes.shape == (3, 8, 42)
    assert codes.dtype == np.uint16
    assert codes.max() < 1024
    assert len(np.unique(codes)) > 100
    latents = codec.latents(codes)
    assert latents.shape == (3, 128, 42)
    assert latents.dtype == torch.float32
    assert codec.decode(codes).shape == (3, N)
    assert codec.name == "encodec_24khz@16k"
    assert (codec.sample_rate, codec.hop, codec.n_codebooks, codec.dim) == (16_000, 320, 8, 128)


def test_the_paper_s_clip_gives_504_frames(codec):
    codes = codec.encode(wave(1, 161_280))
    assert codes.shape == (1, 8, 504)
    assert codec.decode(codes).shape == (1, 161_280)


def test_codes_and_waves_are_those_of_the_encodec_package(codec, package):
    wav = wave(2)
    for row in range(2):
        with torch.no_grad():
            frames = package.encode(wav[row : row + 1, None])
            np.testing.assert_array_equal(codec.encode(wav)[row : row + 1], frames[0][0].numpy())
            expected = package.decode(frames)[:, 0]
        got = codec.decode(frames[0][0])
        assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_latents_are_sums_of_codewords(codec):
    codes = codec.encode(wave(1))
    books = [layer._codebook.embed.double().numpy() for layer in codec._model.quantizer.vq.layers[:8]]
    expected = sum(book[codes[0, k].astype(int)] for k, book in enumerate(books)).T
    tolerance = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(codec.latents(codes)[0].numpy(), expected, rtol=0, atol=tolerance)


def test_folding_weight_norm_leaves_the_network_as_it_was(package):
    folded = encodec24.from_model(build(), "16k")._model
    assert not any(hasattr(module, "weight_g") for module in folded.modules())
    assert any(hasattr(module, "weight_g") for module in package.modules())
    with torch.no_grad():
        x = wave(1)[:, None]
        latents, expected = folded.encoder(x), package.encoder(x)
        assert (latents - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert (folded.decoder(expected) - package.decoder(expected)).abs().max() <= 1e-5


def test_quantize_finds_the_codes_of_latents_again(codec):
    codes = np.random.default_rng(0).integers(0, 1024, (2, 8, 42)).astype(np.uint16)
    np.testing.assert_array_equal(codec.quantize(codec.latents(codes)), codes)


def test_codes_do_not_depend_on_companions_batch_size_or_container(codec):
    wav = wave(4)
    together = codec.encode(wav)
    np.testing.assert_array_equal(codec.encode(wav[2:3]), together[2:3])
    np.testing.assert_array_equal(codec.encode(wav.numpy()), together)
    assert torch.equal(codec.decode(together)[2:3], codec.decode(together[2:3]))


def test_results_may_enter_a_training_graph(codec):
    latents = codec.latents(codec.encode(wave(1)))
    weight = torch.ones(128, 1, requires_grad=True)
    (latents * weight).square().sum().backward()
    assert weight.grad is not None


def test_24k_mode_resamples_properly():
    codec = encodec24.from_model(build(), "24k")
    model = build()
    model.set_target_bandwidth(6.0)
    wav = wave(2)
    codes = codec.encode(wav)
    assert codes.shape == (2, 8, 63)
    for row in range(2):
        up = soxr.resample(wav[row].numpy(), 16_000, 24_000, quality="HQ")
        with torch.no_grad():
            frames = model.encode(torch.from_numpy(up)[None, None])
            np.testing.assert_array_equal(codes[row], frames[0][0][0].numpy())
            down = soxr.resample(model.decode(frames)[0, 0].numpy(), 24_000, 16_000, quality="HQ")
        got = codec.decode(codes)[row].numpy()
        assert got.shape == (N,)
        np.testing.assert_allclose(got, down, rtol=0, atol=1e-5 * np.abs(down).max())
    assert codec.encode(wave(1, 161_280)).shape == (1, 8, 756)


def test_the_mode_is_part_of_the_name_and_the_hash_of_the_weights_is_not():
    narrow, wide = encodec24.from_model(build(), "16k"), encodec24.from_model(build(), "24k")
    assert (narrow.name, wide.name) == ("encodec_24khz@16k", "encodec_24khz@24k")
    assert narrow.weights_hash == wide.weights_hash != encodec24.from_model(build(seed=1), "16k").weights_hash


@pytest.mark.parametrize(
    ("mode", "shape"),
    [("16k", (1, N + 1)), ("24k", (1, 320)), ("16k", (1, 0)), ("16k", (1, 1, N)), ("16k", (N,))],
)
def test_waves_without_a_whole_number_of_frames_are_refused(mode, shape):
    with pytest.raises(UsageError, match=r"whole number of frames|expected \[B, n\]"):
        encodec24.from_model(build(), mode).encode(np.zeros(shape, np.float32))


def test_a_model_of_another_shape_is_refused():
    with pytest.raises(UsageError, match="4 codebooks"):
        encodec24.from_model(build(n_q=4), "16k")


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A folder with a checkpoint of `build(seed=3)` under the name the package would give to its bytes."""
    folder = tmp_path / "weights"
    folder.mkdir()
    torch.save(build(seed=3).state_dict(), folder / "made.th")
    name = f"encodec_24khz-{hashlib.sha256((folder / 'made.th').read_bytes()).hexdigest()[:8]}.th"
    (folder / "made.th").rename(folder / name)
    monkeypatch.setattr(encodec24, "CHECKPOINT", name)
    monkeypatch.setattr(EncodecModel, "encodec_model_24khz", staticmethod(lambda pretrained: build(seed=9)))
    monkeypatch.delenv("AJBENCH_WEIGHTS", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return folder


def test_weights_are_read_from_the_named_folder_or_torch_s_cache(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(weights))
    expected = encodec24.from_model(build(seed=3), "16k")
    assert encodec24.load_16k().weights_hash == expected.weights_hash
    monkeypatch.delenv("AJBENCH_WEIGHTS")
    (tmp_path / "hub").mkdir()
    weights.rename(tmp_path / "hub" / "checkpoints")
    loaded = encodec24.load_24k()
    assert loaded.name == "encodec_24khz@24k"
    assert loaded.weights_hash == expected.weights_hash


def test_missing_weights_say_which_where_and_how_to_do_without(tmp_path, monkeypatch):
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(tmp_path / "mine"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(MissingError) as caught:
        encodec24.load_16k()
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "encodec_24khz-d7cc33bc.th",
        "https://dl.fbaipublicfiles.com/encodec/v0/encodec_24khz-d7cc33bc.th",
        str(tmp_path / "mine"),
        str(tmp_path / "hub" / "checkpoints"),
        "AJBENCH_WEIGHTS",
        "codec.name=tiny",
    ):
        assert part in message


def test_one_flipped_bit_of_the_weights_is_found(weights, monkeypatch):
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(weights))
    path = weights / encodec24.CHECKPOINT
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="SHA-256 begins"):
        encodec24.load_16k()


def test_a_pickle_is_refused_even_with_the_right_checksum(weights, monkeypatch, tmp_path):
    class Canary:
        def __reduce__(self):
            return (type(tmp_path).touch, (tmp_path / "canary",))

    torch.save({"x": Canary()}, weights / "bad.th")
    name = f"bad-{hashlib.sha256((weights / 'bad.th').read_bytes()).hexdigest()[:8]}.th"
    (weights / "bad.th").rename(weights / name)
    monkeypatch.setattr(encodec24, "CHECKPOINT", name)
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(weights))
    with pytest.raises(IntegrityError, match="not EnCodec's weights"):
        encodec24.load_16k()
    assert not (tmp_path / "canary").exists()
