"""Rows of a table of clips, in any of its formats, under the names of columns that ajbench uses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.registry import suggest
from ajbench.data.manifest import Problem, csv_header, csv_records

SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl")
# Column → other names that it has in tables of sounds; the first one found is read.
NAMES = {
    "path": (
        "file_name", "filename", "file", "file_path", "filepath", "audio_path", "audio_filepath",
        "audio_file", "slice_file_name", "wav", "audio", "fname",
    ),
    "labels": (
        "label", "class_name", "label_name", "category", "class", "classes", "tags", "tag", "target",
        "genre", "emotion", "command", "species", "sound",
    ),
}  # fmt: skip

Records = list[tuple[int, dict[str, Any]]]


def read(path: Path) -> tuple[Records, list[Problem]]:
    """Return (line number, {column: cell}) of a CSV, TSV, JSON Lines or Parquet file, and its broken lines.

    The header of a CSV is line 1, the first line of JSON and the first row of a Parquet file too.

    Raises:
        MissingError: no such file.
        UsageError: not readable in the format of its suffix, or without a column of files or of labels.
    """
    kind, renamed = path.suffix.lower(), names(path)
    records: Records
    problems: list[Problem] = []
    if kind in (".csv", ".tsv"):
        records, problems = csv_records(path, delimiter="\t" if kind == ".tsv" else ",")
    elif kind == ".jsonl":
        records = [(n, dict.fromkeys(renamed.values()) | row) for n, row in _json_lines(path)]
    else:
        records = list(enumerate(_parquet(path, lambda file: file.read().to_pylist()), start=1))
    changed = {old: new for new, old in renamed.items() if old != new}
    if changed:
        records = [(n, {changed.get(name, name): cell for name, cell in row.items()}) for n, row in records]
    return records, problems


def names(path: Path) -> dict[str, str]:
    """Return the columns of a table that hold files and labels: `path` and `labels` → name in the table.

    Raises:
        MissingError: no such file.
        UsageError: not readable, or there is no such column.
    """
    present = columns(path)
    found = {}
    for name, others in NAMES.items():
        column = next((one for one in (name, *others) if one in present), None)
        if column is None:
            raise UsageError(
                f"{path}: column {name!r} is missing{suggest(name, present)}; found: "
                f"{', '.join(present) or 'no header'}; other names that are read: {', '.join(others)}"
            )
        found[name] = column
    return found


def columns(path: Path) -> list[str]:
    """Return the names of a table's columns; errors as in `read`."""
    kind = path.suffix.lower()
    if kind in (".csv", ".tsv"):
        return csv_header(path, "\t" if kind == ".tsv" else ",")
    if kind == ".parquet":
        return _parquet(path, lambda file: list(file.schema_arrow.names))
    return list(dict.fromkeys(name for _, row in _json_lines(path, 100) for name in row))


def _parquet(path: Path, get: Callable[[pq.ParquetFile], list[Any]]) -> list[Any]:
    try:
        with pq.ParquetFile(path) as file:
            return get(file)
    except FileNotFoundError:
        raise MissingError(f"{path}: missing") from None
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path}: not readable as Parquet ({' '.join(str(error).split())})") from None


def _json_lines(path: Path, most: int | None = None) -> Records:
    found: Records = []
    number = 0
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise ValueError("expected an object in each line")
                    found.append((number, row))
                if number == most:
                    break
    except FileNotFoundError:
        raise MissingError(f"{path}: missing") from None
    except ValueError as error:
        raise UsageError(f"{path}:{number}: not readable as JSON ({error})") from None
    return found
