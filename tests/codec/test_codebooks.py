"""Codebooks in training: how they start, what becomes of unused codes."""

import pytest
import torch

from ajbench.codec import codebooks
from ajbench.codec.tiny_network import TinyCodec


def test_codebooks_start_on_the_residuals_and_unused_codes_are_revived():
    torch.manual_seed(0)
    network = TinyCodec()
    latents = torch.randn(4096, 128) @ torch.diag(torch.linspace(2, 0.1, 128))
    codebooks.start(network.quantizer, latents, frames_per_step=1024, iterations=2)
    books = [layer._codebook for layer in network.quantizer.vq.layers]
    codes = network.quantizer.eval().encode(latents.T[None], 50, None)
    error = (network.quantizer.decode(codes)[0].T - latents).square().mean() / latents.var()
    assert error < 0.25
    assert sum(float(book.cluster_size.sum()) for book in books) == pytest.approx(8 * 1024, rel=1e-3)
    books[3].cluster_size[:100] = 0.0
    books[3].embed[:100] = 1e6
    assert codebooks.revive(network.quantizer, latents) >= 100
    assert books[3].embed.abs().max() < 10
    assert float(books[3].cluster_size[:100].min()) == 0.5
