"""Sampling: noise (or a noised guide) ⇒ grid, with classifier-free guidance and diffusers' solvers.

Pure functions of tensors and seeds. What the solvers lose is known from a case with an exact answer
(Gaussian data, see the tests): at diffusers' defaults, 20 steps of DPM-Solver++ or UniPC lose up to half
the deviation of fine channels. Steps spaced evenly in log-SNR lose about 1 %.
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

# Largest noise-to-signal ratio that is worth a step (Karras et al. 2022). The cosine schedule ends at
# 20,291, on the way from which Karras sigmas spend 12 of 20 steps, and diffusers' UniPC fails.
SIGMA_MAX = 80.0
# Log-SNR spacing under the two names that diffusers has for it.
_SOLVERS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "dpmsolver++": (DPMSolverMultistepScheduler, {"use_lu_lambdas": True}),
    "unipc": (UniPCMultistepScheduler, {"use_exponential_sigmas": True}),
}
# As Stable Diffusion configures them.
_STEPPERS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "ddim": (DDIMScheduler, {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}),
    "pndm": (PNDMScheduler, {"skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}),
}


def schedule(sampler: Sampler, steps: int, strength: float, training: Mapping[str, Any]) -> Any:
    """Return a diffusers scheduler, its timesteps set, that begins where `strength` of the noise is in.

    Strength s is the training step s · 1000, whatever the sampler. diffusers' image-to-image takes it as a
    share of the sampling steps instead, which is the same for samplers that step evenly in time, and far
    more noise for those that do not. The scheduler is therefore that of the training process cut off at
    this step.

    Args:
        sampler: the solver.
        steps: those of a run from noise; at strength s, int(s · steps) of them are made, at least one.
        strength: noise put on the guide, in (0, 1]; 1 begins with noise alone.
        training: configuration of the training process, as in the generator's `scheduler/`.

    Raises:
        UsageError: more steps than the training process has up to there.
    """
    betas = DDPMScheduler.from_config(dict(training)).betas
    made = max(1, int(steps * strength))
    start = max(1, round(strength * len(betas)))
    solver = _SOLVERS.get(sampler)
    if solver:
        kept = (1 - betas[:start]).cumprod(0)
        start = int((((1 - kept) / kept).sqrt() <= SIGMA_MAX).sum())
    if made >= start:
        raise UsageError(
            f"synth.sampler_steps={steps} at strength {strength:g}: {made} steps, but only {start} of "
            "training lie below; lower the steps or raise the strength"
        )
    kind, options = solver or _STEPPERS[sampler]
    scheduler = kind(
        num_train_timesteps=start,
        trained_betas=betas[:start].tolist(),
        prediction_type=training["prediction_type"],
        **options,
    )
    scheduler.set_timesteps(made)
    if solver:
        scheduler.set_begin_index(0)  # else it is looked up by timestep, of which two may be the same
    return scheduler


def noise_for(seeds: Sequence[int], shape: tuple[int, int, int]) -> Tensor:
    """Return noise float32 [B, *shape], each item from a generator of its own seed, on the CPU."""
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
        unet: where it is, the work is done.
        states: of the prompts, [B, L, d].
        uncond: of the empty prompt, or of the text that guidance leads away from, [1, L, d].
        guide: whitened grids of the guide clips [B, 128, rows, 21]; not looked at when strength is 1.
        seeds: one a clip; nothing else is drawn from.
        strength: share of the training noise put on the guide (SDEdit).
        guidance: classifier-free: uncond + guidance · (cond - uncond), in one pass; 1 is cond alone, at
            half the cost.
        steps: of a run from noise.
        sampler: the solver.
        training: configuration of the training process.
        rows: 21 frames each.
        rescale: how far a guided prediction's deviation, which guidance enlarges, goes back to that of the
            prediction with text alone, 0 to 1 (Lin et al. 2024, Eq. 14-16).
        mask: of the prompts' tokens, bool [B, L]; None attends to the padding as well.
        uncond_mask: of `uncond`'s tokens, [1, L].

    Raises:
        UsageError: strength below 1 without a guide, or more steps than there are.
    """
    if guide is None and strength < 1:
        raise UsageError(f"strength {strength:g} needs a guide clip to begin from; use strength 1 without")
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
        x = scheduler.add_noise(
            guide.to(device, torch.float32), noise, scheduler.timesteps[:1].expand(len(noise))
        )
    for t in scheduler.timesteps:
        twice = torch.cat([x, x]) if guided else x
        out = denoise(unet, twice.to(unet.dtype), t, states, mask).float()
        if guided:
            # The same for noise and velocity, which are a linear function of each other given x.
            without, given = out.chunk(2)
            out = without + guidance * (given - without)
            if rescale:
                out = out * torch.lerp(torch.ones(()).to(out), _deviation(given) / _deviation(out), rescale)
        x = scheduler.step(out, t, x, return_dict=False)[0]
    return x


def _deviation(x: Tensor) -> Tensor:
    return x.flatten(1).std(dim=1)[:, None, None, None]
