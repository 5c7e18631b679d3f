"""3 × 3 convolutions with 16 products for four outputs instead of 36: Winograd's F(2×2, 3×3), on a CPU.

Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks". PyTorch's library has it on CPUs
with AVX-512 alone. Of layers with many channels the transforms cost little, and the 16 products are matrix
products.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

# Bᵀ of the paper, a row each: of four rows, the first ± the second.
_INPUT = ((0, 2, -1), (1, 2, 1), (2, 1, -1), (1, 3, -1))
_TILES = 4_000_000  # values at once, 16 MB: more would leave the cache
_KERNEL = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))


class Room:
    """Memory that layers use in turn: touching what is fresh from the system costs as much as computing."""

    def __init__(self) -> None:
        self._values = torch.empty(0)

    def take(self, like: Tensor, *shapes: tuple[int, ...]) -> list[Tensor]:
        """Return tensors of these shapes, of the kind of `like`; they hold anything, until the next call."""
        sizes = [math.prod(shape) for shape in shapes]
        kind = self._values.dtype, self._values.device
        if kind != (like.dtype, like.device) or len(self._values) < sum(sizes):
            self._values = like.new_empty(sum(sizes))
        parts = self._values[: sum(sizes)].split(sizes)
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


class Winograd(nn.Module):
    """A convolution of 3 × 3, padded by one, for inference; equal to about 1e-6 of the largest output.

    Args:
        conv: the convolution that it stands for.
        room: shared by the layers of a network, which one thread at a time may run.
    """

    kernel: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv2d, room: Room) -> None:
        super().__init__()
        assert conv.kernel_size == (3, 3) and conv.padding == (1, 1) and conv.stride == (1, 1), conv
        assert conv.groups == 1 and conv.bias is not None, conv
        outputs, inputs = conv.weight.shape[:2]
        g = torch.tensor(_KERNEL, dtype=conv.weight.dtype)
        kernel = torch.einsum("ij,kcjl,ml->imck", g, conv.weight.detach(), g)
        self.register_buffer("kernel", kernel.reshape(16, inputs, outputs))
        self.register_buffer("bias", conv.bias.detach())
        self.room = room

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, outputs, H, W] of [B, inputs, H, W], both best in channels-last order."""
        batch, inputs, height, width = x.shape
        rows, columns = (height + 1) // 2, (width + 1) // 2
        out = x.new_empty(batch, 2 * rows, 2 * columns, len(self.bias))
        padded = functional.pad(x, (1, 2 * columns + 1 - width, 1, 2 * rows + 1 - height)).movedim(1, 3)
        clips = max(1, _TILES // (16 * rows * columns * inputs))
        for some, done in zip(padded.split(clips), out.split(clips), strict=True):
            self._convolve(some, done)
        return out[:, :height, :width].movedim(3, 1)

    def _convolve(self, padded: Tensor, out: Tensor) -> None:
        """Write to out [B, 2R, 2C, outputs] what padded [B, 2R + 2, 2C + 2, inputs] gives."""
        batch, height, width, outputs = out.shape
        rows, columns, inputs = height // 2, width // 2, padded.shape[-1]
        cells = (batch, rows, columns)
        tiles, products, row, half = self.room.take(
            padded,
            (4, 4, *cells, inputs),
            (4, 4, *cells, outputs),
            (batch, rows, width + 2, inputs),
            (4, *cells, outputs),
        )
        down = [padded[:, k : k + 2 * rows : 2] for k in range(4)]
        for i, (first, second, sign) in enumerate(_INPUT):
            torch.add(down[first], down[second], alpha=sign, out=row)
            along = [row[:, :, k : k + 2 * columns : 2] for k in range(4)]
            for j, (left, right, factor) in enumerate(_INPUT):
                torch.add(along[left], along[right], alpha=factor, out=tiles[i, j])
        torch.bmm(tiles.view(16, -1, inputs), self.kernel, out=products.view(16, -1, outputs))
        for k, sign in ((0, 1), (1, -1)):  # p₀ + p₁ + p₂ and p₁ − p₂ − p₃, down and then along
            torch.add(products[k], products[k + 1], alpha=sign, out=half).add_(products[k + 2], alpha=sign)
            torch.add(half[0].add_(self.bias), half[1], out=out[:, k::2, 0::2]).add_(half[2])
            torch.sub(half[1].add_(self.bias), half[2], out=out[:, k::2, 1::2]).sub_(half[3])
