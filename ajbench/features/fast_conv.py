"""Fast 3 × 3 convolutions on a CPU: Winograd's F(4×2, 3×3), with 24 products for 8 outputs instead of 72.

Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks". PyTorch has it only on CPUs with
AVX-512. All steps are matrix products: the transforms multiply the values of a tile by one small matrix, and
tiles are multiplied by the kernel over all channels. With many channels the transforms cost little. F(4×4)
needs 2.25 products per output instead of 3, but its rounding errors are several times as large.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

# Outputs of a tile in height and width; its input is larger by two each way.
_TILE = (4, 2)
_TILES = 320  # per batch: more would not fit into the cache, with fewer the products are slower
# Bᵀ, G and Aᵀ of the paper, by the length of a tile.
_INPUT = {
    2: [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
    4: [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
}
_KERNEL = {
    2: [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
    4: [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
}
_OUTPUT = {
    2: [[1, 1, 1, 0], [0, 1, -1, -1]],
    4: [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
}


class ScratchBuffer:
    """Memory that layers reuse in turn: the first use of fresh memory costs as much as computing."""

    def __init__(self) -> None:
        self._values = torch.empty(0)

    def take(self, like: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Return two uninitialised vectors [size], of the kind of `like`, valid until the next call."""
        kind = self._values.dtype, self._values.device
        if kind != (like.dtype, like.device) or len(self._values) < 2 * size:
            self._values = like.new_empty(2 * size)
        return self._values[:size], self._values[size : 2 * size]


class Winograd(nn.Module):
    """A 3 × 3 convolution with padding 1, for inference; errors are about 3e-6 of the largest output.

    Args:
        conv: the convolution that it replaces.
        scratch: shared by the layers of a network, which must not run in two threads at a time.
    """

    spread: Tensor
    kernel: Tensor
    gather: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv2d, scratch: ScratchBuffer) -> None:
        super().__init__()
        assert conv.kernel_size == (3, 3) and conv.padding == (1, 1) and conv.stride == (1, 1), conv
        assert conv.groups == 1 and conv.bias is not None, conv
        weight, bias = conv.weight.detach(), conv.bias.detach()
        (b, c), (g, h), (a, d) = (
            [weight.new_tensor(matrices[length]) for length in _TILE]
            for matrices in (_INPUT, _KERNEL, _OUTPUT)
        )
        kernel = torch.kron(g, h) @ weight.permute(2, 3, 1, 0).reshape(9, -1)
        self.register_buffer("spread", torch.kron(b, c))
        self.register_buffer("kernel", kernel.view(-1, conv.in_channels, conv.out_channels))
        self.register_buffer("gather", torch.kron(a, d))
        self.register_buffer("bias", bias)
        self.scratch = scratch

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, inputs, H, W] to [B, outputs, H, W]; channels-last memory is fastest."""
        (down, along), (batch, _, height, width) = _TILE, x.shape
        rows, columns = -(-height // down), -(-width // along)
        out = x.new_empty(batch, rows, down, columns, along, len(self.bias))
        padded = functional.pad(x, (1, along * columns + 1 - width, 1, down * rows + 1 - height))
        tiles = padded.unfold(2, down + 2, down).unfold(3, along + 2, along).permute(4, 5, 0, 2, 3, 1)
        done = out.permute(2, 4, 0, 1, 3, 5)
        bands = min(rows, max(1, _TILES // columns))
        clips = max(1, _TILES // (bands * columns))
        for i in range(0, batch, clips):
            for r in range(0, rows, bands):
                some = (..., slice(i, i + clips), slice(r, r + bands), slice(None), slice(None))
                self._convolve(tiles[some], done[some])
        return out.view(batch, down * rows, along * columns, -1)[:, :height, :width].movedim(3, 1)

    def _convolve(self, tiles: Tensor, done: Tensor) -> None:
        """Convolve tiles [6, 4, …, inputs] into done [4, 2, …, outputs]; … are the positions of the tiles."""
        inputs, outputs = self.kernel.shape[1:]
        products, places = len(self.kernel), math.prod(tiles.shape[2:-1])
        here, there = self.scratch.take(tiles, products * places * max(inputs, outputs))
        values = here[: tiles.numel()]
        values.view(tiles.shape).copy_(tiles)
        spread = torch.mm(
            self.spread, values.view(products, -1), out=there[: tiles.numel()].view(products, -1)
        )
        taken = here[: products * places * outputs]
        torch.bmm(
            spread.view(products, places, inputs), self.kernel, out=taken.view(products, places, outputs)
        )
        sums = there[: done.numel()]
        torch.mm(self.gather, taken.view(products, -1), out=sums.view(len(self.gather), -1))
        torch.add(sums.view(done.shape), self.bias, out=done)
