"""Independent stages at the same time, each with one thread: in processes of this machine, or on Ray."""

import contextlib
import os
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection

from ajbench.core import console, ray_tasks
from ajbench.core.device import WORKERS, default_workers, end_with_parent
from ajbench.core.errors import AjbenchError, MissingError
from ajbench.core.failures import expected
from ajbench.core.files import lock
from ajbench.data.shard_job import POLL_S
from ajbench.pipeline.stage import Stage

LONGEST_LOCK_S = 300  # until the server of the files releases the lock of a machine that died


@dataclass(frozen=True)
class Answer:
    """What a worker tells of a stage: what stopped it, its messages, and its remarks on files."""

    error: AjbenchError | str | None = None  # a traceback if it is a bug
    said: list[str] = field(default_factory=list)
    tallies: dict[str, list[str]] = field(default_factory=dict)


def run_in_workers(
    stages: Sequence[Stage],
    processes: int | None,
    device: str,
    force: bool = False,
    engine: ray_tasks.Engine = "local",
) -> None:
    """Run parallel stages of one name in up to `processes` worker processes.

    Args:
        stages: none needs another of them.
        processes: None: one per core on a CPU, one on a GPU; of Ray's, one on each GPU.
        device: recorded in their folders.
        force: run them again from the start.
        engine: processes of this machine, or `ray` (see `ray_tasks`) with one task per stage.

    Raises:
        AjbenchError: of the first stage that failed; the others save their state and can be resumed.
        KeyboardInterrupt: Ctrl-C, after all running stages have saved their state.
    """
    count = min(processes or default_workers(), len(stages))
    if engine == "ray":
        _run_on_ray(stages, processes, device, force)
        return
    waiting = list(reversed(stages))
    workers: list[_Worker] = []
    try:
        with console.progress(len(stages), stages[0].name, "stages") as advance:
            for _ in range(count):
                workers.append(_Worker(device, force, count))
                workers[-1].give(waiting.pop())
            while busy := [worker for worker in workers if worker.stage]:
                ready = connection.wait([worker.pipe for worker in busy])
                for worker in busy:
                    if worker.pipe in ready:
                        console.detail(f"{worker.collect().title}: done")
                        advance(1)
                        if waiting:
                            worker.give(waiting.pop())
    finally:
        for worker in workers:
            worker.interrupt()
        for worker in workers:
            worker.process.join()


class _Worker:
    """A process that runs one stage after another; spawned, so that it inherits no state of torch."""

    def __init__(self, device: str, force: bool, workers: int) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, device, force))
        self.stage: Stage | None = None
        with _child_settings(workers):
            self.process.start()
        theirs.close()

    def give(self, stage: Stage) -> None:
        self.stage = stage
        with contextlib.suppress(BrokenPipeError):  # if the process has died, `collect` says so
            self.pipe.send(_bare(stage))

    def collect(self) -> Stage:
        """Return the stage that it has finished, or raise what stopped it."""
        stage, self.stage = self.stage, None
        assert stage is not None
        try:
            answer = self.pipe.recv()
        except (EOFError, ConnectionResetError):  # the latter if it died before it read the stage
            self.process.join()
            raise MissingError(
                f"{stage.title}: its process ended with code {self.process.exitcode}, most likely out of "
                "memory; run again with a lower --jobs"
            ) from None
        _hear(stage, answer)
        return stage

    def interrupt(self) -> None:
        """End it: an idle process at once, a busy one after the current training step is saved."""
        if self.stage and self.process.pid and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGINT)
        self.pipe.close()


def _serve(pipe: Connection, device: str, force: bool) -> None:
    """Run the stages that arrive and answer each."""
    # Ctrl-C then reaches only the parent, which passes it on once; a second one would stop the saving.
    os.setpgrp()
    end_with_parent()
    console.configure(quiet=True)
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        # Even if the parent was started to ignore it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        while True:
            pipe.send(_attempt(pipe.recv(), device, force))


def _attempt(stage: Stage, device: str, force: bool) -> Answer:
    """Run a stage in a worker."""
    error: AjbenchError | str | None = None
    with console.keeping() as said:
        try:
            stage.run(device, force)
        except Exception as caught:
            error = expected(caught) or traceback.format_exc()
    return Answer(error, said, console.take_tallies())


def _hear(stage: Stage, answer: Answer) -> None:
    """Print what a worker has to say of a stage, and raise what stopped it, if anything did."""
    for text in answer.said:
        console.say(f"{stage.title}: {text}")
    for what, files in answer.tallies.items():
        for file in files:
            console.tally(what, file)
    if isinstance(answer.error, AjbenchError):
        raise type(answer.error)(f"{stage.title}: {answer.error}")
    if answer.error is not None:
        raise RuntimeError(f"{stage.title}:\n{answer.error}")


def _bare(stage: Stage) -> Stage:
    """Return a stage without what was used before its turn, and need not be picklable."""
    return replace(stage, needs=(), check=None, estimate=None)


def _run_on_ray(stages: Sequence[Stage], processes: int | None, device: str, force: bool) -> None:
    stages[0].path.parent.mkdir(parents=True, exist_ok=True)
    for stage in stages if force else ():  # here and once, not by every worker that takes a stage over
        with lock(stage.folder.lock_file):
            stage.folder.clear()
    shared = {stages[0].path.parent, *(need.path for stage in stages for need in stage.needs)}
    with console.progress(len(stages), stages[0].name, "stages") as advance:

        def finished(stage: Stage, answer: Answer) -> None:
            _hear(stage, answer)
            console.detail(f"{stage.title}: done")
            advance(1)

        ray_tasks.run(
            _work,
            device,
            list(map(_bare, stages)),
            finished,
            title=lambda stage: stage.title,
            workers=processes and min(processes, len(stages)),
            threads=1,
            shared=sorted(shared),
            fewer="a lower --jobs",
        )


def _work(device: str, stage: Stage, deaths: int) -> Answer:
    """Run a stage (in a worker of Ray); after the death of a worker, continue what that has left."""
    end = time.monotonic() + LONGEST_LOCK_S
    while deaths and time.monotonic() < end:
        try:
            with lock(stage.folder.lock_file):
                break
        except MissingError:
            time.sleep(POLL_S)
    if deaths and stage.done():
        return Answer()
    return _attempt(stage, device, force=False)  # if the lock is still held, this says by whom


@contextlib.contextmanager
def _child_settings(workers: int) -> Iterator[None]:
    """Start processes with one thread for BLAS and OpenMP, a share of the cores, and with SIGINT blocked."""
    changes = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", WORKERS: str(workers)}
    before = {name: os.environ.get(name) for name in changes}
    os.environ |= changes
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
