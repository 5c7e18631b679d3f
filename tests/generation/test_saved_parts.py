"""A generator's folder from a stranger: its checksums are right, and its files not as ajbench writes them."""

import json
import shutil

import pytest
from diffusers import UNet2DConditionModel
from fakes import reseal

from ajbench.core.errors import IntegrityError
from ajbench.core.files import checksum
from ajbench.generation import checkpoint
from ajbench.generation.pipeline import AudioJourneyPipeline

from .test_checkpoint import CODEC

UNET, SCHEDULE = "unet/config.json", "scheduler/scheduler_config.json"


def seal(folder, **changes):
    """Write `generator.json` with the checksums of what is there."""
    names = json.loads((folder / checkpoint.INFO).read_text())["xxh3"]
    reseal(folder / checkpoint.INFO, **{"xxh3": {name: checksum(folder / name) for name in names}} | changes)


@pytest.fixture
def stranger(generator, tmp_path):
    return shutil.copytree(generator, tmp_path / "stranger")


def refused(folder, name):
    with pytest.raises(IntegrityError, match=name.rpartition("/")[2]):
        AudioJourneyPipeline.from_pretrained(folder, codec=CODEC)


def test_a_folder_that_is_sealed_again_unchanged_is_read(stranger):
    seal(stranger)
    AudioJourneyPipeline.from_pretrained(stranger, codec=CODEC)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (UNET, {"layers_per_block": 10**6}),
        (UNET, {"layers_per_block": [1, 10**6]}),
        (UNET, {"block_out_channels": [32] * 10**4, "down_block_types": ["DownBlock2D"] * 10**4}),
        (UNET, {"block_out_channels": [32, 10**9]}),
        (UNET, {"encoder_hid_dim": 10**9}),
        (UNET, {"attention_head_dim": None}),
        (UNET, {"down_block_types": ["AttnDownBlock2D", "CrossAttnDownBlock2D"]}),
        (UNET, {"mid_block_type": "UNetMidBlock2D"}),
        (UNET, {"_class_name": "UNet3DConditionModel"}),
        (UNET, {"key": 1}),
        (UNET, {"sample_size": 7}),
        (SCHEDULE, {"num_train_timesteps": 10**9}),
        (SCHEDULE, {"prediction_type": "sample"}),
        (SCHEDULE, {"_class_name": "PNDMScheduler"}),
        (SCHEDULE, {"trained_betas": [0.1]}),
        ("whitening.json", {"mean": [1.0]}),
        ("whitening.json", {"std": None}),
        ("whitening.json", {"basis": [[1.0]]}),
    ],
)
def test_configurations_that_ajbench_does_not_write_are_refused_at_once(stranger, name, changes):
    tree = json.loads((stranger / name).read_text()) | changes
    (stranger / name).write_text(json.dumps(tree))
    seal(stranger)
    refused(stranger, name)


@pytest.mark.parametrize("changes", [{"layers_per_block": 8}, {"block_out_channels": [4096, 4096]}])
def test_a_denoiser_that_is_larger_than_its_file_is_not_loaded(stranger, changes, monkeypatch):
    config = json.loads((stranger / UNET).read_text()) | changes
    (stranger / UNET).write_text(json.dumps(config))
    seal(stranger)
    monkeypatch.setattr(UNet2DConditionModel, "from_pretrained", None)
    with pytest.raises(IntegrityError, match=r"not the weights of a U-Net .*(missing|has shape)"):
        AudioJourneyPipeline.from_pretrained(stranger, codec=CODEC)


@pytest.mark.parametrize("name", [UNET, SCHEDULE, "whitening.json"])
@pytest.mark.parametrize("text", ["[]", "{}", "[" * 10_000, "null"])
def test_documents_of_another_form_are_refused(stranger, name, text):
    (stranger / name).write_text(text)
    seal(stranger)
    refused(stranger, name)


def test_a_pickle_in_place_of_the_weights_is_refused(stranger):
    path = stranger / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(b"\x80\x04K\x01.")
    seal(stranger)
    refused(stranger, "unet")


@pytest.mark.parametrize(
    "changes",
    [
        {"frames": 0}, {"frames": 43}, {"frames": 21 * 10**9}, {"clip_samples": -1}, {"max_tokens": 10**9},
        {"preset": "huge"}, {"xxh3": {"../outside": "0"}}, {"xxh3": {"/etc/hostname": "0"}},
    ],
)  # fmt: skip
def test_facts_about_a_generator_are_bounded(stranger, changes):
    seal(stranger, **changes)
    refused(stranger, checkpoint.INFO)


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x80\x04K\x01."])
def test_damaged_token_vectors_are_refused(generator, tokens, tmp_path, content):
    folder = shutil.copytree(tokens, tmp_path / "t")
    (folder / checkpoint.EMBEDS).write_bytes(content)
    reseal(folder / checkpoint.TOKENS, xxh3={checkpoint.EMBEDS: checksum(folder / checkpoint.EMBEDS)})
    with pytest.raises(IntegrityError, match=checkpoint.EMBEDS):
        AudioJourneyPipeline.from_pretrained(generator, folder, codec=CODEC)
