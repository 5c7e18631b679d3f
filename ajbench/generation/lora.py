"""LoRA on the attention of the denoiser (Hu et al. 2021): projections become W + BA; A and B are trained."""

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ajbench.core import tensor_shapes
from ajbench.core.errors import IntegrityError
from ajbench.core.files import replacing

FILE = "pytorch_lora_weights.safetensors"  # the name that diffusers' loaders expect
PREFIX = "unet"  # of the keys, so that a pipeline's loader knows the part
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


def add(unet: UNet2DConditionModel, rank: int, seed: int) -> list[nn.Parameter]:
    """Add adapters to every attention of a frozen U-Net and return their parameters, the trainable ones.

    B is initialised with zeros, so the U-Net's output does not change; A is random.

    Args:
        unet: on the CPU; changed in place.
        rank: of BA; the scale is 1 (α = rank, the default of loaders).
        seed: of A.
    """
    from peft import LoraConfig

    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(TARGETS)))
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


def save(unet: UNet2DConditionModel, file: Path) -> None:
    """Write the adapters in the format of diffusers' loaders, whole or not at all."""
    from peft.utils import get_peft_model_state_dict

    tensors = get_peft_model_state_dict(unet)
    # diffusers' own writer stores the targets in an order that differs from run to run.
    named = {f"{PREFIX}.{name}": tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(file) as part:
        save_file(named, part, metadata={"format": "pt"})


def merge(unet: UNet2DConditionModel, folder: Path) -> None:
    """Merge the adapters in `folder` into the weights of the U-Net: W becomes W + BA.

    Raises:
        IntegrityError: the file is missing, damaged or of another U-Net.
    """
    try:
        tensors = load_file(folder / FILE)
        _need_fitting(unet, tensors)
        # The layers are created with random weights before those of the file are loaded.
        with torch.random.fork_rng([]):
            # Without the file's metadata, in which a stranger may name any rank.
            unet.load_lora_adapter(tensors, prefix=PREFIX)
    except MemoryError:
        raise
    except Exception as error:  # of several libraries, depending on the damaged bytes
        reason = " ".join(str(error).split())[:160]
        raise IntegrityError(f"{folder / FILE}: not LoRA of this U-Net ({reason})") from None
    unet.fuse_lora()
    unet.unload_lora()


def _need_fitting(unet: UNet2DConditionModel, tensors: Mapping[str, Tensor]) -> None:
    """Refuse adapters of other sizes, before layers of these sizes are made.

    Raises:
        ValueError, KeyError: A is not [rank, in] and B [out, rank] of a matrix [out, in] of the U-Net.
    """
    matrices = {name: tensor.shape for name, tensor in unet.state_dict().items() if tensor.ndim == 2}
    expected: dict[str, tuple[int, ...]] = {}
    for name, tensor in tensors.items():
        place, _, part = name.rpartition(".lora_")
        if part == "A.weight":
            out, into = matrices[f"{place.removeprefix(f'{PREFIX}.')}.weight"]
            expected |= {name: (len(tensor), into), f"{place}.lora_B.weight": (out, len(tensor))}
    if fault := tensor_shapes.difference(expected, {name: tuple(t.shape) for name, t in tensors.items()}):
        raise ValueError(fault)
