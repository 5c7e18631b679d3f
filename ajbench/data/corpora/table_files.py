"""Rows of a table of clips, in any of its formats, under the names of columns that ajbench uses."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.registry import suggest
from ajbench.data.audio import SUFFIXES as SOUNDS
from ajbench.data.manifest import NOT_UTF8, Problem, Row, csv_header, csv_records, is_utf8

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

TABLE = "::table"  # in records of several tables: the path of theirs
Records = list[tuple[int, dict[str, Any]]]


def read(path: Path) -> tuple[Records, list[Problem]]:
    """Return (line number, {column: cell}) of a CSV, TSV, JSON Lines or Parquet file, and its broken lines.

    The header of a CSV is line 1, the first line of JSON and the first row of a Parquet file too. Columns
    have the names of `ajbench.data.corpora.clip_table`. Only cells of labels are lists.

    Raises:
        MissingError: no such file.
        UsageError: not readable in the format of its suffix, or without a column of files or of labels.
    """
    present = columns(path)
    renamed = _renamed(present) | {old: new for new, old in names(path).items()}
    records: Records
    problems: list[Problem] = []
    if _is_csv(path):
        records, problems = csv_records(path, delimiter=delimiter(path))
    elif path.suffix.lower() == ".jsonl":
        read, problems = _json_lines(path)
        records = [(n, dict.fromkeys(renamed) | row) for n, row in read]
    else:
        records = list(enumerate(_parquet(path, lambda file: file.read().to_pylist()), start=1))
    return [
        (n, plain({renamed.get(name, name): cell for name, cell in row.items()})) for n, row in records
    ], problems


def plain(cells: Mapping[str, Any]) -> dict[str, Any]:
    """Return cells as text, numbers or None, those of labels perhaps as a list: NaN is None."""
    return {
        name: json.dumps(cell, ensure_ascii=False, default=str)
        if isinstance(cell, list | dict) and name != "labels"
        else None
        if isinstance(cell, float) and math.isnan(cell)
        else cell
        for name, cell in cells.items()
    }


def names(path: Path) -> dict[str, str]:
    """Return the columns of a table that hold files and labels: `path` and `labels` → name in the table.

    Raises:
        MissingError: no such file.
        UsageError: not readable, or there is no such column.
    """
    present = columns(path)
    found = held(present)
    for name, others in NAMES.items():
        if name not in found:
            if any(one.lower().endswith(SOUNDS) for one in present):
                raise UsageError(f"{path}: the first line is no header; add one, such as path,label")
            raise UsageError(
                f"{path}: column {name!r} is missing{suggest(name, present)}; found: "
                f"{', '.join(present) or 'no header'}; other names that are read: {', '.join(others)}"
            )
    return found


def held(present: Sequence[str]) -> dict[str, str]:
    """Return `path` and `labels` → name, as far as one of these columns has such a name.

    Case does not matter, nor whether words are separated by blanks.
    """
    written = {_usual(name): name for name in reversed(present)}
    found = {}
    for name, others in NAMES.items():
        if one := next((one for one in (name, *others) if one in written), None):
            found[name] = written[one]
    return found


def _usual(name: str) -> str:
    return "_".join(name.lower().split())


def _renamed(present: Iterable[str]) -> dict[str, str]:
    """Return column → its usual name of those that are written in another way, such as `Split`."""
    known = {item.name for item in fields(Row)}
    return {name: _usual(name) for name in present if _usual(name) in known - {*present}}


def columns(path: Path) -> list[str]:
    """Return the names of a table's columns; errors as in `read`."""
    if _is_csv(path):
        return csv_header(path, delimiter(path))
    if path.suffix.lower() == ".parquet":
        return _parquet(path, lambda file: list(file.schema_arrow.names))
    return list(dict.fromkeys(name for _, row in _json_lines(path, 100)[0] for name in row))


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() in (".csv", ".tsv")


def delimiter(path: Path) -> str:
    """Return the separator of cells: that of the suffix, unless the header has another one and not this.

    Raises:
        MissingError: no such file.
        UsageError: not UTF-8, or not CSV.
    """
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    header = csv_header(path, usual)
    if len(header) == 1:
        return next((other for other in (";", "\t", ",", "|") if other in header[0]), usual)
    return usual


def _parquet(path: Path, get: Callable[[pq.ParquetFile], list[Any]]) -> list[Any]:
    try:
        with pq.ParquetFile(path) as file:
            return get(file)
    except FileNotFoundError:
        raise MissingError(f"{path}: missing") from None
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path}: not readable as Parquet ({' '.join(str(error).split())})") from None


def _json_lines(path: Path, most: int | None = None) -> tuple[Records, list[Problem]]:
    found: Records = []
    problems: list[Problem] = []
    number = 0
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
            for number, line in enumerate(lines, start=1):
                if not is_utf8(line):
                    problems.append(Problem(None, str(path), number, NOT_UTF8))
                elif line.strip():
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
    return found, problems
