"""The clips to caption, streamed from a store, a manifest or a table; evaluation clips are left out."""

import itertools
import json
import math
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from ajbench.core import console
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.data import parquet
from ajbench.data.corpora import audioset, recordings
from ajbench.data.corpora.label_cells import listed, separator_of
from ajbench.data.manifest import LABEL_SEPARATOR, SPLIT_NAMES, Problem, Row, csv_rows
from ajbench.data.store import ClipStore

Rows = Callable[[], Iterable[Row]]  # each call starts from the beginning

HELD_OUT = ("val", "eval")
UNLABELLED = "without labels"
BATCH = 4096
HEAD_BYTES = 1 << 16
TEXTS = ("video", "visual_caption", "recording")
READ = ("clip_id", "path", "start_s", "duration_s", "labels", "split", *TEXTS)


@dataclass(frozen=True)
class Count:
    """What a pass over the clips found.

    Attributes:
        clips: to caption.
        excluded: evaluation clips, listed clips and others of their recordings, by the reason.
        unlabelled: clips without a label, which are left out too.
        single: clips with one label.
        having: number of clips with a `visual_caption`, and with a `video`.
        digest: of everything that captions depend on.
    """

    clips: int
    excluded: dict[str, int]
    unlabelled: int
    single: int
    having: dict[str, int]
    digest: str


@dataclass(frozen=True)
class Clips:
    """The clips to caption, in their order; nothing but ids is kept in memory.

    Attributes:
        rows: reads all clips.
        name: for messages.
        evaluation: whether clips of the val and eval splits are captioned too.
        exclude: a list of clips to leave out, such as another corpus' test set (as for `data.leave_out`).
        videos: whether captions are made of the videos, whose content is then part of what they depend on.
    """

    rows: Rows
    name: str
    evaluation: bool = False
    exclude: Path | None = None
    videos: bool = False

    def __iter__(self) -> Iterator[Row]:
        return (row for row, reason in self._judged() if not reason)

    def chunks(self, size: int) -> Iterator[tuple[int, list[Row]]]:
        """Yield number and clips of each chunk."""
        clips = iter(self)
        for number in itertools.count():
            if not (chunk := list(itertools.islice(clips, size))):
                return
            yield number, chunk

    @cached_property
    def count(self) -> Count:
        """What there is.

        Raises:
            UsageError: no clip is left, or an id occurs twice.
            MissingError: a file is missing.
        """
        digest, reasons, seen = xxhash.xxh3_128(), Counter[str](), array("Q")
        clips = single = 0
        having = dict.fromkeys(("visual_caption", "video"), 0)
        for row, reason in self._judged():
            if reason:
                reasons[reason] += 1
                continue
            clips += 1
            single += len(row.labels) == 1
            for name in having:
                having[name] += bool(getattr(row, name))
            about = _content(row) + ([_head(row.video)] if self.videos and row.video else [])
            digest.update(json.dumps(about, ensure_ascii=False).encode())
            seen.append(_hash(row))
        unlabelled = reasons.pop(UNLABELLED, 0)
        if not clips:
            left = (
                ", ".join(f"{n} {reason}" for reason, n in reasons.items()) or f"{unlabelled} without labels"
            )
            raise UsageError(f"{self.name}: no clip to caption ({left}); see --include-eval and --exclude")
        hashes, times = np.unique(np.frombuffer(seen, np.uint64), return_counts=True)
        if len(hashes) < clips:
            repeated = hashes[times > 1]
            clip = next(row.clip_id for row in self if _hash(row) in repeated)
            raise UsageError(f"{self.name}: clip {clip!r} is listed more than once; keep one line")
        return Count(clips, dict(reasons), unlabelled, single, having, digest.hexdigest())

    @cached_property
    def _left_out(self) -> frozenset[str]:
        """Ids and recordings of the clips that may not be trained on."""
        listed = set(recordings.listed(self.exclude)) if self.exclude else set()
        if not self.evaluation or listed:
            for row in self.rows():
                held = row.split in HELD_OUT and not self.evaluation
                if held or row.clip_id in listed:
                    listed |= {row.clip_id, row.recording or row.clip_id}
        return frozenset(listed)

    def _judged(self) -> Iterator[tuple[Row, str]]:
        """Yield each clip with the reason why it is left out; empty if it is not."""
        left_out = self._left_out
        for row in self.rows():
            if row.split in HELD_OUT and not self.evaluation:
                yield row, f"in split {row.split}"
            elif row.clip_id in left_out or row.recording in left_out:
                yield row, "excluded by a list or an evaluation clip's recording"
            else:
                yield row, "" if row.labels else UNLABELLED


def of_store(path: Path) -> Rows:
    """Return a reader of a clip store's clips."""
    store = ClipStore.open(path)

    def rows() -> Iterator[Row]:
        for shard in store.mapped:
            table = shard.table.select(READ)
            for start in range(0, table.num_rows, BATCH):
                for values in table.slice(start, BATCH).to_pylist():
                    given = {name: value for name, value in values.items() if value is not None}
                    yield Row(**given | {"labels": tuple(values["labels"] or ())})

    return rows


