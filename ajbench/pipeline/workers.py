"""The cells of the grid (classifier × mix × seed), trained side by side, each in a process with one thread.

One thread each, because small models gain little from two and because a cell's bits then do not depend on how
many run beside it.
"""

import contextlib
import os
import signal
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ajbench.core import console
from ajbench.core.errors import AjbenchError, MissingError
from ajbench.core.processes import end_with_parent
from ajbench.core.recipe import Recipe
from ajbench.core.run_dir import world
from ajbench.pipeline.stage import Stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ajbench.data.store import ClipStore

SCORES = "scores.npz"


@dataclass(frozen=True)
class Cell:
    """One classifier to train, and its scores on the evaluation clips.

    Attributes:
        recipe: with the classifier and mix of this cell.
        label: for people: classifier, augmentation, mix and seed.
        seed: of initialisation, order and augmentation.
        real: folder of the real clip store.
        decoded: folder of the train clips decoded from their codes, if those are trained on; else None.
        synthetic: folder of the synthetic one; None where no synthetic clip is used.
        base: folder of the cell whose AP by class `mix.amplify` reads; else None.
        clips: of the real train split, as far as the corpus lists them.
        path: folder that receives checkpoint and scores.
        fingerprint: of everything above that bears on the result.
        tracker: where loss curves go besides metrics.csv.
    """

    recipe: Recipe
    label: str
    seed: int
    real: Path
    decoded: Path | None
    synthetic: Path | None
    base: Path | None
    clips: int
    path: Path
    fingerprint: str
    tracker: str = "csv"

    @property
    def steps(self) -> int:
        """Optimiser steps of its training."""
        return self.recipe.classifier.steps(self.recipe.mix.counted(self.clips))

    def stage(self, *needs: Stage) -> Stage:
        """Return the training of this cell as a stage; `needs` are those whose folders it reads."""
        amount = f"{self.steps} steps"
        about: dict[str, Any] = {"what": self.label, "seed": self.seed, "needs": needs, "distributed": True}
        about["precision"] = self.recipe.classifier.precision
        return Stage("train-cls", self.recipe, self.path, self.fingerprint, amount, self._train, **about)

    def _train(self) -> None:
        import torch

        from ajbench import classifiers
        from ajbench.classifiers import predict
        from ajbench.classifiers.train import train_classifier
        from ajbench.data.store import ClipStore
        from ajbench.evaluation import classification
        from ajbench.metrics.ranking import summary

        measure = "accuracy" if self.recipe.classifier.loss == "ce" else "map"

        torch.set_num_threads(1)
        real = ClipStore.open(self.real)
        synthetic = ClipStore.open(self.synthetic) if self.synthetic else None
        train_classifier(
            self.recipe,
            real,
            synthetic,
            self.path,
            seed=self.seed,
            fingerprint=self.fingerprint,
            class_ap=class_ap(self.base, real) if self.base else None,
            decoded=ClipStore.open(self.decoded) if self.decoded else None,
            score=lambda logits, targets: float(summary(logits, targets)[measure]),
            tracker=self.tracker,
        )
        if world()[1] > 0:
            return
        held_out = real.split_indices("eval")
        scores = predict(classifiers.load(self.path), real, held_out)
        ids = [real.clip_ids[i] for i in held_out]
        classification.save_scores(
            self.path / SCORES, scores, real.targets()[held_out], ids, real.meta.labels
        )


def class_ap(classifier: Path, real: "ClipStore") -> "NDArray[np.float64]":
    """Return the AP by class [C] of a trained classifier on the val split, or else on the train split.

    What is trained on must not depend on the evaluation split.
    """
    from ajbench import classifiers
    from ajbench.classifiers import predict
    from ajbench.metrics.ranking import average_precision

    held_out = real.split_indices("val")
    indices = held_out if len(held_out) else real.split_indices("train")
    return average_precision(predict(classifiers.load(classifier), real, indices), real.targets()[indices])


def train_all(cells: Sequence[Cell], processes: int, device: str, force: bool = False) -> None:
    """Train cells in up to `processes` processes at once.

    Raises:
        AjbenchError: the first cell that failed; the others save their state and can be taken up again.
        KeyboardInterrupt: Ctrl-C, after every cell at work has saved its state.
    """
    waiting = list(reversed(cells))
    workers: list[_Worker] = []
    try:
        with console.progress(len(cells), "train-cls", "classifiers") as advance:
            for _ in range(min(processes, len(cells))):
                workers.append(_Worker(device, force))
                workers[-1].give(waiting.pop())
            while busy := [worker for worker in workers if worker.cell]:
                ready = connection.wait([worker.pipe for worker in busy])
                for worker in busy:
                    if worker.pipe in ready:
                        console.detail(f"{worker.collect().label}: done")
                        advance(1)
                        if waiting:
                            worker.give(waiting.pop())
    finally:
        for worker in workers:
            worker.interrupt()
        for worker in workers:
            worker.process.join()


class _Worker:
    """A process that trains one cell after another; spawned, so that it never inherits a half-used torch."""

    def __init__(self, device: str, force: bool) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, device, force))
        self.cell: Cell | None = None
        with _child_settings():
            self.process.start()
        theirs.close()

    def give(self, cell: Cell) -> None:
        self.cell = cell
        self.pipe.send(cell)

    def collect(self) -> Cell:
        """Return the cell that it has finished, or raise what kept it from that."""
        cell, self.cell = self.cell, None
        assert cell is not None
        try:
            error = self.pipe.recv()
        except EOFError:
            self.process.join()
            raise MissingError(
                f"{cell.label}: its process ended with code {self.process.exitcode}, most likely for want of "
                "memory; run again with a lower --jobs"
            ) from None
        if isinstance(error, AjbenchError):
            raise type(error)(f"{cell.label}: {error}")
        if error is not None:
            raise RuntimeError(f"{cell.label}:\n{error}")
        return cell

    def interrupt(self) -> None:
        """End it: an idle one at once, a busy one after the step at hand is saved."""
        if self.cell and self.process.pid and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGINT)
        self.pipe.close()


def _serve(pipe: Connection, device: str, force: bool) -> None:
    """Train what comes through the pipe; answer with None, an AjbenchError or a traceback."""
    # Ctrl-C then reaches the parent alone, which passes it on once; a second would cut a checkpoint short.
    os.setpgrp()
    end_with_parent()
    console.configure(quiet=True)
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        signal.signal(
            signal.SIGINT, signal.default_int_handler
        )  # also where the parent was started to ignore it
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        while True:
            cell = pipe.recv()
            answer: AjbenchError | str | None = None
            try:
                cell.stage().run(device, force)
            except AjbenchError as error:
                answer = error
            except Exception:
                answer = traceback.format_exc()
            pipe.send(answer)


@contextlib.contextmanager
def _child_settings() -> Iterator[None]:
    """What a process started within inherits: one thread for BLAS and OpenMP, and Ctrl-C held back."""
    threads = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    os.environ |= dict.fromkeys(threads, "1")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        for name, value in threads.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
