"""What a training writes: checkpoints, verified when loaded, averages of its weights, and CSV curves."""

import csv
import io
import math
import os
import shutil
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ajbench.core.errors import IntegrityError, NumericError
from ajbench.core.files import atomic_write, checksum, replacing, sync, sync_folder, writing
from ajbench.core.sealed_json import read_sealed, write_sealed

KEEP = 2


def newest(folder: Path) -> Path | None:
    """Return the newest checkpoint folder under `folder`, or None."""
    return max((folder / "checkpoints").glob("step-*"), default=None)


def remove_checkpoints(folder: Path) -> None:
    """Delete the checkpoints under `folder`, if there are any."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


class State:
    """The contents of a checkpoint: trained parameters, buffers, their average, the optimiser."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        ema_decay: float | None,
        average_after: Sequence[int],
        steps: int,
    ) -> None:
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self.parameters = {name: p for name, p in module.named_parameters() if id(p) in held}
        if len(self.parameters) != len(held):
            raise ValueError("the optimiser has parameters that are not in the module")
        self.tensors: dict[str, Tensor] = {**self.parameters, **_buffers(module, self.parameters)}
        self.optimizer, self.ema_decay, self.steps = optimizer, ema_decay, steps
        self.average_after = average_after
        self.best: dict[str, Any] | None = None  # step, score, file, xxh3
        self.bests: deque[str | None] = deque(maxlen=KEEP)  # best files that the kept checkpoints refer to
        self.float_names = [name for name, t in self.tensors.items() if t.is_floating_point()]
        self.floats = [self.tensors[name] for name in self.float_names]
        self.average: list[Tensor] = []
        if ema_decay is not None or average_after:
            self.average = [t.detach().clone() for t in self.floats]

    @torch.no_grad()
    def after_step(self, index: int) -> None:
        """Update the average with the weights after step `index`."""
        if self.ema_decay is not None:
            weight = 1 - min(self.ema_decay, (1 + index) / (10 + index))
        else:
            counted = bisect_right(self.average_after, index + 1)
            if not counted or self.average_after[counted - 1] != index + 1:
                return
            weight = 1 / counted
        torch._foreach_lerp_(self.average, [t.detach() for t in self.floats], weight)

    @torch.no_grad()
    def load_average(self) -> None:
        """Load the average, if there is one, into the module."""
        for tensor, mean in zip(self.floats, self.average, strict=False):
            tensor.copy_(mean)

    @contextmanager
    def as_moving_average(self) -> Iterator[None]:
        """Load the moving average, if there is one, into the module for the duration of the block."""
        if self.ema_decay is None:
            yield
            return
        kept = [tensor.detach().clone() for tensor in self.floats]
        self.load_average()
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, value in zip(self.floats, kept, strict=True):
                    tensor.copy_(value)

    def keep_if_best(self, folder: Path, done: int, value: float) -> None:
        """Write the module's weights to `checkpoints/best-<done>` if `value` is the highest so far.

        Every best has its own file, so that each checkpoint keeps the one that it refers to.

        Raises:
            NumericError: `value` is not a number.
        """
        if not math.isfinite(value):
            raise NumericError(f"step {done}: the score of the val split is {value}; choose select=last")
        if self.best is None or value > self.best["score"]:
            file = folder / "checkpoints" / f"best-{done:08d}.safetensors"
            file.parent.mkdir(exist_ok=True)
            with replacing(file) as part:
                save_file({name: _plain(t) for name, t in self.tensors.items()}, part)
            self.best = {"step": done, "score": value, "file": file.name, "xxh3": checksum(file)}

    def load_best(self, folder: Path) -> None:
        """Load and verify the best weights that the newest checkpoint refers to.

        Raises:
            IntegrityError: their file is missing or damaged.
        """
        path = newest(folder)
        assert path
        best = _verified(path)["best"]  # not self.best, which only the first process has
        file = path.with_name(best["file"])
        if not file.exists() or checksum(file) != best["xxh3"]:
            raise IntegrityError(f"{file}: missing or checksum mismatch; train again with --force")
        _copy(file, self.tensors)

    def save(self, folder: Path, done: int) -> None:
        """Write `checkpoints/step-<done>` atomically, then delete all but the last two."""
        final = folder / "checkpoints" / f"step-{done:08d}"
        part = final.with_name(f".{final.name}.tmp")
        shutil.rmtree(part, ignore_errors=True)
        with writing(final):
            part.mkdir(parents=True)
            save_file({name: _plain(t) for name, t in self.tensors.items()}, part / "weights.safetensors")
            if self.average:
                means = zip(self.float_names, self.average, strict=True)
                save_file({name: _plain(t) for name, t in means}, part / "average.safetensors")
            torch.save(self.optimizer.state_dict(), part / "optimizer.pt")
            hashes = {path.name: checksum(path) for path in sorted(part.iterdir())}
            state = {"step": done, "steps": self.steps, "best": self.best, "xxh3": hashes}
            write_sealed(part / "state.json", state)
            sync(part.iterdir())
        shutil.rmtree(final, ignore_errors=True)
        part.replace(final)
        sync_folder(final.parent)
        for old in sorted(final.parent.glob("step-*"))[:-KEEP]:
            shutil.rmtree(old)
        self.bests.append(self.best["file"] if self.best else None)
        for weights in final.parent.glob("best-*"):
            if weights.name not in self.bests:
                weights.unlink()

    def resume(self, folder: Path) -> int:
        """Load the newest checkpoint and return its number of steps, 0 without one."""
        path = newest(folder)
        if path is None:
            return 0
        state = _verified(path)
        if state["steps"] != self.steps:
            raise IntegrityError(
                f"{path}: from a run of {state['steps']} steps, this one has {self.steps}; use another folder"
            )
        _copy(path / "weights.safetensors", self.tensors)
        if self.average:
            file = path / "average.safetensors"
            if not file.exists():
                raise IntegrityError(f"{file}: missing; the run that wrote {path.name} had no average")
            _copy(file, dict(zip(self.float_names, self.average, strict=True)))
        try:
            # On the CPU: as saved, every process would load the tensors onto the GPU of the first.
            held = torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True)
            self.optimizer.load_state_dict(held)
        except (ValueError, KeyError) as error:
            raise IntegrityError(f"{path / 'optimizer.pt'}: of another optimiser ({error})") from None
        self.best = state["best"]
        self.bests.append(self.best["file"] if self.best else None)
        return int(state["step"])


