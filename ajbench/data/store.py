"""Reading clip stores: the audio, codec codes, labels and provenance of a corpus, mapped from disk."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from ajbench.core import files
from ajbench.core.errors import IntegrityError, UsageError
from ajbench.core.registry import suggest
from ajbench.core.run_dir import local_rank
from ajbench.data import audio, shards
from ajbench.data.clip_audio import Samples, read_into, read_piece, write_float, write_int16
from ajbench.data.shard_check import need_fitting
from ajbench.data.shards import SCHEMA, StoreMeta, read_meta

if TYPE_CHECKING:
    from ajbench.data.pcm import MappedSamples

COLUMNS = tuple(name for name in SCHEMA.names if name != "audio")

_verified: set[tuple[str, int, int, int]] = set()


@dataclass(frozen=True)
class Clip:
    """One clip of a store; unknown values are None."""

    clip_id: str
    path: str
    start_s: float
    duration_s: float | None
    labels: list[str]
    split: str
    fold: int | None
    caption: str | None
    video: str | None
    visual_caption: str | None
    parent_id: str | None
    source: str
    recording: str | None
    more_captions: list[str] | None
    subset: str | None
    label_ids: list[int]
    seed: int | None
    strength: float | None
    guidance: float | None
    steps: int | None
    generator: str | None
    fidelity: float | None
    index: int = field(compare=False)
    store: "ClipStore" = field(repr=False, compare=False)

    def audio(self) -> NDArray[np.float32]:
        """Return the waveform, float32 [clip_samples] at 16 kHz."""
        return self.store.audio([self.index])[0]

    @property
    def codes(self) -> NDArray[np.uint16]:
        """The codec codes, uint16 [8, T], a read-only view of the mapped shard."""
        return self.store.view(self.index)


@dataclass(frozen=True)
class _Shard:
    """Views of one mapped file; `table` has every column except audio, codes and video tokens."""

    table: pa.RecordBatch
    codes: NDArray[np.uint16]  # [n, 8, T]
    embedded: NDArray[np.bool_]  # [n]: whether the shard contains the clip's audio
    offsets: NDArray[np.int64]  # [n + 1], into data
    data: memoryview
    tokens: NDArray[np.float16]  # [n, windows · d] of the videos; [n, 0] in stores without
    seen: NDArray[np.bool_]  # [n]: whether the clip has video tokens

    def flac(self, row: int) -> memoryview | None:
        # Arrow's own scalars would copy.
        return self.data[self.offsets[row] : self.offsets[row + 1]] if self.embedded[row] else None


class ClipStore:
    """The clips of one store, numbered consecutively through its shards.

    Attributes:
        path: the folder of the store.
        meta: the content of `store.json`.
        mapped: views of the shards, in order.
        pcm: the decoded sound, if it was opened with that (`ajbench.data.pcm.open_store`).
    """

    def __init__(self, path: Path, meta: StoreMeta) -> None:
        self.path, self.meta = Path(path), meta
        self.mapped = [_open_shard(self.path / entry.file, meta, entry.clips) for entry in meta.shards]
        self.pcm: MappedSamples | None = None
        self._offsets = np.cumsum([0, *(entry.clips for entry in meta.shards)])

    @classmethod
    def open(cls, path: Path | str, verify: bool = True) -> "ClipStore":
        """Map the finished store in folder `path`.

        Args:
            path: the folder.
            verify: check the shards' checksums, each once per process; of the processes of a launch, the
                first on each machine does.

        Raises:
            MissingError: there is no finished store.
            IntegrityError: store.json or a shard is damaged, or was written by a newer ajbench.
        """
        path = Path(path)
        meta = read_meta(path)
        for entry in meta.shards if verify and local_rank() == 0 else ():
            _verify_once(path / entry.file, entry.xxh3)
        return cls(path, meta)

    def __reduce__(self) -> tuple[Any, ...]:
        # Other processes map the files again instead of receiving the content.
        return ClipStore, (self.path, self.meta)

    def __len__(self) -> int:
        return int(self._offsets[-1])

    def __getitem__(self, index: int) -> Clip:
        number = range(len(self))[index]
        shard, row = self._find(number)
        return Clip(**shard.table.slice(row, 1).to_pylist()[0], index=number, store=self)

    def __iter__(self) -> Iterator[Clip]:
        for shard, start in zip(self.mapped, self._offsets, strict=False):
            for row, values in enumerate(shard.table.to_pylist()):
                yield Clip(**values, index=int(start) + row, store=self)

    @functools.cached_property
    def clip_ids(self) -> list[str]:
        """All clip ids, in order."""
        return self.column("clip_id")

    @functools.cached_property
    def recordings(self) -> list[str]:
        """The recording that each clip was cut from, in order; the clip's id where it is unknown."""
        return [known or own for known, own in zip(self.column("recording"), self.clip_ids, strict=True)]

    def column(self, name: str) -> list[Any]:
        """Return one column as Python values, in order; audio and codes have methods of their own.

        Raises:
            UsageError: there is no such column.
        """
        if name not in COLUMNS:
            near = suggest(name, COLUMNS)
            raise UsageError(f"column {name!r} is unknown{near}; allowed: {', '.join(COLUMNS)}")
        return [value for shard in self.mapped for value in shard.table.column(name).to_pylist()]

    def codes(self, indices: ArrayLike) -> NDArray[np.uint16]:
        """Return the codes uint16 [n, 8, T] of clips `indices` [n], copied from the mapped shards."""
        parts, rows = self.locate(indices)
        if len(self.mapped) == 1:
            return self.mapped[0].codes[rows]
        out = np.empty((len(rows), *self.mapped[0].codes.shape[1:]), np.uint16)
        # Clip by clip, so that each is copied once; gathering shard by shard takes twice as long.
        for target, part, row in zip(out, parts.tolist(), rows.tolist(), strict=True):
            target[...] = self.mapped[part].codes[row]
        return out

    def view(self, index: int) -> NDArray[np.uint16]:
        """Return the codes of one clip, uint16 [8, T], a read-only view of the mapped shard."""
        shard, row = self._find(index)
        return shard.codes[row]

    def audio(self, indices: ArrayLike) -> NDArray[np.float32]:
        """Return the waveforms float32 [n, clip_samples] of clips `indices` [n].

        FLAC in the shard is decoded by several threads (`device.readers`); a clip without FLAC is read from
        its original file.

        Raises:
            IntegrityError: a clip's FLAC is damaged (possible only if checksums were not verified).
            AudioError: a linked file is missing or no longer usable.
        """
        wanted = self._checked(indices)
        out = np.empty((len(wanted), self.meta.clip_samples), np.float32)
        read_into(out, wanted, self._samples, write_float)
        return out

    def audio16(self, indices: ArrayLike) -> list[NDArray[np.int16]]:
        """Return `audio` as 16-bit integers, n arrays [clip_samples]: exact, but of linked files rounded.

        They are views of the decoded sound, if the store was opened with that. Errors as `audio`.
        """
        wanted = self._checked(indices)
        if self.pcm:
            return self.pcm.rows(wanted.tolist())
        out = np.empty((len(wanted), self.meta.clip_samples), np.int16)
        read_into(out, wanted, self._samples, write_int16)
        return list(out)

    def video_tokens(self, indices: ArrayLike) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the video tokens float32 [n, windows, d] of clips `indices` [n], and which clips have any.

        The tokens of clips whose video is missing or unusable are 0.

        Raises:
            UsageError: the store was made without video.
        """
        about = self.meta.extra.get("video")
        if not about:
            raise UsageError(f"{self.path}: no video tokens; prepare the corpus with data.video=tiny_video")
        parts, rows = self.locate(indices)
        out = np.empty((len(rows), about["windows"] * about["width"]), np.float32)
        seen = np.empty(len(rows), np.bool_)
        for n, (part, row) in enumerate(zip(parts.tolist(), rows.tolist(), strict=True)):
            out[n], seen[n] = self.mapped[part].tokens[row], self.mapped[part].seen[row]
        return out.reshape(len(rows), about["windows"], about["width"]), seen

    def has_video(self, indices: ArrayLike) -> NDArray[np.bool_]:
        """Return which of the clips `indices` [n] have video tokens, bool [n]; none has in stores without."""
        return np.concatenate([shard.seen for shard in self.mapped])[np.asarray(indices, np.int64)]

    def flac(self, index: int) -> memoryview | None:
        """Return a clip's FLAC bytes, a view of the mapped shard; None if the store links to a file."""
        shard, row = self._find(index)
        return shard.flac(row)

    def targets(self) -> NDArray[np.float32]:
        """Return multi-hot targets float32 [N, C], classes in the order of `meta.labels`."""
        return np.asarray(self.sparse_targets().toarray())

    def sparse_targets(self) -> sparse.csr_array:
        """Return `targets()` as a sparse array, whose size grows with the labels and not with N · C."""
        lists = [shard.table.column("label_ids") for shard in self.mapped]
        sizes = [part.value_lengths().to_numpy() for part in lists]
        ids = np.concatenate([np.empty(0, np.int32), *(part.flatten().to_numpy() for part in lists)])
        ends = np.concatenate([[0], *sizes]).cumsum()
        shape = (len(self), len(self.meta.labels))
        return sparse.csr_array((np.ones(len(ids), np.float32), ids, ends), shape=shape)

    def split_indices(self, split: str) -> NDArray[np.int64]:
        """Return the indices int64 [n] of the clips of `split` (train, val or eval), in order."""
        masks = [pc.equal(shard.table.column("split"), split).to_numpy(False) for shard in self.mapped]
        return np.flatnonzero(np.concatenate(masks)).astype(np.int64, copy=False)

    def held_out(self) -> dict[str, str]:
        """Return the recording of each eval clip, by its id: what the leak rule protects."""
        return {self.clip_ids[i]: self.recordings[i] for i in self.split_indices("eval")}

    def _find(self, index: int) -> tuple[_Shard, int]:
        parts, rows = self.locate([index])
        return self.mapped[parts[0]], int(rows[0])

    def locate(self, indices: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the shard of each of the clips `indices` [n], and its row there."""
        wanted = self._checked(indices)
        parts = np.searchsorted(self._offsets, wanted, side="right") - 1
        return parts, wanted - self._offsets[parts]

    def _checked(self, indices: ArrayLike) -> NDArray[np.int64]:
        wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < len(self)):
            raise IndexError(
                f"{self.path}: clips {wanted.min()} … {wanted.max()} requested, it has {len(self)}"
            )
        return wanted

    def _samples(self, index: int) -> Samples:
        """Return the samples of a clip, int16 from FLAC or float32 from a linked file."""
        shard, row = self._find(index)
        if self.pcm and shard.embedded[row]:  # the same; those of linked files are rounded there
            return self.pcm.row(index)
        n, data = self.meta.clip_samples, shard.flac(row)
        if data is None:
            piece = shard.table.select(["path", "start_s", "duration_s"]).slice(row, 1).to_pylist()[0]
            return read_piece(**piece, n=n)
        clip_id = shard.table.column("clip_id")[row]
        try:
            wav = audio.flac_samples(bytes(data))
        except audio.AudioError as error:
            raise IntegrityError(
                f"{self.path}: audio of clip {clip_id} is damaged ({error.reason})"
            ) from None
        if len(wav) != n:
            raise IntegrityError(f"{self.path}: clip {clip_id} has {len(wav)} samples, expected {n}")
        return wav


def require_codec(store: ClipStore, name: str, weights_hash: str) -> None:
    """Refuse a store whose codes come from another codec or other weights.

    Raises:
        IntegrityError: they do; the message names both.
    """
    found = (store.meta.codec, store.meta.codec_hash)
    if not shards.same_codec(found, (name, weights_hash)):
        raise IntegrityError(
            f"{store.path}: codes of codec {found[0]} (weights {found[1]}) cannot be used with {name} "
            f"(weights {weights_hash}); prepare the corpus again with codec.name={name}"
        )


def _open_shard(path: Path, meta: StoreMeta, clips: int) -> _Shard:
    batch = shards.map_shard(path)
    need_fitting(path, batch, meta, clips)
    codes = batch.column("codes").flatten().to_numpy(zero_copy_only=True)
    sound = batch.column("audio")
    _, offsets, data = sound.buffers()
    tokens, seen = np.zeros((clips, 0), np.float16), np.zeros(clips, np.bool_)
    if shards.VIDEO_TOKENS in batch.schema.names:
        column = batch.column(shards.VIDEO_TOKENS)
        tokens = column.values.to_numpy(zero_copy_only=True).reshape(clips, -1)
        seen = column.is_valid().to_numpy(zero_copy_only=False)
    return _Shard(
        table=batch.select(COLUMNS),
        codes=codes.reshape(clips, shards.CODEBOOKS, -1),
        embedded=sound.is_valid().to_numpy(zero_copy_only=False),
        offsets=np.frombuffer(offsets, np.int64),
        data=memoryview(data if data is not None else b""),
        tokens=tokens,
        seen=seen,
    )


def verify_checksum(path: Path, expected: str) -> None:
    """Check the checksum of one shard.

    Raises:
        IntegrityError: the shard is missing, or its checksum differs from the expected one.
    """
    if not path.exists():
        raise IntegrityError(f"{path}: missing, though store.json lists it; make the store again")
    if files.checksum(path) != expected:
        raise IntegrityError(
            f"{path}: checksum does not match store.json; the shard is corrupt, make the store again"
        )


def _verify_once(path: Path, expected: str) -> None:
    if not path.exists():
        verify_checksum(path, expected)
    state = path.stat()
    key = (expected, state.st_ino, state.st_size, state.st_mtime_ns)
    if key not in _verified:
        verify_checksum(path, expected)
        _verified.add(key)
