"""What a recipe can ask of a generator's training: divided batches, weighted losses, ways to compute."""

import os
import socket
import sys
import types

import numpy as np
import pytest
import torch
from accelerate import PartialState
from diffusers.training_utils import compute_snr
from fakes import SMALL_UNET, FakeCodec, make_store, small_recipe

from ajbench.core import recipe
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Generator
from ajbench.data import store
from ajbench.generation import batches, train, unet
from ajbench.training import loop

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(unet.PRESETS, "tiny", SMALL_UNET)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("options")
    make_store(folder / "real", captions=True)
    return folder


def fit(folder, out, **generator):
    real = store.ClipStore.open(folder / "real")
    made = small_recipe(generator={"ema_decay": 0.0, "train_steps": 2} | generator)
    return train.train_generator(made, real, out, fingerprint="f", seed=3, codec=FakeCodec())


def launched(rank, processes, port, folder, options):
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    torch.set_num_threads(1)
    PartialState(cpu=True)  # as a stage that is done by several processes does
    unet.PRESETS["tiny"] = SMALL_UNET
    watch_gradients(folder / f"{processes}-{rank}.pt")
    fit(folder, folder / f"out-{processes}", **options)


def watch_gradients(path):
    """Save the gradients of every optimiser step, as they are before it."""
    make, seen = train._optimizer, []

    def optimizer(section, model):
        made = make(section, model)

        def save(*_):
            seen.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
            torch.save(seen, path)

        made.register_step_pre_hook(save)
        return made

    train._optimizer = optimizer


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one_with_the_whole_batch(folder, monkeypatch):
    # Both phases, and batches of more than a block of noise: 20 clips in parts of 5 cross the block's edge.
    options = {"frozen_steps": 1, "batch_size": 20, "accumulate": 2, "lr": 1e-6}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(launched, (2, port, folder, options), nprocs=2)
    monkeypatch.setattr(train, "_optimizer", train._optimizer)  # put back at the end
    watch_gradients(folder / "1-0.pt")
    fit(folder, folder / "out-1", **options | {"accumulate": 1})
    one, *both = (torch.load(folder / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1"))
    assert len(one[0]) == 6 < len(one[1])
    for phase, gradients in enumerate(one):
        assert max(float(g.abs().max()) for g in gradients.values()) > 1e-3
        for other in both:
            assert other[phase].keys() == gradients.keys()
            worst = max(float((other[phase][n] - g).abs().max()) for n, g in gradients.items())
            assert worst <= 1e-6


@pytest.mark.parametrize("size", [8, 40])
@pytest.mark.parametrize(("processes", "accumulate"), [(1, 4), (4, 1), (2, 4)])
def test_an_epoch_is_a_pass_over_all_clips_whoever_takes_the_parts(size, processes, accumulate):
    parts, n = processes * accumulate, 3 * size + size // 2
    grids = lambda picks: torch.tensor(picks)[:, None, None, None].expand(-1, 2, 1, 21).float()  # noqa: E731
    process = unet.noise_schedule("v_prediction")
    whole = batches.noisy_batches(grids, n, process, size, 5)
    make = batches.noisy_batches(grids, n, process, size, 5, parts)
    seen = []
    for step in range(7):  # two epochs
        # As the loop asks: process r for part p by the index (step · A + p) · W + r.
        asked = [
            make((step * accumulate + part) * processes + rank)
            for part in range(accumulate)
            for rank in range(processes)
        ]
        together = {key: torch.cat([one[key] for one in asked]) for key in asked[0]}
        assert all(torch.equal(together[key], wanted) for key, wanted in whole(step).items())
        seen += together["picks"].tolist()
    assert sorted(seen[:n]) == sorted(seen[n:]) == list(range(n))
    noise = batches.noisy_batches(grids, n, unet.noise_schedule(), size, 5)(0)["target"]
    assert len({round(float(row.flatten()[0]), 5) for row in noise}) == size  # no block twice


def test_parts_that_do_not_divide_the_batch_are_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "PartialState", lambda: types.SimpleNamespace(num_processes=3))
    with pytest.raises(UsageError, match=r"generator\.batch_size=4.* 3\b"):
        fit(folder, tmp_path / "g")
    with pytest.raises(UsageError, match=r"generator\.accumulate=3"):
        recipe.load("mini", ["generator.accumulate=3"])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weighs_the_error_of_the_clean_grid(prediction):
    process = unet.noise_schedule(prediction)
    t, gamma = torch.arange(1000), 5.0
    weights = batches.min_snr_weights(process, gamma)
    # Hang et al. 2023: min(SNR, γ) · |x̂ − x|², with x̂ from whatever is predicted.
    bar = process.alphas_cumprod.double()
    a, b, snr = bar.sqrt(), (1 - bar).sqrt(), bar / (1 - bar)
    g = torch.Generator().manual_seed(0)
    x, noise, slip = torch.randn(3, 1000, generator=g, dtype=torch.float64)
    noisy = a * x + b * noise
    if prediction == "epsilon":
        guess = (noisy - b * (noise + slip)) / a
    else:
        guess = a * noisy - b * (a * noise - b * x + slip)
    wanted = np.minimum(snr, gamma) * (guess - x).square()
    torch.testing.assert_close(weights.double() * slip.square(), wanted, rtol=1e-4, atol=1e-9)
    theirs = compute_snr(process, t)
    over = theirs + 1 if prediction == "v_prediction" else theirs
    torch.testing.assert_close(weights, theirs.clamp_max(gamma) / over, rtol=1e-3, atol=1e-6)
    assert (weights.min() < 1e-3) and weights.max() <= (5 / 6 if prediction == "v_prediction" else 1) + 1e-6


def captured(folder, tmp_path, monkeypatch, **generator):
    """What `train_generator` hands to the loop."""
    seen = {}

    def stop(module, step, batches, **options):
        seen.update(module=module, step=step, batches=batches, **options)
        raise RuntimeError("enough")

    monkeypatch.setattr(loop, "fit", stop)
    with pytest.raises(RuntimeError, match="enough"):
        fit(folder, tmp_path / "g", **generator)
    return seen


def test_the_loss_is_weighted_by_clip_where_asked(folder, tmp_path, monkeypatch):
    seen = captured(folder, tmp_path, monkeypatch, min_snr_gamma=5.0)
    batch = seen["batches"](2)
    with torch.no_grad():
        found = seen["step"](seen["module"], batch, 2)
        out = unet.denoise(seen["module"], batch["noisy"], batch["t"], batch["states"], None)
    bar = unet.noise_schedule().alphas_cumprod[batch["t"]]
    weight = (5 * (1 - bar) / bar).clamp_max(1)
    errors = (out - batch["target"]).square().flatten(1).mean(1)
    assert weight.min() < 0.5 and weight.max() == 1
    torch.testing.assert_close(found, (weight * errors).sum() / 4)


def test_options_reach_the_loop(folder, tmp_path, monkeypatch):
    options = {"accumulate": 2, "clip_grad": None, "precision": "bf16", "compile": True}
    seen = captured(folder, tmp_path, monkeypatch, **options)
    assert [seen[key] for key in ("accumulate", "clip_grad", "precision", "compiled")] == [
        2,
        None,
        "bf16",
        True,
    ]
    seen = captured(folder, tmp_path, monkeypatch)
    assert [seen[key] for key in ("accumulate", "clip_grad", "precision", "compiled")] == [
        1,
        1.0,
        "fp32",
        False,
    ]
    assert seen["watch"] is None


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


def test_checkpointing_and_memory_layout_change_how_but_not_what_is_computed():
    value, plain, calls = gradients()
    again, checkpointed, more_calls = gradients(gradient_checkpointing=True)
    assert again == value and more_calls > calls
    assert max(float((checkpointed[n] - g).abs().max()) for n, g in plain.items()) <= 1e-6
    last, turned, _ = gradients(channels_last=True)
    assert last == pytest.approx(value, rel=1e-5)
    assert max(float((turned[n] - g).abs().max()) for n, g in plain.items()) <= 1e-5


def test_a_generator_trained_channels_last_is_stopped_resumed_and_written_as_any(
    folder, tmp_path, monkeypatch
):
    options = {"channels_last": True, "gradient_checkpointing": True, "train_steps": 3, "checkpoint_every": 1}
    straight = fit(folder, tmp_path / "a", **options)
    plain, calls = train.loss, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("cut")
        return plain(*arguments)

    monkeypatch.setattr(train, "loss", failing)
    with pytest.raises(RuntimeError, match="cut"):
        fit(folder, tmp_path / "b", **options)
    monkeypatch.setattr(train, "loss", plain)
    resumed = fit(folder, tmp_path / "b", **options)
    name = "unet/diffusion_pytorch_model.safetensors"
    assert (straight / name).read_bytes() == (resumed / name).read_bytes()


def test_8_bit_adamw_needs_cuda_and_its_package(monkeypatch):
    section, model = Generator(optimizer="adamw8bit", lr=0.5, weight_decay=0.25), torch.nn.Linear(2, 2)
    with pytest.raises(
        UsageError, match=r"adamw8bit needs CUDA, this is cpu; set generator\.optimizer=adamw"
    ):
        train._optimizer(section, model)
    monkeypatch.setattr(train, "PartialState", lambda: types.SimpleNamespace(device=torch.device("cuda")))
    monkeypatch.setattr(train.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match="pip install bitsandbytes"):
        train._optimizer(section, model)
    package = types.ModuleType("bitsandbytes")
    package.optim = types.SimpleNamespace(AdamW8bit=torch.optim.AdamW)
    monkeypatch.setitem(sys.modules, "bitsandbytes", package)
    monkeypatch.setattr(train.importlib.util, "find_spec", lambda name: package)
    model.bias.requires_grad_(False)
    (group,) = train._optimizer(section, model).param_groups
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.25)
    assert len(group["params"]) == 1 and group["params"][0] is model.weight
