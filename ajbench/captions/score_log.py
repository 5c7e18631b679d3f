"""What a language model answered about pairs of texts, kept in a file for a run that was interrupted."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ajbench.core.documents import parse_json
from ajbench.core.errors import IntegrityError
from ajbench.core.recipe import fingerprint

Pair = tuple[str, str]


class ScoreLog:
    """Numbers of pairs in k repeats: lines of JSON, appended as they come.

    A last line that a killed process has not finished is dropped. Lines of another model, prompt, number of
    repeats or seed are left alone and not used.

    Args:
        path: of the file.
        about: all that affects the numbers.

    Raises:
        IntegrityError: the file is damaged.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path, self.key = path, fingerprint(dict(about))
        self._known: dict[Pair, list[float]] = {}
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            path.write_bytes(whole)
        try:
            for line in whole.splitlines():
                key, visual, audio, numbers = parse_json(line)
                if key == self.key:
                    self._known[visual, audio] = numbers
        except (ValueError, TypeError) as error:
            raise IntegrityError(f"{path}: damaged ({error}); remove it") from None

    def __contains__(self, pair: Pair) -> bool:
        return pair in self._known

    def add(self, pairs: Sequence[Pair], numbers: NDArray[np.float64]) -> None:
        """Keep the numbers [k, N] of pairs; those without a number in a repeat are not kept."""
        found = {
            pair: own.tolist() for pair, own in zip(pairs, numbers.T, strict=True) if not np.isnan(own).any()
        }
        self._known |= found
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            for pair, own in found.items():
                file.write(json.dumps([self.key, *pair, own], ensure_ascii=False) + "\n")

    def of(self, pairs: Sequence[Pair]) -> NDArray[np.float64]:
        """Return the numbers [k, N] of pairs that are known."""
        return np.array([self._known[pair] for pair in pairs], np.float64).T
