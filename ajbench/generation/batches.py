"""Training batches of the denoiser: prompts, grids, noise and timesteps as pure functions of an index."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from numpy.typing import NDArray
from torch import Tensor

from ajbench import codec as codecs
from ajbench.codec.whitening import Whitening
from ajbench.core.device import device_of
from ajbench.core.files import seed_for
from ajbench.data.store import ClipStore
from ajbench.generation.prompts import sound_of, spoken
from ajbench.generation.unet import noised

Batch = dict[str, Tensor]
BLOCK = 16  # clips whose noise is drawn together; a part of a batch draws only the blocks it overlaps


def prompts_of(
    store: ClipStore, indices: NDArray[np.int64], texts: Mapping[str, str] | None = None
) -> list[str]:
    """Return the caption of each clip or, without one, "The sound of" and its labels.

    Args:
        store: of the clips.
        indices: of the clips.
        texts: clip id → text that replaces the clip's caption.
    """
    captions, labels, own = store.column("caption"), store.column("labels"), texts or {}
    return [
        own.get(store.clip_ids[i]) or captions[i] or sound_of([spoken(name) for name in labels[i]])
        for i in indices
    ]


def grid_reader(
    store: ClipStore, indices: NDArray[np.int64], codec: "codecs.Codec", whitening: Whitening
) -> Callable[[Any], Tensor]:
    """Return a function that maps positions in `indices` to whitened grids float32 [B, 128, H, 21]."""
    return lambda picks: whitening.grid(codec.latents(store.codes(indices[picks])))


def noisy_batches(
    grids: Callable[[Any], Tensor], n: int, process: DDPMScheduler, size: int, seed: int, parts: int = 1
) -> Callable[[int], Batch]:
    """Return batch(index), a pure function: `noisy` grids, `target`, timesteps `t` and clips (`picks`).

    For `target` see `unet.noised`. Each of the `n` clips occurs once per epoch, in a random order that
    differs between epochs. The range of timesteps is divided into `size` equal parts, and a batch has one
    timestep in each: the loss varies less from step to step, its expectation is the same.

    All but `picks` is made on the device of the grids, which is the codec's: for 192 grids of 24 × 21,
    look-up and noise take a second of a CPU core, several training steps of a GPU.

    A batch of `size` clips can be divided into `parts` (for processes and `accumulate`): index = step · parts
    + part. Clips, noise and timesteps of a step are the same as those of the undivided batch.
    """

    @functools.lru_cache(2)
    def order(epoch: int) -> Tensor:
        return torch.randperm(n, generator=generator(seed, "epoch", epoch))

    def draw(step: int, first: int, last: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Noise and timesteps of items first to last in the batch of a step, on the device of `like`."""
        shape, device = like.shape[1:], like.device
        blocks = range(first // BLOCK, -(-last // BLOCK))
        noise, share = [], []
        for block in blocks:
            own = generator(seed, "noise", step, *([block] if block else []), device=device)
            count = min(BLOCK, size - block * BLOCK)
            noise.append(torch.randn((count, *shape), generator=own, device=device))
            places = torch.arange(count, device=device) + block * BLOCK
            share.append(places + torch.rand(count, generator=own, device=device))
        mine = slice(first - blocks[0] * BLOCK, last - blocks[0] * BLOCK)
        steps = len(process.betas)
        t = (torch.cat(share)[mine] / size * steps).long().clamp_max(steps - 1)
        return torch.cat(noise)[mine], t

    def make(index: int) -> Batch:
        step, part = divmod(index, parts)
        first, last = (edge * size // parts for edge in (part, part + 1))
        places = range(step * size + first, step * size + last)
        picks = torch.stack([order(place // n)[place % n] for place in places])
        grid = grids(picks.tolist())
        noise, t = draw(step, first, last, grid)
        noisy, target = noised(process, grid, noise, t)
        return {"noisy": noisy, "target": target, "t": t, "picks": picks}

    return make


def min_snr_weights(process: DDPMScheduler, gamma: float) -> Tensor:
    """Return the loss weight of every timestep, float32 [T] (Hang et al. 2023, min-SNR-γ).

    The weight of the clean grid's squared error is min(SNR, γ) with SNR = ᾱ / (1 − ᾱ). The squared error of
    the noise is SNR times, that of the velocity SNR + 1 times as large, so the weight is divided by that.
    """
    bar = process.alphas_cumprod.double()
    snr = bar / (1 - bar)
    velocity = process.config["prediction_type"] == "v_prediction"
    return (snr.clamp_max(gamma) / (snr + 1 if velocity else snr)).float()


def on_gpu(codec: "codecs.Codec") -> "codecs.Codec":
    """Move a codec to the GPU of this process, if it has one, so that batches are made there; return it."""
    device = device_of()
    return codec.to(device) if device.type == "cuda" else codec


def generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a random generator for one purpose, seeded by the run's seed and the purpose's names."""
    return torch.Generator(device).manual_seed(seed_for(seed, *names))
