"""What a language model answered about pairs of texts, kept in a file for a run that was interrupted."""

import json
import os
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
    """Numbers of pairs in each of some repeats: lines of JSON, appended as they come.

    A line has the numbers of a pair from the first repeat on, null where it says nothing. A last line that a
    killed process has not finished is dropped. Lines of another model, prompt, number of repeats or seed are
    left alone and not used.

    Args:
        path: of the file.
        about: all that affects the numbers.

    Raises:
        IntegrityError: the file is damaged.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path, self.key = path, fingerprint(dict(about))
        self._known: dict[tuple[Pair, int], float] = {}  # pair and repeat → number
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            os.truncate(path, len(whole))  # without a moment in which the whole lines are not there
        try:
            for line in whole.splitlines():
                key, visual, audio, numbers = parse_json(line)
                if key == self.key:
                    found = enumerate(numbers)
                    self._known |= {((visual, audio), k): one for k, one in found if one is not None}
        except (ValueError, TypeError) as error:
            raise IntegrityError(f"{path}: damaged ({error}); remove it") from None

    def add(self, repeat: int, pairs: Sequence[Pair], numbers: NDArray[np.float64]) -> None:
        """Keep the numbers [N] of pairs in a repeat, but for NaN."""
        given = zip(pairs, numbers.tolist(), strict=True)
        found = {pair: number for pair, number in given if not np.isnan(number)}
        self._known |= {(pair, repeat): number for pair, number in found.items()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            for pair, number in found.items():
                line = [self.key, *pair, [None] * repeat + [number]]
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def of(self, pairs: Sequence[Pair], repeats: int) -> NDArray[np.float64]:
        """Return the numbers of pairs [repeats, N]; NaN where none is known."""
        found = [[self._known.get((pair, repeat), np.nan) for pair in pairs] for repeat in range(repeats)]
        return np.array(found, np.float64).reshape(repeats, len(pairs))
