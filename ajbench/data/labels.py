"""Label sets: class names in the order of a model's outputs."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from ajbench.core.errors import UsageError
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
        tree = json.loads(text)
        return cls(tuple(tree["names"]), None if tree["mids"] is None else tuple(tree["mids"]))
