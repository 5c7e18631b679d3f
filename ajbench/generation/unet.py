"""The denoiser, a text-conditioned U-Net of diffusers on the whitened grid, and its noise schedule."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor

from ajbench.core.schema import Preset

CHANNELS = 128  # of the codec's latents
CROSS_DIM = 768  # of the cross-attention in Stable Diffusion; other states are projected to it
TRAIN_TIMESTEPS = 1000

# Layers without a counterpart in Stable Diffusion: input and output have other channels, and text states of
# another width are projected (`encoder_hid_proj`). The first phase of appendix B.4 trains only these.
ENDS = ("conv_in.", "conv_out.", "encoder_hid_proj.")

Prediction = Literal["epsilon", "v_prediction"]

# The first width is at least 128, the number of latent channels: full-rank noise must pass through it,
# because these U-Nets have no skip connection from input to output.
PRESETS: dict[Preset, dict[str, Any]] = {
    "tiny": dict(widths=(128, 128, 192), attention=(False, False, True), layers=1, heads=4, pooled=True),
    "small": dict(widths=(192, 384, 512), attention=(False, True, True), layers=1, heads=8, pooled=True),
    # Stable Diffusion 1.4 (appendix B): its checkpoint fits all blocks except conv_in and conv_out.
    "full": dict(
        widths=(320, 640, 1280, 1280), attention=(True, True, True, False), layers=2, heads=8, pooled=False
    ),
}


def build(
    preset: Preset,
    text_dim: int,
    cross_dim: int = CROSS_DIM,
    seed: int = 0,
    prediction: Prediction = "epsilon",
) -> UNet2DConditionModel:
    """Return a U-Net with random weights: noisy grid [B, 128, H, 21], t [B], states [B, L, text_dim] ⇒ noise.

    The weights of `conv_in` and `conv_out` are drawn by `xavier_uniform_`; their biases and all other layers
    have torch's defaults, as in the authors' notebook (`model_conv_adjuster.ipynb` in their fork of
    diffusers). With v-prediction, `conv_out` is zero instead: the U-Net returns the velocity and initially
    predicts 0, which is optimal for white data, so training starts with the structure of the data. With noise
    prediction, the network must first learn to copy its input.

    `encoder_hid_proj` is the learned projection text_dim → cross_dim. There is none if the two are equal, as
    for CLIP and CLAP (appendix C). Presets with `pooled` also add the text states, pooled over tokens, to the
    time embedding, where they reach every block at once; with cross-attention alone, text has no effect for
    thousands of steps. H and 21 need not be divisible by the downsampling factor: diffusers passes the size
    of the skip connection to each upsampler.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = shaped(PRESETS[preset], text_dim, cross_dim)
        for layer in (model.conv_in, model.conv_out):
            torch.nn.init.xavier_uniform_(layer.weight)
    if prediction == "v_prediction":
        for parameter in model.conv_out.parameters():
            torch.nn.init.zeros_(parameter)
    return model


def shaped(
    shape: Mapping[str, Any], text_dim: int, cross_dim: int, projected: bool | None = None
) -> UNet2DConditionModel:
    """Return a U-Net of a shape like those of `PRESETS`, with weights as diffusers initialises them.

    `projected`: whether text states pass a linear layer; None: if their width is not that of the attention.
    """
    attention, reverse = shape["attention"], tuple(reversed(shape["attention"]))
    projected = text_dim != cross_dim if projected is None else projected
    return UNet2DConditionModel(
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=shape["widths"],
        down_block_types=tuple("CrossAttnDownBlock2D" if here else "DownBlock2D" for here in attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if here else "UpBlock2D" for here in reverse),
        layers_per_block=shape["layers"],
        attention_head_dim=shape["heads"],  # diffusers means the number of heads
        cross_attention_dim=cross_dim,
        encoder_hid_dim=text_dim if projected else None,
        encoder_hid_dim_type="text_proj" if projected else None,
        addition_embed_type="text" if shape["pooled"] else None,
        addition_embed_type_num_heads=max(1, text_dim // 64),
    )


def noise_schedule(prediction: Prediction = "epsilon") -> DDPMScheduler:
    """Return the noise schedule of Table A10: cosine, 1,000 steps; the paper predicts the noise."""
    return DDPMScheduler(
        num_train_timesteps=TRAIN_TIMESTEPS,
        beta_schedule="squaredcos_cap_v2",
        prediction_type=prediction,
        clip_sample=False,
    )


def noised(process: DDPMScheduler, grid: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return noisy grids at timesteps t [B], √ᾱ · grid + √(1 − ᾱ) · noise, and the prediction target.

    Depending on `process` the target is the noise, or the velocity √ᾱ · noise − √(1 − ᾱ) · grid.
    """
    velocity = process.config["prediction_type"] == "v_prediction"
    target = process.get_velocity(grid, noise, t) if velocity else noise
    return process.add_noise(grid, noise, t), target


def denoise(
    unet: UNet2DConditionModel, noisy: Tensor, t: Tensor, states: Tensor, mask: Tensor | None
) -> Tensor:
    """Predict noise or velocity of grids [B, 128, H, 21] at timesteps t [B], given text states [B, L, d].

    With a mask, bool [B, L], states of padding are ignored.
    """
    if mask is not None:
        states = states * mask[..., None].to(states)  # pooling has no mask
    text = {"encoder_hidden_states": states, "encoder_attention_mask": mask}
    out: Tensor = unet(noisy, t, **text, return_dict=False)[0]
    return out
