"""Sampling against exact answers: Gaussian data, diffusers' own loop, and what a clip may depend on."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionImg2ImgPipeline
from small_generator import SMALL

from ajbench.errors import UsageError
from ajbench.generator import unet
from ajbench.generator.sample import SIGMA_MAX, noise_for, sample, schedule

torch.set_num_threads(1)
COSINE = dict(unet.noise_schedule().config)
# Stable Diffusion's, for which research on solvers is published.
SCALED = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "epsilon",
}
DEVIATIONS = torch.logspace(-1.30103, 0, 64, dtype=torch.float64)  # 0.05 … 1


def gaussian_error(scheduler):
    """Solve the probability-flow ODE of independent Gaussian channels, whose solution is known.

    Returns RMS errors in units of a channel's deviation (all channels, those above 0.5) and the mean bias of
    the deviation.
    """
    s = DEVIATIONS
    spaced = hasattr(scheduler, "lambda_t")  # these step between sigmas, the others between timesteps
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


@pytest.mark.parametrize(
    ("sampler", "steps", "published"),
    [
        ("ddim", 45, (0.101, 0.037, 0.091)),
        ("ddim", 100, (0.045, 0.017, 0.040)),
        ("dpmsolver++", 20, (0.041, 0.0054, 0.025)),
    ],
)
def test_errors_on_the_scaled_schedule_are_the_known_ones(sampler, steps, published):
    assert gaussian_error(schedule(sampler, steps, 1.0, SCALED)) == pytest.approx(published, rel=0.15)


def test_dpm_solver_at_diffusers_defaults_loses_a_third_of_fine_channels():
    # The reason for log-SNR spacing: .42, .047 and 33 % are the known figures.
    plain = DPMSolverMultistepScheduler.from_config(SCALED)
    plain.set_timesteps(20)
    assert gaussian_error(plain) == pytest.approx((0.42, 0.047, 0.33), rel=0.1)


@pytest.mark.parametrize(
    ("sampler", "steps", "most"),
    [("dpmsolver++", 20, 0.02), ("unipc", 20, 0.02), ("pndm", 45, 0.01), ("ddim", 45, 0.13)],
)
@pytest.mark.parametrize("strength", [1.0, 0.6])
def test_errors_on_our_schedule_are_small_at_any_strength(sampler, steps, most, strength):
    assert gaussian_error(schedule(sampler, steps, strength, COSINE))[0] < most


@pytest.mark.parametrize("sampler", ["dpmsolver++", "unipc", "ddim"])
def test_a_velocity_leads_where_its_noise_leads(sampler):
    # An exact denoiser of Gaussian data, asked for either; guided, as guidance is done on the prediction.
    # Not pndm: it extrapolates the prediction itself, which takes another path for each.
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
                out.append(
                    noise if prediction == "epsilon" else bar.sqrt() * noise - (1 - bar).sqrt() * clean
                )
            y = scheduler.step(out[0] + 3 * (out[1] - out[0]), t, y, return_dict=False)[0]
        ends.append(y)
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sampler", ["dpmsolver++", "unipc", "ddim", "pndm"])
@pytest.mark.parametrize("strength", [0.2, 0.5, 0.6, 0.9])
def test_strength_is_the_same_noise_for_every_sampler(sampler, strength):
    scheduler = schedule(sampler, 40, strength, COSINE)
    one = torch.ones(1, 1, 1, 1)
    kept = scheduler.add_noise(one, torch.zeros_like(one), scheduler.timesteps[:1]).item() ** 2
    wanted = unet.noise_schedule().alphas_cumprod[round(strength * 1000) - 1].item()
    assert kept == pytest.approx(wanted, abs=0.05)


def test_from_noise_no_step_is_spent_beyond_sigma_max():
    sigmas = schedule("dpmsolver++", 20, 1.0, COSINE).sigmas
    assert SIGMA_MAX * 0.8 < sigmas[0] <= SIGMA_MAX and len(sigmas) == 21 and sigmas[-1] == 0


def test_more_steps_than_the_noise_has_are_refused():
    with pytest.raises(UsageError, match="sampler_steps"):
        schedule("ddim", 1000, 1.0, COSINE)
    with pytest.raises(UsageError, match="strength"):
        schedule("dpmsolver++", 20, 0.0005, COSINE)


@pytest.fixture(scope="module")
def small():
    patch = pytest.MonkeyPatch()
    patch.setitem(unet.PRESETS, "tiny", SMALL)
    model = unet.build("tiny", 384).eval()
    patch.undo()
    # A fresh U-Net all but ignores its condition.
    with torch.no_grad():
        model.encoder_hid_proj.weight *= 20
        model.conv_out.weight *= 5
    return model


def inputs(n=3):
    g = torch.Generator().manual_seed(4)
    return (
        torch.randn(n, 6, 384, generator=g),
        torch.randn(1, 6, 384, generator=g),
        torch.randn(n, 128, 2, 21, generator=g),
    )


def run(model, states, uncond, guide, seeds, **change):
    options = {
        "strength": 0.5,
        "guidance": 3.0,
        "steps": 8,
        "sampler": "dpmsolver++",
        "training": COSINE,
        "rows": 2,
    }
    return sample(model, states, uncond, guide, seeds, **(options | change))


@pytest.mark.parametrize(("strength", "steps"), [(1.0, 10), (0.5, 10), (0.7, 10)])
def test_ddim_equals_the_loop_of_diffusers_image_to_image(small, strength, steps):
    states, uncond, guide = inputs()
    scheduler = DDIMScheduler.from_config(COSINE, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    scheduler.set_timesteps(steps)
    stand_in = SimpleNamespace(scheduler=scheduler)
    timesteps, made = StableDiffusionImg2ImgPipeline.get_timesteps(stand_in, steps, strength, "cpu")
    assert made == len(timesteps) == int(steps * strength)
    noise = torch.stack(
        [torch.randn(128, 2, 21, generator=torch.Generator().manual_seed(s)) for s in (5, 6, 7)]
    )
    x = scheduler.add_noise(guide, noise, timesteps[:1].repeat(3)) if strength < 1 else noise
    with torch.no_grad():
        for t in timesteps:
            both = small(torch.cat([x] * 2), t, torch.cat([uncond.repeat(3, 1, 1), states])).sample
            without, given = both.chunk(2)
            x = scheduler.step(without + 3.0 * (given - without), t, x).prev_sample
    ours = run(small, states, uncond, guide, [5, 6, 7], strength=strength, steps=steps, sampler="ddim")
    torch.testing.assert_close(ours, x, rtol=0, atol=1e-5 * x.abs().max().item())


@pytest.mark.parametrize("sampler", ["dpmsolver++", "unipc", "ddim", "pndm"])
def test_a_clip_does_not_depend_on_its_companions_or_place(small, sampler):
    states, uncond, guide = inputs()
    one = run(small, states, uncond, guide, [5, 6, 7], sampler=sampler)
    other = run(small, states.flip(0), uncond, guide.flip(0), [7, 6, 5], sampler=sampler)
    assert torch.equal(one, other.flip(0))
    assert one.isfinite().all()


def test_guidance_of_one_is_the_condition_alone(small):
    states, uncond, guide = inputs()
    alone = run(small, states, uncond, guide, [5, 6, 7], guidance=1.0)
    assert torch.equal(alone, run(small, states, -uncond, guide, [5, 6, 7], guidance=1.0))
    torch.testing.assert_close(
        alone, run(small, states, uncond, guide, [5, 6, 7], guidance=1 + 1e-6), rtol=0, atol=1e-3
    )
    assert (alone - run(small, states, uncond, guide, [5, 6, 7])).abs().max() > 1e-3


def test_at_full_strength_the_guide_is_not_looked_at_and_below_it_counts(small):
    states, uncond, guide = inputs()
    full = [run(small, states, uncond, g, [5, 6, 7], strength=1.0) for g in (None, guide, guide * torch.nan)]
    assert torch.equal(full[0], full[1]) and torch.equal(full[0], full[2])
    near, far = (run(small, states, uncond, guide, [5, 6, 7], strength=s) for s in (0.1, 0.9))
    assert (near - guide).std() < 0.5 * (far - guide).std()
    with pytest.raises(UsageError, match="guide"):
        run(small, states, uncond, None, [5, 6, 7])


def test_noise_follows_the_seeds_one_by_one():
    together = noise_for([1, 2], (128, 2, 21))
    assert torch.equal(together[1], noise_for([2], (128, 2, 21))[0])
    assert not torch.equal(together[0], together[1])
