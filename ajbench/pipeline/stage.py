"""Stages, which have folders and are found again by their fingerprints; how they run."""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from ajbench.core import console
from ajbench.core.device import (
    Precision,
    available,
    cores,
    release_gpu_memory,
    resolve_precision,
)
from ajbench.core.errors import MissingError, UnfinishedError, UsageError
from ajbench.core.files import lock
from ajbench.core.process_pool import end_idle, kept
from ajbench.core.ray_tasks import Engine
from ajbench.core.recipe import Recipe, dump
from ajbench.core.run_dir import RunDir, world

LONGEST_WAIT = timedelta(days=2)  # of the processes of a launch for each other


@dataclass(frozen=True)
class Stage:
    """One stage of a recipe, or one of several of the same name.

    Attributes:
        name: its command.
        recipe: as this stage reads it.
        path: its folder.
        fingerprint: hash of everything that its result depends on.
        amount: how much work it is, in words.
        do: does the work and writes into `path`.
        what: distinguishes stages of the same name for the user; empty if there is only one.
        seed: None if nothing is random.
        disk_mb: what it will leave on disk, if known.
        needs: stages that must be finished before it starts.
        shared: several processes may do it together; otherwise one at a time.
        waits: if another process does it, this one waits for that instead of ending with an error.
        distributed: the processes of one `torchrun` launch do it together.
        parallel: independent stages of this kind may run at the same time, each in a worker process; `do` can
            be pickled.
        alone: one of this kind that is parallel runs in this process if no other can run at the same time.
        follows: it is not finished any more once one of `needs` was done again (with `--force`), and so may
            have other results under the same fingerprint.
        precision: of a training, as the recipe sets it; otherwise fp32.
        checks: raise, before any work, if clips, weights or a library are missing, or options are unknown.
        estimate: returns clips, bytes and seconds extrapolated from one batch, once `needs` are finished.
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
    waits: bool = False
    distributed: bool = False
    parallel: bool = False
    alone: bool = False
    follows: bool = False
    precision: Precision = "fp32"
    checks: tuple[Callable[[], object], ...] = ()
    estimate: Callable[[], dict[str, Any]] | None = None

    @property
    def title(self) -> str:
        """Its name on screen."""
        return f"{self.name} ({self.what})" if self.what else self.name

    @property
    def folder(self) -> RunDir:
        """Its folder and the state of it."""
        return RunDir(self.path, self.name, self.fingerprint)

    def done(self) -> bool:
        """Return whether it is finished."""
        return self.folder.done() and not (self.follows and self._outdated())

    def _outdated(self) -> bool:
        read = self.folder.info().get("read", {})  # not in older folders
        now = self._finished_needs()
        return any(read[key] != now[key] for key in read.keys() & now.keys())

    def _finished_needs(self) -> dict[str, str]:
        """Return when each of `needs` was finished; those that are gone are left out."""
        found = ((need.fingerprint, need.folder.info().get("finished")) for need in self.needs)
        return {key: finished for key, finished in found if finished}

    def check(self) -> None:
        """Make all of `checks`; raise what the first that fails raises."""
        for check in self.checks:
            check()

    def need(self) -> Path:
        """Return the folder of the finished stage.

        Raises:
            UnfinishedError: it is not finished.
        """
        if not self.done():
            fold = self.recipe.data.eval_fold
            problem = f"{self.path}: not finished"
            raise UnfinishedError(self.path.parent, problem, self.name, self.what, fold)
        return self.path

    def run(self, device: str, force: bool = False) -> None:
        """Do the work. What an interrupted run has left is used; with `force` it is deleted.

        Raises:
            MissingError: another process is running it.
            UsageError: several processes were launched for a stage that one process does.
        """
        processes, rank = world()
        launched = processes > 1
        if launched and not (self.shared or self.distributed):
            raise UsageError(
                f"{self.name}: runs in one process, but {processes} were launched; launch only prepare, "
                "train-codec, train-gen, invert, synth, train-cls or train-av"
            )
        if launched and self.shared and force:
            raise UsageError(
                f"{self.name}: --force would delete what the other launched processes have started; delete "
                f"{self.path} instead"
            )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        folder = self.folder
        record: dict[str, Any] = {"what": self.what, "amount": self.amount}
        record |= {"processes": processes} if launched else {}
        record |= {"read": self._finished_needs()} if self.follows else {}
        precision = resolve_precision(self.precision, device)
        barrier = _barrier() if launched and self.distributed else lambda: None
        with self._lock(launched) if not self.shared and rank == 0 else nullcontext():
            if self.waits and not (launched or force) and self.done():
                return
            if rank == 0:  # the first of the launched processes writes the state of the folder
                folder.start(dump(self.recipe), self.seed, device, precision, force)
            barrier()
            with folder.counting(processes) if rank == 0 else nullcontext():
                self.do()
            release_gpu_memory()
            if not self.shared and rank == 0:
                folder.finish(record)
        barrier()
        while not folder.done():  # one of the processes that share the work finishes the folder
            if rank == 0:
                with ExitStack() as held:
                    try:
                        held.enter_context(lock(folder.lock_file))
                    except MissingError:  # another process finishes it
                        pass
                    else:
                        folder.finish(record)
            time.sleep(0.01)

    @contextmanager
    def _lock(self, launched: bool) -> Iterator[None]:
        """Lock the folder; if it waits, after telling so."""
        file = self.folder.lock_file
        with ExitStack() as held:
            try:
                held.enter_context(lock(file))
            except MissingError:
                if not self.waits or launched:
                    raise
                console.say(f"{self.title}: another process does it; waiting")
                held.enter_context(lock(file, wait=True))
            yield


def run_stages(
    stages: Sequence[Stage],
    device: str,
    force: bool = False,
    workers: int | None = 0,
    engine: Engine = "local",
) -> list[str]:
    """Run, in order, the stages that are not finished, or with `force` all of them.

    This is the only place that decides whether a stage has to run.

    Args:
        stages: each after those that it needs.
        device: `auto`, `cpu`, `cuda` or `mps`.
        force: run finished stages again.
        workers: processes for parallel stages; 0: this process runs them one by one; None: one per core on a
            CPU, one on a GPU.
        engine: of parallel stages: local processes or Ray.

    Returns:
        Titles of the stages that ran.

    Raises:
        MissingError: the device, weights, disk space or a needed stage are missing; before any work.
        UsageError, IntegrityError: of a stage's `checks`, before any work.
    """
    todo = [stage for stage in stages if force or not stage.done()]
    if not todo:
        return []
    running = {stage.fingerprint for stage in todo}
    for stage in todo:
        stage.check()
        for needed in stage.needs:
            if needed.fingerprint not in running:
                needed.need()
    if full := _lack_of_space(todo):
        raise MissingError(full)
    device = available(device)
    found = batches(todo)
    # The most workers that each batch can use; synthesis starts its own.
    uses = [
        min(len(batch), workers or cores()) if batch[0].parallel else cores() * (batch[0].name == "synth")
        for batch in found
    ]
    several = sum(map(bool, uses)) > 1
    with kept() if several else nullcontext():
        for number, batch in enumerate(found):
            # GPUs and Ray's workers are for one thing at a time.
            single = len(batch) == 1 or device != "cpu" or engine == "ray" or workers == 1
            if batch[0].parallel and workers != 0 and not (batch[0].alone and single):
                from ajbench.pipeline.parallel import run_in_workers

                run_in_workers(batch, workers, device, force, engine)
            else:
                for stage in batch:
                    console.say(f"{stage.title}: {stage.amount}")
                    stage.run(device, force)
            if several:
                end_idle(max(uses[number + 1 :], default=0))
    return [stage.title for stage in todo]


def lacking(stages: Iterable[Stage]) -> list[str]:
    """Return what `run_stages` would find missing before any work, each thing once."""
    found, todo = list[str](), [stage for stage in stages if not stage.done()]
    for check in (check for stage in todo for check in stage.checks):
        try:
            check()
        except MissingError as error:
            found.append(str(error))
    found += [full] if (full := _lack_of_space(todo)) else []
    return list(dict.fromkeys(found))


def _lack_of_space(todo: Sequence[Stage]) -> str:
    """Return what to say if stages need more disk space than is free; else an empty text."""
    space, free = needed_mb(todo), free_mb(todo[0].path) if todo else 0.0
    if space <= free:
        return ""
    return f"{todo[0].path.parent}: {space:.0f} MB needed, {free:.0f} MB free; choose another --work"


def in_order(stages: Iterable[Stage]) -> list[Stage]:
    """Return stages and what they need, each once and after everything that it needs."""
    found: dict[str, Stage] = {}
    for stage in stages:
        for one in (*in_order(stage.needs), stage):
            found.setdefault(one.fingerprint, one)
    return list(found.values())


def unfinished(stages: Iterable[Stage]) -> list[Stage]:
    """Return the stages that are not finished, after those of their needs that are not, in order."""
    found: dict[str, Stage] = {}
    for stage in stages:
        if not stage.done():
            for one in (*unfinished(stage.needs), stage):
                found.setdefault(one.fingerprint, one)
    return list(found.values())


def side_by_side(stages: Iterable[Stage]) -> list[Stage]:
    """Return stages and what they need, with those next to each other that may run at the same time.

    These have one name and come after equally many others.
    """
    found, depth, names = in_order(stages), dict[str, int](), dict[str, int]()
    for stage in found:
        depth[stage.fingerprint] = 1 + max((depth[need.fingerprint] for need in stage.needs), default=0)
        names.setdefault(stage.name, len(names))
    return sorted(found, key=lambda stage: (depth[stage.fingerprint], names[stage.name]))


def needed_mb(stages: Iterable[Stage]) -> float:
    """Return the disk space that stages will take, in MB, as far as it is known."""
    return sum(stage.disk_mb or 0.0 for stage in stages)


def free_mb(folder: Path) -> float:
    """Return the free disk space in MB where a folder is, or will be."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free / 1e6


