"""Sampling: noise (or a noised guide) ⇒ grid, with classifier-free guidance and diffusers' solvers.

Pure functions of tensors and seeds. For Gaussian data the exact solution is known (see the tests): with
diffusers' defaults, 20 steps of DPM-Solver++ or UniPC lose up to half the standard deviation of channels with
little variance. With steps evenly spaced in log-SNR, they lose about 1 %.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    PNDMScheduler,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from torch import Tensor

from ajbench.core.errors import UsageError
from ajbench.data.audio import FRAME_MULTIPLE
from ajbench.generation.unet import denoise

Sampler = Literal["dpmsolver++", "unipc", "ddim", "pndm"]

# Largest noise-to-signal ratio that is worth a step (Karras et al. 2022). The cosine schedule ends at 20,291:
# Karras sigmas would spend 12 of 20 steps above 80, and diffusers' UniPC fails there.
SIGMA_MAX = 80.0
# Log-SNR spacing, for which diffusers has two names.
_SOLVERS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "dpmsolver++": (DPMSolverMultistepScheduler, {"use_lu_lambdas": True}),
    "unipc": (UniPCMultistepScheduler, {"use_exponential_sigmas": True}),
}
# Configured as in Stable Diffusion.
_STEPPERS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "ddim": (DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}),
    "pndm": (PNDMScheduler, {"skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}),
}

REACHED = 0.95  # of the training steps, by steps of equal whole size: 45 take 990, 300 only 900


def schedule(sampler: Sampler, steps: int, strength: float, training: Mapping[str, Any]) -> Any:
    """Return a diffusers scheduler, with timesteps set, that starts at the noise level of `strength`.

    DDIM and PNDM do the last int(s · steps) of the `steps` steps, as diffusers' image-to-image pipelines do,
    in which PNDM does one more, since its list is one longer. PNDM visits its second timestep twice, which
    those pipelines do only from pure noise; otherwise every step after the first would use the timestep below
    the actual noise level.

    DPM-Solver++ and UniPC have steps evenly spaced in log-SNR, of which a fraction s means an amount of noise
    that has little to do with s (training step 964 for 0.6 and 73 for 0.3, on the cosine schedule). Here
    they start at training step s · 1000: their scheduler is that of the training noise schedule, truncated at
    this step.

    Args:
        sampler: the solver.
        steps: number of steps from pure noise; at strength s, max(1, int(s · steps)) of them are done, by
            PNDM two more, or one more from pure noise.
        strength: amount of noise added to the guide, in (0, 1]; 1 starts from pure noise.
        training: configuration of the training noise schedule, as in the generator's `scheduler/`.

    Raises:
        UsageError: there are more sampling steps than training steps below the start, or steps of equal size
            that begin far from pure noise.
    """
    betas = DDPMScheduler.from_config(dict(training)).betas
    made = max(1, int(steps * strength))
    solver = _SOLVERS.get(sampler)
    if solver:
        start = max(1, round(strength * len(betas)))
        kept = (1 - betas[:start]).cumprod(0)
        betas = betas[: int((((1 - kept) / kept).sqrt() <= SIGMA_MAX).sum())]
    done = made if solver else steps
    if done >= len(betas):
        raise UsageError(
            f"synth.sampler_steps={steps} at strength {strength:g}: {done} sampling steps, but only "
            f"{len(betas)} training steps; use fewer steps or a higher strength"
        )
    apart = len(betas) // steps
    if not solver and steps * apart < REACHED * len(betas):
        raise UsageError(
            f"synth.sampler_steps={steps}: {sampler} would leave out the noisiest "
            f"{len(betas) - steps * apart} of {len(betas)} training steps; choose "
            f"{len(betas) // max(apart, 2)}"
        )
    kind, options = solver or _STEPPERS[sampler]
    scheduler = kind(
        num_train_timesteps=len(betas),
        trained_betas=betas.tolist(),
        prediction_type=training["prediction_type"],
        **options,
    )
    scheduler.set_timesteps(done)
    if solver:
        scheduler.set_begin_index(0)  # otherwise looked up by timestep, and timesteps may repeat
        return scheduler
    scheduler.timesteps = scheduler.timesteps[steps - made :]
    if sampler == "pndm":
        each = scheduler.timesteps.unique_consecutive()
        scheduler.timesteps = torch.cat([each[:2], each[1:]])
    return scheduler


def noise_for(seeds: Sequence[int], shape: tuple[int, int, int]) -> Tensor:
    """Return noise float32 [B, *shape] on the CPU, each item from its own seed."""
    drawn = (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds)
    return torch.stack(list(drawn))


@torch.no_grad()
def sample(
    unet: UNet2DConditionModel,
    states: Tensor,
    uncond: Tensor,
    guide: Tensor | None,
    seeds: Sequence[int],
    *,
    strength: float,
    guidance: float,
    steps: int,
    sampler: Sampler,
    training: Mapping[str, Any],
    rows: int,
    rescale: float = 0.0,
    mask: Tensor | None = None,
    uncond_mask: Tensor | None = None,
) -> Tensor:
    """Return grids float32 [B, 128, rows, 21] for a batch of clips.

    Args:
        unet: the denoiser; its device is used.
        states: text states of the prompts, [B, L, d].
        uncond: text states of the empty or negative prompt, [1, L, d].
        guide: whitened grids of the guide clips [B, 128, rows, 21]; ignored if strength is 1.
        seeds: one per clip, the only source of randomness.
        strength: amount of training noise added to the guide (SDEdit).
        guidance: classifier-free: uncond + guidance · (cond − uncond) in one forward pass; 1 is cond alone,
            at half the cost.
        steps: number of steps from pure noise.
        sampler: the solver.
        training: configuration of the training noise schedule.
        rows: height of the grid, 21 frames each.
        rescale: how far the standard deviation of a guided prediction, which guidance increases, is moved
            back to that of the conditional prediction, 0 to 1 (Lin et al. 2024, Eq. 14-16).
        mask: of the prompts' tokens, bool [B, L]; None attends to padding as well.
        uncond_mask: of the tokens of `uncond`, [1, L].

    Raises:
        UsageError: strength below 1 without a guide, or too many steps.
    """
    if guide is None and strength < 1:
        raise UsageError(f"strength={strength:g}: below 1 a guide clip is needed; give one or use strength 1")
    scheduler = schedule(sampler, steps, strength, training)
    device = unet.device
    noise = noise_for(seeds, (unet.config["in_channels"], rows, FRAME_MULTIPLE)).to(device)
    guided = guidance != 1
    if guided:
        states = torch.cat([uncond.expand_as(states), states])
        if mask is not None and uncond_mask is not None:
            mask = torch.cat([uncond_mask.expand_as(mask), mask])
    states = states.to(device, unet.dtype)
    mask = None if mask is None else mask.to(device)
    if strength == 1 or guide is None:
        x = noise
    else:
        start = scheduler.timesteps[:1].expand(len(noise))
        x = scheduler.add_noise(guide.to(device, torch.float32), noise, start)
    for t in scheduler.timesteps:
        twice = torch.cat([x, x]) if guided else x
        out = denoise(unet, twice.to(unet.dtype), t, states, mask).float()
        if guided:
            # Valid for noise and velocity alike: given x, each is an affine function of the other.
            without, given = out.chunk(2)
            out = without + guidance * (given - without)
            if rescale:
                out = out * torch.lerp(torch.ones(()).to(out), _deviation(given) / _deviation(out), rescale)
        x = scheduler.step(out, t, x, return_dict=False)[0]
    return x


def _deviation(x: Tensor) -> Tensor:
    return x.flatten(1).std(dim=1)[:, None, None, None]
