"""Both layouts of EnCodec's weights make the same codec; missing and damaged ones are refused."""

import hashlib
import json
from functools import partial

import numpy as np
import pytest
import torch
from encodec import EncodecModel
from fakes import ENCODEC_SAMPLES, Unsafe, encodec_waves, small_encodec
from huggingface_hub import constants
from safetensors.torch import save_file
from transformers import EncodecConfig
from transformers import EncodecModel as Theirs

from ajbench.codec import encodec, encodec_weights
from ajbench.core import weights
from ajbench.core.errors import IntegrityError, MissingError

small = partial(small_encodec, n_q=8)
SNAPSHOT = "models--facebook--encodec_24khz/snapshots/0123"


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


@pytest.fixture
def checkpoint(tmp_path, monkeypatch, bare):
    """The published checkpoint, one of `small(3)`, in a folder of its own."""
    path = tmp_path / "weights" / "made.th"
    path.parent.mkdir()
    torch.save(small(3).state_dict(), path)
    publish(monkeypatch, path)
    monkeypatch.setattr(EncodecModel, "encodec_model_24khz", staticmethod(lambda pretrained: small(9)))
    return path


def test_weights_are_read_from_the_own_folder_or_torchs_cache(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(checkpoint.parent))
    expected = encodec.from_model(small(3), "16k")
    assert encodec.load_16k().weights_hash == expected.weights_hash
    monkeypatch.delenv("AJBENCH_WEIGHTS")
    (tmp_path / "torch" / "hub").mkdir(parents=True)
    checkpoint.parent.rename(tmp_path / "torch" / "hub" / "checkpoints")
    loaded = encodec.load_24k()
    assert loaded.name == "encodec_24khz@24k"
    assert loaded.weights_hash == expected.weights_hash


def test_missing_weights_say_which_where_and_how_to_do_without(tmp_path, monkeypatch):
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(tmp_path / "mine"))
    with pytest.raises(MissingError) as caught:
        encodec.load_16k()
    message = str(caught.value)
    assert "\n" not in message
    for part in (
        "encodec_24khz-d7cc33bc.th",
        "facebook/encodec_24khz",
        str(tmp_path / "hf"),
        "https://dl.fbaipublicfiles.com/encodec/v0/encodec_24khz-d7cc33bc.th",
        str(tmp_path / "mine"),
        str(tmp_path / "torch" / "hub" / "checkpoints"),
        "AJBENCH_WEIGHTS",
        "codec.name=tiny",
    ):
        assert part in message


def test_one_flipped_bit_of_the_weights_is_found(checkpoint, monkeypatch):
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(checkpoint.parent))
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content)
    with pytest.raises(IntegrityError, match=str(checkpoint)):
        encodec.load_16k()


def test_a_pickle_of_code_is_refused_even_with_the_right_checksum(checkpoint, monkeypatch, tmp_path):
    torch.save({"x": Unsafe(tmp_path / "ran")}, checkpoint)
    publish(monkeypatch, checkpoint)
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(checkpoint.parent))
    with pytest.raises(IntegrityError, match=str(checkpoint)):
        encodec.load_16k()
    assert not (tmp_path / "ran").exists()


