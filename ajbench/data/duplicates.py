"""Find byte-level duplicates: rows of a manifest with the file content, start and duration of another."""

import contextlib
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import xxhash

from ajbench.core import console, files
from ajbench.data import archive
from ajbench.data.audio import AudioError
from ajbench.data.clip_set import FILES_AT_ONCE, ahead
from ajbench.data.manifest import Row

ENDS_BYTES = 4096


def duplicates(rows: Sequence[Row], pool: Executor) -> dict[int, int]:
    """Return the index of the first such row for each row that repeats it; `pool` reads the files.

    Of files that share their size, the ends are compared, and whole files where these are alike. A path that
    is no file only repeats itself.
    """
    paths = list(dict.fromkeys(row.path for row in rows))
    sizes = dict(zip(paths, ahead(pool, _size, paths, FILES_AT_ONCE), strict=True))
    suspects = _repeated({path: size for path, size in sizes.items() if size is not None})
    ends = zip(suspects, ahead(pool, _ends, suspects, FILES_AT_ONCE), strict=True)
    suspects = _repeated({path: (sizes[path], end) for path, end in ends})
    digests = {}
    if suspects:
        with console.progress(len(suspects), "compare", "files") as advance:
            for path, digest in zip(suspects, ahead(pool, _digest, suspects, FILES_AT_ONCE), strict=True):
                digests[path] = digest
                advance(1)
    first: dict[tuple[str, float, float | None], int] = {}
    found = {}
    for number, row in enumerate(rows):
        key = (digests.get(row.path, row.path), row.start_s, row.duration_s)
        if first.setdefault(key, number) != number:
            found[number] = first[key]
    return found


def _repeated(values: dict[str, Any]) -> list[str]:
    """Return the paths whose value another path has, too."""
    times = Counter(values.values())
    return [path for path, value in values.items() if times[value] > 1]


def _ends(path: str) -> bytes:
    """Hash the first and the last bytes of a file; not of a member of an archive, which is read whole."""
    if archive.is_member(path):
        return b""
    with contextlib.suppress(OSError), Path(path).open("rb") as file:
        first = file.read(ENDS_BYTES)
        file.seek(max(0, os.fstat(file.fileno()).st_size - ENDS_BYTES))
        return xxhash.xxh3_128_digest(first + file.read(ENDS_BYTES))
    return b""


def _size(path: str) -> int | None:
    if archive.is_member(path):
        return archive.size(path)
    with contextlib.suppress(OSError):
        return Path(path).stat().st_size
    return None


def _digest(path: str) -> str:
    # An unreadable file is no duplicate; decoding it will give the reason.
    with contextlib.suppress(OSError, AudioError):
        if archive.is_member(path):
            return xxhash.xxh3_64_hexdigest(archive.content(path))
        return files.checksum(Path(path))
    return path
