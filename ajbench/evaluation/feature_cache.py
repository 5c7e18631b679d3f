"""Features and logits of clips, computed once and kept by content, extractor, weights and protocol."""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from ajbench.core import console
from ajbench.core.device import device_of, readers
from ajbench.core.errors import IntegrityError, MissingError
from ajbench.core.files import replacing
from ajbench.data import audio
from ajbench.data.clip_set import ClipSet, ahead
from ajbench.evaluation.long_clips import PIECE_S, beginning, is_long, levelled
from ajbench.evaluation.protocols import Protocol
from ajbench.features.extractor import LazyExtractor

PART = 256  # clips of a set that are batched and kept together: so many are computed again at most
BATCH, GPU_BATCH = 8, 64  # clips of one length; faster than one by one, even on one core
WAITING = 64  # clips held back until a batch of their length is full, for batches of eight
AHEAD = 4  # clips that each reading thread is ahead
Vectors = tuple[NDArray[np.float32], NDArray[np.float32]]  # features [k, d] and logits [C] of a clip
Windows = NDArray[np.float32]  # [k, n]
Pieces = Iterator[Windows | str]  # of a long clip

# Files of the cache whose checksum this process has compared.
_verified: set[tuple[Path, int, int, int]] = set()


@dataclass(frozen=True)
class LeftOut:
    """A clip without usable sound: its number in the set, and the reason."""

    number: int
    reason: str


@dataclass(frozen=True)
class Embeddings:
    """Features and logits of the usable clips of a set.

    Attributes:
        numbers: numbers of these clips in the set, int64 [n], ascending.
        rows: float32 [k, d] of each of the n clips: one row, or several from an extractor of frames. Rows of
            cached clips are views of files.
        logits: float32 [n, C]; C is 0 if the extractor knows no classes.
        left_out: the other clips of the set.
        computed: how many of the n clips were not in the cache.
    """

    numbers: NDArray[np.int64]
    rows: Sequence[NDArray[np.float32]]
    logits: NDArray[np.float32]
    left_out: list[LeftOut]
    computed: int

    @property
    def dimension(self) -> int:
        """Length d of the rows; 0 without clips."""
        return self.rows[0].shape[1] if self.rows else 0

    def vectors(self) -> NDArray[np.float64]:
        """Return one vector per clip, [n, d]: the mean over frames where there are several."""
        if not self.rows:
            return np.zeros((0, 0))
        return np.stack([one.mean(axis=0, dtype=np.float64) for one in self.rows])


