"""Files of YouTube clips, found by what downloaders call them.

`<id>`, `<id>_<start>` or `<id>_<start>_<end>` (also `<start>-<end>`), in seconds or milliseconds, the id
perhaps after `Y` (PANNs) or `id_`; in any folder, with any suffix that is read here.
"""

import math
import os
import re
from collections.abc import Container, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ajbench.core.errors import MissingError, UsageError
from ajbench.data import audio

ID_LENGTH = 11
UNREAD = (".aac", ".m4a", ".mkv", ".mp4", ".webm", ".wma")  # what downloads may have been left as

_ID = re.compile(r"[\w-]{11}", re.ASCII)
_PREFIXES = ("", "Y", "id_")
_TIMES = re.compile(r"_(\d+(?:\.\d+)?)(?:[_-]\d+(?:\.\d+)?)?", re.ASCII)
_KEPT = frozenset((*audio.SUFFIXES, *UNREAD))


class File(NamedTuple):
    """A file, and the start that its name tells: seconds or milliseconds, None without one."""

    start: float | None
    path: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.rpartition(os.sep)[2]

    @property
    def suffix(self) -> str:
        """The suffix in small letters, with its dot."""
        return _suffix(self.path)

    def starts_at(self, start_s: float) -> bool:
        """Whether the name does not speak against the file's being cut from `start_s` on."""
        start = self.start
        return start is None or int(start) == int(start_s) or round(start) == round(1000 * start_s)


def tables(root: Path, names: Iterable[str]) -> dict[str, Path]:
    """Return the tables of these names that lie in `root` or in a folder right below it.

    Raises:
        MissingError: `root` is no folder.
        UsageError: two folders below `root` have a table of the same name, and `root` has none.
    """
    if not root.is_dir():
        raise MissingError(f"{root}: no such folder")
    with os.scandir(root) as entries:
        # Folders by suffix first: in a folder of millions of sounds only few names need a closer look.
        folders = sorted(Path(e.path) for e in entries if _suffix(e.name) not in _KEPT and e.is_dir())
    found = {}
    for name in names:
        places = [folder / name for folder in folders if (folder / name).is_file()]
        if (root / name).is_file():
            found[name] = root / name
        elif len(places) > 1:
            raise UsageError(f"{places[0]}, {places[1]}: two tables of one name; put the right one in {root}")
        elif places:
            found[name] = places[0]
    return found


def check_id(text: str) -> str:
    """Return a video's id.

    Raises:
        ValueError: it is none.
    """
    if not _ID.fullmatch(text):
        raise ValueError(f"id {text!r} is not {ID_LENGTH} letters, digits, - and _")
    return text


@lru_cache(maxsize=4096)  # most segments begin at one of few times, which then share their number
def seconds(text: str) -> float:
    """Return a time from 0 s on.

    Raises:
        ValueError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(f"{text!r} is not a time in seconds")
    return value


def find(root: Path, ids: Container[str]) -> dict[str, list[File]]:
    """Return the media files below `root` by the one of `ids` in their names.

    Folders are listed once each, links to folders followed, hidden names passed over; no file is opened.

    Raises:
        MissingError: a folder cannot be listed.
    """
    found: dict[str, list[File]] = {}
    for path, stem in _media(str(root.resolve())):
        if named := parse(stem, ids):
            found.setdefault(named[0], []).append(File(named[1], path))
    return found


def parse(stem: str, ids: Container[str]) -> tuple[str, float | None] | None:
    """Return the id in a file name without suffix, and the start it tells (as written, None without one).

    Ids may hold `_` and begin with `-` or `Y`, so that only a known one is taken for one; None for no such.
    """
    if stem in ids:
        return stem, None
    for prefix in _PREFIXES:
        end = len(prefix) + ID_LENGTH
        name = stem[len(prefix) : end]
        if name in ids and stem.startswith(prefix):
            rest = stem[end:]
            if not rest:
                return name, None
            if times := _TIMES.fullmatch(rest):
                return name, seconds(times[1])
    return None


def _media(root: str) -> Iterator[tuple[str, str]]:
    """Yield (path, name without suffix) of every sound or video file in and below a folder."""
    waiting, seen = [root], {root}
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    stem, _, suffix = entry.name.rpartition(".")
                    if f".{suffix.lower()}" in _KEPT:
                        yield entry.path, stem
                    elif entry.is_dir():
                        # Links to folders are followed, though never in a circle.
                        real = os.path.realpath(entry.path)
                        if real not in seen:
                            seen.add(real)
                            waiting.append(entry.path)
        except OSError as error:
            raise MissingError(f"{folder}: cannot be listed ({error.strerror})") from None


def _suffix(name: str) -> str:
    # pathlib's takes ten times as long, which counts with millions of names.
    return "." + name.rpartition(".")[2].lower()
