"""Rows of a table of clips, in any of its formats, under the names of columns that ajbench uses."""

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ajbench.core import console
from ajbench.core.console import counted
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.files import absolute, need_regular
from ajbench.core.registry import suggest
from ajbench.data import parquet
from ajbench.data.audio import SUFFIXES as SOUNDS
from ajbench.data.corpora import class_columns, json_tables
from ajbench.data.manifest import Problem, Row, csv_header, csv_records

SUFFIXES = (".csv", ".tsv", ".parquet", *json_tables.SUFFIXES)
# Column → other names that it has in tables of sounds; the first one found is read.
NAMES = {
    "path": (
        "file_name", "filename", "file", "file_path", "filepath", "audio_path", "audio_filepath",
        "audio_file", "audio_filename", "sound_file", "slice_file_name", "wav", "wav_path", "wav_file",
        "mp3_path", "audio", "fname",
    ),
    "labels": (
        "label", "class_name", "label_name", "category", "class", "classes", "tags", "tag", "target",
        "genre", "emotion", "command", "species", "sound",
    ),
}  # fmt: skip

SHOWN = 8  # classes that are named
TABLE = "::table"  # in records of several tables: the path of theirs
REASON = "::reason"  # in records: why they have no labels
Records = list[tuple[int, dict[str, Any]]]


def read(path: Path) -> tuple[Records, list[Problem]]:
    """Return (line number, {column: cell}) of a CSV, TSV, JSON or Parquet file, and its broken lines.

    The header of a CSV is line 1, the first line or row of JSON and the first row of a Parquet file too.
    Columns have the names of `ajbench.data.corpora.clip_table`. Only cells of labels are lists. A table
    without labels may have a column of 0 and 1 for each class, of which labels are made.

    Raises:
        MissingError: no such file.
        UsageError: not readable in the format of its suffix, or without a column of files or of labels.
    """
    present = columns(path)
    renamed = _renamed(present) | {old: new for new, old in _held(present).items()}
    records, problems = _records(path)
    if _is_json(path):
        records = [(n, dict.fromkeys(renamed) | row) for n, row in records]
    records = [
        (n, plain({renamed.get(name, name): cell for name, cell in row.items()})) for n, row in records
    ]
    if "path" in renamed.values() and "labels" not in renamed.values():
        records = _with_labels(records, path)
    _check(path, present, {*renamed.values(), *(name for _, row in records[:1] for name in row)})
    return records, problems


def _records(path: Path) -> tuple[Records, list[Problem]]:
    if _is_csv(path):
        records, problems = csv_records(path, delimiter=delimiter(path))
        return [(n, dict[str, Any](row)) for n, row in records], problems
    if _is_json(path):
        return json_tables.read(path, _has_files)
    return list(enumerate(_parquet(path, partial(_cells, path)), start=1)), []


def _cells(path: Path, file: pq.ParquetFile) -> list[dict[str, Any]]:
    return list(parquet.read(path, light(file.schema_arrow)).to_pylist())


def light(schema: pa.Schema) -> list[str]:
    """Return the columns that can say something of a clip: not images, embeddings or other bytes.

    As text, those would take more memory than their file.
    """
    needed = {usual(name) for kind, others in NAMES.items() for name in (kind, *others)}
    return [item.name for item in schema if usual(item.name) in needed or not _is_heavy(item.type)]


def _is_heavy(kind: pa.DataType) -> bool:
    if pa.types.is_nested(kind):
        inside = [kind.field(number).type for number in range(kind.num_fields)]
        return any(pa.types.is_floating(one) or _is_heavy(one) for one in inside)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def _with_labels(records: Records, path: Path) -> Records:
    """Return records with labels of columns of 0 and 1, and say which; unchanged if there are none."""
    classes = _class_columns(records)
    if not classes:
        return records
    found = [(n, row, *class_columns.labels(row, classes)) for n, row in records]
    used = {name for _, _, labels, _ in found for name in labels}
    shown = ", ".join([*classes.values()][:SHOWN]) + (", …" if len(classes) > SHOWN else "")
    unused = [name for name in classes.values() if name not in used]
    console.say_once(
        f"{path}: {len(classes)} columns of 0 and 1 are the classes: {shown}"
        + (f"; {counted(len(unused), 'class')} without a clip: {', '.join(unused[:SHOWN])}" if unused else "")
    )
    return [(n, row | {"labels": labels, REASON: reason}) for n, row, labels, reason in found]


