"""Sets of clips to evaluate: the clips of a store, or the sound files of a folder."""

import contextlib
import functools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import xxhash
from numpy.typing import NDArray

from ajbench.core.console import counted
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.files import checksum, composed, printable, walk
from ajbench.data import audio
from ajbench.data.flac_hash import flac_hash
from ajbench.data.store import ClipStore

Item = TypeVar("Item")
Result = TypeVar("Result")
Samples = NDArray[np.float32]  # [n, channels]
Captions = Mapping[str, Sequence[str]]  # name of a clip → its captions


@dataclass(frozen=True)
class Requests:
    """The classes that clips were requested to contain.

    Attributes:
        classes: every class that could be requested, in order.
        mids: their AudioSet ids, where known.
        labels: name of a clip → its requested classes, at least one.
    """

    classes: Sequence[str]
    mids: Sequence[str] | None
    labels: Mapping[str, Sequence[str]]

    def targets(self, clips: Sequence[str]) -> NDArray[np.bool_]:
        """Return which class was requested of each clip, bool [n, C]."""
        column = {name: c for c, name in enumerate(self.classes)}
        found = np.zeros((len(clips), len(self.classes)), bool)
        for row, clip in enumerate(clips):
            found[row, [column[label] for label in self.labels[clip]]] = True
        return found


@dataclass(frozen=True)
class Change:
    """A sound derived from each clip of a set, computed when it is read.

    Attributes:
        key: everything that defines the change, except the clip.
        make: name, samples float32 [n, channels] and rate in Hz of a clip → samples likewise.
        rate: sample rate of the result in Hz; None: that of the clip.
    """

    key: str
    make: Callable[[str, Samples, int], Samples]
    rate: int | None = None


@dataclass(frozen=True)
class ClipSet:
    """Clips by number. Their sound is read on demand and never held.

    Attributes:
        path: the store or folder.
        names: clip ids of a store, or paths below the folder without their suffix; all different.
        parents: ids of the real clips that generated clips were made from; None where unknown.
        others: number of files in the folder that are not sound files, by suffix.
        change: replaces the sound of every clip; None: none.
        files: the sound files; empty for a store.
    """

    path: Path
    names: Sequence[str]
    parents: Sequence[str | None]
    others: int = 0
    change: Change | None = None
    files: Sequence[Path] = ()
    _store: ClipStore | None = None
    _indices: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_store(self) -> bool:
        """Whether these are clips of a store."""
        return self._store is not None

    @property
    def classes(self) -> Sequence[str]:
        """The classes of a store; empty for a folder."""
        return () if self._store is None else self._store.meta.labels

    @functools.cached_property
    def recordings(self) -> list[str]:
        """The recording that each clip was cut from; its name where it is unknown, and for files."""
        if self._store is None:
            return list(self.names)
        every = self._store.recordings
        return [every[index] for index in self._indices]

    def take(self, numbers: NDArray[np.int64]) -> "ClipSet":
        """Return the clips of these numbers, in the order given."""
        return replace(
            self,
            names=[self.names[n] for n in numbers],
            parents=[self.parents[n] for n in numbers],
            files=[self.files[n] for n in numbers] if self._store is None else (),
            _indices=self._indices if self._store is None else self._indices[numbers],
        )

    def changed(self, change: Change) -> "ClipSet":
        """Return the same clips, by the same names, with their sound replaced."""
        return replace(self, change=change)

    @functools.cached_property
    def keys(self) -> list[str]:
        """A hash of each clip's sound as stored, and of the change applied to it."""
        return [self._key(number) for number in range(len(self))]

    def _key(self, number: int) -> str:
        if self._store is None:
            key = checksum(self.files[number])
        else:
            known = flac_hash(self._store, int(self._indices[number]))
            key = known or xxhash.xxh3_128_hexdigest(self._stored(number)[0].data)
        if self.change is None:
            return key
        return xxhash.xxh3_128_hexdigest("\0".join((key, self.change.key, self.names[number])).encode())

    def samples(self, number: int) -> tuple[Samples, int]:
        """Return the samples of a clip, float32 [n, channels], and their rate in Hz.

        Raises:
            AudioError: the clip has no usable sound; the reason says why.
        """
        samples, rate = self._stored(number)
        if self.change is None:
            return samples, rate
        return self.change.make(self.names[number], samples, rate), self.change.rate or rate

    def _stored(self, number: int) -> tuple[Samples, int]:
        if self._store is not None:
            return self._store.audio(self._indices[number : number + 1]).T, audio.SAMPLE_RATE
        path = self.files[number]
        samples, rate = audio.decode(path)
        if reason := audio.defect(samples):
            raise audio.AudioError(reason, path)
        return samples, rate

    def labels(self) -> list[list[str]]:
        """Return the labels of each clip, in order; empty for files of a folder."""
        return [labels or [] for labels in self.column("labels")]

    def requests(self) -> Requests | None:
        """Return the classes and labels of a store; None for a folder, or if a clip has no label."""
        labels = self.labels()
        if self._store is None or not all(labels):
            return None
        meta = self._store.meta
        return Requests(meta.labels, meta.mids, dict(zip(self.names, labels, strict=True)))

    def guides(self) -> list[str | None]:
        """Return the parent of each clip, None for clips that were made from noise (strength 1)."""
        both = zip(self.parents, self.column("strength"), strict=True)
        return [None if strength is not None and strength >= 1 else parent for parent, strength in both]

    def captions(self) -> list[str | None]:
        """Return the caption of each clip, in order; None where it has none."""
        return self.column("caption")

    def codes(self) -> NDArray[np.uint16]:
        """Return the codec codes of a store's clips, uint16 [n, 8, T]."""
        assert self._store is not None
        return self._store.codes(self._indices)

    def column(self, name: str) -> list[Any]:
        """Return a column of a store for each clip, in order; None for files of a folder."""
        if self._store is None:
            return [None] * len(self)
        values = self._store.column(name)
        return [values[index] for index in self._indices]

    def rates(self) -> Counter[int]:
        """Count the clips of each sample rate in Hz; files whose header cannot be read are left out."""
        fixed = self.change.rate if self.change else None
        if fixed or self._store is not None:
            return Counter({fixed or audio.SAMPLE_RATE: len(self)})
        return Counter(rate for rate, _ in self._headers)

    def seconds_of(self, number: int) -> float:
        """Return the length of a file in seconds; 0 for a clip of a store or a file that cannot be read."""
        if self._store is None:
            with contextlib.suppress(audio.AudioError):
                rate, _, frames = audio.probe(self.files[number])
                return frames / rate
        return 0.0

    def pieces(self, number: int, seconds: float) -> Iterator[tuple[Samples, int]]:
        """Yield a file in pieces of so many seconds, as `samples` returns it whole.

        The last piece has up to twice that length.

        Raises:
            AudioError: the file cannot be read.
        """
        count = max(1, int(self.seconds_of(number) / seconds))
        for k in range(count):
            length = seconds if k < count - 1 else None
            samples, rate = audio.decode(self.files[number], k * seconds, length)
            if self.change is None:
                yield samples, rate
            else:
                yield self.change.make(self.names[number], samples, rate), self.change.rate or rate

    def seconds(self) -> list[float]:
        """Return the lengths of files in seconds, ascending; the clips of a store are of one length."""
        return sorted(seconds for _, seconds in self._headers)

    @functools.cached_property
    def _headers(self) -> list[tuple[int, float]]:
        """Sample rate in Hz and length in seconds of each file; without those that cannot be read."""
        found = []
        for path in self.files if self._store is None else ():
            with contextlib.suppress(audio.AudioError):
                rate, _, frames = audio.probe(path)
                found.append((rate, frames / rate))
        return found


