"""The loss on clips that are not trained on, for people to look at: nothing is chosen by it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler
from numpy.typing import NDArray
from torch import Tensor, nn

from ajbench.core.files import seed_for
from ajbench.data.store import ClipStore
from ajbench.generation import unet
from ajbench.generation.batches import generator
from ajbench.training.curves import Watch

FILE = "validation.csv"
CLIPS = 512  # at most; each is looked at once in every quarter of the timesteps
QUARTERS = 4


def divide(store: ClipStore, share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the clips to train on and those to look at: the val split, or a share of the train split.

    The share is chosen by a hash of the clip id: a clip stays on its side when others come or go. The eval
    split is never touched.

    Args:
        store: real clips.
        share: of the train split, at least one clip of it; 0: none. Not used where there is a val split.
    """
    train, val = store.split_indices("train"), store.split_indices("val")
    if len(val) or not share:
        return train, val
    hashes = np.array([_place(store.clip_ids[i]) for i in train])
    out = (hashes < share) | (hashes == hashes.min())
    return train[~out], train[out]


def watched(store: ClipStore, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return at most 512 of the clips, those of the lowest hash of their id."""
    order = np.argsort([_place(store.clip_ids[i]) for i in indices], kind="stable")
    return indices[np.sort(order[:CLIPS])]


def watch(
    every: int,
    clip_ids: Sequence[str],
    grids: Callable[[Any], Tensor],
    states: Tensor,
    mask: Tensor | None,
    process: DDPMScheduler,
    batch: int,
) -> Watch:
    """Return what writes `validation.csv`: the mean squared error, over all timesteps and by quarter of them.

    Each clip has one fixed noise and timestep in every quarter, drawn from its id: the same for every run,
    step and batch size. The columns `loss_1` to `loss_4` go from the least noise to the most.

    Args:
        every: steps between looks.
        clip_ids: of the clips.
        grids: positions among them → whitened grids [B, 128, H, 21].
        states: of their prompts, [n, L, d].
        mask: of the states, [n, L], where the U-Net has one.
        process: training process; says what is predicted.
        batch: clips computed at once.
    """
    steps = len(process.betas)

    def drawn(clip_id: str, quarter: int, shape: torch.Size) -> tuple[Tensor, Tensor]:
        own = generator(0, "validation", clip_id, quarter)
        noise = torch.randn(shape, generator=own)
        return noise, ((quarter + torch.rand((), generator=own)) / QUARTERS * steps).long()

    def look(module: nn.Module) -> list[float]:
        device = next(module.parameters()).device
        total = torch.zeros(QUARTERS, dtype=torch.float64)
        for first in range(0, len(clip_ids), batch):
            picks = list(range(first, min(first + batch, len(clip_ids))))
            grid = grids(picks).cpu()
            heard = states[picks].to(device), None if mask is None else mask[picks].to(device)
            for quarter in range(QUARTERS):
                pairs = [drawn(clip_ids[i], quarter, grid.shape[1:]) for i in picks]
                noise, t = (torch.stack(part) for part in zip(*pairs, strict=True))
                noisy, target = unet.noised(process, grid, noise, t)
                out = unet.denoise(module, noisy.to(device), t.to(device), *heard)
                total[quarter] += (out.float().cpu() - target).square().mean((1, 2, 3)).double().sum()
        quarters = (total / len(clip_ids)).tolist()
        return [sum(quarters) / QUARTERS, *quarters]

    columns = ("loss", *(f"loss_{number}" for number in range(1, QUARTERS + 1)))
    return Watch(FILE, columns, every, look)


def _place(clip_id: str) -> float:
    """A clip's place in [0, 1)."""
    return seed_for(0, "held out", clip_id) / 2**63
