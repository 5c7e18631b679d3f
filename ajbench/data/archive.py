"""Sounds inside tars and Parquet shards, read in place.

The path of such a sound is `<archive>::<member>`: the name in the tar, or the row number in a Parquet file
with a column `audio` of (bytes, path). No more than a few dozen sounds of a shard are in memory at a time.
"""

import bisect
import itertools
import re
import tarfile
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ajbench.core.errors import MissingError
from ajbench.core.memory import need_reserve
from ajbench.data import parquet
from ajbench.data.audio import SUFFIXES as AUDIO_SUFFIXES
from ajbench.data.audio import AudioError

MARK = "::"  # between archive and member
SUFFIXES = (".tar", ".parquet")
AUDIO = "audio"  # the column of a Parquet shard
ID_COLUMNS = ("video_id", "youtube_id", "ytid", "YTID")  # of a Parquet shard of clips of videos
BATCH, BATCH_BYTES = 16, 1 << 31  # rows of a Parquet shard, and their bytes, that are read at once
# `::` in the name of a plain file follows no suffix of an archive.
_MEMBER = re.compile(rf"(.+?\.(?:tar|parquet)){MARK}(.+)", re.DOTALL | re.IGNORECASE)
KEPT = 6  # batches kept: several threads read, each a few rows ahead of the others


def container(path: str) -> str:
    """Return the archive of a sound, or the path itself if it is a plain file."""
    return _parts(path)[0]


def names_of(archives: Sequence[Path], root: Path) -> dict[Path, str]:
    """Return how the ids of an archive's clips begin: its name or, if several have it, its path in `root`."""
    times = Counter(path.stem for path in archives)
    return {
        path: path.stem if times[path.stem] == 1 else path.relative_to(root).with_suffix("").as_posix()
        for path in archives
    }


def is_member(path: str) -> bool:
    """Return whether a path is that of a sound in an archive."""
    return _MEMBER.fullmatch(path) is not None


def _parts(path: str) -> tuple[str, str]:
    match = _MEMBER.fullmatch(path)
    return (match[1], match[2]) if match else (path, "")


@contextmanager
def local(path: str) -> Iterator[str]:
    """Give a sound as a file: its own, or while the context lasts a temporary one of a member of an archive.

    Raises:
        AudioError: the archive has no such member, or cannot be read.
    """
    if not is_member(path):
        yield path
        return
    with NamedTemporaryFile(suffix=Path(_parts(path)[1]).suffix) as file:
        file.write(content(path))
        file.flush()
        yield file.name


def content(path: str) -> bytes:
    """Return the bytes of a member of an archive; errors as in `local`."""
    archive, member = _parts(path)
    try:
        if archive.lower().endswith(".tar"):
            offset, size = members(archive)[member]
            with Path(archive).open("rb") as file:
                file.seek(offset)
                return file.read(size)
        return _shard(archive).sound(int(member))
    except (OSError, KeyError, IndexError, ValueError, tarfile.TarError, pa.ArrowException) as error:
        need_reserve()
        raise AudioError(f"unreadable in its archive ({' '.join(str(error).split())})", Path(path)) from None


def sounds(archive: str) -> Iterator[tuple[str, str]]:
    """Yield path and name of every sound in a tar or Parquet shard; other Parquet files have none.

    A name is that of the sound's file, without folder and suffix. If a shard has a column of video ids, a
    name without the id is replaced by it.

    Raises:
        MissingError: the archive cannot be read.
    """
    try:
        if archive.lower().endswith(".tar"):
            for name in members(archive):
                inside = PurePosixPath(name)
                if inside.suffix.lower() in AUDIO_SUFFIXES and not inside.name.startswith("."):
                    yield f"{archive}{MARK}{name}", inside.stem
            return
        file = pq.ParquetFile(archive)
        schema = file.schema_arrow
        if not has_sounds(schema):
            return
        column = next((name for name in ID_COLUMNS if name in schema.names), None)
        wanted = [*names_in(schema), *([column] if column else [])]
        rows: Iterable[dict[str, Any]] = itertools.repeat({}, parquet.need_few_rows(file))
        if wanted:
            rows = (cells for batch in parquet.batches(archive, wanted) for cells in batch.to_pylist())
        for row, cells in enumerate(rows):
            stem = PurePosixPath((cells.get(AUDIO) or {}).get("path") or "").stem
            video = str(cells[column] or "") if column else ""
            yield f"{archive}{MARK}{row}", stem if video in stem else video
    except (OSError, ValueError, tarfile.TarError, pa.ArrowException) as error:
        raise MissingError(f"{archive}: not readable ({' '.join(str(error).split())})") from None


