"""Classifiers by name: build, save, load, predict.

A trained classifier is a folder, here or on the hub, with `config.json` and `model.safetensors`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from ajbench.classifiers.saved_folder import (
    CARD,
    CONFIG,
    WEIGHTS,
    card,
    locate,
    read_config,
    read_json,
    read_weights,
    rebuilt,
)
from ajbench.classifiers.scoring import in_batches
from ajbench.core import registry
from ajbench.core.device import Precision, device_of, full_fp32, resolve_precision
from ajbench.core.errors import IntegrityError, UsageError
from ajbench.core.files import atomic_write, checksum, replacing
from ajbench.core.sealed_json import write_sealed
from ajbench.data.audio import SAMPLE_RATE
from ajbench.data.store import ClipStore

__all__ = [
    "CARD", "CONFIG", "WEIGHTS", "Classifier", "build", "card", "check", "is_own", "load", "locate",
    "predict", "read_config", "read_json", "read_weights", "rebuild", "rebuilt", "save",
]  # fmt: skip

# Options that choose the initial weights; a trained classifier is rebuilt without them.
INITIAL = {"init", "new_head", "labels"}


def build(name: str, num_classes: int, **options: Any) -> nn.Module:
    """Build an untrained classifier: waves [B, n] or features [B, T, F] → logits [B, C].

    Its `.frontend(wav)` returns the features that SpecAugment masks, its `.embed(x)` vectors [B, d].

    Args:
        name: `ast`, `ast-small`, `ast-tiny`, `taltrans`, `taltrans-small`.
        num_classes: C.
        options: of the model's constructor; also `init`, `new_head`, `labels`, see its `initialise`.

    Raises:
        UsageError: unknown name, or the model has no such option.
        MissingError: the weights of `init` are missing.
        IntegrityError: they are damaged or do not fit.
    """
    make = registry.resolve("classifier", name)
    initial = {key: options.pop(key) for key in INITIAL & options.keys()}
    try:
        module: nn.Module = make(num_classes, **options)
    except TypeError as error:
        raise UsageError(f"classifier {name}: options {', '.join(options)} do not fit ({error})") from None
    if initial.get("init"):
        module.initialise(**initial)  # type: ignore[operator]
    return module


def check(name: str, init: str | None, **options: Any) -> None:
    """Raise what `build` would for unknown options and missing weights; nothing is computed or downloaded.

    Classifiers that users have registered pass: their code may need tensors, or know other weights.
    """
    from accelerate import init_empty_weights

    if not is_own(name):
        return
    with init_empty_weights():
        module: Any = build(name, 1, **options)
    if init:
        module.need(init)


class Classifier:
    """A trained classifier on one device.

    Attributes:
        module: in eval mode.
        labels: names of the C classes, in the order of the logits.
        config: name, labels, clip_samples, options, the keys that the hub shows, and those of the training.
    """

    def __init__(self, module: nn.Module, config: Mapping[str, Any], device: torch.device) -> None:
        self.module = module.to(device).eval()
        self.config = dict(config)
        self.labels: tuple[str, ...] = tuple(config["labels"])
        self.device = device

    @classmethod
    def from_pretrained(cls, source: Path | str) -> "Classifier":
        """Load a trained classifier onto the device of this process.

        Args:
            source: a folder written by `train-cls` or `save_pretrained`, or a hub id (`owner/name`).

        Raises:
            MissingError: there is no trained classifier, or the hub cannot be reached.
            IntegrityError: weights or configuration are damaged or do not fit each other.
        """
        return load(locate(source))

    def save_pretrained(self, folder: Path | str) -> None:
        """Write weights, configuration and, unless there is one, a model card, ready for the hub."""
        folder = Path(folder)
        kept = {"name", "labels", "clip_samples", "options"}
        extra = {key: value for key, value in self.config.items() if key not in kept | {"xxh3", "revision"}}
        save(self.module, folder, **{key: self.config[key] for key in kept}, extra=extra)
        if not (folder / CARD).exists():
            atomic_write(folder / CARD, card(read_config(folder)))

    def predict(self, wav: Tensor | NDArray[Any], precision: Precision = "fp32") -> Tensor:
        """Waves [B, n] at 16 kHz → logits float32 [B, C] on the CPU, computed in `precision`."""
        bf16 = resolve_precision(precision, self.device.type) == "bf16"
        with torch.inference_mode(), full_fp32(), torch.autocast(self.device.type, torch.bfloat16, bf16):
            logits: Tensor = self.module(self._waves(wav))
            return logits.float().cpu()

    def embed(self, wav: Tensor | NDArray[Any]) -> Tensor:
        """Waves [B, n] at 16 kHz → penultimate vectors float32 [B, d] on the CPU."""
        with torch.inference_mode(), full_fp32():
            vectors: Tensor = self.module.embed(self._waves(wav))  # type: ignore[operator]
            return vectors.float().cpu()

    def outputs(self, wav: Tensor | NDArray[Any]) -> tuple[Tensor, Tensor]:
        """Waves [B, n] at 16 kHz → what `embed` and `predict` return, in one pass where the model can."""
        once = getattr(self.module, "outputs", None)
        if once is None:  # a registered classifier needs only `forward` and `embed`
            return self.embed(wav), self.predict(wav)
        with torch.inference_mode(), full_fp32():
            vectors, logits = once(self._waves(wav))
            return vectors.float().cpu(), logits.float().cpu()

    def _waves(self, wav: Tensor | NDArray[Any]) -> Tensor:
        waves = torch.as_tensor(wav, dtype=torch.float32)
        if waves.ndim != 2:
            raise UsageError(f"waves must be [clips, samples], found shape {tuple(waves.shape)}")
        return waves.to(self.device)


def predict(
    classifier: Classifier, store: ClipStore, indices: ArrayLike, batch: int = 32, shared: bool = False
) -> NDArray[np.float32]:
    """Return the logits float32 [n, C] of the clips `indices` [n] of a store, `batch` clips at a time.

    On a GPU they are computed in the precision of the training, elsewhere in fp32.

    Args:
        classifier: trained on this store or another with the same labels.
        store: holds the clips.
        indices: of the clips.
        batch: clips at a time.
        shared: every process of a launch calls this and computes its part; all return the whole.

    Raises:
        UsageError: the store's labels or clip length are not the classifier's.
    """
    if tuple(store.meta.labels) != classifier.labels:
        raise UsageError(f"{store.path}: not the classifier's labels; use the store that it was trained on")
    if store.meta.clip_samples != classifier.config["clip_samples"]:
        raise UsageError(
            f"{store.path}: clips of {store.meta.clip_samples} samples, but the classifier was trained on "
            f"{classifier.config['clip_samples']}"
        )
    wanted = np.asarray(indices, dtype=np.int64)
    precision: Precision = "fp32"
    if classifier.device.type == "cuda":
        precision = classifier.config.get("precision", "auto")

    def logits(places: NDArray[np.int64]) -> NDArray[np.float32]:
        return classifier.predict(store.audio(wanted[places]), precision).numpy()

    return in_batches(logits, len(wanted), len(classifier.labels), batch, shared)


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
    """Write `model.safetensors`, then `config.json`, sealed, with its checksum.

    Args:
        module: the trained classifier.
        folder: receives both files.
        name, labels, clip_samples: as in `Classifier.config`.
        options: those `build` made the module with; `init` and the like are not written.
        extra: further keys of `config.json`.
    """
    kept = {key: value for key, value in options.items() if key not in INITIAL}
    architecture = type(module).__name__
    config: dict[str, Any] = {
        "name": name,
        "labels": list(labels),
        "clip_samples": clip_samples,
        "options": kept | getattr(module, "adopted", {}),
        "revision": _revision(module),
        **extra,
        # Read and shown by the hub.
        "architectures": [architecture],
        "model_type": f"ajbench-{architecture.lower()}",
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
        "sampling_rate": SAMPLE_RATE,
    }
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in module.state_dict().items()}
    with replacing(folder / WEIGHTS) as part:
        save_file(tensors, part, metadata={"format": "pt"})
    config["xxh3"] = checksum(folder / WEIGHTS)
    write_sealed(folder / CONFIG, config, indent=1)


def load(path: Path | str, device: torch.device | None = None) -> Classifier:
    """Load a trained classifier from its folder.

    Args:
        path: the folder.
        device: None: the device of this process.

    Raises:
        MissingError: there is no trained classifier.
        IntegrityError: weights or configuration are damaged or do not fit each other.
    """
    folder = Path(path)
    config = read_config(folder)
    state = read_weights(folder, config["xxh3"])
    module = rebuild(folder, config)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise IntegrityError(f"{folder / WEIGHTS}: not the weights of {config['name']} ({reason})") from None
    return Classifier(module, config, device or device_of())


def rebuild(folder: Path, config: Mapping[str, Any]) -> nn.Module:
    """Build the classifier of a `config.json`, untrained.

    Raises:
        MissingError: its weights are missing.
        IntegrityError: they are of other sizes, or it was trained by another revision of the model, whose
            logits differ.
    """
    name, classes = config["name"], len(config["labels"])
    module = rebuilt(folder, lambda: build(name, classes, **config["options"]), is_own(name))
    found, expected = config.get("revision", 1), _revision(module)
    if found != expected:
        raise IntegrityError(
            f"{folder / CONFIG}: revision {found} of {config['name']}, but this ajbench has revision "
            f"{expected}, which computes other logits; remove the folder and train the classifier again"
        )
    return module


def is_own(name: str) -> bool:
    """Return whether a classifier is not one that users have registered, whose code may need tensors."""
    return str(registry.KINDS["classifier"].get(name)).startswith("ajbench.")


def _revision(module: nn.Module) -> int:
    return getattr(module, "revision", 1)