def of_table(path: Path) -> Rows:
    """Return a reader of labels in a table.

    Args:
        path: a .parquet such as a manifest, or a .csv, with columns `clip_id` and `labels` (as
            `label_cells` reads them; in Parquet they may be lists), and if wanted `split`, `video`,
            `visual_caption`, `recording`, `start_s`, `duration_s`; or a segment list of AudioSet. The eval
            list is an eval split, others are train splits.

    Raises:
        MissingError: no such file.
        UsageError: it has none of these forms; raised when it is read.
    """
    if not path.is_file():
        raise MissingError(f"--labels {path}: no such file")
    if path.suffix == ".parquet":
        return lambda: _parquet(path)
    first = next((cells for _, cells in csv_rows(path)), [])
    return (lambda: _csv(path)) if "labels" in first else (lambda: _segments(path))


def _separator(path: Path, cells: set[str]) -> str:
    """Return what separates the labels in all cells of a table, and say it if it is not usual."""
    used = separator_of(cells, LABEL_SEPARATOR)
    if used != LABEL_SEPARATOR:
        console.say_once(f"{path}: labels are separated by {used!r}")
    return used


def _parquet(path: Path) -> Iterator[Row]:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            for name in ("clip_id", "labels"):
                if name not in names:
                    raise UsageError(
                        f"--labels {path}: column {name!r} is missing; found: {', '.join(names)}"
                    )
            number, separator = 0, LABEL_SEPARATOR
            kind = file.schema_arrow.field("labels").type
            if pa.types.is_string(kind) or pa.types.is_large_string(kind):
                parts = (batch.column(0).unique().to_pylist() for batch in parquet.batches(path, ["labels"]))
                separator = _separator(path, {*filter(None, itertools.chain.from_iterable(parts))})
            for batch in parquet.batches(path, [name for name in READ if name in names], BATCH):
                for values in batch.to_pylist():
                    number += 1
                    cells = {name: value for name, value in values.items() if value not in (None, "")}
                    yield _row(cells, f"--labels {path}, row {number}", separator)
    except pa.ArrowException as error:
        raise IntegrityError(f"--labels {path}: not Parquet ({' '.join(str(error).split())[:100]})") from None
    except ValueError as error:
        raise UsageError(f"--labels {path}: {error}; split it") from None


def _csv(path: Path) -> Iterator[Row]:
    lines = csv_rows(path)
    _, header = next(lines)
    if "clip_id" not in header:
        raise UsageError(f"--labels {path}: column 'clip_id' is missing; found: {', '.join(header)}")
    place = header.index("labels")
    separator = _separator(path, {row[place] for _, row in csv_rows(path) if len(row) > place} - {"labels"})
    for line, values in lines:
        if len(values) != len(header):
            raise UsageError(f"--labels {path}:{line}: {len(values)} cells, the header has {len(header)}")
        cells = {name: text.strip() for name, text in zip(header, values, strict=True) if text.strip()}
        yield _row(cells, f"--labels {path}:{line}", separator)


def _row(cells: Mapping[str, Any], where: str, separator: str) -> Row:
    """Return a clip of a table from its cells that are not empty: text, numbers, and perhaps lists of labels.

    Raises:
        UsageError: a value is wrong; the message begins with `where`.
    """
    labels, split = cells.get("labels", ()), str(cells.get("split", "train"))
    if isinstance(labels, str):
        labels = listed(labels, separator)
    texts: dict[str, Any] = {name: str(cells[name]) for name in TEXTS if name in cells}
    try:
        start_s = float(cells.get("start_s", 0))
        duration_s = float(cells["duration_s"]) if "duration_s" in cells else None
        if not (0 <= start_s < math.inf and (duration_s is None or 0 < duration_s < math.inf)):
            raise ValueError(f"start_s {start_s:g}, duration_s {duration_s}: out of range")
        return Row(
            clip_id=str(cells["clip_id"]),
            path=str(cells.get("path", "")),
            start_s=start_s,
            duration_s=duration_s,
            labels=tuple(filter(None, (str(label).strip() for label in labels))),
            split=SPLIT_NAMES[split.strip().lower()],
            **texts,
        )
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(f"{where}: clip_id, split, labels or a time is wrong ({error})") from None


def _segments(path: Path) -> Iterator[Row]:
    labels = audioset.label_set()
    by_mid = dict(zip(labels.mids or (), labels.names, strict=True))
    outside = {mid: sound.name for mid, sound in audioset.ontology().items()}
    split = "eval" if path.name == audioset.EVAL else "train"
    for item in audioset.segments(path, split, by_mid, outside):
        if isinstance(item, Problem):
            raise UsageError(f"--labels {path}:{item.line}: {item.reason}")
        yield item.row("", item.start_s)


def _content(row: Row) -> list[object]:
    return [row.clip_id, row.labels, row.visual_caption, row.video, row.start_s, row.duration_s]


def _head(path: str) -> str:
    """Return size and hash of the first part of a file; its path if there is none."""
    try:
        with Path(path).open("rb") as file:
            return f"{os.fstat(file.fileno()).st_size}:{xxhash.xxh3_64_hexdigest(file.read(HEAD_BYTES))}"
    except OSError:
        return path


def _hash(row: Row) -> int:
    return xxhash.xxh3_64_intdigest(row.clip_id.encode())