def theirs(**config):
    """transformers' EncodecModel with random weights, its codebooks drawn from the encoder's own range."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Theirs(EncodecConfig(**config)).eval()
        with torch.no_grad():
            spread, mean = torch.std_mean(model.encoder(encodec_waves(4)[:, None]), (0, 2))
            for stage, layer in enumerate(model.quantizer.layers):
                layer.codebook.embed.copy_(torch.randn(1024, 128) * spread * 0.5**stage)
            model.quantizer.layers[0].codebook.embed.add_(mean)
    return model


def in_their_names(state):
    """Undo the renaming, as the hub's file has it: with weight norm's older names."""
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


@pytest.mark.parametrize("config", [{}, {"num_filters": 4, "target_bandwidths": [6.0]}])
def test_transformers_weights_make_the_same_codes_and_waves(tmp_path, monkeypatch, config):
    """The whole architecture and a small one, both with random weights."""
    model = theirs(**config)
    model.save_pretrained(tmp_path / "weights" / "encodec_24khz")
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(tmp_path / "weights"))
    if config:
        monkeypatch.setattr(EncodecModel, "encodec_model_24khz", staticmethod(lambda pretrained: small(9)))
    codec = encodec.load_16k()
    # As in memory, where weight norm has its newer names; the saved file has the older ones.
    assert any("parametrizations" in name for name in model.state_dict())
    assert (
        encodec_weights.rename(model.state_dict()).keys()
        == small(n_q=len(model.quantizer.layers)).state_dict().keys()
    )
    wav = encodec_waves(2, seed=5)
    with torch.no_grad():
        codes = torch.cat([model.encode(one[None, None], bandwidth=6.0).audio_codes[0] for one in wav])
        expected = model.decode(codes[None], [None]).audio_values[:, 0]
    assert len(np.unique(codes)) > 100
    np.testing.assert_array_equal(codec.encode(wav), codes.numpy())
    got = codec.decode(codes)
    assert got.shape == (2, ENCODEC_SAMPLES)
    assert expected.std() > 1e-4
    assert (got - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("place", ["own", "hub"])
def test_the_hash_of_the_weights_is_the_same_whichever_layout_they_come_from(
    checkpoint, tmp_path, monkeypatch, place
):
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(checkpoint.parent))
    of_checkpoint = encodec.load_16k()
    state = in_their_names(small(3).state_dict())
    assert "decoder.layers.3.conv.weight_g" in state
    if place == "own":
        save_layout(tmp_path / "mine" / "encodec_24khz", state)
        monkeypatch.setenv("AJBENCH_WEIGHTS", str(tmp_path / "mine"))
    else:
        monkeypatch.delenv("AJBENCH_WEIGHTS")
        save_layout(tmp_path / "hf" / SNAPSHOT, state)
        (tmp_path / "hf" / "models--facebook--encodec_24khz" / "refs").mkdir()
        (tmp_path / "hf" / "models--facebook--encodec_24khz" / "refs" / "main").write_text("0123")
    of_layout = encodec.load_16k()
    assert of_layout.weights_hash == of_checkpoint.weights_hash
    np.testing.assert_array_equal(of_layout.encode(encodec_waves(1)), of_checkpoint.encode(encodec_waves(1)))


def test_the_own_folder_goes_before_any_cache(checkpoint, tmp_path, monkeypatch):
    (tmp_path / "torch" / "hub").mkdir(parents=True)
    checkpoint.parent.rename(tmp_path / "torch" / "hub" / "checkpoints")
    save_layout(tmp_path / "mine" / "encodec_24khz", in_their_names(small(4).state_dict()))
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(tmp_path / "mine"))
    assert encodec.load_16k().weights_hash == encodec.from_model(small(4), "16k").weights_hash


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sampling_rate": 48_000}, "sampling_rate 48000"),
        ({"pad_mode": "constant"}, "pad_mode constant"),
        ({"model_type": "dac"}, "model_type dac"),
    ],
)
def test_another_network_s_config_is_refused(checkpoint, tmp_path, monkeypatch, change, reason):
    save_layout(tmp_path / "mine" / "encodec_24khz", in_their_names(small(3).state_dict()), **change)
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(tmp_path / "mine"))
    with pytest.raises(IntegrityError, match=reason):
        encodec.load_16k()


def test_a_damaged_layout_is_refused(checkpoint, tmp_path, monkeypatch):
    state = in_their_names(small(3).state_dict())
    folder = save_layout(tmp_path / "mine" / "encodec_24khz", state)
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(tmp_path / "mine"))
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(IntegrityError, match=str(folder)):
        encodec.load_16k()
    state.pop("decoder.layers.3.conv.weight_g")
    save_file(state, folder / "model.safetensors")
    with pytest.raises(IntegrityError, match=r"decoder\.model\.3"):
        encodec.load_16k()
    (folder / "config.json").write_text("[1]")
    with pytest.raises(IntegrityError, match=r"config\.json"):
        encodec.load_16k()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (folder / "config.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        encodec.load_16k()


def test_one_flipped_bit_in_the_hub_s_cache_is_found(checkpoint, tmp_path):
    folder = save_layout(tmp_path / "hf" / SNAPSHOT, in_their_names(small(3).state_dict()))
    (tmp_path / "hf" / "models--facebook--encodec_24khz" / "refs").mkdir()
    (tmp_path / "hf" / "models--facebook--encodec_24khz" / "refs" / "main").write_text("0123")
    content = bytearray((folder / "model.safetensors").read_bytes())
    blob = tmp_path / "hf" / "models--facebook--encodec_24khz" / hashlib.sha256(content).hexdigest()
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(blob)
    blob.write_bytes(content)
    encodec.load_16k()
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        encodec.load_16k()