def embed(
    clips: ClipSet,
    extractor: LazyExtractor,
    protocol: Protocol,
    cache: Path,
    advance: Callable[[int], None] = lambda n: None,
) -> Embeddings:
    """Return features and logits of all usable clips, from the cache where they are in it.

    Eight clips of one length form a batch, 64 on a GPU; the rest are run one by one. Batching changes the
    last digits. It is that of the clips that are not in the cache yet, so the last digits also depend on
    what other sets have put there.
    Features and logits of several windows are averaged, but all frames of an extractor of frames are kept.
    Clips of more than two minutes are read minute by minute, and count as windows; of those, extractors that
    cut clips get the first minute only.
    Every 256 clips of the set are batched by themselves, then written into the cache: an interrupted run
    continues there, with the same batches.

    Args:
        clips: the set.
        extractor: the extractor.
        protocol: the preprocessing.
        cache: folder of all caches; each has a subfolder named by extractor, weights and protocol.
        advance: called with the number of clips done.

    Raises:
        IntegrityError: a file of the cache is damaged or belongs to another extractor or protocol.
    """
    # Raised when the waves of a protocol change: what was computed of others is computed again.
    version = "-2" if protocol.centred or protocol.peak_db is not None else ""
    folder = cache / f"{extractor.name}-{extractor.weights_hash}-{protocol.name}{version}"
    known, keys = _read(folder), clips.keys
    missing = _missing(keys, known)
    unusable: dict[str, str] = {}

    def read(number: int) -> tuple[str, Windows | str | Pieces]:
        rate = extractor.sample_rate
        try:
            if not is_long(clips, number):
                return keys[number], windows_of(protocol.wave(*clips.samples(number), rate))
            if protocol.max_s is not None and protocol.max_s <= PIECE_S:
                return keys[number], windows_of(beginning(clips, number, protocol, rate))
        except audio.AudioError as error:
            return keys[number], error.reason
        cut = 1 if extractor.max_samples and protocol.window_s is None else None
        return keys[number], map(windows_of, islice(levelled(clips, number, protocol, rate), cut))

    def windows_of(wave: NDArray[np.float32]) -> Windows | str:
        windows = protocol.windows(wave, extractor.sample_rate)
        length = max(windows.shape[1], extractor.min_samples)
        length = min(length, extractor.max_samples or length)
        fitted = np.stack([audio.fit(one, length) for one in windows])
        # Channels in antiphase, or sound above half the new rate, leave silence. Baselines may be silent.
        judged = protocol.peak_db is None and clips.change is None
        # Judged is all that was read: sound may begin after what the extractor takes of it.
        return (audio.defect(windows) if judged else None) or fitted

    advance(len(clips) - len(missing))
    computed = 0
    size, threads = (GPU_BATCH if device_of().type == "cuda" else BATCH), readers()
    with ThreadPoolExecutor(threads) as pool:
        reading = ahead(pool, read, missing, AHEAD * threads)
        for _, run in groupby(missing, lambda number: number // PART):
            clips_of_run = islice(reading, len(list(run)))
            part = dict(_extract(clips_of_run, extractor, unusable, advance, size))
            if not part:  # no usable clip
                continue
            try:
                known |= _mapped(_write(folder, part))
            except (OSError, MissingError) as error:
                # Without the name of the part, so that it is told once.
                reason = getattr(error, "strerror", None) or str(error).partition(": ")[2]
                console.say_once(f"features are not kept: {folder}: {reason}")
                known |= part
            computed += len(part)
    numbers = [number for number, key in enumerate(keys) if key in known]
    rows = [known[keys[n]][0] for n in numbers]
    logits = [known[keys[n]][1] for n in numbers]
    return Embeddings(
        np.array(numbers, np.int64),
        rows,
        np.stack(logits) if logits else np.zeros((0, 0), np.float32),
        [LeftOut(n, unusable[key]) for n, key in enumerate(keys) if key not in known],
        computed,
    )


def _missing(keys: Sequence[str], known: Collection[str]) -> list[int]:
    """Return the number of the first clip with each key that is not known, ascending.

    What an earlier part of a set has computed is not computed again in a later one, so that batches are the
    same after an interruption in between.
    """
    first: dict[str, int] = {}
    for number, key in enumerate(keys):
        if key not in known:
            first.setdefault(key, number)
    return list(first.values())


def _extract(
    clips: Iterator[tuple[str, Windows | str | Pieces]],
    extractor: LazyExtractor,
    unusable: dict[str, str],
    advance: Callable[[int], None],
    size: int = BATCH,
) -> Iterator[tuple[str, Vectors]]:
    """Yield the vectors of clips by key, clips of one length in batches of `size`; note the unusable ones."""

    def run(batch: list[tuple[str, Windows]]) -> Iterator[tuple[str, Vectors]]:
        features, logits = extractor(np.stack([wave for _, wave in batch]))
        rows = features[:, None] if features.ndim == 2 else features
        advance(len(batch))
        yield from zip((key for key, _ in batch), zip(rows, logits, strict=True), strict=True)

    def flush() -> Iterator[tuple[str, Vectors]]:
        singles = [[clip] for batch in waiting.values() for clip in batch]
        waiting.clear()
        for single in singles:
            yield from run(single)

    waiting: dict[int, list[tuple[str, Windows]]] = {}
    for key, windows in clips:
        if isinstance(windows, str):
            unusable[key] = windows
            advance(1)
        elif not isinstance(windows, np.ndarray):
            found = _of_pieces(windows, extractor)
            if isinstance(found, str):
                unusable[key] = found
            else:
                yield key, found
            advance(1)
        elif len(windows) > 1:
            features, logits = extractor(windows)
            rows = features.mean(axis=0)[None] if features.ndim == 2 else np.concatenate(features)
            yield key, (rows, logits.mean(axis=0))
            advance(1)
        else:
            batch = waiting.setdefault(windows.shape[1], [])
            batch.append((key, windows[0]))
            if len(batch) == size:
                yield from run(waiting.pop(windows.shape[1]))
            elif sum(map(len, waiting.values())) == WAITING * size // BATCH:
                yield from flush()
    yield from flush()


def _of_pieces(pieces: Pieces, extractor: LazyExtractor) -> Vectors | str:
    """Return the vectors of a long clip, averaged over the windows of its usable pieces; or why none is."""
    features, logits, reason = [], [], "empty (no samples)"
    try:
        for windows in pieces:
            if isinstance(windows, str):
                if not windows.startswith("silent"):
                    return windows
                reason = windows  # a silent minute of a long clip
                continue
            for start in range(0, len(windows), BATCH):
                found = extractor(windows[start : start + BATCH])
                features.append(found[0])
                logits.append(found[1])
    except audio.AudioError as error:
        return error.reason
    if not features:
        return reason
    # The last piece is longer: it has more frames than the others.
    rows = np.concatenate([one.reshape(-1, one.shape[-1]) for one in features])
    mean = np.concatenate(logits).mean(axis=0)
    return (rows.mean(axis=0)[None] if features[0].ndim == 2 else rows), mean


def _read(folder: Path) -> dict[str, Vectors]:
    """Return the vectors of a cache by key of their clip."""
    known: dict[str, Vectors] = {}
    for path in sorted(folder.glob("part-*.arrow")):
        known |= _mapped(path)
    return known


def _mapped(path: Path) -> dict[str, Vectors]:
    """Return the vectors of a file of the cache by key of their clip; they are views of the mapped file.

    Its checksum is compared once per process.
    """
    try:
        about = path.stat()
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        reason = " ".join(str(error).split())[:80]
        raise IntegrityError(f"{path}: damaged ({reason}); remove it") from None
    if (table.schema.metadata or {}).get(b"of") != path.parent.name.encode():
        raise IntegrityError(f"{path}: does not belong to {path.parent.name}; remove it")
    noted = table.schema.metadata.get(b"xxh3")  # not in older files
    state = path, about.st_ino, about.st_size, about.st_mtime_ns
    if noted and state not in _verified:
        if noted.decode() != _digest(table):
            raise IntegrityError(f"{path}: damaged (checksum mismatch); remove it")
        _verified.add(state)
    rows = _rows(_whole(table.column("features")))
    logits = _whole(table.column("logits"))
    each = logits.flatten().to_numpy().reshape(len(table), logits.type.list_size)
    return dict(zip(table.column("content").to_pylist(), zip(rows, each, strict=True), strict=True))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array; `combine_chunks` copies a single chunk too."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _rows(column: pa.Array) -> list[NDArray[np.float32]]:
    """Return the features [k, d] of each clip; k is 1 where the values of the column are vectors."""
    frames = not pa.types.is_fixed_size_list(column.type)
    vectors = column.flatten() if frames else column
    values = vectors.flatten().to_numpy().reshape(len(vectors), -1)
    ends = np.cumsum(column.value_lengths().to_numpy()) if frames else np.arange(1, len(column) + 1)
    return np.split(values, ends[:-1])


def _write(folder: Path, vectors: dict[str, Vectors]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    features, logits = zip(*vectors.values(), strict=True)
    rows = _column(np.concatenate(features))
    counts = [len(one) for one in features]
    if set(counts) != {1}:  # frames
        rows = pa.ListArray.from_arrays(pa.array(np.cumsum([0, *counts]), pa.int32()), rows)
    columns = {"content": pa.array(list(vectors)), "features": rows, "logits": _column(np.stack(logits))}
    table = pa.table(columns)
    table = table.replace_schema_metadata({"of": folder.name, "xxh3": _digest(table)})
    path = folder / f"part-{xxhash.xxh3_64_hexdigest(''.join(vectors).encode())}.arrow"
    with replacing(path) as part, pa.ipc.new_file(str(part), table.schema) as file:
        file.write_table(table)
    return path


def _digest(table: pa.Table) -> str:
    """Return a hash of the values of a table, whatever its buffers."""
    digest = xxhash.xxh3_128("\0".join(table.column("content").to_pylist()).encode())
    for name in ("features", "logits"):
        values = _whole(table.column(name))
        while not pa.types.is_floating(values.type):
            digest.update(np.ascontiguousarray(values.value_lengths().to_numpy(zero_copy_only=False)).data)
            values = values.flatten()
        digest.update(np.ascontiguousarray(values.to_numpy()).data)
    return digest.hexdigest()


def _column(values: NDArray[np.float32]) -> pa.FixedSizeListArray:
    """Return [n, d] as a column of n vectors of d values; d may be 0."""
    kind, flat = pa.list_(pa.float32(), values.shape[1]), pa.array(values.reshape(-1), pa.float32())
    return pa.FixedSizeListArray.from_buffers(kind, len(values), [None], children=[flat])
