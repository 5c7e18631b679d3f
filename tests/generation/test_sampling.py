"""Sampling compared with exact solutions for Gaussian data and with diffusers' pipelines."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)

from ajbench.core.errors import UsageError
from ajbench.generation import unet
from ajbench.generation.sampling import SIGMA_MAX, noise_for, sample, schedule

COSINE = dict(unet.noise_schedule().config)
# The schedule of Stable Diffusion, for which results on solvers are published.
SCALED = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
SCALED |= {"num_train_timesteps": 1000, "prediction_type": "epsilon"}
DEVIATIONS = torch.logspace(-1.30103, 0, 64, dtype=torch.float64)  # 0.05 … 1


def gaussian_error(scheduler):
    """Solve the probability-flow ODE of independent Gaussian channels, whose exact solution is known.

    Returns RMS errors relative to a channel's standard deviation (all channels, those above 0.5) and the mean
    bias of the standard deviation.
    """
    s = DEVIATIONS
    spaced = hasattr(scheduler, "lambda_t")  # these solvers step between sigmas, the others between timesteps
    level = [1 / (1 + sigma.double() ** 2) for sigma in scheduler.sigmas] if spaced else None
    bars = scheduler.alphas_cumprod.double()
    x = torch.randn(512, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start = level[0] if spaced else bars[scheduler.timesteps[0]]
    exact = x * s / (start * s**2 + 1 - start).sqrt()
    for i, t in enumerate(scheduler.timesteps):
        bar = level[i] if spaced else bars[t]
        eps = (1 - bar).sqrt() * x / (bar * s**2 + 1 - bar)
        x = scheduler.step(eps, t, x, return_dict=False)[0]
    error = ((x - exact) / s).square()
    bias = (x.std(0) / exact.std(0) - 1).abs().mean()
    return error.mean().sqrt().item(), error[:, s > 0.5].mean().sqrt().item(), bias.item()


def of_diffusers(kind, steps, **options):
    scheduler = kind.from_config(SCALED, **options)
    scheduler.set_timesteps(steps)
    return scheduler


SD = {"set_alpha_to_one": False, "steps_offset": 1}
DPM, UNIPC = DPMSolverMultistepScheduler, UniPCMultistepScheduler


# Errors on Stable Diffusion's schedule, computed without this code; None: it depends on too few samples.
@pytest.mark.parametrize(
    ("make", "known"),
    [
        (lambda: schedule("ddim", 45, 1.0, SCALED), (0.101, 0.037, 0.091)),
        (lambda: schedule("ddim", 100, 1.0, SCALED), (0.045, 0.017, 0.040)),
        (lambda: schedule("dpmsolver++", 20, 1.0, SCALED), (0.041, 0.0054, 0.025)),
        # The same solvers with diffusers' defaults: the reason for steps evenly spaced in log-SNR.
        (lambda: of_diffusers(DPM, 20), (0.42, 0.047, 0.33)),
        (lambda: of_diffusers(DPM, 45), (0.31, 0.019, 0.23)),
        (lambda: of_diffusers(UNIPC, 20), (0.42, None, 0.33)),
        (lambda: of_diffusers(DPM, 10, use_karras_sigmas=True), (None, 0.054, 0.055)),
        (lambda: of_diffusers(DPM, 15, use_karras_sigmas=True), (None, 0.024, 0.033)),
        (lambda: of_diffusers(DPM, 20, use_karras_sigmas=True), (0.042, 0.013, 0.028)),
        (lambda: of_diffusers(DPM, 30, use_karras_sigmas=True), (None, 0.0044, 0.023)),
        (lambda: of_diffusers(UNIPC, 20, use_karras_sigmas=True), (0.038, 0.0052, 0.023)),
    ],
)
def test_errors_on_gaussian_data_have_the_expected_size(make, known):
    for found, expected in zip(gaussian_error(make()), known, strict=True):
        assert expected is None or found == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(
    ("make", "limits"),
    [
        (lambda: schedule("pndm", 45, 1.0, SCALED), (0.035, 0.0061, 0.018)),
        (lambda: schedule("unipc", 20, 1.0, SCALED), (0.045, 0.0052, 0.025)),
    ],
)
def test_errors_of_the_papers_solver_and_of_unipc_are_small(make, limits):
    assert all(found <= limit for found, limit in zip(gaussian_error(make()), limits, strict=True))


@pytest.mark.parametrize(
    ("sampler", "steps", "limit"),
    [("dpmsolver++", 20, 0.02), ("unipc", 20, 0.02), ("pndm", 45, 0.01), ("ddim", 45, 0.13)],
)
@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_errors_on_our_schedule_are_small_at_any_strength(sampler, steps, limit, strength):
    assert gaussian_error(schedule(sampler, steps, strength, COSINE))[0] < limit


@pytest.mark.parametrize("training", [COSINE, SCALED])
def test_sixteen_steps_of_dpmsolver_lose_at_most_three_percent(training):
    fast = schedule("dpmsolver++", 16, 1.0, training)
    assert gaussian_error(fast)[2] < 0.03


@pytest.mark.parametrize("sampler", ["dpmsolver++", "unipc", "ddim"])
def test_predicting_velocity_or_noise_gives_the_same_result(sampler):
    # An exact denoiser of Gaussian data that predicts either, with guidance, which acts on the prediction.
    # Not pndm: it extrapolates the prediction itself, so its path differs.
    g = torch.Generator().manual_seed(2)
    x = torch.randn(64, 8, generator=g, dtype=torch.float64)
    deviation = torch.linspace(0.1, 1, 8, dtype=torch.float64)
    ends = []
    for prediction in ("epsilon", "v_prediction"):
        scheduler = schedule(sampler, 12, 0.9, COSINE | {"prediction_type": prediction})
        level = getattr(scheduler, "lambda_t", None) is not None and scheduler.sigmas.double()
        y = x
        for i, t in enumerate(scheduler.timesteps):
            bar = scheduler.alphas_cumprod[t].double() if level is False else 1 / (1 + level[i] ** 2)
            out = []
            for centre in (0.0, 0.5):
                mean = bar * deviation**2 / (bar * deviation**2 + 1 - bar)
                clean = centre + mean * (y / bar.sqrt() - centre)
                noise = (y - bar.sqrt() * clean) / (1 - bar).sqrt()
                velocity = bar.sqrt() * noise - (1 - bar).sqrt() * clean
                out.append(noise if prediction == "epsilon" else velocity)
            y = scheduler.step(out[0] + 3 * (out[1] - out[0]), t, y, return_dict=False)[0]
        ends.append(y)
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sampler", ["dpmsolver++", "unipc", "ddim", "pndm"])
@pytest.mark.parametrize("strength", [0.2, 0.5, 0.6, 0.9])
def test_strength_means_the_same_noise_for_every_sampler(sampler, strength):
    scheduler = schedule(sampler, 40, strength, COSINE)
    one = torch.ones(1, 1, 1, 1)
    kept = scheduler.add_noise(one, torch.zeros_like(one), scheduler.timesteps[:1]).item() ** 2
    wanted = unet.noise_schedule().alphas_cumprod[round(strength * 1000) - 1].item()
    assert kept == pytest.approx(wanted, abs=0.05)


# (sampler, steps) → first timesteps of ours and of diffusers' pipelines at each strength, as documented.
STRENGTHS = (0.3, 0.6, 0.85)
FIRST = {
    ("pndm", 45): ((287, 595, 837), (287, 595, 837)),
    ("ddim", 45): ((265, 573, 815), (265, 573, 815)),
    ("dpmsolver++", 16): ((299, 599, 849), (73, 964, 998)),
    ("unipc", 16): ((299, 598, 849), (73, 964, 998)),
}


@pytest.mark.parametrize(("sampler", "steps"), FIRST)
@pytest.mark.parametrize("which", range(len(STRENGTHS)))
def test_first_timesteps_are_those_of_diffusers_or_differ_as_documented(sampler, steps, which):
    ours = schedule(sampler, steps, STRENGTHS[which], COSINE)
    kind, options = {
        "pndm": (PNDMScheduler, SD | {"skip_prk_steps": True}),
        "ddim": (DDIMScheduler, SD),
        "dpmsolver++": (DPM, {"use_lu_lambdas": True}),
        "unipc": (UNIPC, {"use_exponential_sigmas": True}),
    }[sampler]
    shared = {name: COSINE[name] for name in ("num_train_timesteps", "beta_schedule", "prediction_type")}
    pipeline = SimpleNamespace(scheduler=kind(**shared, **options))
    pipeline.scheduler.set_timesteps(steps)
    theirs, _ = StableDiffusionImg2ImgPipeline.get_timesteps(pipeline, steps, STRENGTHS[which], "cpu")
    assert (ours.timesteps[0], theirs[0]) == tuple(row[which] for row in FIRST[sampler, steps])
    if sampler in ("pndm", "ddim"):
        assert ours.timesteps.unique_consecutive().tolist() == theirs.tolist()
    if sampler == "pndm":  # two evaluations for the first step, as from pure noise
        assert ours.timesteps[1] == ours.timesteps[2] and len(ours.timesteps) == len(theirs) + 1


def test_the_first_step_of_pndm_needs_two_evaluations():
    found, once = (schedule("pndm", 45, 0.3, COSINE) for _ in range(2))
    once.timesteps = once.timesteps.unique_consecutive()  # as in diffusers
    assert gaussian_error(once)[0] > 5 * gaussian_error(found)[0]


def test_no_step_is_above_sigma_max():
    sigmas = schedule("dpmsolver++", 20, 1.0, COSINE).sigmas
    assert SIGMA_MAX * 0.8 < sigmas[0] <= SIGMA_MAX and len(sigmas) == 21 and sigmas[-1] == 0


def test_too_many_steps_are_refused():
    with pytest.raises(UsageError, match="sampler_steps"):
        schedule("ddim", 1000, 1.0, COSINE)
    with pytest.raises(UsageError, match="strength"):
        schedule("dpmsolver++", 20, 0.0005, COSINE)


@pytest.fixture(scope="module")
def small(generator):
    model = UNet2DConditionModel.from_pretrained(generator / "unet", local_files_only=True).eval()
    model.register_to_config(sample_size=64)  # required by Stable Diffusion pipelines
    return model


G = torch.Generator().manual_seed(4)
STATES, UNCOND = torch.randn(3, 6, 384, generator=G), torch.randn(1, 6, 384, generator=G)
GUIDE = torch.randn(3, 128, 2, 21, generator=G)
SEEDS = [5, 6, 7]


def run(model, states=STATES, uncond=UNCOND, guide=GUIDE, seeds=SEEDS, **change):
    options = {"strength": 0.5, "guidance": 3.0, "steps": 8, "sampler": "dpmsolver++"} | change
    return sample(model, states, uncond, guide, seeds, training=COSINE, rows=2, **options)


class Passing(torch.nn.Module):
    """Replaces autoencoder and image processor of a diffusers pipeline by the identity."""

    config = SimpleNamespace(scaling_factor=1.0, block_out_channels=(1,), latent_channels=128)
    device, dtype = torch.device("cpu"), torch.float32

    def encode(self, image):
        return SimpleNamespace(latents=image)

    def preprocess(self, image):
        return image

    def postprocess(self, image, **_):
        return image


def diffusers_pipeline(kind, model, scheduler):
    """Return a Stable Diffusion pipeline with this U-Net, with its own loop, guidance and noise."""
    none = dict.fromkeys(("text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    parts = {"vae": Passing(), "unet": model, "scheduler": scheduler}
    pipeline = kind(**parts, **none, requires_safety_checker=False)
    pipeline.image_processor = Passing()
    pipeline.set_progress_bar_config(disable=True)

    def run(**options):
        return pipeline(
            prompt_embeds=STATES,
            negative_prompt_embeds=UNCOND.expand_as(STATES),
            generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
            output_type="latent",
            guidance_scale=3.0,
            **options,
        ).images

    return run


def assert_same(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * max(1, theirs.abs().max().item()))


@pytest.mark.parametrize("sampler", ["dpmsolver++", "unipc", "ddim", "pndm"])
@pytest.mark.parametrize("strength", [0.4, 0.7])
def test_image_to_image_equals_diffusers_with_the_same_timesteps(small, sampler, strength, monkeypatch):
    scheduler = schedule(sampler, 10, strength, COSINE)
    monkeypatch.setattr(scheduler, "set_timesteps", lambda *_, **__: None)
    theirs = diffusers_pipeline(StableDiffusionImg2ImgPipeline, small, scheduler)
    made = theirs(image=GUIDE, strength=1.0, num_inference_steps=len(scheduler.timesteps))
    assert_same(run(small, strength=strength, steps=10, sampler=sampler), made)


@pytest.mark.parametrize("strength", [0.5, 0.7])
@pytest.mark.parametrize("steps", [10, 13])
def test_ddim_equals_image_to_image_of_diffusers_at_the_same_strength(small, strength, steps):
    # Not pndm: diffusers evaluates its second timestep once.
    scheduler = DDIMScheduler.from_config(COSINE, clip_sample=False, **SD)
    theirs = diffusers_pipeline(StableDiffusionImg2ImgPipeline, small, scheduler)
    made = theirs(image=GUIDE, strength=strength, num_inference_steps=steps)
    assert_same(run(small, strength=strength, steps=steps, sampler="ddim"), made)


@pytest.mark.parametrize("sampler", ["dpmsolver++", "unipc", "ddim", "pndm"])
@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_text_to_image_equals_diffusers(small, sampler, rescale):
    theirs = diffusers_pipeline(StableDiffusionPipeline, small, schedule(sampler, 8, 1.0, COSINE))
    start = {"latents": noise_for(SEEDS, (128, 2, 21)), "height": 2 * 8, "width": 21 * 8}
    made = theirs(**start, guidance_rescale=rescale, num_inference_steps=8)
    assert_same(run(small, guide=None, strength=1.0, sampler=sampler, rescale=rescale), made)


@pytest.mark.parametrize("sampler", ["dpmsolver++", "unipc", "ddim", "pndm"])
def test_a_clip_does_not_depend_on_the_rest_of_the_batch(small, sampler):
    one = run(small, sampler=sampler)
    other = run(small, STATES.flip(0), UNCOND, GUIDE.flip(0), SEEDS[::-1], sampler=sampler)
    assert torch.equal(one, other.flip(0))
    assert one.isfinite().all()


def test_guidance_1_is_the_condition_alone(small):
    alone = run(small, guidance=1.0)
    assert torch.equal(alone, run(small, uncond=-UNCOND, guidance=1.0))
    torch.testing.assert_close(alone, run(small, guidance=1 + 1e-6), rtol=0, atol=1e-3)
    assert (alone - run(small)).abs().max() > 1e-3


def test_the_guide_is_ignored_at_full_strength_only(small):
    full = [run(small, guide=guide, strength=1.0) for guide in (None, GUIDE, GUIDE * torch.nan)]
    assert torch.equal(full[0], full[1]) and torch.equal(full[0], full[2])
    near, far = (run(small, strength=strength) for strength in (0.1, 0.9))
    assert (near - GUIDE).std() < 0.5 * (far - GUIDE).std()
    with pytest.raises(UsageError, match="strength"):
        run(small, guide=None)


def test_each_item_of_noise_depends_on_its_own_seed():
    together = noise_for([1, 2], (128, 2, 21))
    assert torch.equal(together[1], noise_for([2], (128, 2, 21))[0])
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("sampler", ["ddim", "pndm"])
@pytest.mark.parametrize(("steps", "instead"), [(300, 333), (400, 500), (600, 500), (130, 142)])
def test_steps_that_begin_far_from_noise_are_refused(sampler, steps, instead):
    training = dict(unet.noise_schedule().config)
    with pytest.raises(UsageError, match=f"choose {instead}$"):
        schedule(sampler, steps, 1.0, training)
    assert int(schedule(sampler, instead, 1.0, training).timesteps[0]) > 980
