"""Rows of a table in JSON: one object a line, or a document in one of the forms that programs write."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard

from ajbench.core.documents import parse_json
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.files import need_regular
from ajbench.data.audio import SUFFIXES as SOUNDS
from ajbench.data.manifest import NOT_UTF8, Problem, is_utf8

LINES = (".jsonl", ".ndjson")
SUFFIXES = (*LINES, ".json")
FORMS = (
    'a list of objects [{"path": …, "label": …}, …], an object with one such list, an object of columns, '
    "of rows, or of files and their labels, or one object a line"
)
Row = dict[str, Any]
HasFiles = Callable[[list[str]], bool]


def read(
    path: Path, has_files: HasFiles, most: int | None = None
) -> tuple[list[tuple[int, Row]], list[Problem]]:
    """Return (number, {column: cell}) of a table in JSON, and its broken rows.

    The number is that of the line, or in a document that of the row, from 1 on.

    Args:
        path: of the table.
        has_files: whether one of these names is that of a column of files.
        most: lines that are read; None: all. Documents are read whole.

    Raises:
        MissingError: no such file.
        UsageError: not JSON, or in none of `FORMS`.
    """
    need_regular(path)
    if path.suffix.lower() in LINES:
        return _lines(path, most)
    try:
        document = parse_json(path.read_text(encoding="utf-8-sig", errors="surrogateescape"))
    except FileNotFoundError:
        raise MissingError(f"{path}: missing") from None
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # after the first line: some programs write lines to .json
            return _lines(path, most)
        raise UsageError(f"{path}:{error.lineno}: not readable as JSON ({error.msg})") from None
    except ValueError as error:
        raise UsageError(f"{path}: not readable as JSON ({error})") from None
    rows = _rows(document, has_files)
    if rows is None:
        raise UsageError(f"{path}: no table; expected {FORMS}")
    numbered = list(enumerate(rows, start=1))
    broken = {n for n, row in numbered if not is_utf8(json.dumps(row, ensure_ascii=False))}
    problems = [Problem(None, str(path), n, NOT_UTF8) for n in sorted(broken)]
    return [(n, row) for n, row in numbered if n not in broken], problems


def _rows(document: Any, has_files: HasFiles) -> list[Row] | None:
    """Return the rows of a document; None if it has none of the known forms."""
    if _objects(document):
        return list(document)
    if not isinstance(document, dict):
        return None
    names, values = list(document), list(document.values())
    lists = [value for value in values if isinstance(value, list)]
    columns, data = document.get("columns"), document.get("data")
    if _all(columns, str) and _all(data, list):
        return [dict(zip(columns, row, strict=False)) for row in data]
    if has_files(names) and len(lists) == len(values) and len({*map(len, lists)}) == 1:
        return [dict(zip(names, cells, strict=True)) for cells in zip(*lists, strict=True)]
    if values and all(isinstance(value, dict) for value in values):
        if has_files(names):  # {column: {row: cell}}, as pandas writes by default
            keys = dict.fromkeys(key for value in values for key in value)
            return [{name: cells.get(key) for name, cells in document.items()} for key in keys]
        # {name of the clip: its row}
        return [row if has_files([*row]) else {"path": key, **row} for key, row in document.items()]
    if len(tables := [value for value in lists if _objects(value)]) == 1:
        return list(tables[0])
    if names and all(name.lower().endswith(SOUNDS) for name in names):
        return [{"path": name, "labels": labels} for name, labels in document.items()]
    return None


def _objects(value: Any) -> bool:
    return bool(value) and _all(value, dict)


def _all(value: Any, kind: type) -> TypeGuard[list[Any]]:
    """Return whether a value is a list of one kind of values."""
    return isinstance(value, list) and all(isinstance(one, kind) for one in value)


def _lines(path: Path, most: int | None) -> tuple[list[tuple[int, Row]], list[Problem]]:
    found: list[tuple[int, Row]] = []
    problems: list[Problem] = []
    number = 0
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
            for number, line in enumerate(lines, start=1):
                if not is_utf8(line):
                    problems.append(Problem(None, str(path), number, NOT_UTF8))
                elif line.strip():
                    row = parse_json(line)
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
