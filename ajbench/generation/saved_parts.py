"""The parts in a generator's folder, which may come from a stranger: only what ajbench writes is accepted.

Sizes are bounded before a network is built from them: a million layers would be built for hours.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel

from ajbench.codec.whitening import Whitening
from ajbench.core import tensor_shapes
from ajbench.core.documents import read_json
from ajbench.core.errors import AjbenchError, IntegrityError
from ajbench.generation import unet
from ajbench.generation.checkpoint import GeneratorInfo

MAX_BLOCKS = 8
LARGEST = {
    "block_out_channels": 4096,
    "layers_per_block": 8,
    "attention_head_dim": 256,
    "cross_attention_dim": 16_384,
}


def read_unet(folder: Path, info: GeneratorInfo) -> UNet2DConditionModel:
    """Load the denoiser in `folder/unet`, on the CPU in float32.

    Raises:
        IntegrityError: its configuration is not one that ajbench writes, or its weights are damaged.
    """
    path = folder / "unet" / "config.json"
    config = _document(path)
    for key, most in LARGEST.items():
        values = config.get(key)
        for value in values if isinstance(values, list) else [values]:
            if type(value) is not int or not 1 <= value <= most:
                raise _differs(path, key)
    widths, downs = config["block_out_channels"], config.get("down_block_types")
    if not (isinstance(widths, list) and isinstance(downs, list) and len(downs) == len(widths) <= MAX_BLOCKS):
        raise _differs(path, "down_block_types")
    shape = {
        "widths": tuple(widths),
        "attention": tuple(kind == "CrossAttnDownBlock2D" for kind in downs),
        "layers": config["layers_per_block"],
        "heads": config["attention_head_dim"],
        "pooled": config.get("addition_embed_type") == "text",
    }
    cross_dim = config["cross_attention_dim"]
    # Earlier versions projected states that had the width of the attention already.
    projected = config.get("encoder_hid_dim") is not None
    text_dim = config["encoder_hid_dim"] if projected else cross_dim
    if type(text_dim) is not int or not 1 <= text_dim <= LARGEST["cross_attention_dim"]:
        raise _differs(path, "encoder_hid_dim")
    try:
        with torch.device("meta"):
            expected = unet.shaped(shape, text_dim, cross_dim, projected)
    except (ValueError, TypeError, RuntimeError) as error:
        raise IntegrityError(f"{path}: sizes do not fit each other ({error})") from None
    _compare(path, config, expected)
    shapes = tensor_shapes.of_network(lambda: expected)
    try:
        # Before loading: it takes memory for tensors that the files lack.
        if fault := tensor_shapes.difference(
            shapes, tensor_shapes.of_files(path.parent.glob("*.safetensors"))
        ):
            raise ValueError(fault)
        model: UNet2DConditionModel = UNet2DConditionModel.from_pretrained(
            path.parent, local_files_only=True, use_safetensors=True
        )
    except (AjbenchError, MemoryError):
        raise
    except Exception as error:  # of several libraries, depending on the damaged bytes
        reason = " ".join(str(error).split())[:160]
        raise IntegrityError(f"{path.parent}: not the weights of a U-Net {info.preset} ({reason})") from None
    return model


def read_schedule(folder: Path) -> dict[str, Any]:
    """Return the configuration of the training noise schedule in `folder/scheduler`.

    Raises:
        IntegrityError: it is damaged, or not one that ajbench trains with.
    """
    path = folder / "scheduler" / "scheduler_config.json"
    config = _document(path)
    prediction = config.get("prediction_type")
    if prediction not in ("epsilon", "v_prediction"):
        raise _differs(path, "prediction_type")
    _compare(path, config, unet.noise_schedule(prediction))
    return dict(DDPMScheduler.load_config(path.parent, local_files_only=True))


def read_whitening(folder: Path) -> Whitening:
    """Return the whitening in `folder/whitening.json`.

    Raises:
        IntegrityError: it is damaged, or not of the codec's channels.
    """
    path = folder / "whitening.json"
    try:
        found = Whitening.from_json(_document(path))
    except (KeyError, TypeError, ValueError, OverflowError, AjbenchError) as error:
        raise IntegrityError(f"{path}: damaged ({' '.join(str(error).split())[:120]})") from None
    rows = found.basis or ((0.0,) * unet.CHANNELS,) * unet.CHANNELS
    if {len(found.mean), len(rows), *map(len, rows)} != {unet.CHANNELS}:
        raise IntegrityError(f"{path}: not statistics of {unet.CHANNELS} channels")
    return found


def _document(path: Path) -> dict[str, Any]:
    try:
        tree = read_json(path)
    except FileNotFoundError:
        raise IntegrityError(f"{path}: missing; train the generator again") from None
    except ValueError as error:
        raise IntegrityError(f"{path}: damaged ({error})") from None
    if not isinstance(tree, dict):
        raise IntegrityError(f"{path}: damaged (not a JSON object)")
    return tree


def _compare(path: Path, config: Mapping[str, Any], expected: Any) -> None:
    """Refuse a configuration with other values, or with keys that the class does not have."""
    if config.get("_class_name") != type(expected).__name__:
        raise _differs(path, "_class_name")
    known = {key: value for key, value in dict(expected.config).items() if not key.startswith("_")}
    for key, value in config.items():
        if not key.startswith("_") and (key not in known or _plain(value) != _plain(known[key])):
            raise _differs(path, key)
    if lost := sorted(known.keys() - config.keys() - {*getattr(expected.config, "_use_default_values", ())}):
        raise _differs(path, lost[0])


def _plain(value: Any) -> Any:
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _differs(path: Path, key: str) -> IntegrityError:
    return IntegrityError(f"{path}: {key[:80]} is not as ajbench writes it; train the generator again")
