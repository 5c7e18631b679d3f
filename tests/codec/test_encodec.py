"""EnCodec: codes and waves of the package and of transformers; missing and damaged weights."""

import hashlib
import json
from functools import partial

import numpy as np
import pytest
import soxr
import torch
from encodec import EncodecModel
from fakes import ENCODEC_SAMPLES as N
from fakes import Unsafe, encodec_waves, flip_bit, small_encodec, spread_codebooks
from huggingface_hub import constants
from safetensors.torch import save_file
from transformers import EncodecConfig
from transformers import EncodecModel as TransformersEncodec

from ajbench.codec import encodec
from ajbench.core import weights
from ajbench.core.errors import IntegrityError, MissingError, UsageError

small = partial(small_encodec, n_q=8)
REPOSITORY = "models--facebook--encodec_24khz"


@pytest.fixture(scope="module")
def codec():
    return encodec.from_model(small_encodec(), "16k")


@pytest.fixture(scope="module")
def package():
    """The same network in the encodec package, at 6 kbps."""
    model = small_encodec()
    model.set_target_bandwidth(6.0)
    return model


def test_the_clip_of_the_paper_gives_504_frames(codec):
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


def test_folding_weight_norm_does_not_change_the_output(package):
    folded = encodec.from_model(small_encodec(), "16k").network
    assert not any(hasattr(module, "weight_g") for module in folded.modules())
    assert any(hasattr(module, "weight_g") for module in package.modules())
    with torch.no_grad():
        x = encodec_waves(1)[:, None]
        latents, expected = folded.encoder(x), package.encoder(x)
        assert (latents - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert (folded.decoder(expected) - package.decoder(expected)).abs().max() <= 1e-5


def test_quantize_returns_the_codes_of_latents(codec):
    codes = np.random.default_rng(0).integers(0, 1024, (2, 8, 42)).astype(np.uint16)
    np.testing.assert_array_equal(codec.quantize(codec.latents(codes)), codes)


def test_latents_can_enter_a_training_graph(codec):
    latents = codec.latents(codec.encode(encodec_waves(1)))
    weight = torch.ones(128, 1, requires_grad=True)
    (latents * weight).square().sum().backward()
    assert weight.grad is not None


def test_24k_mode_resamples(package):
    codec = encodec.from_model(small_encodec(), "24k")
    wav = encodec_waves(2)
    codes = codec.encode(wav)
    assert codes.shape == (2, 8, 63)
    for row in range(2):
        up = soxr.resample(wav[row].numpy(), 16_000, 24_000, quality="HQ")
        with torch.no_grad():
            frames = package.encode(torch.from_numpy(up)[None, None])
            np.testing.assert_array_equal(codes[row], frames[0][0][0].numpy())
            down = soxr.resample(package.decode(frames)[0, 0].numpy(), 24_000, 16_000, quality="HQ")
        got = codec.decode(codes)[row].numpy()
        assert got.shape == (N,)
        np.testing.assert_allclose(got, down, rtol=0, atol=1e-5 * np.abs(down).max())
    assert codec.encode(encodec_waves(1, 161_280)).shape == (1, 8, 756)


def test_the_mode_is_part_of_the_name_but_not_of_the_hash():
    narrow, wide = (encodec.from_model(small_encodec(), mode) for mode in ("16k", "24k"))
    assert (narrow.name, wide.name) == ("encodec_24khz@16k", "encodec_24khz@24k")
    assert narrow.weights_hash == wide.weights_hash
    assert narrow.weights_hash != encodec.from_model(small_encodec(seed=1), "16k").weights_hash


def test_a_model_of_another_shape_is_refused():
    with pytest.raises(UsageError, match="4 codebooks"):
        encodec.from_model(small_encodec(n_q=4), "16k")


@pytest.fixture(autouse=True)
def bare(tmp_path, monkeypatch):
    """A machine without weights."""
    monkeypatch.delenv("AJBENCH_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))


def publish(monkeypatch, path):
    """Make a file the published checkpoint of EnCodec."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (row,) = weights.files_of("encodec_24khz")
    row = row._replace(file=path.name, sha256=digest, bytes=path.stat().st_size)
    monkeypatch.setattr(weights, "listed", lambda: (row,))


def check_refused(match):
    with pytest.raises(IntegrityError, match=match):
        encodec.load_16k()


@pytest.fixture
def checkpoint(tmp_path, monkeypatch, bare):
    """The published checkpoint, one of `small(3)`, in the user's folder."""
    path = tmp_path / "weights" / "made.th"
    path.parent.mkdir()
    torch.save(small(3).state_dict(), path)
    publish(monkeypatch, path)
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(path.parent))
    monkeypatch.setattr(EncodecModel, "encodec_model_24khz", staticmethod(lambda pretrained: small(9)))
    return path


def test_weights_are_read_from_the_users_folder_or_the_cache_of_torch(checkpoint, tmp_path, monkeypatch):
    expected = encodec.from_model(small(3), "16k")
    assert encodec.load_16k().weights_hash == expected.weights_hash
    monkeypatch.delenv("AJBENCH_WEIGHTS")
    (tmp_path / "torch" / "hub").mkdir(parents=True)
    checkpoint.parent.rename(tmp_path / "torch" / "hub" / "checkpoints")
    loaded = encodec.load_24k()
    assert loaded.name == "encodec_24khz@24k"
    assert loaded.weights_hash == expected.weights_hash


def test_missing_weights_name_files_places_and_a_way_without_them(tmp_path, monkeypatch):
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(tmp_path / "mine"))
    with pytest.raises(MissingError) as caught:
        encodec.load_16k()
    message = str(caught.value)
    assert "\n" not in message
    file = "encodec_24khz-d7cc33bc.th"
    names = file, "facebook/encodec_24khz", f"https://dl.fbaipublicfiles.com/encodec/v0/{file}"
    places = (str(tmp_path / place) for place in ("hf", "mine", "torch/hub/checkpoints"))
    for part in (*names, *places, "AJBENCH_WEIGHTS", "codec.name=tiny"):
        assert part in message


