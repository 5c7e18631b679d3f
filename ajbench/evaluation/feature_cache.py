"""Features and logits of clips, each computed once and kept by content, protocol, network and weights."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from ajbench.core.errors import IntegrityError
from ajbench.data import audio
from ajbench.data.clip_reader import ahead
from ajbench.data.clip_set import ClipSet
from ajbench.evaluation.protocols import Protocol
from ajbench.features.extractor import LazyExtractor

PART = 256  # clips after which what was computed is kept
READERS, AHEAD = 2, 8
BATCH = 8  # of one length: faster than one by one, even on one core
WAITING = 64  # waves that are held for others of their length
Vectors = tuple[NDArray[np.float32], NDArray[np.float32]]  # features [k, d] and logits [C] of a clip


@dataclass(frozen=True)
class LeftOut:
    """A clip without usable sound: its number in the set, and why."""

    number: int
    reason: str


@dataclass(frozen=True)
class Embeddings:
    """What a network makes of a set.

    Attributes:
        numbers: of the clips in the set, int64 [n], in order.
        features: float32 [rows, d]; one row a clip, in order, but for networks that hear frames.
        clips: of which of the n clips each row is, int64 [rows].
        logits: float32 [n, C]; C is 0 of networks that know no classes.
        left_out: the other clips of the set.
        computed: how many of the n were not in the cache.
    """

    numbers: NDArray[np.int64]
    features: NDArray[np.float32]
    clips: NDArray[np.int64]
    logits: NDArray[np.float32]
    left_out: list[LeftOut]
    computed: int

    def vectors(self) -> NDArray[np.float64]:
        """Return one vector a clip, [n, d]: the mean over frames where there are several."""
        features = self.features.astype(np.float64)
        if len(features) == len(self.numbers):
            return features
        starts = np.searchsorted(self.clips, np.arange(len(self.numbers)))
        sums = np.add.reduceat(features, starts, axis=0)
        return np.asarray(sums / np.bincount(self.clips)[:, None])


def embed(
    clips: ClipSet,
    extractor: LazyExtractor,
    protocol: Protocol,
    cache: Path,
    advance: Callable[[int], None] = lambda n: None,
) -> Embeddings:
    """Return features and logits of all clips that can be heard; those of before come from the cache.

    Clips of one length go through the network together, eight at a time, the rest one by one: which it was
    shows in the last digits. Of a protocol's windows the means are taken, or, of networks that hear frames,
    all frames. What is computed is kept after every 256 clips, and a run that is ended goes on from there.

    Args:
        clips: the set.
        extractor: the network.
        protocol: how it hears them.
        cache: the folder of all caches; this one is named by network, weights and protocol.
        advance: is told of clips.

    Raises:
        IntegrityError: the cache is of something else, or damaged.
    """
    folder = cache / f"{extractor.name}-{extractor.weights_hash}-{protocol.name}"
    known = _read(folder)
    keys = [clips.content(number) for number in range(len(clips))]
    missing = [number for number, key in enumerate(keys) if key not in known]
    fresh: dict[str, Vectors] = {}
    left_out: dict[str, str] = {}

    def hear(number: int) -> tuple[str, NDArray[np.float32] | str]:
        try:
            samples, source = clips.samples(number)
            wave = protocol.wave(samples, source, extractor.sample_rate)
            windows = protocol.windows(wave, extractor.sample_rate)
            length = max(windows.shape[1], extractor.min_samples)
            fitted = np.stack(
                [audio.fit(one, min(length, extractor.max_samples or length)) for one in windows]
            )
            # Channels in antiphase, or sound above the band that is left, come to nothing.
            judged = protocol.peak_db is None and not clips.meant
            reason = audio.defect(fitted) if judged else None
            return keys[number], reason or fitted
        except audio.AudioError as error:
            return keys[number], error.reason

    advance(len(clips) - len(missing))
    with ThreadPoolExecutor(READERS) as pool:
        vectors = _vectors(ahead(pool, hear, missing, AHEAD), extractor, left_out, advance)
        while part := dict(islice(vectors, PART)):
            _write(folder, part)
            fresh |= part
    found = known | fresh
    numbers = [number for number, key in enumerate(keys) if key in found]
    empty = [(np.zeros((0, 0), np.float32), np.zeros(0, np.float32))]
    features, logits = zip(*([found[keys[n]] for n in numbers] or empty), strict=True)
    return Embeddings(
        np.array(numbers, np.int64),
        np.concatenate(features),
        np.repeat(np.arange(len(features)), [len(rows) for rows in features]),
        np.stack(logits)[: len(numbers)],
        [LeftOut(n, left_out[key]) for n, key in enumerate(keys) if key not in found],
        len(fresh),
    )


def _vectors(
    heard: Iterator[tuple[str, NDArray[np.float32] | str]],
    extractor: LazyExtractor,
    left_out: dict[str, str],
    advance: Callable[[int], None],
) -> Iterator[tuple[str, Vectors]]:
    """Yield the vectors of clips, those of one length a batch at a time, and note those without sound."""
    waiting: dict[int, list[tuple[str, NDArray[np.float32]]]] = {}
    for key, windows in heard:
        if isinstance(windows, str):
            left_out[key] = windows
            advance(1)
            continue
        if len(windows) > 1:
            features, logits = extractor(windows)
            rows = features.mean(axis=0)[None] if features.ndim == 2 else np.concatenate(features)
            yield key, (rows, logits.mean(axis=0))
            advance(1)
            continue
        alike = waiting.setdefault(windows.shape[1], [])
        alike.append((key, windows[0]))
        if len(alike) == BATCH:
            yield from _together(waiting.pop(windows.shape[1]), extractor, advance)
        elif sum(map(len, waiting.values())) == WAITING:
            yield from _one_by_one(waiting, extractor, advance)
    yield from _one_by_one(waiting, extractor, advance)


def _one_by_one(
    waiting: dict[int, list[tuple[str, NDArray[np.float32]]]],
    extractor: LazyExtractor,
    advance: Callable[[int], None],
) -> Iterator[tuple[str, Vectors]]:
    clips = [clip for alike in waiting.values() for clip in alike]
    waiting.clear()
    for clip in clips:
        yield from _together([clip], extractor, advance)


def _together(
    clips: list[tuple[str, NDArray[np.float32]]], extractor: LazyExtractor, advance: Callable[[int], None]
) -> Iterator[tuple[str, Vectors]]:
    features, logits = extractor(np.stack([wave for _, wave in clips]))
    if features.ndim == 2:
        features = features[:, None]
    advance(len(clips))
    yield from zip((key for key, _ in clips), zip(features, logits, strict=True), strict=True)


def _read(folder: Path) -> dict[str, Vectors]:
    """Return what is known, by content; the vectors are views of mapped files."""
    known: dict[str, Vectors] = {}
    for path in sorted(folder.glob("part-*.arrow")):
        try:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        except (pa.ArrowInvalid, OSError) as error:
            raise IntegrityError(
                f"{path}: damaged ({' '.join(str(error).split())[:80]}); remove it"
            ) from None
        if (table.schema.metadata or {}).get(b"of") != folder.name.encode():
            raise IntegrityError(f"{path}: features of something else than {folder.name}; remove it")
        rows = _rows(table.column("features").combine_chunks())
        logits = table.column("logits").combine_chunks()
        each = logits.flatten().to_numpy().reshape(len(table), logits.type.list_size)
        known |= zip(table.column("content").to_pylist(), zip(rows, each, strict=True), strict=True)
    return known


def _rows(column: pa.Array) -> list[NDArray[np.float32]]:
    """Return the features [k, d] of each clip: of one row where the column's values are vectors."""
    frames = not pa.types.is_fixed_size_list(column.type)
    vectors = column.flatten() if frames else column
    values = vectors.flatten().to_numpy().reshape(len(vectors), -1)
    ends = np.cumsum(column.value_lengths().to_numpy()) if frames else np.arange(1, len(column) + 1)
    return np.split(values, ends[:-1])


def _write(folder: Path, vectors: dict[str, Vectors]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    features, logits = zip(*vectors.values(), strict=True)
    rows = _vectors_of(np.concatenate(features))
    counts = [len(one) for one in features]
    if set(counts) != {1}:  # frames
        rows = pa.ListArray.from_arrays(pa.array(np.cumsum([0, *counts]), pa.int32()), rows)
    columns = {"content": pa.array(list(vectors)), "features": rows, "logits": _vectors_of(np.stack(logits))}
    table = pa.table(columns).replace_schema_metadata({"of": folder.name})
    path = folder / f"part-{xxhash.xxh3_64_hexdigest(''.join(vectors).encode())}.arrow"
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with pa.ipc.new_file(str(part), table.schema) as file:
        file.write_table(table)
    part.replace(path)


def _vectors_of(values: NDArray[np.float32]) -> pa.FixedSizeListArray:
    """Return [n, d] as a column of n vectors; d may be 0."""
    kind = pa.list_(pa.float32(), values.shape[1])
    return pa.FixedSizeListArray.from_buffers(
        kind, len(values), [None], children=[pa.array(values.reshape(-1), pa.float32())]
    )
