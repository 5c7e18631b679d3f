"""Training of the denoiser: batches and loss, exact resume, the frozen phase, ways to compute, the folder."""

import json
import sys
import types

import numpy as np
import pytest
import torch
from accelerate import PartialState
from diffusers import DDPMScheduler, UNet2DConditionModel
from fakes import (
    CLIP_FRAMES,
    N_TRAIN,
    SMALL_LABELS,
    SMALL_UNET,
    TEXT_ENCODER_DIMS,
    FakeCodec,
    free_port,
    join_launch,
    make_store,
    results_of,
    save_text_encoder,
    small_recipe,
    stopped_at,
    watch_gradients,
)
from safetensors.torch import load_file

from ajbench.codec.whitening import Whitening
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.recipe import Generator, Mix
from ajbench.data import real_clips
from ajbench.data.store import ClipStore
from ajbench.generation import batches, checkpoint, train, unet
from ajbench.generation.pipeline import AudioJourneyPipeline
from ajbench.generation.text_encoder import MiniLM
from ajbench.training import loop

from .conftest import fit, invert

CODEC = FakeCodec()
pytestmark = pytest.mark.usefixtures("small_unet")


def weights(path):
    return load_file(path / "unet" / "diffusion_pytorch_model.safetensors")


def same_weights(one, other):
    one, other = weights(one), weights(other)
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def captured(real, out, **generator):
    """Return what `train_generator` passes to the training loop."""
    seen = {}

    def stop(module, step, batches, **options):
        seen.update(module=module, step=step, batches=batches, **options)
        raise ZeroDivisionError

    with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(loop, "fit", stop)
        fit(real, out, **generator)
    return seen


def grid_of(real, picks):
    return Whitening.from_json(real.meta.whitening).grid(CODEC.latents(real.codes(picks)))


def test_diffusers_opens_the_folder_which_records_the_training(trained, captioned):
    model = UNet2DConditionModel.from_pretrained(trained / "unet", local_files_only=True)
    assert tuple(model.config.block_out_channels) == (32, 64)
    assert DDPMScheduler.from_pretrained(trained / "scheduler").config.beta_schedule == "squaredcos_cap_v2"
    index = json.loads((trained / "model_index.json").read_text())
    assert index["unet"] == ["diffusers", "UNet2DConditionModel"]
    info = checkpoint.read_info(trained)
    assert info.train_ids == info.train_recordings == tuple(sorted(captioned.clip_ids[:N_TRAIN]))
    assert info.labels == SMALL_LABELS
    assert (info.codec, info.codec_hash, info.frames, info.fingerprint) == ("fake", "fa4e", CLIP_FRAMES, "f1")
    assert json.loads((trained / "whitening.json").read_text()) == captioned.meta.whitening
    assert len((trained / "metrics.csv").read_text().splitlines()) == 1 + 6
    assert not (trained / "checkpoints").exists()


def test_a_finished_generator_is_not_trained_again(trained, captioned, monkeypatch):
    monkeypatch.setattr(loop, "fit", None)
    assert fit(captioned, trained) == trained


def test_an_interrupted_training_ends_with_the_same_bits(trained, captioned, tmp_path):
    with stopped_at(train, "loss", 6):
        fit(captioned, tmp_path / "g", validate_every=2)
    assert not (tmp_path / "g" / checkpoint.INFO).exists()
    with stopped_at(train, "remove_checkpoints", 1):
        fit(captioned, tmp_path / "g", validate_every=2)
    fit(captioned, tmp_path / "g", validate_every=2)
    assert not (tmp_path / "g" / "checkpoints").exists()
    assert same_weights(trained, tmp_path / "g")
    for name in (checkpoint.INFO, "validation.csv"):
        assert (trained / name).read_bytes() == (tmp_path / "g" / name).read_bytes()


def test_in_the_first_phase_only_the_ends_and_the_projection_are_trained(captioned, tmp_path):
    fresh = unet.build("tiny", 384, seed=train.seed_for(3, "weights")).state_dict()
    out = fit(captioned, tmp_path / "g", train_steps=3, frozen_steps=2, checkpoint_every=2)
    later = weights(out)
    assert {name.split(".")[0] for name in later if not torch.equal(later[name], fresh[name])} > {"mid_block"}
    frozen = weights(fit(captioned, tmp_path / "frozen", train_steps=2, frozen_steps=2))
    moved = {name for name, weight in frozen.items() if not torch.equal(weight, fresh[name])}
    assert moved == {f"{part}{kind}" for part in unet.ENDS for kind in ("weight", "bias")}