def frozen(module: nn.Module, trained: dict[str, nn.Parameter]) -> dict[str, nn.Module]:
    """Return the submodules with parameters of which none is trained."""
    ids = {id(p) for p in trained.values()}
    has = ((name, part, [id(p) for p in part.parameters()]) for name, part in module.named_modules())
    return {name: part for name, part, own in has if own and ids.isdisjoint(own)}


def _buffers(module: nn.Module, trained: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return the persistent buffers, such as batch norm statistics, outside the frozen submodules."""
    kept = module.state_dict(keep_vars=True).keys()
    resting = tuple(f"{name}." for name in frozen(module, trained))
    return {n: b for n, b in module.named_buffers() if n in kept and not n.startswith(resting)}


def _copy(file: Path, target: dict[str, Tensor]) -> None:
    source = load_file(file)
    odd = sorted(source.keys() ^ target.keys())
    if odd := odd or [name for name in source if source[name].shape != target[name].shape]:
        raise IntegrityError(f"{file}: of another module (first difference: {odd[0]}); use another folder")
    with torch.no_grad():
        for name, tensor in source.items():
            target[name].copy_(tensor)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _verified(path: Path) -> dict[str, Any]:
    """Return state.json after checking every file against it."""
    advice = f"delete {path} to resume from the previous checkpoint"
    try:
        state = read_sealed(path / "state.json", advice)
    except FileNotFoundError:
        raise IntegrityError(f"{path / 'state.json'}: missing; {advice}") from None
    for name, expected in state["xxh3"].items():
        file = path / name
        if not file.exists() or checksum(file) != expected:
            raise IntegrityError(f"{file}: missing or checksum mismatch; {advice}")
    return state


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
        with writing(self.path), self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(self.rows)
            file.flush()
            os.fsync(file.fileno())
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
