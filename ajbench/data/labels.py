"""Label sets, class names in the order of a model's outputs; and those outputs for clips, on disk."""

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ajbench.core.device import to_numpy
from ajbench.core.documents import parse_json, read_arrays
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.files import atomic_write, composed
from ajbench.core.registry import suggest


@dataclass(frozen=True)
class LabelSet:
    """Class names in index order, with AudioSet machine ids (`mids`) if known.

    Raises:
        UsageError: a repeated name or mid, an empty name, or another number of mids than names.
    """

    names: tuple[str, ...]
    mids: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if any(not name.strip() for name in self.names):
            raise UsageError("label set: a label is empty; give every class a name")
        for what, values in (("label", self.names), ("mid", self.mids or ())):
            value, count = max(Counter(values).items(), key=itemgetter(1), default=("", 0))
            if count > 1:
                raise UsageError(f"label set: {what} {value!r} occurs {count} times; use each only once")
        if self.mids is not None and len(self.mids) != len(self.names):
            raise UsageError(
                f"label set: names: {len(self.names)}, mids: {len(self.mids)}; give one mid per name"
            )

    @classmethod
    def from_names(cls, names: Iterable[str]) -> "LabelSet":
        """Return the label set of the distinct `names`, sorted."""
        return cls(tuple(sorted(set(names))))

    @cached_property
    def _indices(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}

    def alike(self) -> list[tuple[str, str]]:
        """Return pairs of names that differ only in case, blanks, or how accents are written."""
        first: dict[str, str] = {}
        keys = (" ".join(composed(name).split()).casefold() for name in self.names)
        pairs = ((first.setdefault(key, name), name) for key, name in zip(keys, self.names, strict=True))
        return [pair for pair in pairs if pair[0] != pair[1]]

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._indices

    def index(self, name: str) -> int:
        """Return the output index of class `name`.

        Raises:
            UsageError: no such class; the message suggests a similar one.
        """
        if name not in self._indices:
            shown = ", ".join(self.names[:10]) + (f", … ({len(self)} in all)" if len(self) > 10 else "")
            raise UsageError(f"label {name!r} is unknown{suggest(name, self.names)}; allowed: {shown}")
        return self._indices[name]

    def multi_hot(self, labels: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        """Return multi-hot targets [N, C] of clips given by their label names."""
        targets = np.zeros((len(labels), len(self)), dtype=np.float32)
        counts = np.fromiter(map(len, labels), dtype=np.int64, count=len(labels))
        columns = np.fromiter((self.index(name) for row in labels for name in row), dtype=np.int64)
        targets[np.repeat(np.arange(len(labels)), counts), columns] = 1.0
        return targets

    def to_json(self) -> str:
        """Return the label set as a JSON object with `names` and `mids`."""
        return json.dumps({"names": self.names, "mids": self.mids}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "LabelSet":
        """Return the label set that `to_json` wrote."""
        tree = parse_json(text)
        return cls(tuple(tree["names"]), None if tree["mids"] is None else tuple(tree["mids"]))


@dataclass(frozen=True)
class Scores:
    """Predictions on the evaluation clips."""

    scores: np.ndarray  # logits, float32 [n, C]
    targets: np.ndarray  # 0 or 1, [n, C]
    clip_ids: tuple[str, ...]
    labels: tuple[str, ...]
    recordings: tuple[str, ...]  # that the clips were cut from; a clip's id where it is unknown


def save_scores(path: Path, scores: Any, targets: Any, clip_ids: Any, labels: Any, recordings: Any) -> Path:
    """Write the predictions of one classifier as an npz of plain arrays, atomically.

    Args:
        path: the file.
        scores: logits [n, C].
        targets: 0 or 1, [n, C].
        clip_ids: n ids, in the order of the rows.
        labels: C class names.
        recordings: of the n clips.

    Raises:
        UsageError: the shapes do not match.
    """
    arrays: dict[str, Any] = {
        "scores": to_numpy(scores).astype(np.float32),
        "targets": to_numpy(targets).astype(np.uint8),
        "clip_ids": np.asarray(list(clip_ids), dtype=np.str_),
        "labels": np.asarray(list(labels), dtype=np.str_),
        "recordings": np.asarray(list(recordings), dtype=np.str_),
    }
    if problem := _mismatch(arrays):
        raise UsageError(f"{path}: {problem}")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    atomic_write(path, buffer.getvalue())
    return path


def load_scores(path: Path) -> Scores:
    """Read the file that `save_scores` wrote.

    Raises:
        MissingError: there is no such file.
        IntegrityError: the file is damaged or has other contents.
    """
    try:
        found = read_arrays(path)
        arrays = {name: found[name] for name in ("scores", "targets", "clip_ids", "labels", "recordings")}
    except FileNotFoundError:
        raise MissingError(f"{path}: no predictions; run `ajbench train-cls`") from None
    except (ValueError, KeyError) as error:
        raise IntegrityError(f"{path}: not readable ({error}); train the classifier again") from None
    if problem := _mismatch(arrays):
        raise IntegrityError(f"{path}: {problem}; train the classifier again")
    names = (tuple(arrays[name].tolist()) for name in ("clip_ids", "labels", "recordings"))
    return Scores(arrays["scores"], arrays["targets"], *names)


def _mismatch(arrays: Mapping[str, np.ndarray]) -> str | None:
    shape = arrays["scores"].shape
    if len(shape) != 2 or arrays["targets"].shape != shape:
        return f"scores {shape} and targets {arrays['targets'].shape} must both be [clips, classes]"
    if arrays["clip_ids"].shape != shape[:1] or arrays["labels"].shape != shape[1:]:
        return f"scores {shape} with {arrays['clip_ids'].size} clip ids and {arrays['labels'].size} labels"
    if arrays["recordings"].shape != shape[:1]:
        return f"scores {shape} with {arrays['recordings'].size} recordings"
    return None
