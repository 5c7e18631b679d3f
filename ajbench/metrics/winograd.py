"""3 × 3 convolutions with 16 products for four outputs instead of 36: Winograd's F(2×2, 3×3), on a CPU.

Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks". PyTorch's library has it on CPUs
with AVX-512 alone. Of layers with many channels the transforms cost little, and the 16 products are matrix
products.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

# Bᵀ of the paper, a row each: of four rows, the first ± the second.
_INPUT = ((0, 2, -1), (1, 2, 1), (2, 1, -1), (1, 3, -1))
_TILES = 4_000_000  # values at once, 16 MB: more would leave the cache
_KERNEL = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))


class Winograd(nn.Module):
    """A convolution of 3 × 3, padded by one, for inference; equal to about 1e-6 of the largest output.

    Args:
        conv: the convolution that it stands for.
    """

    kernel: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        assert conv.kernel_size == (3, 3) and conv.padding == (1, 1) and conv.stride == (1, 1), conv
        assert conv.groups == 1 and conv.bias is not None, conv
        outputs, inputs = conv.weight.shape[:2]
        g = torch.tensor(_KERNEL, dtype=conv.weight.dtype)
        kernel = torch.einsum("ij,kcjl,ml->imck", g, conv.weight.detach(), g)
        self.register_buffer("kernel", kernel.reshape(16, inputs, outputs))
        self.register_buffer("bias", conv.bias.detach())

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
        batch, rows, columns = out.shape[0], out.shape[1] // 2, out.shape[2] // 2
        tiles = padded.new_empty(4, 4, batch, rows, columns, padded.shape[-1])
        down = [padded[:, k : k + 2 * rows : 2] for k in range(4)]
        for i, (first, second, sign) in enumerate(_INPUT):
            row = torch.add(down[first], down[second], alpha=sign)
            along = [row[:, :, k : k + 2 * columns : 2] for k in range(4)]
            for j, (left, right, factor) in enumerate(_INPUT):
                torch.add(along[left], along[right], alpha=factor, out=tiles[i, j])
        products = torch.bmm(tiles.view(16, -1, padded.shape[-1]), self.kernel)
        p = products.view(4, 4, batch, rows, columns, -1)
        for k, half in enumerate((p[0] + p[1] + p[2], p[1] - p[2] - p[3])):
            torch.add(half[0].add_(self.bias), half[1] + half[2], out=out[:, k::2, 0::2])
            torch.sub(half[1].add_(self.bias) - half[2], half[3], out=out[:, k::2, 1::2])
