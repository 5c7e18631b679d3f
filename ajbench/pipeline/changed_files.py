"""Sound files that changed or vanished after the corpus was listed, or after a stage began to read them."""

import os
import time
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
READ = "READ"  # its time: files that are older are as they were read
LAG_NS = 2_000_000_000  # times of files may lag behind the clock by so much: by a tick, on FAT by two seconds
MOST = 5_000  # files that are compared with the store; of more, evenly spaced ones


def begin(folder: Path) -> None:
    """Note in the folder of a stage that it begins to read files; if it goes on, the first time counts."""
    moment = _moment()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        (folder / READ).touch(exist_ok=False)
    except FileExistsError:
        return
    os.utime(folder / READ, ns=(moment, moment))


def changed(manifest: Manifest, folder: Path, data: Data) -> list[tuple[str, str]]:
    """Return clip id and checksum of the files that sound different now than in a finished store.

    Only files that changed after the store was begun are read. If they all sound the same, only those that
    change from now on.

    Args:
        manifest: of the corpus.
        folder: of the store; without a finished one, nothing has changed.
        data: section of the recipe that the store was made with.
    """
    if not (folder / "DONE").exists():
        return []
    since, moment = _since(folder), _moment()
    with ThreadPoolExecutor(4) as pool:
        every = {archive.container(row.path) for row in manifest.rows}
        times = dict(ahead(pool, _time, every, FILES_AT_ONCE))
        newer = [row for row in manifest.rows if times[archive.container(row.path)] >= since]
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
        _set(folder, moment)
    return [(row.clip_id, checksum(Path(archive.container(row.path)))) for row in found]


def record(files: Mapping[str, Path], folder: Path) -> None:
    """Write the checksum of each file, by its name, into the folder of a stage that begins to read them all.

    If it goes on, those of the first time stay: what it has read since then may be of these.
    """
    begin(folder)
    if not (folder / CHECKSUMS).exists():
        write_sealed(folder / CHECKSUMS, {name: checksum(path) for name, path in files.items()})


def since_recorded(files: Mapping[str, Path], folder: Path) -> list[tuple[str, str]]:
    """Return name and checksum of the files that have changed since a finished stage has recorded them.

    Only files that changed after the stage was begun are read. If they are the same, only those that change
    from now on.

    Raises:
        IntegrityError: what it has recorded is damaged.
    """
    known = folder / CHECKSUMS
    if not (folder / "DONE").exists():
        return []
    since, moment = _since(folder), _moment()
    newer = {name: path for name, path in files.items() if _time(str(path))[1] >= since}
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
    _set(folder, moment)
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


def _moment() -> int:
    """Return a time in ns from which on a file that changes has a later one."""
    return time.time_ns() - LAG_NS


def _since(folder: Path) -> int:
    """Return the time from which on files may have changed since a finished stage read them."""
    mark = folder / READ
    return (mark if mark.exists() else folder / "DONE").stat().st_mtime_ns  # a folder of an older version


def _set(folder: Path, moment: int) -> None:
    with suppress(OSError):  # files are then compared again
        (folder / READ).touch()
        os.utime(folder / READ, ns=(moment, moment))


def _time(path: str) -> tuple[str, int]:
    try:
        about = Path(path).stat()
    except OSError:  # rendered, or missing
        return path, 0
    return path, max(about.st_mtime_ns, about.st_ctime_ns)
