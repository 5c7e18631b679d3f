"""Tables with a column for each class, whose cells are 1 where a clip has the class and 0 where not."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

ENOUGH = 0.9  # of the cells of a column of a class are 0 or 1; the rows of others are problems
BEGINNINGS = (
    "label",
    "class",
    "category",
    "tag",
    "target",
    "is",
    "has",
)  # of column names, such as label_dog
_FLAGS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False, "": False}


def find(rows: Sequence[Mapping[str, Any]], others: Collection[str]) -> dict[str, str]:
    """Return column → class of the columns that hold 0 and 1; nothing if there are not at least two.

    Empty cells are 0, but a column has to have a cell that is not empty. Where two or more names begin with
    the same of `BEGINNINGS`, as in `label_dog, label_cat, checked`, only these are classes, without it.

    Args:
        rows: {column: cell}.
        others: columns with a meaning of their own.
    """
    columns = dict.fromkeys(name for row in rows for name in row if name.strip() and name not in others)
    found = []
    for column in columns:
        cells = [row.get(column) for row in rows]
        flags = sum(flag(cell) is not None for cell in cells)
        if flags >= ENOUGH * len(cells) and any(str(cell).strip() for cell in cells if cell is not None):
            found.append(column)
    for beginning in BEGINNINGS:
        own = {
            column: column[len(beginning) + 1 :].strip()
            for column in found
            if column.lower().startswith(tuple(f"{beginning}{mark}" for mark in "_ .:-"))
        }
        if len(own) > 1 and all(own.values()) and len({*own.values()}) == len(own):
            return own
    return {column: column for column in found} if len(found) > 1 else {}


def flag(cell: Any) -> bool | None:
    """Return what a cell says of its class; None if it is neither 0 nor 1."""
    return _FLAGS.get("" if cell is None else str(cell).strip().lower())


def labels(row: Mapping[str, Any], classes: Mapping[str, str]) -> tuple[list[str], str | None]:
    """Return the classes of a row, and what is wrong with it: a cell that is neither 0 nor 1, or no class."""
    flags = {column: flag(row.get(column)) for column in classes}
    if odd := next((column for column, value in flags.items() if value is None), None):
        return [], f"column {odd!r}: {row[odd]} is neither 0 nor 1"
    found = [name for column, name in classes.items() if flags[column]]
    return found, None if found else "no class: 0 in all of their columns"
