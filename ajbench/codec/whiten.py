"""Codec latents [B, C, T] ⇔ the grid [B, C, T/21, 21] of zero mean and unit deviation that U-Nets see."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from ajbench.audio import FRAME_MULTIPLE
from ajbench.errors import NumericError, UsageError


@dataclass(frozen=True)
class Whitening:
    """Per-channel statistics of the train split's latents.

    Attributes:
        mean: one value per channel, float64 precision.
        std: population standard deviation per channel, above zero.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            raise UsageError(f"whitening: {len(self.mean)} means but {len(self.std)} deviations")
        pairs = enumerate(zip(self.mean, self.std, strict=True))
        bad = [channel for channel, (mean, std) in pairs if not (abs(mean) < math.inf and 0 < std < math.inf)]
        if bad:
            raise NumericError(
                f"whitening: channel {bad[0]} has mean {self.mean[bad[0]]} and deviation {self.std[bad[0]]} "
                f"({len(bad)} such channels); latents must be finite and vary: use more or other clips"
            )

    @classmethod
    def fit(cls, latents: Iterable[torch.Tensor]) -> "Whitening":
        """Return the statistics of a stream of latents [B, C, T] (any B and T), accumulated in float64.

        Batches are merged by Chan's parallel update, so that a mean far from zero costs no precision and
        memory holds one batch.

        Raises:
            UsageError: the stream is empty.
            NumericError: a channel is not finite or never varies.
        """
        count = 0
        mean = squares = torch.zeros(0, dtype=torch.float64)
        for batch in latents:
            rows = batch.detach().double().transpose(0, 1).flatten(1).cpu()
            n = rows.shape[1]
            if n == 0:
                continue
            batch_mean = rows.mean(1)
            batch_squares = (rows - batch_mean[:, None]).square().sum(1)
            if count == 0:
                count, mean, squares = n, batch_mean, batch_squares
                continue
            shift = batch_mean - mean
            squares = squares + batch_squares + shift.square() * (count * n / (count + n))
            mean = mean + shift * (n / (count + n))
            count += n
        if count == 0:
            raise UsageError("whitening: no latents to fit on; the train split is empty")
        return cls(tuple(mean.tolist()), tuple((squares / count).sqrt().tolist()))

    def grid(self, latents: torch.Tensor) -> torch.Tensor:
        """Whiten latents [B, C, T] and view them row-major as [B, C, T/21, 21].

        Raises:
            UsageError: T is not a multiple of 21 or C is not the number of channels fitted on.
        """
        if latents.ndim != 3 or latents.shape[1] != len(self.mean):
            raise UsageError(f"whitening: latents {tuple(latents.shape)}, expected [B, {len(self.mean)}, T]")
        batch, channels, frames = latents.shape
        if frames % FRAME_MULTIPLE:
            raise UsageError(
                f"whitening: {frames} frames are not a multiple of {FRAME_MULTIPLE}; change data.duration_s"
            )
        white = (latents - _column(self.mean, latents)) / _column(self.std, latents)
        return white.reshape(batch, channels, frames // FRAME_MULTIPLE, FRAME_MULTIPLE)

    def latents(self, grid: torch.Tensor) -> torch.Tensor:
        """Undo `grid`: [B, C, H, 21] ⇒ latents [B, C, 21·H], equal to the input up to float rounding."""
        if grid.ndim != 4 or grid.shape[1] != len(self.mean) or grid.shape[3] != FRAME_MULTIPLE:
            raise UsageError(
                f"whitening: grid of {tuple(grid.shape)}, expected [B, {len(self.mean)}, H, {FRAME_MULTIPLE}]"
            )
        flat = grid.flatten(2)
        return flat * _column(self.std, flat) + _column(self.mean, flat)

    def to_json(self) -> dict[str, list[float]]:
        """Return what `store.json` and a generator's folder keep; floats survive the round trip exactly."""
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, document: Mapping[str, Sequence[float]]) -> "Whitening":
        """Undo `to_json`."""
        return cls(tuple(map(float, document["mean"])), tuple(map(float, document["std"])))


def _column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]
