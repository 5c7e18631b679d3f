"""What every extractor has in common, and one that loads its network on first use."""

import functools
import importlib.util
import inspect
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ajbench.core import memory, registry, weights
from ajbench.core.device import Array, device_of, full_fp32, to_numpy
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.data import audio
from ajbench.data.corpora import audioset

if TYPE_CHECKING:  # cached features need only the hash of the weights, not torch
    import torch


class Extractor(ABC):
    """Clips → embeddings and, if it knows classes, logits.

    A subclass sets the attributes, loads its network in `__init__` and implements `compute`. What it can do
    without being loaded (classes, frames, texts) stands where it is registered: `registry.ExtractorEntry`.

    Args:
        name: in `registry.FEATURES`.
        path: its weights; None for the usual places.
        device: where it computes; None for the device of this process.

    Attributes:
        weights: where its weights are, checked against the published hash if they are in the usual places;
            None if it has none.
        sample_rate: Hz of the clips that it takes; eval-gen converts to it.
        labels: names of the classes, one per logit; empty if it knows no classes.
        mids: AudioSet ids of the classes; None if unknown.
        min_samples: length to which eval-gen pads shorter clips with zeros.
        max_samples: length to which it cuts longer ones; None for no limit.

    Raises:
        MissingError: the weights, or a package, are not there.
        IntegrityError: the weights are damaged, another network's, or not the published ones.
    """

    sample_rate: int = audio.SAMPLE_RATE
    labels: Sequence[str] = ()
    mids: Sequence[str] | None = None
    min_samples: int = 4_000
    max_samples: int | None = None

    def __init__(
        self, name: str, path: Path | str | None = None, device: "torch.device | None" = None
    ) -> None:
        self.name, self.device = name, device or device_of()
        self.weights = cast(Path, locate(name, path))  # None only if it has no weights
        if path is None and self.weights is not None and not registry.FEATURES[name].shipped:
            weights.check(weights.files_of(name)[0].name, self.weights)

    @abstractmethod
    def compute(self, wav: "torch.Tensor") -> "tuple[Array, Array | None]":
        """Return features [B, d] or [B, k, d], and logits [B, C] before any link or None.

        Args:
            wav: float32 [B, n] at `sample_rate`, on `device`; gradients are off.
        """

    def __call__(self, wav: Array) -> tuple[np.ndarray, np.ndarray]:
        """Return features [B, d] or [B, k, d] and logits [B, C], float32, of wav [B, n] at `sample_rate`.

        Raises:
            MissingError: memory is so short that they may be wrong.
        """
        import torch

        with torch.inference_mode(), full_fp32(), memory.reserved():
            features, logits = self.compute(torch.as_tensor(wav, dtype=torch.float32, device=self.device))
            if logits is None:
                logits = np.zeros((len(wav), 0))
        found = [to_numpy(values).astype(np.float32, order="C", copy=False) for values in (features, logits)]
        return found[0], found[1]

    def features(self, wav: Array) -> np.ndarray:
        """Return the embeddings [B, d], or [B, k, d] of an extractor of frames."""
        return self(wav)[0]

    def logits(self, wav: Array) -> np.ndarray:
        """Return the logits [B, C], before any link; C is 0 if it knows no classes."""
        return self(wav)[1]

    def text(self, prompts: Sequence[str]) -> np.ndarray:
        """Return the embeddings [n, d] of texts, of unit norm, in the space of the features.

        Raises:
            UsageError: it embeds no text.
        """
        raise UsageError(f"features {self.name}: no embeddings of text, which clap_score needs; use clap")

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn whatever goes wrong while `weights` are loaded into one line that names them.

        Raises:
            IntegrityError: they are not a state dict of this network.
        """
        try:
            yield
        except (
            AttributeError, KeyError, RuntimeError, TypeError, ValueError, AssertionError, ArithmeticError,
        ) as error:  # fmt: skip
            reason = " ".join(str(error).split())[:160]
            raise IntegrityError(
                f"features {self.name}: {self.weights} does not hold the weights of {self.name} ({reason}); "
                "get it again"
            ) from None

    def refuse_short(self, wav: "torch.Tensor") -> None:
        """Refuse clips [B, n] that are shorter than `min_samples`.

        Raises:
            UsageError: they are.
        """
        if wav.shape[-1] < self.min_samples:
            raise UsageError(
                f"features {self.name}: clips of {wav.shape[-1] / self.sample_rate:.3f} s; at least "
                f"{self.min_samples / self.sample_rate:.3f} s are needed: raise data.duration_s or use mn04"
            )


class AudioSetTagger(Extractor):
    """An extractor whose logits are of the 527 classes of AudioSet, which are read when asked for."""

    @functools.cached_property
    def labels(self) -> Sequence[str]:  # type: ignore[override]
        """Names of the classes."""
        return audioset.label_set().names

    @functools.cached_property
    def mids(self) -> Sequence[str] | None:  # type: ignore[override]
        """AudioSet ids of the classes."""
        return audioset.label_set().mids


class Reference(Extractor):
    """The `reference` extractor: a classifier trained by the same recipe on real clips.

    Its weights are the folder that `train-cls` wrote. Values of different recipes, and published ones, are
    not comparable.
    """

    def __init__(
        self, name: str, path: Path | str | None = None, device: "torch.device | None" = None
    ) -> None:
        super().__init__(name, path, device)
        from ajbench import classifiers

        self.classifier = classifiers.load(self.weights, device)
        self.labels = self.classifier.labels
        self.min_samples = self.max_samples = int(self.classifier.config["clip_samples"])

    def compute(self, wav: "torch.Tensor") -> tuple[Array, Array]:
        """Return the penultimate embeddings [B, d] and the logits [B, C]."""
        return self.classifier.outputs(wav)

    def logits(self, wav: Array) -> np.ndarray:
        """Return the logits [B, C] alone, in half the time of both."""
        return to_numpy(self.classifier.predict(wav)).astype(np.float32, copy=False)


class LazyExtractor:
    """An extractor whose network is loaded on first use; the identity of its weights is known before.

    Args:
        name: of the extractor.
        path: its weights; None for the usual places.

    Attributes:
        weights_hash: identity of the weights; of an extractor without any, of its source file.

    Raises:
        UsageError: the name is unknown.
        MissingError: the weights are not there.
    """

    sample_rate: int
    labels: Sequence[str]
    mids: Sequence[str] | None
    min_samples: int
    max_samples: int | None

    def __init__(self, name: str, path: Path | str | None = None) -> None:
        registry.check("features", name)
        self.name, self._path = name, path
        entry = registry.FEATURES[name]
        self.classes, self.frames, self.texts = entry.classes, entry.frames, entry.texts
        self.weights_hash = _identity(name, locate(name, path))

    @functools.cached_property
    def extractor(self) -> Extractor:
        """The extractor itself."""
        found: Extractor = registry.resolve("features", self.name)(self.name, self._path)
        return found

    def __getattr__(self, attribute: str) -> Any:
        """Return what only the loaded extractor knows."""
        if attribute.startswith("_") or attribute == "extractor":
            raise AttributeError(attribute)
        return getattr(self.extractor, attribute)

    def __call__(self, wav: Array) -> tuple[np.ndarray, np.ndarray]:
        """Return (features [B, d] or [B, k, d], logits [B, C])."""
        return self.extractor(wav)


def locate(name: str, path: Path | str | None = None) -> Path | None:
    """Return where the weights of an extractor are; None if it has none.

    Args:
        name: of the extractor.
        path: what the user named; None for the usual places.

    Raises:
        MissingError: they are not there, or the package that reads them is not installed.
    """
    entry = registry.FEATURES[name]
    if entry.package and importlib.util.find_spec(entry.package) is None:
        raise MissingError(
            f"features {name}: the package {entry.package} is not installed; "
            f"`pip install 'ajbench[{entry.extra}]'`, or use mn04"
        )
    if entry.shipped:
        return Path(path) if path else Path(__file__).parents[1] / entry.shipped
    if name == "reference":
        if path is None:
            raise MissingError("features reference: no classifier trained on real clips; run train-cls first")
        return Path(path)
    if (published := entry.weights or name) not in {file.name for file in weights.listed()}:
        return Path(path) if path is not None else None
    instead = "use features tiny (in a recipe: reference)"
    return weights.locate(published, path, who=f"features {name}", instead=instead)


def _identity(name: str, path: Path | None) -> str:
    if name == "reference":
        from ajbench.classifiers import read_config

        assert path is not None
        return str(read_config(path)["xxh3"])
    files = [path] if path else []
    target = registry.FEATURES[name].target
    if not (isinstance(target, str) and target.startswith("ajbench.")):
        # An extractor that the user registered changes with its code; in a notebook it has no file.
        try:
            files.append(Path(inspect.getfile(registry.resolve("features", name))))
        except (OSError, TypeError):
            return f"unsaved-{time.time_ns()}"
    return "-".join(map(weights.identity, files)) or name
