"""Codec latents [B, C, T] ⇔ the grid [B, C, T/21, 21] of zero mean and unit variance that U-Nets denoise.

The paper scales each channel. In the codec `tiny` the channels are highly correlated (one direction has 82 %
of the variance), and noise that is small in every channel hides their differences; there, principal
components are scaled instead, so that their variances come closer to each other.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from ajbench.core.errors import NumericError, UsageError
from ajbench.data.audio import FRAME_MULTIPLE
from ajbench.data.store import ClipStore

if TYPE_CHECKING:
    from ajbench.codec import Codec

Kind = Literal["channel", "pca"]
Document = dict[str, list[float] | list[list[float]]]
# Smallest variance of a component relative to the mean of all; smaller ones are rounding errors.
MIN_VARIANCE = 1e-6
BATCH = 64  # clips at once when statistics are fitted


@dataclass(frozen=True)
class Whitening:
    """Statistics of the latents of the generator's pool, per channel or per principal component.

    Attributes:
        mean: one value per channel, float64 precision.
        std: divisor of each channel or component, above zero.
        basis: principal components [C][C], orthonormal rows, the strongest first; None: channels.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    basis: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            raise UsageError(f"whitening: {len(self.mean)} means but {len(self.std)} deviations")
        pairs = enumerate(zip(self.mean, self.std, strict=True))
        bad = [channel for channel, (mean, std) in pairs if not (abs(mean) < math.inf and 0 < std < math.inf)]
        if bad:
            raise NumericError(
                f"whitening: channel {bad[0]} has mean {self.mean[bad[0]]} and deviation {self.std[bad[0]]} "
                f"({len(bad)} in all); latents must be finite and vary: use more or other clips"
            )

    @classmethod
    def fit(cls, latents: Iterable[torch.Tensor], kind: Kind = "channel") -> "Whitening":
        """Return the statistics of a stream of latents [B, C, T] (any B and T), accumulated in float64.

        Batches are merged by Chan's parallel update: a mean far from zero costs no precision, and one batch
        is in memory at a time.

        Args:
            latents: the stream.
            kind: `channel` divides every channel by its population standard deviation, as in the paper.
                `pca` rotates channels to principal components and divides each by the square root of its
                deviation and by one number for all, so that the mean variance is 1.

        Raises:
            UsageError: the stream is empty.
            NumericError: a channel is not finite, or constant.
        """
        assert kind in get_args(Kind), kind
        count = 0
        mean = squares = torch.zeros(0, dtype=torch.float64)
        for batch in latents:
            rows = batch.detach().double().transpose(0, 1).flatten(1).cpu()
            n = rows.shape[1]
            if n == 0:
                continue
            batch_mean = rows.mean(1)
            centred = rows - batch_mean[:, None]
            batch_squares = _gram(centred) if kind == "pca" else centred.square().sum(1)
            if count == 0:
                count, mean, squares = n, batch_mean, batch_squares
                continue
            shift = batch_mean - mean
            between = torch.outer(shift, shift) if kind == "pca" else shift.square()
            squares = squares + batch_squares + between * (count * n / (count + n))
            mean = mean + shift * (n / (count + n))
            count += n
        if count == 0:
            raise UsageError("whitening: no latents to fit on; the train split is empty")
        if kind == "channel":
            return cls(tuple(mean.tolist()), tuple((squares / count).sqrt().tolist()))
        each = cls(tuple(mean.tolist()), tuple((squares.diagonal() / count).sqrt().tolist()))  # raises
        variance, directions = _eigh(squares / count)
        variance, directions = variance.flip(0).clamp_min(0), directions.flip(1).T
        # The arbitrary sign is fixed by a positive largest entry. Ten digits keep the file small.
        directions = directions * directions.gather(1, directions.abs().argmax(1, keepdim=True)).sign()
        basis = tuple(tuple(round(value, 10) for value in row) for row in directions.tolist())
        # Halfway, on a logarithmic scale, between no scaling (power 0) and unit variances (power 1/2).
        scale = variance.clamp_min(MIN_VARIANCE * variance.mean()) ** 0.25
        scale = scale * (variance / scale.square()).mean().sqrt()
        return cls(each.mean, tuple(scale.tolist()), basis)

    def grid(self, latents: torch.Tensor) -> torch.Tensor:
        """Whiten latents [B, C, T] and view them row-major as [B, C, T/21, 21].

        Raises:
            UsageError: T is not a multiple of 21, or C is not the fitted number of channels.
        """
        if latents.ndim != 3 or latents.shape[1] != len(self.mean):
            raise UsageError(f"whitening: latents {tuple(latents.shape)}, expected [B, {len(self.mean)}, T]")
        batch, channels, frames = latents.shape
        if frames % FRAME_MULTIPLE:
            raise UsageError(
                f"whitening: {frames} frames are not a multiple of {FRAME_MULTIPLE}; change data.duration_s"
            )
        white = self._rotate(latents - _column(self.mean, latents)) / _column(self.std, latents)
        return white.reshape(batch, channels, frames // FRAME_MULTIPLE, FRAME_MULTIPLE)

    def latents(self, grid: torch.Tensor) -> torch.Tensor:
        """Invert `grid`: [B, C, H, 21] ⇒ latents [B, C, 21·H], up to rounding."""
        if grid.ndim != 4 or grid.shape[1] != len(self.mean) or grid.shape[3] != FRAME_MULTIPLE:
            raise UsageError(
                f"whitening: grid of {tuple(grid.shape)}, expected [B, {len(self.mean)}, H, {FRAME_MULTIPLE}]"
            )
        flat = grid.flatten(2)
        return self._rotate(flat * _column(self.std, flat), back=True) + _column(self.mean, flat)

    def to_json(self) -> Document:
        """Return the form written to `store.json` and to a generator's folder; exact for floats."""
        plain: Document = {"mean": list(self.mean), "std": list(self.std)}
        return plain if self.basis is None else {**plain, "basis": [list(row) for row in self.basis]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Whitening":
        """Invert `to_json`."""
        basis = document.get("basis")
        return cls(
            tuple(map(float, document["mean"])),
            tuple(map(float, document["std"])),
            None if basis is None else tuple(tuple(map(float, row)) for row in basis),
        )

    def _rotate(self, x: torch.Tensor, back: bool = False) -> torch.Tensor:
        if self.basis is None:
            return x
        basis = torch.tensor(self.basis, dtype=x.dtype, device=x.device)
        # One product per clip, so that the bits of a clip do not depend on the batch.
        return torch.bmm((basis.T if back else basis).expand(len(x), -1, -1), x)


def fit_to_clips(clips: ClipStore, indices: NDArray[np.int64], codec: "Codec", kind: Kind) -> Whitening:
    """Return the whitening fitted on some clips of a store."""
    starts = range(0, len(indices), BATCH)
    return Whitening.fit((codec.latents(clips.codes(indices[i : i + BATCH])) for i in starts), kind)


def _column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]


def _gram(rows: torch.Tensor) -> torch.Tensor:
    # NumPy's einsum uses neither threads nor BLAS: the same bits in every process.
    plain = rows.numpy()
    return torch.from_numpy(np.einsum("it,jt->ij", plain, plain, optimize=False))


def _eigh(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return torch.linalg.eigh(matrix)
    finally:
        torch.set_num_threads(threads)
