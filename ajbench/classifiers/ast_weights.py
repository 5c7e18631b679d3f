"""Initial weights of an AST: timm's distilled DeiT, or a checkpoint of transformers' AST."""

import re
from pathlib import Path
from typing import Any

import timm
import torch

from ajbench import classifiers
from ajbench.classifiers.pretrained import Weights
from ajbench.classifiers.saved_folder import need_on_hub
from ajbench.core.errors import IntegrityError, MissingError, UsageError

PATCH = 16
IMAGENET = {768: "deit_base_distilled_patch16_384", 384: "deit_small_distilled_patch16_224"}
MODEL_TYPE = "audio-spectrogram-transformer"
# Defaults of transformers' ASTConfig, which a config.json may omit.
_DEFAULTS = {
    "num_attention_heads": 12,
    "num_mel_bins": 128,
    "max_length": 1024,
    "frequency_stride": 10,
    "time_stride": 10,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
}
# Names in transformers → names here, applied in this order.
_RENAMED = {
    r"^audio_spectrogram_transformer\.": "",
    r"^embeddings\.distillation_token": "dist_token",
    r"^embeddings\.position_embeddings": "pos_embed",
    r"^embeddings\.patch_embeddings\.projection": "patch",
    r"^embeddings\.": "",
    r"^encoder\.layer\.(\d+)\.": r"blocks.\1.",
    r"\.attention\.attention\.": ".attn.",
    r"\.attention\.output\.dense\.": ".attn.proj.",
    r"\.intermediate\.dense\.": ".mlp.fc1.",
    r"\.output\.dense\.": ".mlp.fc2.",
    r"\.layernorm_before\.": ".norm1.",
    r"\.layernorm_after\.": ".norm2.",
    r"^layernorm\.": "norm.",
    r"^classifier\.layernorm\.": "head.0.",
    r"^classifier\.dense\.": "head.1.",
}


def patches(size: int, stride: int) -> int:
    """Return how many patches fit along an axis of `size`."""
    return (size - PATCH) // stride + 1


def imagenet(width: int, depth: int) -> Weights:
    """Fetch the first `depth` blocks of timm's distilled DeiT, with patch weights summed over RGB.

    Raises:
        UsageError: there are no ImageNet weights of this width.
        MissingError: timm cannot download them.
    """
    name = _of_width(width)
    try:
        deit = timm.create_model(name, pretrained=True)
    except Exception as error:  # the hub's client has no common base of its errors
        raise MissingError(_unreachable(name, error)) from None
    state = deit.state_dict()
    state["patch.weight"] = state.pop("patch_embed.proj.weight").sum(dim=1, keepdim=True)
    state["patch.bias"] = state.pop("patch_embed.proj.bias")
    side = round((state["pos_embed"].shape[1] - 2) ** 0.5)
    dropped = ("head", *(f"blocks.{i}." for i in range(depth, len(deit.blocks))))
    body = {name: tensor for name, tensor in state.items() if not name.startswith(dropped)}
    return Weights("imagenet", body, deit.blocks[0].attn.num_heads, grid=(side, side))


def need_imagenet(width: int) -> None:
    """Raise what `imagenet` would, without a download: the hub is only asked whether it has the weights."""
    name = _of_width(width)
    config: Any = timm.get_pretrained_cfg(name)
    try:
        need_on_hub(config.hf_hub_id)
    except Exception as error:  # the hub's client has no common base of its errors
        raise MissingError(_unreachable(name, error)) from None


def _of_width(width: int) -> str:
    if width in IMAGENET:
        return IMAGENET[width]
    raise UsageError(
        f"init=imagenet: no weights of width {width}; widths: {', '.join(map(str, sorted(IMAGENET)))}"
    )


def _unreachable(name: str, error: Exception) -> str:
    return (
        f"init=imagenet: timm cannot download {name} ({' '.join(str(error).split())[:160]}); "
        "go online once, copy the hub's cache (HF_HOME) from another machine, or train without init"
    )


def transformers(folder: Path) -> Weights:
    """Read a checkpoint of transformers' ASTForAudioClassification (`MIT/ast-finetuned-audioset-*`).

    Raises:
        MissingError: a file is missing.
        IntegrityError: damaged, or another model.
    """
    written = classifiers.read_json(folder)
    config: dict[str, Any] = _DEFAULTS | written
    if config.get("model_type") != MODEL_TYPE or config["hidden_act"] != "gelu":
        raise IntegrityError(
            f"init={folder}: {classifiers.CONFIG} is neither of a classifier trained by ajbench nor of "
            f"transformers' AST (model_type {MODEL_TYPE}, hidden_act gelu)"
        )
    state = classifiers.read_weights(folder)
    for theirs, ours in _RENAMED.items():
        state = {re.sub(theirs, ours, name): tensor for name, tensor in state.items()}
    for name in [name for name in state if ".attn.query." in name]:
        parts = [name.replace("query", part) for part in ("query", "key", "value")]
        if state.keys() >= set(parts):
            state[name.replace("query", "qkv")] = torch.cat([state.pop(part) for part in parts])
    try:
        bands = patches(config["num_mel_bins"], config["frequency_stride"])
        grid = bands, patches(config["max_length"], config["time_stride"])
        labels = _labels(written.get("id2label") or {})
        norm_eps = float(config["layer_norm_eps"])
        return Weights(str(folder), state, config["num_attention_heads"], labels, grid, norm_eps)
    except (TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(f"init={folder}: {classifiers.CONFIG} is damaged ({error})") from None


def _labels(names: dict[str, str]) -> tuple[str, ...] | None:
    """Return the class names in order; None for transformers' placeholders (LABEL_0)."""
    ordered = tuple(names[key] for key in sorted(names, key=int))
    return None if not ordered or all(re.fullmatch(r"LABEL_\d+", name) for name in ordered) else ordered
