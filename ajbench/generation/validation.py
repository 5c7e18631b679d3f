"""The loss on held-out clips, for information only: no decision depends on it."""

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
from ajbench.training.state import Watch

FILE = "validation.csv"
CLIPS = 512  # at most; each is evaluated once in every quarter of the timesteps
QUARTERS = 4


def divide(
    store: ClipStore, pool: NDArray[np.int64], share: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the training and the validation clips: pool and val split, or two parts of the pool.

    The parts are chosen by a hash of the recording: its clips are in the same part, and stay in it when
    others are added or removed. The eval split is never used.

    Args:
        store: real clips.
        pool: indices of the clips to train on.
        share: validation part of the pool, at least one recording; 0: none. Ignored if there is a val
            split.
    """
    val = store.split_indices("val")
    if len(val) or not share:
        return pool, val
    hashes = np.array([_hash(store.recordings[i]) for i in pool])
    out = (hashes < share) | (hashes == hashes.min())
    return pool[~out], pool[out]


def watched(store: ClipStore, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return at most 512 of the clips, those whose ids have the lowest hashes."""
    order = np.argsort([_hash(store.clip_ids[i]) for i in indices], kind="stable")
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
    """Return the watch that writes `validation.csv`: mean squared error, overall and by quarter of timesteps.

    Each clip has one fixed noise and timestep in every quarter, derived from its id: the same in every run,
    at every step and for every batch size. The columns `loss_1` to `loss_4` go from little to much noise.

    Args:
        every: steps between evaluations.
        clip_ids: of the clips.
        grids: positions among the clips → whitened grids [B, 128, H, 21].
        states: text states of the prompts, [n, L, d].
        mask: of the states, [n, L]; None if the U-Net uses none.
        process: the training noise schedule, including the prediction target.
        batch: clips per forward pass.
    """
    steps = len(process.betas)

    def drawn(clip_id: str, quarter: int, shape: torch.Size) -> tuple[Tensor, Tensor]:
        own = generator(0, "validation", clip_id, quarter)
        noise = torch.randn(shape, generator=own)
        return noise, ((quarter + torch.rand((), generator=own)) / QUARTERS * steps).long()

    def evaluate(module: nn.Module) -> list[float]:
        device = next(module.parameters()).device
        total = torch.zeros(QUARTERS, dtype=torch.float64)
        for first in range(0, len(clip_ids), batch):
            picks = list(range(first, min(first + batch, len(clip_ids))))
            grid = grids(picks).cpu()
            text = states[picks].to(device), None if mask is None else mask[picks].to(device)
            for quarter in range(QUARTERS):
                pairs = [drawn(clip_ids[i], quarter, grid.shape[1:]) for i in picks]
                noise, t = (torch.stack(part) for part in zip(*pairs, strict=True))
                noisy, target = unet.noised(process, grid, noise, t)
                out = unet.denoise(module, noisy.to(device), t.to(device), *text)
                total[quarter] += (out.float().cpu() - target).square().mean((1, 2, 3)).double().sum()
        quarters = (total / len(clip_ids)).tolist()
        return [sum(quarters) / QUARTERS, *quarters]

    columns = ("loss", *(f"loss_{number}" for number in range(1, QUARTERS + 1)))
    return Watch(FILE, columns, every, evaluate)


def _hash(name: str) -> float:
    """Return a hash of a clip id or recording in [0, 1)."""
    return seed_for(0, "held out", name) / 2**63
