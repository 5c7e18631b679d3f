"""Starting from Stable Diffusion 1.4: all blocks except the ends; other architectures are refused."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from diffusers import UNet2DConditionModel
from fakes import N_TRAIN, Unsafe, mini_pipeline, reseal
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from ajbench.core import recipe
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.files import checksum
from ajbench.generation import checkpoint as folder
from ajbench.generation import pretrained, unet
from ajbench.pipeline import estimates, given_models
from ajbench.pipeline.stage import run_stages

from .conftest import fit

# As published in unet/config.json of CompVis/stable-diffusion-v1-4.
SD14 = {
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2, "downsample_padding": 1,
    "attention_head_dim": 8, "cross_attention_dim": 768, "mid_block_scale_factor": 1, "act_fn": "silu",
    "flip_sin_to_cos": True, "freq_shift": 0, "norm_eps": 1e-05, "norm_num_groups": 32,
    "sample_size": 64, "in_channels": 4, "out_channels": 4, "center_input_sample": False,
}  # fmt: skip
WIDTHS = (32, 64, 64, 64)
ENDS = {f"{part}.{kind}" for part in ("conv_in", "conv_out") for kind in ("weight", "bias")}
LEFT_OUT = ENDS | {
    "encoder_hid_proj.weight",
    "encoder_hid_proj.bias",
}  # with states of another width than 768
FILE = "diffusion_pytorch_model.safetensors"


def shapes(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_all_of_stable_diffusion_except_its_ends_fits_preset_full():
    with torch.device("meta"):
        theirs, ours = UNet2DConditionModel(**SD14), unet.build("full", 1024)
    published = shapes(theirs)
    assert len(published) == 686 and sum(p.numel() for p in theirs.parameters()) == 859_520_964
    assert published["down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"] == (320, 768)
    left_out = pretrained.misfits(shapes(ours), published, "sd14")
    assert set(left_out) == LEFT_OUT
    assert len(ours.state_dict()) - len(left_out) == 686 - 4
    # Settings that names and shapes do not show, such as heads and the form of the time embedding.
    mine = dict(ours.config)
    other = {key for key, value in theirs.config.items() if key[0] != "_" and mine[key] != value}
    ends = {"in_channels", "out_channels", "sample_size", "encoder_hid_dim", "encoder_hid_dim_type"}
    assert other - {"addition_embed_type_num_heads"} == ends  # which neither uses


@pytest.fixture
def narrow(monkeypatch):
    monkeypatch.setitem(unet.PRESETS, "full", unet.PRESETS["full"] | {"widths": WIDTHS, "layers": 1})


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The folder of a pipeline with a narrow U-Net like Stable Diffusion's, every tensor random."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = UNet2DConditionModel(**SD14 | {"block_out_channels": WIDTHS, "layers_per_block": 1})
        for parameter in model.parameters():
            parameter.data += torch.randn_like(parameter) * 0.02
    home = tmp_path_factory.mktemp("sd")
    model.save_pretrained(home / "unet")
    return home


@pytest.mark.parametrize(("text_dim", "left_out"), [(768, ENDS), (1024, LEFT_OUT)])
def test_loaded_tensors_are_those_of_the_source(narrow, source, text_dim, left_out):
    theirs = load_file(source / "unet" / FILE)
    model, fresh = unet.build("full", text_dim), unet.build("full", text_dim).state_dict()
    start = pretrained.start_from(model, str(source))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, fresh[name] if name in left_out else theirs[name]), name
    loaded = [p.numel() for name, p in model.named_parameters() if name not in left_out]
    assert (start.tensors, start.parameters, set(start.left_out)) == (len(loaded), sum(loaded), left_out)
    assert start.file == FILE and start.xxh3 == checksum(source / "unet" / FILE)


def test_between_the_ends_outputs_are_those_of_the_source(narrow, source):
    theirs = UNet2DConditionModel.from_pretrained(source / "unet", local_files_only=True).eval()
    model = unet.build("full", 768).eval()
    pretrained.start_from(model, str(source))
    model.conv_in, model.conv_out = theirs.conv_in, theirs.conv_out
    x, t, states = torch.randn(1, 4, 16, 16), torch.tensor([300]), torch.randn(1, 7, 768)
    with torch.no_grad():
        assert torch.equal(unet.denoise(model, x, t, states, None), theirs(x, t, states).sample)


def changed(source, folder, change):
    state = load_file(source / "unet" / FILE)
    change(state)
    folder.mkdir()
    save_file(state, folder / FILE)
    return str(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("mid_block.resnets.0.conv1.weight"), r"mid_block\.resnets\.0\.conv1\.weight"),
        (
            lambda s: s.update({"time_embedding.linear_1.bias": torch.zeros(5)}),
            r"time_embedding\.linear_1\.bias.*\(5,\).*\(128,\)",
        ),
        (lambda s: s.update({"add_embedding.bias": torch.zeros(2)}), r"add_embedding\.bias"),
    ],
)
def test_another_architecture_is_refused(narrow, source, tmp_path, change, message):
    with pytest.raises(IntegrityError, match=message):
        pretrained.start_from(unet.build("full", 768), changed(source, tmp_path / "odd", change))


def test_a_pickle_is_read_without_running_code(narrow, source, tmp_path):
    state = load_file(source / "unet" / FILE)
    torch.save(state, tmp_path / "diffusion_pytorch_model.bin")
    model, other = unet.build("full", 768), unet.build("full", 768)
    pretrained.start_from(model, str(tmp_path))
    pretrained.start_from(other, str(source))
    assert all(torch.equal(t, other.state_dict()[name]) for name, t in model.state_dict().items())
    torch.save(state | {"canary": Unsafe(tmp_path / "ran")}, tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(IntegrityError, match="diffusion_pytorch_model"):
        pretrained.start_from(model, str(tmp_path))
    assert not (tmp_path / "ran").exists()
    (tmp_path / FILE).write_bytes(b"damaged")
    with pytest.raises(IntegrityError, match=FILE):
        pretrained.start_from(model, str(tmp_path))


def test_a_folder_may_be_that_of_a_pipeline_or_of_its_unet(source):
    for place in (source, source / "unet", source / "unet" / FILE):
        assert pretrained.locate(str(place)) == source / "unet" / FILE


HUB_IDS = [("sd14", "CompVis/stable-diffusion-v1-4"), ("someone/unet", "someone/unet")]


@pytest.mark.parametrize(("init", "hub"), HUB_IDS)
def test_the_weights_folder_precedes_the_hubs_cache(init, hub, source, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("AJBENCH_WEIGHTS", str(tmp_path / "mine"))
    with pytest.raises(MissingError, match=f"generator.init={init}") as refused:
        pretrained.locate(init)
    message = str(refused.value)
    assert f"({tmp_path / 'mine'})" in message and f"({tmp_path}/cache)" in message and "\n" not in message
    home = tmp_path / "cache" / f"models--{hub.replace('/', '--')}"
    shutil.copytree(source / "unet", home / "snapshots" / "133a" / "unet")
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("133a")
    assert pretrained.locate(init) == home / "snapshots" / "133a" / "unet" / FILE
    with monkeypatch.context() as patch:
        patch.delenv("AJBENCH_WEIGHTS")
        assert pretrained.locate(init) == home / "snapshots" / "133a" / "unet" / FILE
    shutil.copytree(source / "unet", tmp_path / "mine" / init)
    assert pretrained.locate(init) == tmp_path / "mine" / init / FILE
    shutil.copytree(source / "unet", tmp_path / "mine" / init / "unet")
    assert pretrained.locate(init) == tmp_path / "mine" / init / "unet" / FILE


@pytest.mark.parametrize(("init", "hub"), HUB_IDS)
def test_missing_weights_are_named_and_nothing_is_downloaded(init, hub, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("AJBENCH_WEIGHTS", raising=False)
    with pytest.raises(MissingError, match=f"generator.init={init}") as refused:
        pretrained.locate(init)
    get = "--download sd14" if init == "sd14" else f"hf download {hub} unet/{FILE}"
    words = (f"huggingface.co/{hub}", str(tmp_path), "AJBENCH_WEIGHTS", get, "generator.init=null")
    assert all(word in str(refused.value) for word in (*words, f"unet/{FILE}"))
    assert "\n" not in str(refused.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingError, match=rf"{tmp_path}/empty .*unet/{FILE}"):
        pretrained.locate(str(tmp_path / "empty"))
    with pytest.raises(MissingError, match="nowhere"):
        pretrained.locate(str(tmp_path / "nowhere"))


def test_a_training_starts_from_them_and_reports_it(narrow, real, source, tmp_path, capsys):
    theirs = load_file(source / "unet" / FILE)
    out = fit(real, tmp_path / "g", preset="full", init=str(source), train_steps=1, frozen_steps=1)
    kept = {k for k, v in load_file(out / "unet" / FILE).items() if k in theirs and torch.equal(v, theirs[k])}
    assert load_file(out / "unet" / FILE).keys() - kept == LEFT_OUT
    start = folder.read_info(out).start
    assert start.tensors == len(theirs) - 4 and start.source == str(source)
    said = capsys.readouterr().err
    assert f"loaded {start.tensors} tensors" in said
    assert "left out: conv_in, encoder_hid_proj, conv_out\n" in said


def pipeline(tmp_path, *overrides):
    places = {"work": tmp_path / "work", "results": tmp_path / "results"}
    return mini_pipeline("generator.preset=full", *overrides, **places)


def test_the_fingerprint_depends_on_the_weights_not_on_their_path(source, tmp_path):
    keys = {"none": pipeline(tmp_path).train_gen.fingerprint}
    keys["sd14"] = pipeline(tmp_path, "generator.init=sd14").train_gen.fingerprint
    keys["here"] = pipeline(tmp_path, f"generator.init={source}").train_gen.fingerprint
    shutil.copytree(source, tmp_path / "there")
    moved = pipeline(tmp_path, f"generator.init={tmp_path / 'there'}").train_gen.fingerprint
    other = changed(source, tmp_path / "other", lambda s: s["mid_block.resnets.0.conv1.bias"].add_(1))
    keys["other"] = pipeline(tmp_path, f"generator.init={other}").train_gen.fingerprint
    assert moved == keys["here"] and len(set(keys.values())) == 4
    with pytest.raises(UsageError, match=r"generator\.init=sd14.*generator\.preset=full"):
        recipe.load("mini", ["generator.init=sd14"])


def test_what_the_first_generator_heard_is_known_of_the_second(narrow, real, source, tmp_path):
    first = fit(real, tmp_path / "g", preset="full", init=str(source), train_steps=1, frozen_steps=1)
    reseal(first / "generator.json", train_ids=["a clip"], train_recordings=["a tape"])
    held_out = SimpleNamespace(held_out=lambda: {"another cut": "a tape"})
    for init in (first, first / "unet", first / "unet" / FILE):
        with pytest.raises(IntegrityError, match="another cut"):
            given_models.check_init(str(init), held_out)
    given_models.check_init(str(source), held_out)
    second = fit(real, tmp_path / "h", preset="full", init=str(first / "unet"), train_steps=1)
    heard = folder.read_info(second)
    assert len(heard.train_ids) == N_TRAIN + 1
    assert heard.train_recordings[heard.train_ids.index("a clip")] == "a tape"


def test_a_run_without_them_stops_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    made = pipeline(tmp_path, "generator.init=sd14")
    with pytest.raises(MissingError, match=r"generator\.init=sd14"):
        run_stages(made.stages(), "cpu")
    assert not made.prepare.done()
    json.dumps(estimates.describe(tmp_path, made.stages()), default=str)  # a dry run can do without
