"""Decoded sound of clip stores in mapped files (`data.cache: pcm`): written once, then read without decoding.

A cache is a folder named after the content of the store. It has `samples` (int16 [n, clip_samples]) and
`checksums.npy` (uint64 [n]). It appears whole, by renaming, and may be deleted at any time.
"""

import contextlib
import io
import mmap
import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from ajbench.core import console, files
from ajbench.core.console import counted
from ajbench.core.documents import read_array
from ajbench.core.errors import IntegrityError, MissingError
from ajbench.data import archive
from ajbench.data.store import ClipStore

VERSION = 1
BLOCK = 64  # clips that are decoded at once while a cache is written
SAMPLES, CHECKSUMS = "samples", "checksums.npy"


class MappedSamples:
    """The samples of every clip of a store; a clip is checked when it is first read.

    Attributes:
        samples: int16 [n, clip_samples], mapped.

    Raises:
        IntegrityError: a file is missing, or not of these clips.
    """

    def __init__(self, folder: Path, clips: int, clip_samples: int) -> None:
        self.folder = folder
        self.seen = np.zeros(clips, bool)
        try:
            self.checksums = read_array(folder / CHECKSUMS).reshape(clips)
            with (folder / SAMPLES).open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self.samples = np.frombuffer(self._map, np.int16).reshape(clips, clip_samples)
        except (FileNotFoundError, ValueError) as error:
            raise IntegrityError(
                f"{folder}: damaged ({error}); delete the folder, it is made again"
            ) from None

    def rows(self, indices: Sequence[int]) -> list[NDArray[np.int16]]:
        """Return the samples of clips, read-only views [clip_samples].

        Raises:
            IntegrityError: a clip is not as it was written.
        """
        size = self.samples.strides[0]
        for index in indices:  # the disk fetches all of them at once
            start = index * size // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_WILLNEED, start, (index + 1) * size - start)
        return [self.row(index) for index in indices]

    def row(self, index: int) -> NDArray[np.int16]:
        """Return the samples of one clip; error as `rows`."""
        samples: NDArray[np.int16] = self.samples[index]
        if not self.seen[index]:
            if xxhash.xxh3_64_intdigest(samples.data) != self.checksums[index]:
                raise IntegrityError(
                    f"{self.folder}: samples of clip {index} are damaged; delete the folder, it is made again"
                )
            self.seen[index] = True
        return samples


def open_store(path: Path, cache: Path | None, verify: bool = True) -> ClipStore:
    """Open a store, with its decoded sound if there is a cache; that is written first if it is not there.

    Of several processes one writes, and the others wait. A process that is killed leaves nothing that would
    be read.

    Args:
        path: of the store.
        cache: folder of caches; None: the store is read as it is.
        verify: as for `ClipStore.open`.

    Raises:
        MissingError: the store is not finished, or the disk lacks space for the cache.
        IntegrityError: the store or the cache is damaged.
        AudioError: a linked file is missing or no longer usable.
    """
    store = ClipStore.open(path, verify)
    if cache is None:
        return store
    folder = cache / key(store)
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with files.lock(cache / f".{folder.name}.lock", wait=True):
            if not folder.exists():
                _write(store, folder)
    store.pcm = MappedSamples(folder, len(store), store.meta.clip_samples)
    return store


def key(store: ClipStore) -> str:
    """Hash everything that the samples depend on: the shards, and size and time of linked files."""
    digest = xxhash.xxh3_128(f"{VERSION} {store.meta.clip_samples}".encode())
    for entry in store.meta.shards:
        digest.update(entry.xxh3.encode())
    linked = (
        shard.table.column("path").filter(pa.array(~shard.embedded)).to_pylist() for shard in store.mapped
    )
    for file in sorted({archive.container(path) for paths in linked for path in paths}):
        with contextlib.suppress(OSError):  # a missing file is refused when it is read
            state = Path(file).stat()
            digest.update(f"\0{file}\0{state.st_size}\0{state.st_mtime_ns}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _write(store: ClipStore, folder: Path) -> None:
    """Decode a store into a new folder.

    Raises:
        MissingError: the disk lacks space; nothing is left.
    """
    for stray in folder.parent.glob(f".{folder.name}.*.tmp"):  # of a process that was killed
        shutil.rmtree(stray, ignore_errors=True)
    clips, needed = len(store), len(store) * store.meta.clip_samples * 2 / 1e6
    free = shutil.disk_usage(folder.parent).free / 1e6
    about = f"{needed:.0f} MB for the decoded sound of {counted(clips, 'clip')} (data.cache=pcm)"
    if needed > free:
        raise MissingError(
            f"{folder.parent}: {about}, {free:.0f} MB free; choose another --work, or set data.cache=none"
        )
    console.say(f"{folder}: {about}")
    partial = folder.with_name(f".{folder.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    partial.mkdir()
    checksums = np.empty(clips, np.uint64)
    try:
        with (partial / SAMPLES).open("wb") as file, console.progress(clips, "decode", "clips") as advance:
            for start in range(0, clips, BLOCK):
                block = np.asarray(store.audio16(np.arange(start, min(start + BLOCK, clips))))
                file.write(block.data)
                digests = (xxhash.xxh3_64_intdigest(row.data) for row in block)
                checksums[start : start + len(block)] = list(digests)
                advance(len(block))
            file.flush()
            os.fsync(file.fileno())
        buffer = io.BytesIO()
        np.save(buffer, checksums)
        files.atomic_write(partial / CHECKSUMS, buffer.getvalue())
        partial.rename(folder)
    except OSError as error:
        if folder.exists():  # on a file system without locks, another process was faster
            return
        raise MissingError(
            f"{folder.parent}: {about} cannot be written ({error.strerror}); choose another --work, or set "
            "data.cache=none"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
