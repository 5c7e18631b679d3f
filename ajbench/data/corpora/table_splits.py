"""Split and fold of each row of a table: which column has them, and what is written in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ajbench.core import console
from ajbench.core.errors import UsageError
from ajbench.core.recipe import Data
from ajbench.data.corpora import fold_names
from ajbench.data.corpora.splits import hashed_fold, split_folders
from ajbench.data.corpora.table_files import Records, usual
from ajbench.data.manifest import SPLIT_NAMES

# Columns that have the splits where there is no column `split`, if all their cells are names of splits.
OTHERS = ("subset", "set", "partition", "data_split", "usage", "phase", "fold")


@dataclass(frozen=True)
class Division:
    """How the rows of a table are divided.

    Attributes:
        by: `split` or `fold`, the column that decides, or `hash`.
        splits: name in the table → split.
        folds: name in the table → fold, of folds without numbers.
    """

    by: str
    splits: Mapping[str, str]
    folds: Mapping[str, int]

    def of(self, cells: Mapping[str, Any], name: str) -> tuple[str, int | None, str | None]:
        """Return split, fold, and the problem with them if there is one.

        Args:
            cells: of the row.
            name: what is hashed for the fold of a row without one.
        """
        fold_text, split_text = text(cells, "fold"), text(cells, "split")
        fold = self.folds.get(fold_text or "", fold_names.number(fold_text))
        if self.by == "hash":
            fold = hashed_fold(name)
        elif fold is None and (fold_text is not None or self.by == "fold"):
            return (
                "train",
                None,
                f"fold {fold_text or ''!r} is neither a number from 0 on nor one of a few names",
            )
        if self.by == "split" and split_text not in self.splits:
            return "train", fold, f"split {split_text or ''!r} is none of {', '.join(SPLIT_NAMES)}"
        return self.splits[split_text or ""] if self.by == "split" else "train", fold, None


def division(records: Records, data: Data, path: Path) -> tuple[Records, Division]:
    """Return the records of a table, its splits and folds in columns of these names, and how they divide.

    Args:
        records: (line number, {column: cell}).
        data: section of the recipe.
        path: of the table, for messages.

    Raises:
        UsageError: an eval fold is asked for, and there are splits, but no folds.
    """
    records = _with_usual_columns(records, path)
    columns = {name for _, cells in records for name in cells}
    if len({text(cells, "split") for _, cells in records}) == 1:
        columns.discard("split")  # nothing to evaluate on: folds instead
    by = next((name for name in ("split", "fold") if name in columns), "hash")
    if data.eval_fold is not None and "fold" in columns:
        by = "fold"
    if by == "split" and data.eval_fold is not None:
        raise UsageError(f"data.eval_fold={data.eval_fold}: {path} has a column 'split' and no column 'fold'")
    named = fold_names.named(_cells(records, "fold"))
    if named:
        console.say_once(f"{path}: folds by name: {fold_names.in_words(named)}")
    return records, Division(by, split_folders(_cells(records, "split")), named)


def _with_usual_columns(records: Records, path: Path) -> Records:
    """Return records with folds that `split` has in `fold`, and the splits of another column in `split`."""
    columns = {usual(name): name for _, cells in records for name in cells}
    if "split" in columns:
        written = _cells(records, "split")
        if "fold" in columns or not written or any(fold_names.number(cell) is None for cell in written):
            return records
        return _renamed(records, "split", "fold", path)
    for column in (columns[name] for name in OTHERS if name in columns):
        written = _cells(records, column)
        found = split_folders(written)
        if len(found) == len({*written}) and len({*found.values()}) > 1:
            return _renamed(records, column, "split", path)
    return records


def _renamed(records: Records, old: str, new: str, path: Path) -> Records:
    console.say_once(f"{path}: column {old!r} has the {new}s")
    return [(n, {new if name == old else name: cell for name, cell in row.items()}) for n, row in records]


def _cells(records: Records, column: str) -> list[str]:
    """Return the cells of a column that are not empty."""
    return [cell for _, cells in records if (cell := text(cells, column))]


def text(cells: Mapping[str, Any], column: str) -> str | None:
    """Return a cell without blanks around it; None if it is empty or absent."""
    value = cells.get(column)
    return None if value is None or str(value).strip() == "" else str(value).strip()
