"""From a codec with latents in all dimensions to one in the subspace of their principal components.

Eight codewords of 10 bits cannot follow 128 noisy mel bands. Of the first version's latents one direction
has most of the variance, and the weakest 80 together less than a hundredth. Without these, and with the
variances of the others closer to each other, the bits go to the shape of the spectrum.
"""

import torch
from torch import Tensor

from ajbench.codec.tiny_network import (
    CLICK_FRAMES,
    NOISE_BINS,
    NOISE_FRAMES,
    NOISE_PER_CLICK,
    TONE_BINS,
    TinyCodec,
)

RANK = 48
# A component of standard deviation d gets the deviation d^(1 - 2·POWER), before one scale for all.
POWER = 0.25
# Log gain of clicks to that of the noise at the same frequency in the beginning: a twentieth of its power.
CLICK_LEVEL = -2.65


@torch.no_grad()
def narrowed(codec: TinyCodec, latents: Tensor, rank: int = RANK) -> TinyCodec:
    """Return a codec of `rank` that gives what `codec` gives, up to the components that are left out.

    Its codebooks are not those of `codec`, whose space is another; clicks are quiet.

    Args:
        codec: with latents in all dimensions (rank None).
        latents: [N, 128], N over `rank`, to which the components are fitted.
        rank: components kept.
    """
    assert codec.config["rank"] is None, "the codec has a subspace already"
    variance, directions = torch.linalg.eigh(torch.cov(latents.double().T))
    variance, directions = variance.flip(0)[:rank], directions.flip(1)[:, :rank]
    scale = variance.clamp(min=1e-6 * float(variance[0])) ** -POWER
    scale = scale / (variance * scale.square()).mean().sqrt()
    into, back = (directions * scale).float(), (directions / scale).T.float()  # [128, rank], [rank, 128]
    mean = latents.double().mean(0).float()
    small = TinyCodec(**{**codec.config, "rank": rank}).to(mean.device)
    mine, theirs = small.state_dict(), codec.state_dict()
    for name, tensor in theirs.items():
        if not name.startswith("quantizer") and mine[name].shape == tensor.shape:
            mine[name].copy_(tensor)
    for layer, shift in (("encoder_out.1", torch.zeros_like(mean)), ("encoder_skip", mean)):
        mine[f"{layer}.weight"].copy_(into.T @ theirs[f"{layer}.weight"])
        mine[f"{layer}.bias"].copy_(into.T @ (theirs[f"{layer}.bias"] - shift))
    kernel = theirs["decoder_in.weight"]
    mine["decoder_in.weight"].copy_(torch.einsum("oit,ri->ort", kernel, back))
    # The first convolution is padded with zeros, which are now the mean: only the ends of a clip differ.
    mine["decoder_in.bias"].copy_(theirs["decoder_in.bias"] + kernel.sum(2) @ mean)
    mine["decoder_skip.weight"].copy_(theirs["decoder_skip.weight"] @ back.T)
    tones, noise, _ = small.parts
    mine["head.weight"][: tones + noise].copy_(theirs["head.weight"])
    level = theirs["decoder_skip.weight"] @ mean
    bias = mine["head.bias"]
    bias[: tones + noise].copy_(theirs["head.bias"])
    bias[:TONE_BINS] += level[:TONE_BINS]
    bias[tones : tones + noise].view(-1, len(level) - TONE_BINS).add_(level[TONE_BINS:])
    clicks_from_noise(small)
    return small


@torch.no_grad()
def clicks_from_noise(codec: TinyCodec) -> None:
    """Let clicks follow the noise, which clicks from nothing would take thousands of steps to learn."""
    tones, noise, _ = codec.parts
    frame = torch.arange(CLICK_FRAMES) * NOISE_FRAMES // CLICK_FRAMES
    rows = (tones + frame[:, None] * NOISE_BINS + torch.arange(NOISE_BINS)[::NOISE_PER_CLICK]).flatten()
    codec.head.weight[tones + noise :] = codec.head.weight[rows]
    codec.head.bias[tones + noise :] = codec.head.bias[rows] + CLICK_LEVEL
