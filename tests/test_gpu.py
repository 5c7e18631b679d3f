"""Full-size networks and whole runs on a GPU: memory, agreement with the CPU."""

import pytest
import torch
from fakes import mini_pipeline, noise

from ajbench import classifiers
from ajbench.core.device import full_fp32
from ajbench.core.recipe import load
from ajbench.features.panns import SETTINGS, Cnn14
from ajbench.generation import lora, train, unet
from ajbench.generation.sampling import sample, schedule
from ajbench.pipeline.stage import run_stages

pytestmark = pytest.mark.gpu
ROWS, STATES = 24, 50
GB = 2**30


def memory_of(step):
    """Return the largest memory of two steps, in GB."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(2):
        step()
    return torch.cuda.max_memory_allocated() / GB


def step_of(module, loss):
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)

    def step():
        with torch.autocast("cuda", torch.bfloat16):
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        assert value.isfinite()

    return step


@pytest.mark.parametrize("name", ["ast", "taltrans"])
def test_a_part_of_the_papers_batch_fits_into_80_gb(name, cuda):
    recipe = load("as20k")
    settings = recipe.classifier_of({"name": name})
    module = classifiers.build(name, 527).to(cuda).train()
    wav = 0.1 * torch.randn(settings.batch_size // settings.accumulate, 161_280, device=cuda)
    targets = torch.zeros(len(wav), 527, device=cuda)

    def loss():
        return torch.nn.functional.binary_cross_entropy_with_logits(module(wav), targets)

    assert memory_of(step_of(module, loss)) < 70


def test_24_clips_of_the_generator_fit_into_80_gb(cuda):
    model = unet.build("full", 1024).to(cuda).train()
    noisy, target = torch.randn(2, 24, 128, ROWS, 21, device=cuda)
    batch = {"noisy": noisy, "target": target, "t": torch.arange(24, device=cuda)}
    states = torch.randn(24, STATES, 1024, device=cuda)
    assert memory_of(step_of(model, lambda: train.loss(model, batch, states, None))) < 70


def test_sampling_in_bf16_is_near_fp32_with_the_evaluations_of_its_schedule(cuda, monkeypatch):
    model, training = unet.build("small", 384).to(cuda).eval(), dict(unet.noise_schedule().config)
    calls, found = [], {}
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    states, uncond = torch.randn(64, STATES, 384), torch.randn(1, STATES, 384)
    guide = torch.randn(64, 128, ROWS, 21)
    for sampler, steps, expected in (("pndm", 45, 29), ("dpmsolver++", 16, 9)):
        assert len(schedule(sampler, steps, 0.6, training).timesteps) == expected
        for dtype, size in ((torch.float32, 8), (torch.float32, 64), (torch.bfloat16, 64)):
            model.to(dtype)
            calls.clear()
            how = {"strength": 0.6, "guidance": 5.0, "steps": steps, "sampler": sampler, "training": training}
            with torch.no_grad():
                made = sample(model, states[:size], uncond, guide[:size], range(size), rows=ROWS, **how)
            assert len(calls) == expected and made.dtype == torch.float32 and made.isfinite().all()
            found[dtype, size] = made[:8]
        model.float()
        spread = found[torch.float32, 8].std()
        assert (found[torch.float32, 8] - found[torch.float32, 64]).std() < 1e-2 * spread
        assert (found[torch.float32, 8] - found[torch.bfloat16, 64]).std() < 0.1 * spread


def test_features_of_cnn14_are_those_of_the_cpu(cuda):
    torch.manual_seed(0)
    model = Cnn14(SETTINGS["panns16k"]).fuse()
    wav = torch.from_numpy(noise(2, 16_000, clips=3))
    with torch.no_grad(), full_fp32():
        here = model(wav)
        there = model.to(cuda)(wav.to(cuda))
    for one, other in zip(here, there, strict=True):
        assert float((one - other.cpu()).abs().max()) <= 1e-5 * float(one.abs().max()) + 1e-6


def test_front_ends_keep_float32_inside_autocast(cuda):
    wav = torch.from_numpy(noise(1, 16_000)).to(cuda)
    for name in ("ast-tiny", "taltrans-small"):
        front = classifiers.build(name, 2).frontend.to(cuda)
        expected = front(wav)
        with torch.autocast("cuda", torch.bfloat16):
            assert torch.equal(front(wav), expected)


def test_a_whole_run_of_mini_with_lora(tmp_path, cuda):
    places = {"work": tmp_path / "work", "results": tmp_path / "results"}
    made = mini_pipeline("invert.lora_rank=2", "generator.train_steps=40", "invert.train_steps=10", **places)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    ran = run_stages(made.stages(), "cuda", workers=1)
    assert any(title.startswith("train-gen") for title in ran)
    assert all(stage.done() for stage in made.stages())
    assert (made.invert.path / lora.FILE).exists()
    store = made.synth().path
    assert (store / "store.json").exists()
    # Given back between stages: without that, nearly all of the largest amount stays reserved.
    assert torch.cuda.memory_reserved() < torch.cuda.max_memory_reserved() / 2


def test_products_in_fp32_and_bf16_have_the_precision_of_their_formats(cuda):
    a, b = torch.randn(2, 4096, 4096, device=cuda)
    exact = a.double() @ b.double()
    half = (a.bfloat16() @ b.bfloat16()).double()
    assert float((half - exact).std() / exact.std()) < 1e-2
    assert float(((a @ b).double() - exact).std() / exact.std()) < 1e-5