def test_a_flipped_bit_of_the_weights_is_detected(checkpoint):
    flip_bit(checkpoint)
    check_refused(str(checkpoint))


def test_a_pickle_with_code_is_refused_even_with_the_right_checksum(checkpoint, monkeypatch, tmp_path):
    torch.save({"x": Unsafe(tmp_path / "ran")}, checkpoint)
    publish(monkeypatch, checkpoint)
    check_refused(str(checkpoint))
    assert not (tmp_path / "ran").exists()


def theirs(**config):
    """transformers' EncodecModel with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TransformersEncodec(EncodecConfig(**config)).eval()
        spread_codebooks([layer.codebook for layer in model.quantizer.layers], model.encoder)
    return model


def in_their_names(state):
    """Invert the renaming, to the older names of weight norm, as in the file on the hub."""
    renamed = {}
    for name, tensor in state.items():
        for ours, hub in (
            ("quantizer.vq.layers", "quantizer.layers"),
            ("._codebook.", ".codebook."),
            ("coder.model.", "coder.layers."),
            (".conv.conv.", ".conv."),
            (".convtr.convtr.", ".conv."),
        ):
            name = name.replace(ours, hub)
        renamed[name] = tensor.contiguous()
    return renamed


def save_layout(folder, state, **config):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "encodec"} | config))
    save_file(state, folder / "model.safetensors")
    return folder


@pytest.fixture
def own_layout(checkpoint, tmp_path, monkeypatch):
    """own_layout(state, **config) -> folder in the layout of the hub, in the user's folder."""

    def save(state, **config):
        monkeypatch.setenv("AJBENCH_WEIGHTS", str(tmp_path / "mine"))
        return save_layout(tmp_path / "mine" / "encodec_24khz", state, **config)

    return save


def save_in_cache(cache, state):
    """Save the layout as the hub's client keeps it."""
    folder = save_layout(cache / REPOSITORY / "snapshots" / "0123", state)
    (cache / REPOSITORY / "refs").mkdir()
    (cache / REPOSITORY / "refs" / "main").write_text("0123")
    return folder