def test_states_of_width_768_need_no_projection_and_one_saved_with_it_is_loaded_as_saved(
    captioned, tmp_path, monkeypatch
):
    monkeypatch.setitem(TEXT_ENCODER_DIMS, "clip", 768)
    text = str(save_text_encoder("clip", tmp_path / "clip"))
    fresh = unet.build("tiny", 768, seed=train.seed_for(3, "weights")).state_dict()
    out = fit(captioned, tmp_path / "g", text_encoder=text, train_steps=2, frozen_steps=2)
    assert not [name for name in weights(out) if name.startswith("encoder_hid_proj")]
    moved = {name for name, weight in weights(out).items() if not torch.equal(weight, fresh[name])}
    assert moved == {f"conv_{end}.{kind}" for end in ("in", "out") for kind in ("weight", "bias")}
    adapted = invert(out, captioned, tmp_path / "t", train_steps=2, lora_rank=2)
    made = AudioJourneyPipeline.from_pretrained(out, adapted, codec=CODEC)
    assert made.unet.encoder_hid_proj is None
    assert np.isfinite(made("The sound of <Dog>", steps=2)).all()

    config = dict(made.unet.config) | {"encoder_hid_dim": 768, "encoder_hid_dim_type": "text_proj"}
    former, info = UNet2DConditionModel.from_config(config), checkpoint.read_info(out)
    process, whitening = unet.noise_schedule(), Whitening.from_json(captioned.meta.whitening)
    checkpoint.save(tmp_path / "former", former, process, whitening, info)
    loaded = AudioJourneyPipeline.from_pretrained(tmp_path / "former", codec=CODEC)
    assert torch.equal(loaded.unet.encoder_hid_proj.weight, former.encoder_hid_proj.weight)
    assert np.isfinite(loaded("The sound of dog", steps=2)).all()


def test_it_learns(captioned, tmp_path, monkeypatch):
    # The first width must let 128 channels of noise through, which that of `SMALL_UNET` does not.
    monkeypatch.setitem(unet.PRESETS, "tiny", SMALL_UNET | {"widths": (160, 32)})
    fit(captioned, tmp_path / "g", train_steps=60, lr=2e-3, batch_size=8, ema_decay=0.9, checkpoint_every=100)
    model = UNet2DConditionModel.from_pretrained(tmp_path / "g" / "unet", local_files_only=True).eval()
    train_clips = captioned.split_indices("train")
    grid, g = grid_of(captioned, train_clips).float(), torch.Generator().manual_seed(9)
    noise, t = torch.randn(grid.shape, generator=g), torch.full((N_TRAIN,), 700)
    states, _ = MiniLM(12).encode(batches.prompts_of(captioned, train_clips))
    with torch.no_grad():
        noisy = unet.noise_schedule().add_noise(grid, noise, t)
        error = (unet.denoise(model, noisy, t, states, None) - noise).square().mean()
    assert error < 0.96  # predicting zero has error 1, as has a fresh U-Net


def test_a_batch_is_the_noised_grid_of_its_clips_with_their_captions(captioned, tmp_path):
    seen = captured(captioned, tmp_path, condition_dropout=0.0)
    batch = seen["batches"](5)
    bar = unet.noise_schedule().alphas_cumprod[batch["t"]].view(-1, 1, 1, 1)
    wanted = bar.sqrt() * grid_of(captioned, batch["picks"]) + (1 - bar).sqrt() * batch["target"]
    torch.testing.assert_close(batch["noisy"], wanted, rtol=0, atol=1e-5)
    states, _ = MiniLM(12).encode([captioned[int(i)].caption for i in batch["picks"]])
    assert torch.equal(batch["states"], states)
    again = seen["batches"](5)
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert not torch.equal(seen["batches"](6)["target"], batch["target"])


def test_the_target_can_be_the_velocity_and_is_first_predicted_as_zero(captioned, tmp_path):
    noise = captured(captioned, tmp_path, condition_dropout=0.0)["batches"](5)["target"]
    seen = captured(captioned, tmp_path, condition_dropout=0.0, prediction="v_prediction")
    batch = seen["batches"](5)
    bar = unet.noise_schedule().alphas_cumprod[batch["t"]].view(-1, 1, 1, 1)
    wanted = bar.sqrt() * noise - (1 - bar).sqrt() * grid_of(captioned, batch["picks"])
    torch.testing.assert_close(batch["target"], wanted, rtol=0, atol=1e-5)
    value = seen["step"](seen["module"], batch, 5).item()
    assert value == pytest.approx(batch["target"].square().mean().item())


