"""EnCodec's network, small and with random weights, and waves that use many of its codes."""

import warnings

import numpy as np
import torch
from encodec import EncodecModel
from encodec.modules import SEANetDecoder, SEANetEncoder
from encodec.quantization import ResidualVectorQuantizer

N = 21 * 640  # 42 frames at 16 kHz, 63 at 24 kHz


def build(seed=0, n_q=32):
    """EnCodec's 24 kHz network with 4 filters, not 32, and random weights; codebooks shrink by 2 a stage."""
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(seed)
        model = EncodecModel(
            SEANetEncoder(channels=1, n_filters=4, norm="weight_norm", causal=True),
            SEANetDecoder(channels=1, n_filters=4, norm="weight_norm", causal=True),
            ResidualVectorQuantizer(dimension=128, n_q=n_q, bins=1024),
            [1.5, 3.0, 6, 12.0, 24.0],
            24_000,
            1,
        ).eval()
        # Codebooks drawn from the encoder's own range, so that many different entries are used.
        spread, mean = torch.std_mean(model.encoder(wave(4)[:, None]).detach(), (0, 2))
        for stage, layer in enumerate(model.quantizer.vq.layers):
            layer._codebook.embed.copy_(torch.randn(1024, 128) * spread * 0.5**stage)
            layer._codebook.inited.fill_(1)
        model.quantizer.vq.layers[0]._codebook.embed.add_(mean)
    return model


def wave(batch, n=N, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(n) / 16_000
    pitch, beat = rng.uniform(100, 4000, (batch, 1)), rng.uniform(1, 9, (batch, 1))
    tones = np.sin(2 * np.pi * pitch * t) * np.sin(2 * np.pi * beat * t)
    return torch.from_numpy((0.3 * tones + 0.02 * rng.normal(size=(batch, n))).astype(np.float32))
