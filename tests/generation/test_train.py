"""Training: what a batch is made of, exact resume, the frozen phase, what the folder records."""

import json

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from fakes import CLIP_FRAMES, N_TRAIN, SMALL_LABELS, SMALL_UNET, FakeCodec, make_store, small_recipe
from safetensors.torch import load_file

from ajbench.codec.whitening import Whitening
from ajbench.core.errors import IntegrityError, MissingError
from ajbench.generation import checkpoint, train, unet
from ajbench.generation.text_encoder import MiniLM
from ajbench.training import loop

torch.set_num_threads(1)
CODEC = FakeCodec()


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(unet.PRESETS, "tiny", SMALL_UNET)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("real") / "store", captions=True)


def run(real, out, **generator):
    return train.train_generator(
        small_recipe(generator=generator), real, out, fingerprint="f1", seed=3, codec=CODEC
    )


def weights(path):
    return load_file(path / "unet" / "diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="module")
def trained(real, tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setitem(unet.PRESETS, "tiny", SMALL_UNET)
    out = run(real, tmp_path_factory.mktemp("trained") / "generator")
    patch.undo()
    return out


def test_the_folder_opens_with_diffusers_alone_and_says_what_it_was_trained_on(trained, real):
    model = UNet2DConditionModel.from_pretrained(trained / "unet", local_files_only=True)
    assert tuple(model.config.block_out_channels) == (32, 64)
    assert DDPMScheduler.from_pretrained(trained / "scheduler").config.beta_schedule == "squaredcos_cap_v2"
    assert json.loads((trained / "model_index.json").read_text())["unet"] == [
        "diffusers",
        "UNet2DConditionModel",
    ]
    info = checkpoint.read_info(trained)
    assert info.train_ids == tuple(sorted(real.clip_ids[:N_TRAIN])) and info.labels == SMALL_LABELS
    assert (info.codec, info.codec_hash, info.frames, info.fingerprint) == ("fake", "fa4e", CLIP_FRAMES, "f1")
    assert json.loads((trained / "whitening.json").read_text()) == real.meta.whitening
    assert len((trained / "metrics.csv").read_text().splitlines()) == 1 + 6
    assert not (trained / "checkpoints").exists()


def test_a_finished_generator_is_not_trained_again(trained, real, monkeypatch):
    monkeypatch.setattr(loop, "fit", None)
    assert run(real, trained) == trained


def test_stopped_in_the_middle_it_ends_with_the_same_bits(trained, real, tmp_path, monkeypatch):
    calls, plain = [], train.loss

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 6:
            raise RuntimeError("cut")
        return plain(*arguments)

    monkeypatch.setattr(train, "loss", failing)
    with pytest.raises(RuntimeError, match="cut"):
        run(real, tmp_path / "g")
    assert not (tmp_path / "g" / checkpoint.INFO).exists()
    monkeypatch.setattr(train, "loss", plain)
    run(real, tmp_path / "g")
    one, other = weights(trained), weights(tmp_path / "g")
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    assert (trained / checkpoint.INFO).read_bytes() == (tmp_path / "g" / checkpoint.INFO).read_bytes()


def test_at_first_only_the_ends_and_the_projection_move(real, tmp_path):
    fresh = unet.build("tiny", 384, seed=train.seed_for(3, "weights")).state_dict()
    found = weights(run(real, tmp_path / "frozen", train_steps=2, frozen_steps=2))
    moved = {name for name, weight in found.items() if not torch.equal(weight, fresh[name])}
    assert moved == {f"{part}{kind}" for part in train.ENDS for kind in ("weight", "bias")}
    found = weights(run(real, tmp_path / "later", train_steps=3, frozen_steps=2))
    assert {name.split(".")[0] for name in found if not torch.equal(found[name], fresh[name])} > {"mid_block"}


def test_it_learns(real, tmp_path, monkeypatch):
    # Wide enough at first to let 128 channels of noise through, which `SMALL_UNET` is not.
    monkeypatch.setitem(unet.PRESETS, "tiny", SMALL_UNET | {"widths": (160, 32)})
    run(real, tmp_path / "g", train_steps=60, lr=2e-3, batch_size=8, ema_decay=0.9, checkpoint_every=100)
    model = UNet2DConditionModel.from_pretrained(tmp_path / "g" / "unet", local_files_only=True).eval()
    whitening = Whitening.from_json(real.meta.whitening)
    grid = whitening.grid(CODEC.latents(real.codes(real.split_indices("train")))).float()
    g = torch.Generator().manual_seed(9)
    noise, t = torch.randn(grid.shape, generator=g), torch.full((N_TRAIN,), 700)
    states, _ = MiniLM(12).encode(train.prompts_of(real, real.split_indices("train")))
    with torch.no_grad():
        noisy = unet.noise_schedule().add_noise(grid, noise, t)
        error = (unet.denoise(model, noisy, t, states, None) - noise).square().mean()
    assert error < 0.96  # 1 is what predicting nothing costs, and a fresh U-Net's error


def captured(real, tmp_path, monkeypatch, **generator):
    """What `train_generator` hands to the loop."""
    seen = {}

    def fit(module, step, batches, **options):
        seen.update(module=module, step=step, batches=batches, **options)
        raise RuntimeError("enough")

    monkeypatch.setattr(loop, "fit", fit)
    with pytest.raises(RuntimeError, match="enough"):
        run(real, tmp_path / "g", **generator)
    return seen


def test_a_batch_is_the_noised_grid_of_its_clips_with_their_captions(real, tmp_path, monkeypatch):
    seen = captured(real, tmp_path, monkeypatch, condition_dropout=0.0)
    batch = seen["batches"](5)
    picks = batch["picks"]
    grid = Whitening.from_json(real.meta.whitening).grid(CODEC.latents(real.codes(picks)))
    bar = unet.noise_schedule().alphas_cumprod[batch["t"]].view(-1, 1, 1, 1)
    wanted = bar.sqrt() * grid + (1 - bar).sqrt() * batch["target"]
    torch.testing.assert_close(batch["noisy"], wanted, rtol=0, atol=1e-5)
    states, _ = MiniLM(12).encode([real[int(i)].caption for i in picks])
    assert torch.equal(batch["states"], states)
    again = seen["batches"](5)
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert not torch.equal(seen["batches"](6)["target"], batch["target"])


def test_the_velocity_is_the_target_where_asked_and_zero_is_the_first_guess(real, tmp_path, monkeypatch):
    noise = captured(real, tmp_path, monkeypatch, condition_dropout=0.0)["batches"](5)["target"]
    seen = captured(real, tmp_path, monkeypatch, condition_dropout=0.0, prediction="v_prediction")
    batch = seen["batches"](5)
    grid = Whitening.from_json(real.meta.whitening).grid(CODEC.latents(real.codes(batch["picks"])))
    bar = unet.noise_schedule().alphas_cumprod[batch["t"]].view(-1, 1, 1, 1)
    wanted = bar.sqrt() * noise - (1 - bar).sqrt() * grid
    torch.testing.assert_close(batch["target"], wanted, rtol=0, atol=1e-5)
    assert seen["step"](seen["module"], batch, 5).item() == pytest.approx(
        batch["target"].square().mean().item()
    )


def test_a_generator_says_what_it_predicts(real, tmp_path):
    out = run(real, tmp_path / "v", prediction="v_prediction", train_steps=1)
    assert DDPMScheduler.from_pretrained(out / "scheduler").config.prediction_type == "v_prediction"


def test_every_condition_can_be_dropped(real, tmp_path, monkeypatch):
    batch = captured(real, tmp_path, monkeypatch, condition_dropout=1.0)["batches"](0)
    assert torch.equal(batch["states"], MiniLM(12).encode([""])[0].expand(4, -1, -1))


def test_without_captions_the_prompt_names_the_labels(tmp_path):
    plain = make_store(tmp_path / "plain")
    assert train.prompts_of(plain, plain.split_indices("train"))[:2] == [
        "The sound of Dog, Rain",
        "The sound of Rain",
    ]


def test_an_epoch_has_every_clip_once_and_a_batch_timesteps_from_all_over():
    make = train.noisy_batches(
        lambda picks: torch.zeros(len(picks), 1, 1, 21), 10, unet.noise_schedule(), 4, 0
    )
    picks = torch.cat([make(i)["picks"] for i in range(5)])
    assert sorted(picks[:10].tolist()) == sorted(picks[10:].tolist()) == list(range(10))
    assert not torch.equal(picks[:10], picks[10:])
    t = torch.stack([make(i)["t"] for i in range(500)])
    assert torch.equal(t // 250, torch.arange(4).expand(500, 4))
    assert abs(t.float().mean().item() - 499.5) < 5


def test_codes_of_another_codec_and_stores_without_whitening_are_refused(real, tmp_path):
    other = FakeCodec()
    other.weights_hash = "else"
    with pytest.raises(IntegrityError, match="fake"):
        train.train_generator(small_recipe(), real, tmp_path / "g", fingerprint="f", codec=other)
    bare = type(real)(real.path, real.meta.model_copy(update={"whitening": None}))
    with pytest.raises(MissingError, match="whitening"):
        train.train_generator(small_recipe(), bare, tmp_path / "g", fingerprint="f", codec=CODEC)
