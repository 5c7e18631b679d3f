"""Tables that a training writes as it runs, one row per step, resumed with its checkpoint."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ajbench.core.files import atomic_write


class Curve:
    """A CSV whose rows begin with a step; rows after the resumed checkpoint are dropped.

    Rows are kept in memory until `flush`, which is called when a checkpoint is written.

    Args:
        path: the file, created or rewritten.
        columns: names, the step first.
        done: step of the checkpoint.
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
        """Add a row; floats are written with all digits."""
        self.rows.append((step, *(repr(v) if isinstance(v, float) else v for v in values)))

    def flush(self) -> None:
        """Append the rows added since the last flush."""
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(self.rows)
        self.rows.clear()


@dataclass(frozen=True)
class Watch:
    """Values recorded during a training, which do not influence it.

    Attributes:
        file: CSV in the training's folder.
        columns: names of the values, after the step.
        every: steps between rows; the last step has one, too.
        look: module in eval mode, with its moving average if it has one → values of the columns.
    """

    file: str
    columns: tuple[str, ...]
    every: int
    look: Callable[[nn.Module], Sequence[float]]