def store_mb(recipe: Recipe, clips: int) -> float:
    """Return the approximate size of a clip store in MB."""
    # 16-bit FLAC has about 0.6 of its size as PCM; codes are eight 16-bit numbers per 320 samples.
    samples = recipe.data.duration_s * 16_000
    return round(clips * (samples * 2 * 0.6 + samples / 320 * 8 * 2) / 1e6, 1)


def batches(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Split stages: parallel neighbours of one name that do not need each other together, others alone."""
    found: list[list[Stage]] = []
    for stage in stages:
        needed = {need.fingerprint for need in stage.needs}
        last = found[-1] if found else []
        together = stage.parallel and last and last[0].parallel and last[0].name == stage.name
        if together and needed.isdisjoint(one.fingerprint for one in last):
            last.append(stage)
        else:
            found.append([stage])
    return found


def _barrier() -> Callable[[], None]:
    """Join the processes of a launch and return a function that waits for all of them."""
    import torch
    from accelerate import PartialState

    cpu = not torch.cuda.is_available()
    if cpu:  # otherwise accelerate does not join processes on CPUs
        os.environ["ACCELERATE_USE_CPU"] = "true"
    # Some work is done by the first process alone. A process that dies ends the launch at once anyway.
    state = PartialState(cpu=cpu, timeout=LONGEST_WAIT)
    assert state.num_processes == world()[0]
    return state.wait_for_everyone
