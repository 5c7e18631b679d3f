"""Sound files that changed or vanished after the corpus was listed, or after a store was made of them."""

import os
from collections.abc import Iterable, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from ajbench.core.console import counted, say_once
from ajbench.core.documents import IDS_BYTES
from ajbench.core.errors import AjbenchError, MissingError
from ajbench.core.files import checksum
from ajbench.core.recipe import Data
from ajbench.core.sealed_json import read_sealed, write_sealed
from ajbench.data import archive, noise
from ajbench.data.clip_reader import read_clip
from ajbench.data.clip_set import FILES_AT_ONCE, ahead
from ajbench.data.manifest import Manifest, Row
from ajbench.data.store import ClipStore

CHECKSUMS = "files.json"
MOST = 5_000  # files that are compared with the store; of more, evenly spaced ones


def changed(manifest: Manifest, folder: Path, data: Data) -> list[tuple[str, str]]:
    """Return clip id and checksum of the files that sound different now than in a finished store.

    Only files that are newer than the store are read. If they all sound the same, the store counts as new.

    Args:
        manifest: of the corpus.
        folder: of the store; without a finished one, nothing has changed.
        data: section of the recipe that the store was made with.
    """
    mark = folder / "DONE"
    if not mark.exists():
        return []
    since = mark.stat().st_mtime_ns
    with ThreadPoolExecutor(4) as pool:
        every = {archive.container(row.path) for row in manifest.rows}
        times = dict(ahead(pool, _time, every, FILES_AT_ONCE))
        newer = [row for row in manifest.rows if times[archive.container(row.path)] > since]
        if not newer:
            return []
        try:
            store = ClipStore.open(folder, verify=False)
        except AjbenchError:  # whoever uses it will say so
            return []
        places = {clip_id: index for index, clip_id in enumerate(store.clip_ids)}

        def differs(row: Row) -> bool:
            clip, place = read_clip(row, data.duration_s, noise=noise.of(data)), places.get(row.clip_id)
            if place is None or clip.wav is None:
                return place is not None  # a clip of the store is unusable now
            return store.flac(place) is not None and not np.array_equal(store.audio([place])[0], clip.wav)

        stride = -(-len(newer) // MOST)
        compared = newer[::stride]
        found = [row for row, other in zip(compared, pool.map(differs, compared), strict=True) if other]
    if found:
        say_once(
            f"{counted(len(found), 'file')} changed since the clips were prepared, such as {found[0].path}"
        )
    elif stride == 1:
        with suppress(OSError):
            os.utime(mark)
    return [(row.clip_id, checksum(Path(archive.container(row.path)))) for row in found]


def record(files: Mapping[str, Path], folder: Path) -> None:
    """Write the checksum of each file, by its name, into the folder of a stage that reads them all."""
    write_sealed(folder / CHECKSUMS, {name: checksum(path) for name, path in files.items()})


def since_recorded(files: Mapping[str, Path], folder: Path) -> list[tuple[str, str]]:
    """Return name and checksum of the files that have changed since a finished stage has recorded them.

    Only files that are newer than the stage are read. If they are the same, the stage counts as new.

    Raises:
        IntegrityError: what it has recorded is damaged.
    """
    mark, known = folder / "DONE", folder / CHECKSUMS
    if not mark.exists():
        return []
    since = mark.stat().st_mtime_ns
    newer = {name: path for name, path in files.items() if _time(str(path))[1] > since}
    if not newer:
        return []
    remedy = "delete its folder and run again"
    recorded = read_sealed(known, remedy, IDS_BYTES) if known.exists() else {}  # a folder of an older version
    found = [(name, checksum(path)) for name, path in newer.items()]
    if changed := [one for one in found if recorded.get(one[0]) != one[1]]:
        say_once(
            f"{counted(len(changed), 'file')} changed since the clips were read, such as {changed[0][0]}"
        )
        return changed
    with suppress(OSError):
        os.utime(mark)
    return []


def need_listed(paths: Iterable[str], absent: Set[str]) -> None:
    """Refuse a clip whose file has vanished since the corpus was listed: the store is to be of all of them.

    Args:
        paths: files of the clip that are read, of which one could not be found.
        absent: the files that were not there when the corpus was listed.

    Raises:
        MissingError: a file was.
    """
    for path in paths:
        if path not in absent and not Path(path).exists():
            raise MissingError(
                f"{path}: gone since the corpus was listed; restore it, or run again to do without it"
            )


def _time(path: str) -> tuple[str, int]:
    try:
        about = Path(path).stat()
    except OSError:  # rendered, or missing
        return path, 0
    return path, max(about.st_mtime_ns, about.st_ctime_ns)
