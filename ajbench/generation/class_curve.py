"""The training loss of each class over the course of a training."""

from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import gather
from torch import Tensor, nn

from ajbench.training.state import Curve

COLUMNS = ("first_step", "last_step", "class", "loss", "n")


class ClassCurve(nn.Module):
    """The mean loss of every class over windows of steps, in a CSV file with a row per window and class.

    A clip counts for each of its classes. The sums of an incomplete window are a buffer. As part of a module
    that `loop.fit` trains, they are in every checkpoint, so the file of a resumed run has the same bytes as
    that of an uninterrupted one.
    """

    sums: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(2, classes))  # sums of losses; numbers of clips
        self._curve: Curve | None = None

    @torch.no_grad()
    def add(self, errors: Tensor, classes: Tensor) -> None:
        """Add one batch, of all processes.

        Args:
            errors: of each clip, [B, …].
            classes: 1.0 if a clip has a class, else 0.0, [B, C].
        """
        per_clip, classes = gather((errors.float().flatten(1).mean(1), classes))
        with torch.autocast(per_clip.device.type, enabled=False):  # it would round losses to bf16
            self.sums += torch.stack([per_clip @ classes, classes.sum(0)])

    def write(self, path: Path, first: int, last: int, names: Sequence[str]) -> None:
        """Write the window of steps `first` to `last` and start the next; classes without clips have no row.

        The first window that a process writes replaces rows of the same and later windows, which an
        interrupted run has left.
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
