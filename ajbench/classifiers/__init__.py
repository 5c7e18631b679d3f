"""Classifiers by name: build one, save it, load it for use."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ajbench import registry
from ajbench.errors import IntegrityError, MissingError, UsageError
from ajbench.run import atomic_write
from ajbench.shards import checksum

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def build(name: str, num_classes: int, **options: Any) -> nn.Module:
    """Build an untrained classifier: waves [B, n] or features [B, T, F] in, logits [B, C] out.

    It has `.frontend(wav) -> features`, where SpecAugment acts, and `.embed(x) -> [B, d]`.

    Args:
        name: `ast`, `ast-small`, `ast-tiny`, `taltrans`, `taltrans-small`.
        num_classes: C.
        options: of the model's constructor.

    Raises:
        UsageError: unknown name, or an option that the model does not have.
    """
    make = registry.resolve("classifier", name)
    try:
        module: nn.Module = make(num_classes, **options)
    except TypeError as error:
        raise UsageError(f"classifier {name}: options {', '.join(options)} do not fit ({error})") from None
    return module


class Classifier:
    """A trained classifier on one device.

    Attributes:
        module: in eval mode.
        labels: names of the C classes, in the order of the logits.
        config: name, labels, clip_samples, options, and what the trainer added.
    """

    def __init__(self, module: nn.Module, config: Mapping[str, Any], device: torch.device) -> None:
        self.module = module.to(device).eval()
        self.config = dict(config)
        self.labels: tuple[str, ...] = tuple(config["labels"])
        self.device = device

    def predict(self, wav: Tensor | NDArray[Any]) -> Tensor:
        """Waves [B, n] at 16 kHz → logits float32 [B, C] on the CPU."""
        with torch.inference_mode():
            logits: Tensor = self.module(self._waves(wav))
            return logits.float().cpu()

    def embed(self, wav: Tensor | NDArray[Any]) -> Tensor:
        """Waves [B, n] at 16 kHz → penultimate vectors float32 [B, d] on the CPU."""
        with torch.inference_mode():
            vectors: Tensor = self.module.embed(self._waves(wav))  # type: ignore[operator]
            return vectors.float().cpu()

    def _waves(self, wav: Tensor | NDArray[Any]) -> Tensor:
        waves = torch.as_tensor(wav, dtype=torch.float32)
        if waves.ndim != 2:
            raise UsageError(f"waves must be [clips, samples], found shape {tuple(waves.shape)}")
        return waves.to(self.device)


def save(
    module: nn.Module,
    folder: Path,
    *,
    name: str,
    labels: Sequence[str],
    clip_samples: int,
    options: Mapping[str, Any],
    extra: Mapping[str, Any],
) -> None:
    """Write `model.safetensors` and, last, `config.json` with its checksum; `options` rebuild the module."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
    part = folder / f".{WEIGHTS}.tmp"
    save_file(state, part)
    part.replace(folder / WEIGHTS)
    config = {
        "name": name,
        "labels": list(labels),
        "clip_samples": clip_samples,
        "options": dict(options),
        **extra,
        "xxh3": checksum(folder / WEIGHTS),
    }
    atomic_write(folder / CONFIG, json.dumps(config, indent=1, ensure_ascii=False))


def read_config(folder: Path) -> dict[str, Any]:
    """Return `config.json` of a trained classifier.

    Raises:
        MissingError: nothing was trained there.
        IntegrityError: the file is damaged.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        missing = {"name", "labels", "clip_samples", "options", "xxh3"} - config.keys()
    except FileNotFoundError:
        raise MissingError(
            f"{folder}: no trained classifier ({CONFIG} is missing); run train-cls first"
        ) from None
    except (ValueError, AttributeError):
        raise IntegrityError(f"{path}: damaged; train the classifier again") from None
    if missing:
        raise IntegrityError(f"{path}: lacks {', '.join(sorted(missing))}; train the classifier again")
    return dict(config)


def load(path: Path | str) -> Classifier:
    """Load a trained classifier onto the device that training would use.

    Raises:
        MissingError: nothing was trained there.
        IntegrityError: weights or configuration are damaged or do not fit each other.
    """
    folder = Path(path)
    config = read_config(folder)
    weights = folder / WEIGHTS
    if not weights.exists():
        raise MissingError(f"{weights}: missing; train the classifier again")
    if checksum(weights) != config["xxh3"]:
        raise IntegrityError(f"{weights}: checksum mismatch; train the classifier again")
    module = build(config["name"], len(config["labels"]), **config["options"])
    try:
        module.load_state_dict(load_file(weights))
    except (RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise IntegrityError(f"{weights}: not the weights of {config['name']} ({reason})") from None
    return Classifier(module, config, PartialState().device)
