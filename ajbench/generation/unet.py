"""The denoiser, diffusers' text-conditioned U-Net on the whitened grid, and its noise schedule."""

from typing import Any, Literal

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor

CHANNELS = 128  # of the codec's latents
CROSS_DIM = 768  # Stable Diffusion's; the projection from the text encoder's width is part of the U-Net
TRAIN_TIMESTEPS = 1000

# What has no counterpart in Stable Diffusion: other channels, and the paper's projection of the text, which
# diffusers calls so. Appendix B.4's first phase trains these alone.
ENDS = ("conv_in.", "conv_out.", "encoder_hid_proj.")

Preset = Literal["tiny", "small", "full"]
Prediction = Literal["epsilon", "v_prediction"]

# The first width is never below the latents' 128 channels: noise of full rank has to pass through it, as
# these U-Nets have no skip from input to output.
PRESETS: dict[Preset, dict[str, Any]] = {
    "tiny": {
        "widths": (128, 128, 192),
        "attention": (False, False, True),
        "layers": 1,
        "heads": 4,
        "pooled": True,
    },
    "small": {
        "widths": (192, 384, 512),
        "attention": (False, True, True),
        "layers": 1,
        "heads": 8,
        "pooled": True,
    },
    # Stable Diffusion 1.4's (appendix B); its checkpoint's blocks fit all but conv_in and conv_out.
    "full": {
        "widths": (320, 640, 1280, 1280),
        "attention": (True, True, True, False),
        "layers": 2,
        "heads": 8,
        "pooled": False,
    },
}


def build(
    preset: Preset,
    text_dim: int,
    cross_dim: int = CROSS_DIM,
    seed: int = 0,
    prediction: Prediction = "epsilon",
) -> UNet2DConditionModel:
    """Return a U-Net with random weights: noisy grid [B, 128, H, 21], t [B], states [B, L, text_dim] ⇒ noise.

    With v-prediction it returns the velocity, of which it first predicts 0: for whitened data without any
    structure that is the optimum, so that training begins with the structure. Predicting the noise, the
    network has to learn to pass on its input before anything else.

    `encoder_hid_proj` is the learned projection text_dim → cross_dim. Presets with `pooled` also add the
    text, pooled over its tokens, to the time embedding: from there it reaches every block at once, where
    cross-attention alone takes thousands of steps to matter. H and 21 need not be divisible by the
    downsampling: diffusers then hands each upsampler the size of its skip connection.
    """
    shape = PRESETS[preset]
    attention, reverse = shape["attention"], tuple(reversed(shape["attention"]))
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = UNet2DConditionModel(
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            block_out_channels=shape["widths"],
            down_block_types=tuple("CrossAttnDownBlock2D" if here else "DownBlock2D" for here in attention),
            up_block_types=tuple("CrossAttnUpBlock2D" if here else "UpBlock2D" for here in reverse),
            layers_per_block=shape["layers"],
            attention_head_dim=shape["heads"],  # diffusers means the number of heads
            cross_attention_dim=cross_dim,
            encoder_hid_dim=text_dim,
            encoder_hid_dim_type="text_proj",
            addition_embed_type="text" if shape["pooled"] else None,
            addition_embed_type_num_heads=max(1, text_dim // 64),
        )
    if prediction == "v_prediction":
        for parameter in model.conv_out.parameters():
            torch.nn.init.zeros_(parameter)
    return model


def noise_schedule(prediction: Prediction = "epsilon") -> DDPMScheduler:
    """Return the training process of Table A10: cosine, 1,000 steps; there the network predicts the noise."""
    return DDPMScheduler(
        num_train_timesteps=TRAIN_TIMESTEPS,
        beta_schedule="squaredcos_cap_v2",
        prediction_type=prediction,
        clip_sample=False,
    )


def noised(process: DDPMScheduler, grid: Tensor, noise: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return noisy grids at timesteps [B], √ᾱ · grid + √(1 − ᾱ) · noise, and what is to be predicted of them.

    That is what `process` says: the noise, or the velocity √ᾱ · noise − √(1 − ᾱ) · grid.
    """
    velocity = process.config["prediction_type"] == "v_prediction"
    target = process.get_velocity(grid, noise, t) if velocity else noise
    return process.add_noise(grid, noise, t), target


def denoise(
    unet: UNet2DConditionModel, noisy: Tensor, t: Tensor, states: Tensor, mask: Tensor | None
) -> Tensor:
    """Predict noise or velocity in grids [B, 128, H, 21] at timesteps [B], given text states [B, L, d].

    With a mask, bool [B, L], states of padding are not looked at.
    """
    if mask is not None:
        states = states * mask[..., None].to(states)  # pooling knows no mask
    out: Tensor = unet(
        noisy, t, encoder_hidden_states=states, encoder_attention_mask=mask, return_dict=False
    )[0]
    return out
