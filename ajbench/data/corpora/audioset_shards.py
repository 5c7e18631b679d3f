"""AudioSet's segments as the Parquet shards of the Hugging Face hub name them, for copies without the lists.

Shards lie in folders `bal_train`, `unbal_train` and `eval`, or have names that begin so, anywhere below the
root. Each row has a `video_id`, the sound in `audio`, and `labels`: mids or names of classes. They do not say
where in its video a clip starts, and list only what was still to be had.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ajbench.core.errors import UsageError
from ajbench.data import archive, parquet
from ajbench.data.corpora import hub
from ajbench.data.corpora.youtube import parse_name

FOLDERS = {"balanced": "bal_train", "unbalanced": "unbal_train", "eval": "eval"}
LABELS = "labels"
_PART = re.compile(r"(bal|unbal|eval)(?:anced)?(?:[-_.].*)?", re.IGNORECASE)


class ShardRow(NamedTuple):
    """A clip as its shard names it: `start_s` is 0 unless the name of its file has a start."""

    video_id: str
    start_s: float
    labels: list[str]
    line: int


def find(root: Path) -> dict[str, list[Path]]:
    """Return the shards of each part (balanced, unbalanced, eval) below a folder, in order, if it has any."""
    found: dict[str, list[Path]] = {}
    for path in hub.find_shards(root):
        if part := part_of(path, root):
            found.setdefault(part, []).append(path)
    return found


def part_of(path: Path, root: Path) -> str | None:
    """Return the part of AudioSet in the name of a shard, or of the nearest folder above it up to `root`."""
    parts = {name.partition("_")[0]: part for part, name in FOLDERS.items()}
    for name in (path.stem, *path.relative_to(root).parts[-2::-1]):
        if match := _PART.fullmatch(name):
            return parts[match[1].lower()]
    return None


def rows(path: Path) -> Iterator[ShardRow]:
    """Yield the rows of a shard, without their sounds.

    Raises:
        UsageError: it has no column of video ids or labels, or cannot be read.
    """
    try:
        schema = pq.read_schema(path)
        column = next((name for name in archive.ID_COLUMNS if name in schema.names), None)
        if column is None or LABELS not in schema.names:
            needed = f"columns {archive.ID_COLUMNS[0]} and {LABELS}"
            raise UsageError(f"{path}: needed: {needed}; found: {', '.join(schema.names)}")
        line = 0
        for batch in parquet.batches(path, [column, LABELS, *archive.names_in(schema)]):
            for cells in batch.to_pylist():
                line += 1
                video, value = str(cells[column] or ""), cells[LABELS] or []
                file = Path((cells.get(archive.AUDIO) or {}).get("path") or "").stem
                _, start = parse_name(file, {video}) or ("", None)
                labels = value if isinstance(value, list) else str(value).split(",")
                yield ShardRow(video, start or 0.0, [str(one).strip() for one in labels], line)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UsageError(f"{path}: not readable as Parquet ({' '.join(str(error).split())})") from None
