"""Find byte-level duplicates: rows of a manifest with the file content, start and duration of another."""

import contextlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

import xxhash

from ajbench.core import console, files
from ajbench.data import archive
from ajbench.data.audio import AudioError
from ajbench.data.clip_set import FILES_AT_ONCE, ahead
from ajbench.data.manifest import Row


def duplicates(rows: Sequence[Row], pool: Executor) -> dict[int, int]:
    """Return the index of the first such row for each row that repeats it; `pool` reads the files.

    Only files that share their size with another are read. A path that is no file only repeats itself.
    """
    paths = list(dict.fromkeys(row.path for row in rows))
    sizes = dict(zip(paths, ahead(pool, _size, paths, FILES_AT_ONCE), strict=True))
    alike = Counter(sizes.values())
    suspects = [path for path, size in sizes.items() if size is not None and alike[size] > 1]
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
