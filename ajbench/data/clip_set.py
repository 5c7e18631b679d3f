"""A set of clips to be measured: the clips of a store, or the sound files of a folder."""

import contextlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from ajbench.core.errors import MissingError, UsageError
from ajbench.data import audio
from ajbench.data.store import ClipStore


@dataclass(frozen=True)
class Change:
    """A sound that is made of each clip's own, when it is asked for.

    Attributes:
        key: all that defines it, but for the clip.
        make: a clip's name, samples float32 [N, channels] and rate in Hz ⇒ samples likewise.
        rate: Hz of what is made; None is the clip's own.
    """

    key: str
    make: Callable[[str, NDArray[np.float32], int], NDArray[np.float32]]
    rate: int | None = None


@dataclass(frozen=True)
class ClipSet:
    """Clips by number; nothing of their sound is held.

    Attributes:
        path: the store's or the folder's.
        names: of the clips: ids, or paths below the folder without their suffix. All different.
        parents: ids of the real clips that they answer to; None where there is none.
        others: how many files of the folder are no sound files by their suffix.
        change: what is made of the clips; None are the clips themselves.
    """

    path: Path
    names: Sequence[str]
    parents: Sequence[str | None]
    others: int = 0
    change: Change | None = None
    _files: Sequence[Path] = ()
    _store: ClipStore | None = None
    _indices: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def meant(self) -> bool:
        """Whether the sound is made on purpose, and to be measured even if it is silence."""
        return self.change is not None

    def take(self, numbers: NDArray[np.int64]) -> "ClipSet":
        """Return some of the clips, in the order given."""
        return replace(
            self,
            names=[self.names[n] for n in numbers],
            parents=[self.parents[n] for n in numbers],
            _files=[self._files[n] for n in numbers] if self._store is None else (),
            _indices=self._indices if self._store is None else self._indices[numbers],
        )

    def changed(self, change: Change) -> "ClipSet":
        """Return the set of what is made of each clip, under the clip's name."""
        return replace(self, change=change)

    def content(self, number: int) -> str:
        """Return a hash of a clip's sound as it is stored, and of what is made of it."""
        source = self._content(number)
        if self.change is None:
            return source
        return xxhash.xxh3_128_hexdigest("\0".join((source, self.change.key, self.names[number])).encode())

    def _content(self, number: int) -> str:
        if self._store is None:
            return xxhash.xxh3_128_hexdigest(self._files[number].read_bytes())
        flac = self._store.flac(int(self._indices[number]))
        return xxhash.xxh3_128_hexdigest(self._samples(number)[0].data if flac is None else flac)

    def samples(self, number: int) -> tuple[NDArray[np.float32], int]:
        """Return a clip's samples float32 [N, channels] and their rate in Hz.

        Raises:
            AudioError: there is no sound to measure, or to make something of; the reason says why.
        """
        samples, rate = self._samples(number)
        if self.change is None:
            return samples, rate
        return self.change.make(self.names[number], samples, rate), self.change.rate or rate

    def _samples(self, number: int) -> tuple[NDArray[np.float32], int]:
        if self._store is not None:
            return self._store.audio(self._indices[number : number + 1]).T, audio.SAMPLE_RATE
        path = self._files[number]
        samples, rate = audio.decode(path)
        if reason := audio.defect(samples):
            raise audio.AudioError(reason, path)
        return samples, rate

    def label_set(self) -> tuple[Sequence[str], Sequence[str] | None] | None:
        """Return names and AudioSet ids of a store's classes; None of a folder."""
        return None if self._store is None else (self._store.meta.labels, self._store.meta.mids)

    def labels(self) -> list[list[str]]:
        """Return the labels of all clips, in order; none of a folder's."""
        return [labels or [] for labels in self._column("labels")]

    def captions(self) -> list[str | None]:
        """Return the caption of each clip, in order; None where there is none."""
        return self._column("caption")

    def _column(self, name: str) -> list[Any]:
        if self._store is None:
            return [None] * len(self)
        values = self._store.column(name)
        return [values[index] for index in self._indices]

    def rates(self) -> Counter[int]:
        """Return how many clips have which sample rate, in Hz, as far as their headers can be read."""
        fixed = self.change.rate if self.change else None
        if fixed or self._store is not None:
            return Counter({fixed or audio.SAMPLE_RATE: len(self)})
        found: Counter[int] = Counter()
        for path in self._files:
            with contextlib.suppress(audio.AudioError):
                found[audio.probe(path)[0]] += 1
        return found


def open_set(path: Path, split: str | None = None, option: str = "--ref-split") -> ClipSet:
    """Return the clips of a store, or the sound files in and below a folder in the order of their names.

    Args:
        path: a folder.
        split: of a store, alone.
        option: by which it was given, for messages.

    Raises:
        MissingError: no such folder, or there is no clip in it.
        UsageError: a split of a folder of files, or two files that differ by their suffix alone.
        IntegrityError: the store is damaged.
    """
    if not path.is_dir():
        raise MissingError(f"{path}: no such folder; name a clip store or a folder of sound files")
    if (path / "store.json").exists():
        store = ClipStore.open(path)
        indices = np.arange(len(store)) if split is None else store.split_indices(split)
        ids, parents = store.clip_ids, store.column("parent_id")
        if not len(indices):
            raise MissingError(f"{path}: no clip of split {split}")
        return ClipSet(
            path, [ids[i] for i in indices], [parents[i] for i in indices], _store=store, _indices=indices
        )
    if split is not None:
        raise UsageError(f"{path}: a folder of files has no splits; leave {option}, or name a clip store")
    found = sorted(one for one in path.rglob("*") if one.is_file() and not one.name.startswith("."))
    files = [one for one in found if one.suffix.lower() in audio.SUFFIXES]
    if not files:
        raise MissingError(
            f"{path}: no sound file among {len(found)} files; known: {', '.join(audio.SUFFIXES)}"
        )
    names = [one.relative_to(path).with_suffix("").as_posix() for one in files]
    seen: dict[str, Path] = {}
    for name, file in zip(names, files, strict=True):
        if name in seen:
            raise UsageError(f"{file}: {seen[name].name} is beside it, and names pair clips; remove one")
        seen[name] = file
    return ClipSet(path, names, [None] * len(files), len(found) - len(files), _files=files)
