"""Labels as tables write them: lists in cells, separators, and one row per label."""

import ast
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ajbench.core import console
from ajbench.core.console import counted

SEPARATORS = ";", "|", ","
KEY = (
    "path",
    "clip_id",
    "start_s",
    "duration_s",
    "split",
    "fold",
    "recording",
)  # of a clip with several rows
Records = list[tuple[int, dict[str, Any]]]


def read(records: Records, separator: str, known: Collection[str] | None, path: Path) -> Records:
    """Return records whose cells `labels` are lists, with further rows of a clip merged into its first row.

    Args:
        records: (line number, {column: cell}) of a table.
        separator: of labels in a cell; where no cell has the default `;`, another one may be found.
        known: label names and mids; None: any.
        path: of the table, for messages.
    """
    cells = [row.get("labels") for _, row in records]
    used = separator_of([cell for cell in cells if isinstance(cell, str)], separator, known)
    if used != separator:
        console.say_once(f"{path}: labels are separated by {used!r}; else set data.label_separator")
    split = [(n, row | {"labels": listed(row.get("labels"), used)}) for n, row in records]
    merged: Records = []
    first: dict[tuple[Any, ...], list[str]] = {}
    for n, row in split:
        labels = first.setdefault(tuple(row.get(name) for name in KEY), row["labels"])
        if labels is not row["labels"] and row["labels"] and not {*labels} & {*row["labels"]}:
            labels += row["labels"]  # a row that repeats a label is a clip listed twice
        else:
            merged.append((n, row))
    if more := len(records) - len(merged):
        console.say_once(
            f"{path}: {counted(more, 'row')} with another label of a clip merged into its first row"
        )
    return merged


def listed(cell: Any, separator: str) -> list[str]:
    """Return the labels in a cell: a list, text with a separator, or text such as `['dog', 'rain']`."""
    if isinstance(cell, str):
        found = _literal(cell)
        return [part.strip() for part in cell.split(separator) if part.strip()] if found is None else found
    return [str(part) for part in (cell if isinstance(cell, list) else [cell]) if part is not None]


def _literal(cell: str) -> list[str] | None:
    """Return the list that a cell such as `["dog", "rain"]`, `['dog']` or `[dog, rain]` holds; else None."""
    text = cell.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        found = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        found = [part.strip(" '\"") for part in text[1:-1].split(",")]
    return [str(part) for part in found if part is not None]


def separator_of(cells: Collection[str], separator: str, known: Collection[str] | None = None) -> str:
    """Return the separator of labels: the given one, or one that no class name seems to contain."""
    plain = {cell.strip() for cell in cells if _literal(cell) is None}
    if separator != SEPARATORS[0] or any(separator in cell for cell in plain):
        return separator
    for other in SEPARATORS[1:]:
        parts = {part.strip() for cell in plain for part in cell.split(other)} - {""}
        # With a separator there are fewer labels than combinations of them; not with commas in class names.
        fits = other == "|" or len(parts) < len(plain) if known is None else parts <= {*known}
        if fits and any(other in cell for cell in plain):
            return other
    return separator
