"""Every published file of weights that ajbench can load: where it is from, how large, with which hash.

The facts stand in `weights.csv`, beside this file. A size or a hash that is not known is left empty there:
such a file is "not pinned", and nothing can be said of it but that it is there.
"""

import csv
import functools
import re
from pathlib import Path
from typing import NamedTuple

from ajbench.core import weights
from ajbench.core.errors import IntegrityError, UsageError
from ajbench.core.files import sha256
from ajbench.core.registry import suggest

TABLE = Path(__file__).with_name("weights.csv")
ALSO = {"encodec": "encodec_24khz"}  # features by another name than their weights
_HUB = re.compile(r"https://huggingface\.co/([^/]+/[^/]+)/resolve/[^/]+/(.+)")


class WeightFile(NamedTuple):
    """A published file.

    Attributes:
        name: of the weights that it belongs to; some have several files.
        used_for: which part of ajbench loads it.
        file: its place below `$AJBENCH_WEIGHTS`.
        url: where it is published.
        bytes: its size, where known.
        sha256: in hexadecimal, empty where not known.
        licence: under which it is published.
    """

    name: str
    used_for: str
    file: str
    url: str
    bytes: int | None
    sha256: str
    licence: str

    def find(self) -> Path | None:
        """Return where it is: in `$AJBENCH_WEIGHTS`, or in the hub's cache (torch's, if not of the hub)."""
        if own := weights.own(self.file):
            return own
        if hub := _HUB.fullmatch(self.url):
            return weights.cached([hub[1]], hub[2])
        downloaded = weights.torch_cache() / self.file
        return downloaded if downloaded.is_file() else None

    def fault(self, path: Path) -> str | None:
        """Return what is wrong with size or hash of a file that should be this one, if anything is."""
        if self.bytes is not None and (size := path.stat().st_size) != self.bytes:
            return f"{size} bytes, {self.bytes} are published"
        if self.sha256 and (found := sha256(path)) != self.sha256:
            return f"SHA-256 begins with {found[:8]}, that of the published file with {self.sha256[:8]}"
        return None


@functools.cache
def listed() -> tuple[WeightFile, ...]:
    """Return all of them in the table's order."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return tuple(
            WeightFile(**(row | {"bytes": int(row["bytes"]) if row["bytes"] else None}))  # type: ignore[arg-type]
            for row in csv.DictReader(file)
        )


def files_of(name: str) -> list[WeightFile]:
    """Return the files of the weights of a name, or of the features of a name.

    Raises:
        UsageError: there are none; the message lists the names.
    """
    if not (found := [file for file in listed() if file.name == ALSO.get(name, name)]):
        names = list(dict.fromkeys(file.name for file in listed()))
        raise UsageError(f"weights {name!r}: unknown{suggest(name, names)}; allowed: {', '.join(names)}")
    return found


def check(file: WeightFile, path: Path) -> None:
    """Refuse a file that is not the published one; of one that is not pinned nothing is known.

    Raises:
        IntegrityError: another size or hash.
    """
    if wrong := file.fault(path):
        raise IntegrityError(f"{path}: {wrong}; remove it and get it again from {file.url}")
