"""The tables that a training writes as it goes: rows of a step, resumed with it."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ajbench.core.files import atomic_write


class Curve:
    """A CSV of rows that begin with a step; rows beyond the checkpoint that is resumed are dropped.

    Rows are kept in memory until `flush`, which goes with a checkpoint.

    Args:
        path: the file; made, or rewritten with what it may keep.
        columns: of every row, the step first.
        done: steps that the checkpoint has.
    """

    def __init__(self, path: Path, columns: Sequence[str], done: int) -> None:
        rows: list[list[str]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.reader(file) if len(row) == len(columns) and row[0].isdigit()]
        text = io.StringIO(newline="")
        csv.writer(text).writerows([columns, *(row for row in rows if int(row[0]) <= done)])
        atomic_write(path, text.getvalue())
        self.path, self.rows = path, list[tuple[Any, ...]]()

    def add(self, step: int, *values: float | str) -> None:
        """Take a row; floats are written with all their digits."""
        self.rows.append((step, *(repr(v) if isinstance(v, float) else v for v in values)))

    def flush(self) -> None:
        """Append the rows taken since the last time."""
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(self.rows)
        self.rows.clear()


@dataclass(frozen=True)
class Watch:
    """A look at a training that takes no part in it: no weights are chosen by what it sees.

    Attributes:
        file: CSV in the training's folder that receives a row each time.
        columns: of the row, after the step.
        every: steps between looks; there is one more after the last step.
        look: module in eval mode, with its moving average where there is one → values of the columns.
    """

    file: str
    columns: tuple[str, ...]
    every: int
    look: Callable[[nn.Module], Sequence[float]]
