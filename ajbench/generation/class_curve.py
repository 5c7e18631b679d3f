"""How well each class is learned, over the course of a training."""

from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import gather
from torch import Tensor, nn

from ajbench.training.curves import Curve

COLUMNS = ("first_step", "last_step", "class", "loss", "n")


class ClassCurve(nn.Module):
    """The mean loss of every class over windows of steps, written to a CSV file, a row a window and class.

    A clip counts for each of its classes. What was seen of a window that is not yet full is a buffer: as part
    of a module that `loop.fit` trains it is in every checkpoint, so that the file of a run that was stopped
    and went on has the same bytes as that of one that was not.
    """

    sums: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(2, classes))  # of losses, and of clips
        self._curve: Curve | None = None

    @torch.no_grad()
    def add(self, errors: Tensor, classes: Tensor) -> None:
        """Count one batch, of all processes.

        Args:
            errors: of each clip, [B, …].
            classes: 1.0 where a clip has a class, else 0.0, [B, C].
        """
        per_clip, classes = gather((errors.float().flatten(1).mean(1), classes))
        self.sums += torch.stack([per_clip @ classes, classes.sum(0)])

    def write(self, path: Path, first: int, last: int, names: Sequence[str]) -> None:
        """Write the window of steps `first` to `last` and begin the next; classes without clips have no row.

        The first window that a process writes replaces rows of it and of later ones, which were written
        before the run was stopped.
        """
        losses, counts = self.sums.tolist()
        self.sums.zero_()
        if not PartialState().is_main_process:
            return
        if self._curve is None:
            self._curve = Curve(path, COLUMNS, first - 1)
        for name, loss, count in zip(names, losses, counts, strict=True):
            if count:
                self._curve.add(first, last, name, loss / count, int(count))
        self._curve.flush()