@pytest.mark.parametrize("config", [{}, {"num_filters": 4, "target_bandwidths": [6.0]}])
def test_transformers_weights_make_the_same_codes_and_waves(tmp_path, monkeypatch, config):
    """The full architecture and a small one, both with random weights."""
    model = theirs(**config)
    model.save_pretrained(tmp_path / "weights" / "encodec_24khz")
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(tmp_path / "weights"))
    if config:
        monkeypatch.setattr(EncodecModel, "encodec_model_24khz", staticmethod(lambda pretrained: small(9)))
    codec = encodec.load_16k()
    # In memory weight norm has its newer names, in the file the older ones.
    assert any("parametrizations" in name for name in model.state_dict())
    ours = small(n_q=len(model.quantizer.layers)).state_dict()
    assert encodec.rename(model.state_dict()).keys() == ours.keys()
    wav = encodec_waves(2, seed=5)
    with torch.no_grad():
        codes = torch.cat([model.encode(one[None, None], bandwidth=6.0).audio_codes[0] for one in wav])
        expected = model.decode(codes[None], [None]).audio_values[:, 0]
    assert len(np.unique(codes)) > 100
    np.testing.assert_array_equal(codec.encode(wav), codes.numpy())
    got = codec.decode(codes)
    assert got.shape == (2, N)
    assert expected.std() > 1e-4
    assert (got - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("place", ["own", "hub"])
def test_the_hash_of_the_weights_is_the_same_for_both_layouts(own_layout, tmp_path, monkeypatch, place):
    of_checkpoint = encodec.load_16k()
    state = in_their_names(small(3).state_dict())
    assert "decoder.layers.3.conv.weight_g" in state
    if place == "own":
        own_layout(state)
    else:
        monkeypatch.delenv("AJBENCH_WEIGHTS")
        save_in_cache(tmp_path / "hf", state)
    of_layout = encodec.load_16k()
    assert of_layout.weights_hash == of_checkpoint.weights_hash
    np.testing.assert_array_equal(of_layout.encode(encodec_waves(1)), of_checkpoint.encode(encodec_waves(1)))


def test_the_users_folder_precedes_the_caches(checkpoint, own_layout, tmp_path):
    (tmp_path / "torch" / "hub").mkdir(parents=True)
    checkpoint.parent.rename(tmp_path / "torch" / "hub" / "checkpoints")
    own_layout(in_their_names(small(4).state_dict()))
    assert encodec.load_16k().weights_hash == encodec.from_model(small(4), "16k").weights_hash


@pytest.mark.parametrize(
    ("key", "value"), [("sampling_rate", 48_000), ("pad_mode", "constant"), ("model_type", "dac")]
)
def test_the_config_of_another_network_is_refused(own_layout, key, value):
    own_layout(in_their_names(small(3).state_dict()), **{key: value})
    check_refused(f"{key} {value}")


def test_a_damaged_layout_is_refused(own_layout):
    state = in_their_names(small(3).state_dict())
    folder = own_layout(state)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    check_refused(str(folder))
    state.pop("decoder.layers.3.conv.weight_g")
    save_file(state, file)
    check_refused(r"decoder\.model\.3")
    (folder / "config.json").write_text("[1]")
    check_refused(r"config\.json")
    file.rename(folder / "pytorch_model.bin")
    (folder / "config.json").write_text("{}")
    check_refused(r"model\.safetensors")


def test_a_flipped_bit_in_the_cache_of_the_hub_is_detected(checkpoint, tmp_path, monkeypatch):
    monkeypatch.delenv("AJBENCH_WEIGHTS")
    folder = save_in_cache(tmp_path / "hf", in_their_names(small(3).state_dict()))
    file = folder / "model.safetensors"
    blob = file.rename(tmp_path / "hf" / REPOSITORY / hashlib.sha256(file.read_bytes()).hexdigest())
    file.symlink_to(blob)
    encodec.load_16k()
    flip_bit(blob)
    check_refused(r"model\.safetensors")
