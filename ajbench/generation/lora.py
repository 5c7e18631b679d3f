"""LoRA on the denoiser's attention (Hu et al. 2021): W + BA for its projections; A and B are trained."""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn

FILE = "pytorch_lora_weights.safetensors"  # as diffusers' loaders look for it
PREFIX = "unet"  # of its keys, for a pipeline's loader to know which part is meant
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


def add(unet: UNet2DConditionModel, rank: int, seed: int) -> list[nn.Parameter]:
    """Put adapters on every attention of a frozen U-Net and return their parameters, which alone are trained.

    B begins as zeros, so that the U-Net's output stays what it was; A is random.

    Args:
        unet: on the CPU; changed in place.
        rank: of BA; its scale is 1 (α = rank, what loaders take where a file does not say).
        seed: of A.
    """
    from peft import LoraConfig

    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(TARGETS)))
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


def save(unet: UNet2DConditionModel, file: Path) -> None:
    """Write the adapters as diffusers' loaders expect them, whole or not at all."""
    from peft.utils import get_peft_model_state_dict

    tensors = get_peft_model_state_dict(unet)
    part = file.with_name(f".{file.name}.tmp")
    # Not diffusers' own writer: it puts the targets into the file in an order that changes from run to run.
    save_file(
        {f"{PREFIX}.{name}": tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        part,
        metadata={"format": "pt"},
    )
    part.replace(file)


def merge(unet: UNet2DConditionModel, folder: Path) -> None:
    """Add the adapters that lie in `folder` to the U-Net's weights: W becomes W + BA, the rest stays."""
    # Layers are made with random weights before those of the file are put in.
    with torch.random.fork_rng([]):
        unet.load_lora_adapter(folder, prefix=PREFIX, weight_name=FILE, local_files_only=True)
    unet.fuse_lora()
    unet.unload_lora()
