"""Data sets as the Hugging Face hub stores them: *audiofolder*, and Parquet shards that hold the sounds.

An audiofolder is a folder of sound files with tables `metadata.csv` or `metadata.jsonl`, in it or in its
split folders, whose column `file_name` is relative to the table; or one table for each split, such as
`train.csv` and `test.csv`. A Parquet shard has a column `audio` of
(bytes, path); the names of classes are in its schema. Splits are the folders, or the beginnings of the names
of shards, such as `train-00000-of-00004.parquet`. Other columns are as in `ajbench.data.corpora.clip_table`.
"""

import contextlib
import os
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ajbench.core.documents import parse_json
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.files import absolute
from ajbench.core.recipe import Data
from ajbench.data import archive, parquet
from ajbench.data.audio import SUFFIXES
from ajbench.data.corpora import clip_table, table_files
from ajbench.data.corpora.splits import corpus_root
from ajbench.data.manifest import SPLIT_NAMES, Manifest, Problem

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
DEEPEST = 3  # folders below the root that are searched: config/split/file


def read(data: Data, root: Path | None) -> Manifest:
    """Read the metadata tables or, without any, the Parquet shards in or below `root`, or one shard.

    Raises:
        UsageError: no root, a subset, no column of labels, or an eval fold without clips.
        MissingError: neither tables nor shards there, or no usable clip in them.
    """
    root = corpus_root(data, root, "a folder with metadata.csv, or Parquet files of sounds", folds=True)
    tables, shards = ([], [root]) if root.is_file() else (find_tables(root), find_shards(root))
    records: table_files.Records = []
    problems: list[Problem] = []
    names = archive.names_of(shards, root)
    for path in tables or shards:
        here, broken = table_files.read(path) if tables else (_rows(path, names[path]), [])
        split, folder = _split(path, root), table_files.folder_of(path, here if tables else [])
        for line, cells in here:
            if tables:
                cells[table_files.TABLE] = str(path)
            if tables and cells["path"]:
                cells["path"] = os.path.normpath(folder / str(cells["path"]))
            if split and not cells.get("split"):
                cells["split"] = split
            records.append((line, cells))
        problems += broken
    if not records:
        raise MissingError(f"{root}: neither {METADATA[0]} nor Parquet files with a column `audio`")
    return clip_table.of_records(data, root / METADATA[0] if root.is_dir() else root, records, problems)


def find_metadata(root: Path) -> list[Path]:
    """Return the metadata tables in or below a folder."""
    return [folder / name for folder in _folders(root) for name in METADATA if (folder / name).is_file()]


def find_split_tables(root: Path) -> list[Path]:
    """Return the tables of files and labels in or below a folder if they are named after two or more splits.

    Their folders may have the names instead.
    """
    found = {}
    for folder in _folders(root, 1):
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in table_files.SUFFIXES and (split := _split(path, root)):
                with contextlib.suppress(UsageError, MissingError):
                    if len(table_files.contents(path)[0]) == 2 and not has_sounds(path):
                        found[path] = split
    return [*found] if len({SPLIT_NAMES[split] for split in found.values()}) > 1 else []


def find_tables(root: Path) -> list[Path]:
    """Return the metadata tables in or below a folder or, without any, a table for each split."""
    return find_metadata(root) or find_split_tables(root)


def find_shards(root: Path) -> list[Path]:
    """Return the Parquet files with sounds in or below a folder, or `root` itself if it is one."""
    files = (path for folder in _folders(root) for path in sorted(folder.glob("*.parquet")))
    return [path for path in ([root] if root.is_file() else files) if has_sounds(path)]


def has_sounds(path: Path) -> bool:
    """Return whether a file is Parquet with a column `audio` of (bytes, path)."""
    try:
        return archive.has_sounds(pq.read_schema(path))
    except (pa.ArrowException, OSError):
        return False


def _folders(root: Path, depth: int = DEEPEST) -> list[Path]:
    if not root.is_dir():
        return []
    below = subfolders(root) if depth else []
    return [root, *(deep for path in below for deep in _folders(path, depth - 1))]


def subfolders(folder: Path) -> list[Path]:
    """Return the folders directly in a folder, without hidden ones."""
    with os.scandir(folder) as entries:
        # Suffixes first: in a folder of many sounds, only a few names need a closer look.
        names = (e for e in entries if not e.name.startswith(".") and not e.name.lower().endswith(SUFFIXES))
        return sorted(Path(e.path) for e in names if e.is_dir())


def _split(path: Path, root: Path) -> str | None:
    """Return the split in the name of a file, or of the folders above it up to `root`."""
    parts = [path.stem, *(path.relative_to(root).parts[-2::-1] if root.is_dir() else ())]
    for part in parts:
        word = re.split(r"[-_.]", part.lower())[0]
        if word in SPLIT_NAMES:
            return word
    return None


def _rows(path: Path, name: str) -> table_files.Records:
    """Return the rows of a shard without their sounds; `path` is that of the sound in the shard.

    `name`: of the shard, with which ids begin.
    """
    try:
        schema = pq.read_schema(path)
        named = (name for name in table_files.light(schema) if name != archive.AUDIO)
        wanted = [*named, *archive.names_in(schema)]
        rows = parquet.read(path, wanted).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path}: not readable as Parquet ({' '.join(str(error).split())})") from None
    except ValueError as error:
        raise UsageError(f"{path}: {error}; split the shard") from None
    others = [name for name in table_files.NAMES["labels"] if name in schema.names]
    column = "labels" if "labels" in schema.names else others[0] if others else None
    if column is None:
        raise UsageError(f"{path}: no column of labels; found: {', '.join(schema.names)}")
    classes = _class_names(schema, column)
    found: table_files.Records = []
    for number, cells in enumerate(rows):
        sound = (cells.pop(archive.AUDIO, None) or {}).get("path") or f"{number}.wav"
        value = cells.pop(column)
        values = value if isinstance(value, list) else [value]
        if classes:  # -1: the clip has no label
            values = [classes[one] for one in values if isinstance(one, int) and 0 <= one < len(classes)]
        cells["labels"] = values
        cells.setdefault("clip_id", f"{name}/{number}-{Path(sound).stem}")
        where = f"{absolute(path)}{archive.MARK}{number}"
        found.append((number + 1, {**table_files.plain(cells), "path": where}))
    return found


def _class_names(schema: pa.Schema, column: str) -> list[str]:
    """Return the names of the classes that a column of numbers stands for, as `datasets` writes them."""
    try:
        written = parse_json((schema.metadata or {})[b"huggingface"])
        feature: Any = written["info"]["features"][column]
        feature = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
        return list(map(str, feature["names"]))
    except (KeyError, ValueError, TypeError, AttributeError):
        return []