def test_every_condition_can_be_dropped(captioned, tmp_path):
    batch = captured(captioned, tmp_path, condition_dropout=1.0)["batches"](0)
    assert torch.equal(batch["states"], MiniLM(12).encode([""])[0].expand(4, -1, -1))


def test_the_loss_can_be_weighted_by_clip(captioned, tmp_path):
    seen = captured(captioned, tmp_path, min_snr_gamma=5.0)
    batch = seen["batches"](2)
    with torch.no_grad():
        found = seen["step"](seen["module"], batch, 2)
        out = unet.denoise(seen["module"], batch["noisy"], batch["t"], batch["states"], None)
    bar = unet.noise_schedule().alphas_cumprod[batch["t"]]
    weight = (5 * (1 - bar) / bar).clamp_max(1)
    errors = (out - batch["target"]).square().flatten(1).mean(1)
    assert weight.min() < 0.5 and weight.max() == 1
    torch.testing.assert_close(found, (weight * errors).sum() / 4)


def test_options_reach_the_loop(captioned, tmp_path):
    options = {"accumulate": 2, "clip_grad": None, "precision": "bf16", "compile": True}
    for given, expected in ((options, [2, None, "bf16", True, None]), ({}, [1, 1.0, "fp32", False, None])):
        seen = captured(captioned, tmp_path, **given)
        keys = ("accumulate", "clip_grad", "precision", "compiled", "watch")
        assert [seen[key] for key in keys] == expected


def launched(rank, processes, port, folder, options):
    join_launch(rank, processes, port)
    torch.set_num_threads(1)
    PartialState(cpu=True)  # as a stage with several processes does
    unet.PRESETS["tiny"] = SMALL_UNET
    watch_gradients(train, folder / f"{processes}-{rank}.pt")
    fit(ClipStore.open(folder / "real"), folder / f"out-{processes}", **options)


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one_with_the_whole_batch(tmp_path, monkeypatch):
    real = make_store(tmp_path / "real", captions=True)
    # Both phases, and batches of more than a block of noise: 20 clips in parts of 5 cross the block's edge.
    options = {"frozen_steps": 1, "batch_size": 20, "lr": 1e-6, "ema_decay": 0.0, "train_steps": 2}
    arguments = (2, free_port(), tmp_path, options | {"accumulate": 2})
    torch.multiprocessing.spawn(launched, arguments, nprocs=2)
    monkeypatch.setattr(train, "_optimizer", train._optimizer)  # restored at the end
    watch_gradients(train, tmp_path / "1-0.pt")
    fit(real, tmp_path / "out-1", **options)
    one, *both = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1"))
    assert len(one[0]) == 6 < len(one[1])
    for phase, gradients in enumerate(one):
        assert max(float(g.abs().max()) for g in gradients.values()) > 1e-3
        for other in both:
            assert other[phase].keys() == gradients.keys()
            worst = max(float((other[phase][n] - g).abs().max()) for n, g in gradients.items())
            assert worst <= 1e-6


def test_parts_must_divide_the_batch(captioned, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "PartialState", lambda: types.SimpleNamespace(num_processes=3))
    with pytest.raises(UsageError, match=r"generator\.batch_size=4.* 3\b"):
        fit(captioned, tmp_path / "g")


def gradients(**options):
    model, _ = train._model(Generator(**options), 384, 0)
    g = torch.Generator().manual_seed(1)
    x, states = torch.randn(2, 128, 2, 21, generator=g), torch.randn(2, 5, 384, generator=g)
    calls = []
    for block in model.modules():
        if type(block).__name__ == "ResnetBlock2D":
            block.register_forward_pre_hook(lambda *_: calls.append(1))
    if options.get("channels_last"):
        x = x.contiguous(memory_format=torch.channels_last)
        assert model.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    value = unet.denoise(model.train(), x, torch.tensor([3, 700]), states, None).square().mean()
    value.backward()
    return value.item(), {name: p.grad for name, p in model.named_parameters()}, len(calls)


def test_checkpointing_and_memory_layout_do_not_change_the_gradient():
    value, plain, calls = gradients()
    again, checkpointed, more_calls = gradients(gradient_checkpointing=True)
    assert again == value and more_calls > calls
    assert max(float((checkpointed[n] - g).abs().max()) for n, g in plain.items()) <= 1e-6
    last, turned, _ = gradients(channels_last=True)
    assert last == pytest.approx(value, rel=1e-5)
    assert max(float((turned[n] - g).abs().max()) for n, g in plain.items()) <= 1e-5


