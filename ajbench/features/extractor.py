"""Extractors by name: clips → embeddings and logits, over which distances between sets of clips are taken."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ajbench.core import registry
from ajbench.core.device import Array, to_numpy
from ajbench.core.errors import MissingError, UsageError
from ajbench.data import audio
from ajbench.data.store import ClipStore
from ajbench.features import weights

if TYPE_CHECKING:  # of kept features only the weights' hash is needed, and neither torch nor a network
    import torch

NO_REFERENCE = "features reference need a classifier trained on real clips: run train-cls first"


class Extractor(Protocol):
    """What FD, IS and KL need of a model: wav [B, n], float32 at `sample_rate` Hz, in; float32 NumPy out.

    Stores are at 16 kHz: `extract` converts for an extractor of another rate, called by itself it does not.
    `mids` are the AudioSet ids of `labels`, None where they are not known; a network that knows no classes
    has no labels, and logits [B, 0]. Clips have `min_samples` to `max_samples` samples (None: no limit). An
    extractor with `frames` gives k frames per clip: its features are [B, k, d].
    """

    name: str
    sample_rate: int
    labels: Sequence[str]
    mids: Sequence[str] | None
    min_samples: int
    max_samples: int | None
    frames: bool

    def __call__(self, wav: Array) -> tuple[np.ndarray, np.ndarray]:
        """Return (features [B, d] or [B, k, d], logits [B, C])."""

    def features(self, wav: Array) -> np.ndarray:
        """Return the embeddings [B, d], or [B, k, d]."""

    def logits(self, wav: Array) -> np.ndarray:
        """Return the logits [B, C], one column a label, before any link."""


class Reference:
    """The `reference` extractor: a classifier trained by the same recipe on real clips.

    Values of different recipes, and published ones, are not comparable.

    Args:
        path: checkpoint folder of `train-cls`.
        device: where it computes; None is that of this process.

    Raises:
        MissingError: no path was given or nothing is there.
    """

    name = "reference"
    sample_rate = audio.SAMPLE_RATE
    mids = None
    frames = False

    def __init__(self, path: Path | str | None = None, device: "torch.device | None" = None) -> None:
        if path is None:
            raise MissingError(NO_REFERENCE)
        from ajbench import classifiers

        self.classifier = classifiers.load(path, device)
        self.labels: Sequence[str] = self.classifier.labels
        self.min_samples = self.max_samples = int(self.classifier.config["clip_samples"])

    def __call__(self, wav: Array) -> tuple[np.ndarray, np.ndarray]:
        """Return (features [B, d], logits [B, C]) of wav [B, n]."""
        return self.features(wav), self.logits(wav)

    def features(self, wav: Array) -> np.ndarray:
        """Return the penultimate embeddings [B, d] of wav [B, n]."""
        return to_numpy(self.classifier.embed(wav)).astype(np.float32, copy=False)

    def logits(self, wav: Array) -> np.ndarray:
        """Return the logits [B, C] of wav [B, n]."""
        return to_numpy(self.classifier.predict(wav)).astype(np.float32, copy=False)


class LazyExtractor:
    """An extractor whose network is loaded when it is first asked for; its weights are known before.

    Args:
        name: of the extractor.
        path: of its weights; None is their usual place.

    Attributes:
        weights_hash: of the weights, a file or a folder.

    Raises:
        UsageError: the name is unknown.
        MissingError: there are no weights.
    """

    def __init__(self, name: str, path: Path | str | None = None) -> None:
        registry.check("features", name)
        self.name, self._path = name, path
        if name != "reference":
            self.weights_hash = weights.identity(weights.locate(name, path))
        elif path is not None:
            from ajbench.classifiers.checkpoint import read_config

            self.weights_hash = str(read_config(Path(path))["xxh3"])
        else:
            raise MissingError(NO_REFERENCE)

    @functools.cached_property
    def extractor(self) -> Extractor:
        """The extractor itself."""
        return load(self.name, self._path)

    @property
    def sample_rate(self) -> int:
        """Hz that it hears."""
        return self.extractor.sample_rate

    @property
    def labels(self) -> Sequence[str]:
        """The classes of its logits."""
        return self.extractor.labels

    @property
    def mids(self) -> Sequence[str] | None:
        """AudioSet ids of those classes, where they are known."""
        return self.extractor.mids

    @property
    def min_samples(self) -> int:
        """Samples that a clip has at least."""
        return self.extractor.min_samples

    @property
    def max_samples(self) -> int | None:
        """Samples that a clip has at most."""
        return self.extractor.max_samples

    @property
    def frames(self) -> bool:
        """Whether it hears k frames in a clip rather than the clip; known by its name, without loading it."""
        return self.name in registry.FRAMES

    @property
    def texts(self) -> bool:
        """Whether it reads text; known by its name."""
        return self.name in registry.TEXTS

    def __call__(self, wav: Array) -> tuple[np.ndarray, np.ndarray]:
        """Return (features [B, d] or [B, k, d], logits [B, C])."""
        return self.extractor(wav)

    def text(self, prompts: Sequence[str]) -> np.ndarray:
        """Return the embeddings [n, d] of prompts, of length 1, in the space of the features.

        Raises:
            UsageError: this network knows no text.
        """
        if not self.texts:
            raise UsageError(f"features {self.name}: read no text, which a CLAP score needs; use clap")
        network: Any = self.extractor
        found: np.ndarray = network.text(prompts)
        return found


def load(name: str, path: Path | str | None = None) -> Extractor:
    """Return the extractor `name` of `registry.FEATURES`, its weights from `path` or their usual place.

    Raises:
        UsageError: the name is unknown.
        MissingError: the weights are not there.
        IntegrityError: the file there holds something else.
    """
    extractor: Extractor = registry.resolve("features", name)(path)
    return extractor


def extract(
    extractor: Extractor, clips: ClipStore | Iterable[Array], batch: int = 16
) -> tuple[np.ndarray, np.ndarray]:
    """Return (features [N, d], logits [N, C]) of all clips in their order; audio is held one batch at a time.

    Where the extractor hears another rate than 16 kHz each batch is converted, as `audio.at_rate`.

    Args:
        extractor: the model, one that hears clips rather than frames.
        clips: a store, or batches of wav [b, n] at 16 kHz (whose sizes are then kept).
        batch: clips at once from a store.

    Raises:
        MissingError: there is not one clip.
    """
    batches = of_store(clips, np.arange(len(clips)), batch) if isinstance(clips, ClipStore) else clips
    parts = [extractor(audio.at_rate(wav, extractor.sample_rate)) for wav in batches]
    if not parts:
        raise MissingError(f"features {extractor.name}: there is no clip to extract from")
    features, logits = (np.concatenate(part) for part in zip(*parts, strict=True))
    return features, logits


def of_store(store: ClipStore, indices: np.ndarray, batch: int) -> Iterator[np.ndarray]:
    """Yield the clips `indices` of a store in batches of wav [b, n]."""
    for start in range(0, len(indices), batch):
        yield store.audio(indices[start : start + batch])
