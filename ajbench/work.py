"""A piece of work with a folder of its own: done once, and found again by its fingerprint."""

import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ajbench.errors import MissingError
from ajbench.recipe import Recipe, dump
from ajbench.run import RunDir, lock


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
        """
        if self.done() and not force:
            return False
        for stage in self.needs:
            stage.need()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        folder, alone = self.folder, self.path.with_name(f".{self.path.name}.lock")
        with nullcontext() if self.shared else lock(alone):
            folder.start(dump(self.recipe), self.seed, device, force)
            self.do()
            if not self.shared:
                folder.finish({"what": self.what})
        while not folder.done():  # of those that shared the work, one finishes
            with suppress(MissingError), lock(alone):
                folder.finish({"what": self.what})
            time.sleep(0.01)
        return True
