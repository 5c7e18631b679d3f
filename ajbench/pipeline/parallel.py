"""Worker processes that run independent stages at the same time, each with one thread."""

import contextlib
import os
import signal
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection

from ajbench.core import console
from ajbench.core.device import WORKERS, default_workers, end_with_parent
from ajbench.core.errors import AjbenchError, MissingError
from ajbench.core.failures import expected
from ajbench.pipeline.stage import Stage


def run_in_workers(stages: Sequence[Stage], processes: int | None, device: str, force: bool = False) -> None:
    """Run parallel stages of one name in up to `processes` worker processes.

    Args:
        stages: none needs another of them.
        processes: None: one per core on a CPU, one on a GPU.
        device: recorded in their folders.
        force: run them again from the start.

    Raises:
        AjbenchError: of the first stage that failed; the others save their state and can be resumed.
        KeyboardInterrupt: Ctrl-C, after all running stages have saved their state.
    """
    waiting = list(reversed(stages))
    workers: list[_Worker] = []
    try:
        with console.progress(len(stages), stages[0].name, "stages") as advance:
            count = min(processes or default_workers(), len(stages))
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
            self.pipe.send(replace(stage, needs=()))  # all finished, and not to be pickled

    def collect(self) -> Stage:
        """Return the stage that it has finished, or raise what stopped it."""
        stage, self.stage = self.stage, None
        assert stage is not None
        try:
            error = self.pipe.recv()
        except (EOFError, ConnectionResetError):  # the latter if it died before it read the stage
            self.process.join()
            raise MissingError(
                f"{stage.what}: its process ended with code {self.process.exitcode}, most likely out of "
                "memory; run again with a lower --jobs"
            ) from None
        if isinstance(error, AjbenchError):
            raise type(error)(f"{stage.what}: {error}")
        if error is not None:
            raise RuntimeError(f"{stage.what}:\n{error}")
        return stage

    def interrupt(self) -> None:
        """End it: an idle process at once, a busy one after the current training step is saved."""
        if self.stage and self.process.pid and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGINT)
        self.pipe.close()


def _serve(pipe: Connection, device: str, force: bool) -> None:
    """Run the stages that arrive; answer each with None, an AjbenchError or a traceback."""
    # Ctrl-C then reaches only the parent, which passes it on once; a second one would stop the saving.
    os.setpgrp()
    end_with_parent()
    console.configure(quiet=True)
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        # Even if the parent was started to ignore it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        while True:
            stage = pipe.recv()
            answer: AjbenchError | str | None = None
            try:
                stage.run(device, force)
            except Exception as error:
                answer = expected(error) or traceback.format_exc()
            pipe.send(answer)


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