def has_sounds(schema: pa.Schema) -> bool:
    """Return whether a Parquet file of this schema has a column `audio` of (bytes, path)."""
    kind = _kind(schema, "bytes")
    return kind is not None and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def names_in(schema: pa.Schema) -> list[str]:
    """Return the column that names the files of the sounds; none if there is no such one of texts."""
    kind = _kind(schema, "path")
    if kind is not None and pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_text = kind is not None and (pa.types.is_string(kind) or pa.types.is_large_string(kind))
    return [f"{AUDIO}.path"] if is_text else []


def _kind(schema: pa.Schema, part: str) -> pa.DataType | None:
    """Return the type of a part of the column `audio`."""
    column = schema.field(AUDIO).type if AUDIO in schema.names else None
    if column is None or not pa.types.is_struct(column) or column.get_field_index(part) < 0:
        return None
    return column.field(part).type


def size(path: str) -> int | None:
    """Return the bytes of a member, None if there is no such; 0 for all rows of a Parquet file."""
    archive, member = _parts(path)
    if not archive.lower().endswith(".tar"):
        return 0
    try:
        return members(archive)[member][1]
    except (OSError, KeyError, tarfile.TarError):
        return None


@lru_cache(maxsize=64)
def members(archive: str) -> dict[str, tuple[int, int]]:
    """Return where the files of a tar are: name → offset and size in bytes, in order."""
    with tarfile.open(archive, "r:") as file:
        # A sparse file may say any size; its bytes are not in one piece either.
        return {one.name: (one.offset_data, one.size) for one in file if one.isfile() and not one.issparse()}


@lru_cache(maxsize=8)
def _shard(archive: str) -> "_Shard":
    return _Shard(archive)


class _Shard:
    """A Parquet file whose sounds are read in batches; fastest if rows are asked for roughly in order.

    For a row far ahead or behind, reading goes on at the beginning of its row group.
    """

    def __init__(self, path: str) -> None:
        # Without these two options, pyarrow holds all sounds of a row group in memory.
        self.file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
        sizes = (self.file.metadata.row_group(g).num_rows for g in range(self.file.num_row_groups))
        self.groups = [0, *itertools.accumulate(sizes)]  # first row of each group, and the number of rows
        self.at_once = parquet.rows_at_once(self.file, [AUDIO], BATCH, BATCH_BYTES)
        self.lock = threading.Lock()
        self.kept: OrderedDict[int, Any] = OrderedDict()  # number of the batch's first row → its sounds
        self.restart(0)

    def restart(self, group: int) -> None:
        self.next = self.groups[group]
        self.batches = self.file.iter_batches(
            self.at_once, row_groups=list(range(group, self.file.num_row_groups)), columns=[AUDIO]
        )

    def sound(self, row: int) -> bytes:
        with self.lock:
            if not 0 <= row < self.groups[-1]:
                raise IndexError(f"no row {row}")
            while (found := self._kept(row)) is None:
                group = bisect.bisect_right(self.groups, row) - 1
                if row < self.next or self.next < self.groups[group]:
                    self.restart(group)
                batch = next(self.batches, None)
                if batch is None:
                    raise IndexError(f"no row {row}")
                self.kept[self.next] = batch.column(0)
                self.next += batch.num_rows
                while len(self.kept) > KEPT:
                    self.kept.popitem(last=False)
            sound = found["bytes"].as_py()
        if not sound:
            raise KeyError("no bytes")
        return bytes(sound)

    def _kept(self, row: int) -> Any:
        for first, batch in self.kept.items():
            if first <= row < first + len(batch):
                return batch[row - first]
        return None
