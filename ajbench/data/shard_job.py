"""Filling a clip store shard by shard, with any number of processes that share its folder.

While a job runs, the folder `.claims/` of the store holds its locks and, for every finished shard, a note:
what is known about the shard besides its clips. A run that was killed continues with the missing shards.
Neither kills nor the number of processes change the bytes of the store.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ajbench.core.errors import IntegrityError, MissingError
from ajbench.core.files import atomic_write, checksum
from ajbench.core.sealed_json import write_sealed
from ajbench.data import shards
from ajbench.data.shards import CLAIMS

POLL_S = 0.2  # how often a process looks for what it is waiting for

Note = Mapping[str, Any]
# Shard number → its clips' records (see `shards.write_shard`) and its note.
MakeShard = Callable[[int], tuple[Sequence[Mapping[str, Any]], Note]]


@dataclass(frozen=True)
class ShardJob:
    """A clip store that is being filled.

    Attributes:
        folder: of the store.
        n: items, of which each becomes at most one clip.
        size: items per shard.
        video_width: numbers in the video tokens of a clip; 0: the store has none.
    """

    folder: Path
    n: int
    size: int
    video_width: int = 0

    @property
    def shards(self) -> range:
        """The numbers of all shards."""
        return range(-(-self.n // self.size))

    @property
    def missing(self) -> list[int]:
        """The numbers of the shards that are not finished."""
        return [shard for shard in self.shards if not self.written(shard)]

    @property
    def closed(self) -> bool:
        """Whether the store is finished."""
        return (self.folder / "store.json").exists()

    def items(self, shard: int) -> range:
        """Return the numbers of a shard's items."""
        return range(shard * self.size, min((shard + 1) * self.size, self.n))

    def written(self, shard: int) -> bool:
        """Return whether a shard is finished."""
        # In this order: the process that closes the store writes store.json, then removes the notes.
        return self._note(shard).exists() or self.closed

    def run(self, make: MakeShard, advance: Callable[[int], None], some: Iterable[int] | None = None) -> None:
        """Write every shard that no other process is writing, and wait for the others.

        Args:
            make: makes one shard, and reports its own progress.
            advance: called with the number of items of each shard that another process has written.
            some: the shards to write; None: all.
        """
        waiting = list(self.shards if some is None else some)
        while waiting:
            left = [shard for shard in waiting if not self._settle(shard, make, advance)]
            if left == waiting:
                time.sleep(POLL_S)
            waiting = left

    def write(self, shard: int, make: MakeShard) -> None:
        """Write one shard, then its note; a shard without clips has only the note."""
        records, note = make(shard)
        if records:
            path = shards.write_shard(self.folder, shard, records, self.video_width)
            note = {**note, shards.SUM: checksum(path)}
        write_note(self._note(shard), note)

    def close(self, finish: Callable[[list[Any]], object]) -> None:
        """Let one process finish the store while the others wait.

        Args:
            finish: receives the notes of all shards, in order, and closes the store.

        Raises:
            MissingError: another process has discarded the store.
        """
        with claimed(self.folder, "finish"):
            if not self.closed:
                if not all(map(self.written, self.shards)):
                    raise MissingError(f"{self.folder}: another process gave up this job; run again")
                finish([shards.read_note(self._note(shard)) for shard in self.shards])
        shards.clear(self.folder)  # also what was claimed after another process had closed the store

    def _note(self, shard: int) -> Path:
        return self.folder / CLAIMS / f"part-{shard:05d}.json"

    def _settle(self, shard: int, make: MakeShard, advance: Callable[[int], None]) -> bool:
        """Write a shard unless it is finished or claimed; return whether it is finished."""
        if not self.written(shard) and (lock := claim(self.folder, f"part-{shard:05d}")):
            with lock:
                if not self.written(shard):
                    self.write(shard, make)
                    return True
        finished = self.written(shard)
        advance(len(self.items(shard)) if finished else 0)
        return finished


def open_job(folder: Path, fingerprint: str) -> bool:
    """Start or join the job that fills `folder`; return whether the store is finished already.

    Raises:
        IntegrityError: the folder belongs to a job with another fingerprint, or has shards of an unknown job.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if finished := (folder / "store.json").exists():
        found = shards.read_meta(folder).fingerprint
    else:
        job = folder / CLAIMS / "job"
        job.parent.mkdir(exist_ok=True)
        with (folder / CLAIMS / "job.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not job.exists():
                if strange := next(iter(shards.written(folder)), None):
                    raise IntegrityError(
                        f"{strange}: a shard of an unknown job; remove it or use another folder"
                    )
                atomic_write(job, fingerprint)
            found = job.read_text(errors="replace")
    if found != fingerprint:
        raise IntegrityError(
            f"{folder}: holds work of fingerprint {found}, not {fingerprint}; use another folder or --force"
        )
    if finished:
        shards.clear(folder)  # another process may have claimed something after the store was closed
    return finished


def claim(folder: Path, name: str) -> AbstractContextManager[Any] | None:
    """Claim a part of a job, for instance a shard; return None if another process holds it.

    The claim is a `flock`, so it ends with the context or with the process, and nothing has to be cleaned up
    after a kill. It works across machines if the file system passes locks to its server: NFS 4, NFS 3 with
    its lock service (Linux turns flock into locks of the whole file), Lustre with `-o flock`, GPFS, CephFS.
    There, the death of a process frees its claims at once, that of a machine when the server notices (NFS 4:
    about 90 s). On mounts with `nolock`, `local_lock=all` or `localflock`, machines do not see each
    other's claims: each makes every shard, which costs time but changes no byte, as shards are deterministic
    and written whole.
    """
    path = folder / CLAIMS / f"{name}.lock"
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("ab")
        except FileNotFoundError:  # the job was closed in between
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
            return file
        file.close()  # the locked file has been removed meanwhile


@contextmanager
def claimed(folder: Path, name: str) -> Iterator[None]:
    """Claim a part of a job as soon as no other process holds it."""
    while (lock := claim(folder, name)) is None:
        time.sleep(POLL_S)
    with lock:
        yield


def write_note(path: Path, content: Mapping[str, Any]) -> None:
    """Write a sealed JSON file into `.claims/`."""
    path.parent.mkdir(exist_ok=True)  # another process may have closed the job and removed the folder
    write_sealed(path, content)


def discard(folder: Path) -> None:
    """Remove the shards, locks and notes of an unfinished store to start anew; `quarantine.csv` stays."""
    for path in shards.written(folder):
        path.unlink()
    shards.clear(folder)
