"""A piece of work with a folder of its own: done once, and found again by its fingerprint."""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ajbench.core.device import Precision, resolve_precision
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.files import lock
from ajbench.core.recipe import Recipe, dump
from ajbench.core.run_dir import RunDir, world


@dataclass(frozen=True)
class Stage:
    """One stage of a recipe, or one of several of its kind.

    Attributes:
        name: its command.
        recipe: as this stage reads it.
        path: its folder.
        fingerprint: of everything that bears on its result.
        amount: how much there is to do, in words.
        do: does it, writing into `path`.
        what: which of several, for people: a probe or a cell; else empty.
        seed: what it draws from; None where nothing is drawn.
        disk_mb: what it will leave on disk, where that is known beforehand.
        needs: stages that must be finished before.
        shared: several processes may do it together; else one at a time.
        distributed: the processes of one `torchrun` do it together, each its part.
        precision: of a training, as the recipe sets it; else fp32.
        check: refuses, before any work, what would fail for want of weights.
        estimate: tells clips, bytes and seconds from a first batch, once what it needs is finished.
    """

    name: str
    recipe: Recipe
    path: Path
    fingerprint: str
    amount: str
    do: Callable[[], None]
    what: str = ""
    seed: int | None = None
    disk_mb: float | None = None
    needs: tuple["Stage", ...] = ()
    shared: bool = False
    distributed: bool = False
    precision: Precision = "fp32"
    check: Callable[[], None] | None = None
    estimate: Callable[[], dict[str, Any]] | None = None

    @property
    def folder(self) -> RunDir:
        """Its folder, with its state."""
        return RunDir(self.path, self.name, self.fingerprint)

    def done(self) -> bool:
        """Return whether it is finished."""
        return self.folder.done()

    def need(self) -> Path:
        """Return the folder of the finished stage.

        Raises:
            MissingError: it is not finished.
        """
        if not self.done():
            which = f" ({self.what})" if self.what else ""
            raise MissingError(
                f"{self.path}: not there yet; first run `ajbench {self.name}`{which} with the same recipe"
            )
        return self.path

    def run(self, device: str, force: bool = False) -> bool:
        """Do it, unless it is done already; returns whether there was anything to do.

        Raises:
            MissingError: a stage that it needs is not finished, or another process is at it.
            UsageError: several processes were launched, and this stage is not done by several.
        """
        if self.done() and not force:
            return False
        for stage in self.needs:
            stage.need()
        processes, rank = world()
        if processes > 1 and not (self.shared or self.distributed):
            raise UsageError(
                f"{self.name}: {processes} processes were launched, but one does it; launch only train-gen, "
                "train-cls, synth or prepare"
            )
        if processes > 1 and self.shared and force:
            raise UsageError(
                f"{self.name}: --force would remove what other launched processes have begun; remove "
                f"{self.path} instead"
            )
        if processes > 1 and self.distributed:
            self._run_together(device, force, rank)
            return True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        precision = resolve_precision(self.precision, device)
        folder, alone = self.folder, self.path.with_name(f".{self.path.name}.lock")
        with nullcontext() if self.shared else lock(alone):
            if rank == 0:  # of processes launched together the first keeps the folder
                folder.start(dump(self.recipe), self.seed, device, precision, force)
            self.do()
            if not self.shared:
                folder.finish({"what": self.what})
        more = {"processes": processes} if processes > 1 else {}
        while not folder.done():  # of those that shared the work, one finishes
            if rank == 0:
                with suppress(MissingError), lock(alone):
                    folder.finish({"what": self.what, **more})
            time.sleep(0.01)
        return True

    def _run_together(self, device: str, force: bool, rank: int) -> None:
        """Do it with the other processes of a launch: the first keeps the folder, all compute."""
        import torch
        from accelerate import PartialState

        cpu = not torch.cuda.is_available()
        if cpu:  # accelerate joins processes on CPUs only when told so
            os.environ["ACCELERATE_USE_CPU"] = "true"
        together = PartialState(cpu=cpu)
        assert together.num_processes == world()[0]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        folder, precision = self.folder, resolve_precision(self.precision, device)
        with lock(self.path.with_name(f".{self.path.name}.lock")) if rank == 0 else nullcontext():
            if rank == 0:
                folder.start(dump(self.recipe), self.seed, device, precision, force)
            together.wait_for_everyone()
            self.do()
            if rank == 0:
                folder.finish({"what": self.what, "processes": together.num_processes})
        together.wait_for_everyone()


def in_order(stages: Iterable[Stage]) -> list[Stage]:
    """Return stages and what they need, each once, none before what it needs."""
    found: dict[str, Stage] = {}
    for stage in stages:
        for one in (*in_order(stage.needs), stage):
            found.setdefault(one.fingerprint, one)
    return list(found.values())