def open_set(path: Path, split: str | None = None, option: str = "--ref-split") -> ClipSet:
    """Return the clips of a store, or the sound files in and below a folder, sorted by name.

    Args:
        path: the folder.
        split: take only this split of a store.
        option: the command-line option of `split`, for error messages.

    Raises:
        MissingError: there is no such folder, or no clip in it.
        UsageError: a folder of files was given a split, or two of its files differ only in their suffix.
        IntegrityError: the store is damaged.
    """
    if not path.is_dir():
        raise MissingError(f"{path}: no such folder; give a clip store or a folder of sound files")
    if (path / "store.json").exists():
        store = ClipStore.open(path)
        indices = np.arange(len(store)) if split is None else store.split_indices(split)
        if not len(indices):
            raise MissingError(f"{path}: no clips in split {split}")
        ids, parents = store.clip_ids, store.column("parent_id")
        names = [ids[i] for i in indices]
        return ClipSet(path, names, [parents[i] for i in indices], _store=store, _indices=indices)
    if split is not None:
        raise UsageError(f"{path}: a folder of files has no splits; omit {option}, or give a clip store")
    found = [one for one in walk(path) if one.is_file()]
    files = [one for one in found if one.suffix.lower() in audio.SUFFIXES]
    if not files:
        known = ", ".join(audio.SUFFIXES)
        raise MissingError(
            f"{path}: no sound file among {counted(len(found), 'file')}; known suffixes: {known}"
        )
    by_name: dict[str, Path] = {}
    for file in files:
        name = composed(printable(file.relative_to(path).with_suffix("").as_posix()))
        if name in by_name:
            raise UsageError(
                f"{file}: {by_name[name].name} has the same name; clips are paired by name, remove one"
            )
        by_name[name] = file
    return ClipSet(path, list(by_name), [None] * len(files), len(found) - len(files), files=files)


FILES_AT_ONCE = 1024  # files that wait for a thread, for `ahead` where each takes a moment


def ahead(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], limit: int
) -> Iterator[Result]:
    """Map in order, at most `limit` items ahead of the consumer, so that memory stays bounded."""
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > limit:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
