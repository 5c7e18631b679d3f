"""The codebooks of a codec in training: how they start, how unused codes are revived, and several processes.

The encodec package moves every code to the average of the latents that chose it, over steps. Several
processes have to count each other's latents, or their codebooks drift apart.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor


@torch.no_grad()
def start(quantizer: Any, latents: Tensor, frames_per_step: int, iterations: int = 8) -> None:
    """Initialise every codebook with k-means centres of its residuals; latents [N, 128], N over 1024."""
    residual = latents
    for book in _books(quantizer):
        centres = residual[torch.randperm(len(residual))[: len(book.embed)]]
        for _ in range(iterations):
            nearest = _nearest(residual, centres)
            counts = torch.bincount(nearest, minlength=len(centres)).to(residual.dtype)
            sums = torch.zeros_like(centres).index_add_(0, nearest, residual)
            spare = residual[torch.randint(len(residual), (len(centres),))]
            centres = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), spare)
        every = torch.ones(len(centres), dtype=torch.bool, device=centres.device)
        _set_codes(book, every, centres, counts * frames_per_step / len(residual))
        residual = residual - centres[_nearest(residual, centres)]


@torch.no_grad()
def revive(quantizer: Any, latents: Tensor, below: float = 0.05) -> int:
    """Move codes used less than `below` times per step to residuals of latents [N, 128]; return how many."""
    residual, moved = latents, 0
    for book in _books(quantizer):
        unused = book.cluster_size < below
        if count := int(unused.sum()):
            picks = residual[torch.randint(len(residual), (count,))]
            _set_codes(book, unused, picks, picks.new_full((count,), 0.5))
            moved += count
        residual = residual - book.embed[_nearest(residual, book.embed)]
    return moved


@contextmanager
def moved_together(quantizer: Any) -> Iterator[None]:
    """Around a forward pass: codes are moved by the latents of all processes, as one process would by all.

    An average a becomes d · a + (1 − d) · n_r in process r, with decay d and its own sum n_r. All of them
    have the same a, so that d · a + (1 − d) · Σ n_r is their sum less W − 1 times d · a.
    """
    processes = PartialState().num_processes
    if processes == 1 or not quantizer.training:
        yield
        return
    books = _books(quantizer)
    averages = [average for book in books for average in (book.cluster_size, book.embed_avg)]
    before = torch.cat([average.flatten() for average in averages])
    yield
    with torch.no_grad():
        own = torch.cat([average.flatten() for average in averages])
        decay = books[0].decay
        together = reduce(own, "sum") - (processes - 1) * decay * before
        parts = together.split([average.numel() for average in averages])
        for average, part in zip(averages, parts, strict=True):
            average.copy_(part.view_as(average))
        for book in books:
            _follow(book)


def _books(quantizer: Any) -> list[Any]:
    return [layer._codebook for layer in quantizer.vq.layers]


def _nearest(points: Tensor, centres: Tensor) -> Tensor:
    return (centres.square().sum(1) - 2 * points @ centres.T).argmin(dim=1)


def _set_codes(book: Any, which: Tensor, codes: Tensor, used: Tensor) -> None:
    book.embed[which], book.embed_avg[which], book.cluster_size[which] = codes, codes * used[:, None], used


def _follow(book: Any) -> None:
    """Set the codes to their averages, as the encodec package does at the end of a forward pass."""
    from encodec.quantization.core_vq import laplace_smoothing

    total = book.cluster_size.sum()
    size = laplace_smoothing(book.cluster_size, book.codebook_size, book.epsilon) * total
    book.embed.copy_(book.embed_avg / size[:, None])