def test_a_channels_last_training_can_be_interrupted_too(captioned, tmp_path):
    options = {"channels_last": True, "gradient_checkpointing": True, "train_steps": 3, "checkpoint_every": 1}
    options["prediction"] = "v_prediction"
    straight = fit(captioned, tmp_path / "a", **options)
    with stopped_at(train, "loss", 3):
        fit(captioned, tmp_path / "b", **options)
    assert same_weights(straight, fit(captioned, tmp_path / "b", **options))
    assert DDPMScheduler.from_pretrained(straight / "scheduler").config.prediction_type == "v_prediction"


def test_the_optimizer_has_the_betas_of_table_a10():
    section = Generator(lr=2.56e-4, weight_decay=0.02)
    made = train._optimizer(section, torch.nn.Linear(2, 2))
    assert isinstance(made, torch.optim.AdamW) and made.defaults["betas"] == (0.9, 0.999)
    assert (made.defaults["lr"], made.defaults["weight_decay"]) == (2.56e-4, 0.02)


def test_8_bit_adamw_needs_cuda_and_its_package(monkeypatch):
    section, model = Generator(optimizer="adamw8bit", lr=0.5, weight_decay=0.25), torch.nn.Linear(2, 2)
    with pytest.raises(UsageError, match=r"generator\.optimizer"):
        train._optimizer(section, model)
    monkeypatch.setattr(train, "PartialState", lambda: types.SimpleNamespace(device=torch.device("cuda")))
    monkeypatch.setattr(train.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match="bitsandbytes"):
        train._optimizer(section, model)
    package = types.ModuleType("bitsandbytes")
    package.optim = types.SimpleNamespace(AdamW8bit=torch.optim.AdamW)
    monkeypatch.setitem(sys.modules, "bitsandbytes", package)
    monkeypatch.setattr(train.importlib.util, "find_spec", lambda name: package)
    model.bias.requires_grad_(False)
    (group,) = train._optimizer(section, model).param_groups
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.25)
    assert len(group["params"]) == 1 and group["params"][0] is model.weight


def test_a_store_of_another_codec_or_without_whitening_is_refused(captioned, tmp_path):
    for change, error, word in (
        ({"codec_hash": "else"}, IntegrityError, "fake"),
        ({"whitening": None}, MissingError, "whitening"),
    ):
        changed = ClipStore(captioned.path, captioned.meta.model_copy(update=change))
        with pytest.raises(error, match=word):
            fit(changed, tmp_path / "g")


@pytest.mark.parametrize("mix", [{"real": "shots=3"}, {"real": "none", "none_of": "shots=3", "dose": 1}])
def test_the_pool_may_be_the_real_clips_alone(real, tmp_path, mix):
    chosen = real_clips.chosen(Mix(real="shots=3"), real)
    info = checkpoint.read_info(fit(real, tmp_path / "few", mix, pool="real"))
    assert info.train_ids == tuple(sorted(real.clip_ids[i] for i in chosen))
    assert 3 <= len(chosen) < N_TRAIN
    fitted = json.loads((tmp_path / "few" / "whitening.json").read_text())
    alone = Whitening.fit([CODEC.latents(real.codes(chosen))], "pca")
    assert Whitening.from_json(fitted) == alone
    # Of the default pool, the classifiers' real clips change nothing.
    assert checkpoint.read_info(fit(real, tmp_path / "all", mix)).train_ids == tuple(real.clip_ids[:N_TRAIN])
    assert json.loads((tmp_path / "all" / "whitening.json").read_text()) == real.meta.whitening


def test_captions_of_a_table_replace_those_of_the_store(captioned, tmp_path):
    texts = {clip: f"text of {clip}" for clip in captioned.clip_ids[:N_TRAIN]}
    about = {"fingerprint": "f1", "seed": 3, "codec": CODEC, "captions": texts}
    own = fit(captioned, tmp_path / "own")
    with results_of(train, "prompts_of") as prompts:
        given = train.train_generator(small_recipe(), captioned, tmp_path / "given", **about)
    assert prompts[0] == list(texts.values())
    assert checkpoint.read_info(given).prompts == N_TRAIN and not same_weights(own, given)
    del texts[captioned.clip_ids[1]]
    with pytest.raises(UsageError, match=rf"generator\.captions.* 1 of .*{captioned.clip_ids[1]}"):
        train.train_generator(small_recipe(), captioned, tmp_path / "short", **about)