def _class_columns(records: Records) -> dict[str, str]:
    return class_columns.find([row for _, row in records], {item.name for item in fields(Row)})


def contents(path: Path) -> tuple[set[str], bool]:
    """Return which of `path` and `labels` a table has, and whether its labels are columns of 0 and 1.

    Raises:
        MissingError: no such file.
        UsageError: not readable in the format of its suffix.
    """
    found = _held(columns(path))
    if "path" not in found or "labels" in found:
        return {*found}, False
    classes = _class_columns(_records(path)[0])
    return {*found, *(["labels"] if classes else [])}, bool(classes)


def check(path: Path) -> bool:
    """Return whether the labels of a table are columns of 0 and 1.

    Raises:
        MissingError: no such file.
        UsageError: not readable, or without a column of files or of labels.
    """
    found, by_column = contents(path)
    _check(path, columns(path), found)
    return by_column


def _check(path: Path, present: Sequence[str], found: Collection[str]) -> None:
    for name, others in NAMES.items():
        if name in found:
            continue
        if any(one.lower().endswith(SOUNDS) for one in present):
            raise UsageError(f"{path}: the first line is no header; add one, such as path,label")
        by_column = "" if name == "path" else ", or a column of 0 and 1 for each class"
        raise UsageError(
            f"{path}: column {name!r} is missing{suggest(name, present)}; found: "
            f"{', '.join(present) or 'no header'}; other names that are read: {', '.join(others)}{by_column}"
        )


def folder_of(path: Path, records: Records) -> Path:
    """Return the folder that the files in a table are relative to: its own, or that of the table it links to.

    Args:
        path: of the table.
        records: (line number, {column: cell}).
    """
    beside, target = absolute(path).parent, path.resolve().parent
    written = next((str(row["path"]) for _, row in records if row.get("path")), "")
    return target if (target / written).is_file() and not (beside / written).is_file() else beside


def plain(cells: Mapping[str, Any]) -> dict[str, Any]:
    """Return cells as text, numbers or None, those of labels perhaps as a list: NaN is None.

    A file may be given as `{"path": …}`, as `datasets` does.
    """
    file = cells.get("path")
    if isinstance(file, dict) and isinstance(file.get("path"), str):
        cells = {**cells, "path": file["path"]}
    return {
        name: json.dumps(cell, ensure_ascii=False, default=str)
        if isinstance(cell, list | dict) and name != "labels"
        else None
        if isinstance(cell, float) and math.isnan(cell)
        else cell
        for name, cell in cells.items()
    }


def _held(present: Sequence[str]) -> dict[str, str]:
    """Return `path` and `labels` → name, as far as one of these columns has such a name.

    Case does not matter, nor whether words are separated by blanks.
    """
    written = {usual(name): name for name in reversed(present)}
    found = {}
    for name, others in NAMES.items():
        if one := next((one for one in (name, *others) if one in written), None):
            found[name] = written[one]
    return found


def usual(name: str) -> str:
    """Return the name of a column in lower case, with words separated by `_`."""
    return "_".join(name.lower().split())


def _renamed(present: Iterable[str]) -> dict[str, str]:
    """Return column → its usual name of those that are written in another way, such as `Split`."""
    lacking = {item.name for item in fields(Row)} - {*present}
    return {name: usual(name) for name in present if usual(name) in lacking}


def columns(path: Path) -> list[str]:
    """Return the names of a table's columns; errors as in `read`."""
    if _is_csv(path):
        return csv_header(path, delimiter(path))
    if path.suffix.lower() == ".parquet":
        return _parquet(path, lambda file: list(file.schema_arrow.names))
    return list(dict.fromkeys(name for _, row in json_tables.read(path, _has_files, 100)[0] for name in row))


def _has_files(present: Sequence[str]) -> bool:
    return "path" in _held(present)


def _is_json(path: Path) -> bool:
    return path.suffix.lower() in json_tables.SUFFIXES


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
    need_regular(path)
    try:
        with pq.ParquetFile(path) as file:
            return get(file)
    except FileNotFoundError:
        raise MissingError(f"{path}: missing") from None
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path}: not readable as Parquet ({' '.join(str(error).split())})") from None
    except ValueError as error:
        raise UsageError(f"{path}: {error}; split it, or leave columns out") from None
