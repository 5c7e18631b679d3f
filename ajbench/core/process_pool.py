"""Worker processes of this machine. A run keeps them for its next tasks, as their imports take seconds."""

import contextlib
import gc
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection, get_context, resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from ajbench.core import console, cost
from ajbench.core.device import GPUS, WORKERS, end_with_parent, visible_gpus
from ajbench.core.errors import AjbenchError, MissingError
from ajbench.core.failures import expected

_IDLE: list["Worker"] = []
_KEEPING: list[bool] = []  # an item for each `kept` that is entered


class WorkerDied(Exception):
    """A worker ended before it answered; its exit code."""


@dataclass(frozen=True)
class Answer:
    """What a worker tells of a task: what stopped it, its messages, and its remarks on files."""

    error: AjbenchError | str | None = None  # a traceback if it is a bug
    said: list[str] = field(default_factory=list)
    tallies: dict[str, list[str]] = field(default_factory=dict)
    cpu_s: float = 0.0
    peak_mb: float = 0.0


class Worker:
    """A process with one thread for BLAS and OpenMP; spawned, so that it inherits no state of torch."""

    def __init__(self) -> None:
        context = get_context("spawn")
        self.pipe, self._theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(self._theirs,))
        self.busy = False
        self.cpu_s = self.peak_mb = 0.0  # since it was lent

    def start(self, number: int = 0) -> None:
        """Start the process, which imports what its first task needs; workers take the GPUs in turn."""
        with _child_settings(number):
            self.process.start()
        self._theirs.close()

    def give(self, beside: int, function: Callable[..., Any], *args: Any) -> None:
        """Let it call a function; `beside` workers, it among them, share the cores."""
        self.busy = True
        with contextlib.suppress(BrokenPipeError):  # if the process has died, `answer` says so
            self.pipe.send((beside, function, args))

    def answer(self) -> Answer:
        """Wait for the end of its task.

        Raises:
            WorkerDied: it was killed, or did not even start.
        """
        try:
            answer: Answer = self.pipe.recv()
        except (EOFError, OSError):  # the latter if it died before it read the task, or in its answer
            self.process.join()
            self.busy = False
            raise WorkerDied(self.process.exitcode) from None
        self.busy = False
        self.cpu_s += answer.cpu_s
        self.peak_mb = max(self.peak_mb, answer.peak_mb)
        return answer


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Keep workers for the next tasks, and end them at the end."""
    _KEEPING.append(True)
    try:
        yield
    finally:
        _KEEPING.pop()
        if not _KEEPING:
            end_idle()


@contextlib.contextmanager
def borrowed(count: int, keep: bool = True, first: int = 0) -> Iterator[list[Worker]]:
    """Lend workers, and end them afterwards, unless they are `kept` and `keep` allows it.

    After an error or Ctrl-C all of them end, busy ones after the current training step is saved.

    Args:
        count: of workers.
        keep: them for the next tasks, if they are `kept`.
        first: number of the first new one, behind those of other processes that take the same GPUs in turn.
    """
    workers: list[Worker] = []
    try:
        while len(workers) < count:
            if idle := _idle():
                workers.append(idle)
            else:
                workers.append(Worker())
                workers[-1].start(first + len(workers) - 1)
        yield workers
        if keep and _KEEPING:
            for worker in workers:
                cost.count_worker(worker.cpu_s, worker.peak_mb)
                worker.cpu_s = worker.peak_mb = 0.0
            _IDLE.extend(workers)
            return
    except BaseException:
        _end(workers)
        raise
    _end(workers)


def share(
    function: Callable[..., Any],
    tasks: Sequence[tuple[str, tuple[Any, ...]]],
    workers: int,
    finished: Callable[[int], None],
    keep: bool = True,
    fewer: str = "a lower --jobs",
) -> None:
    """Call a function of a module once for each task, in worker processes.

    Args:
        function: called in a worker.
        tasks: title and arguments of each.
        workers: most processes.
        finished: called here with the number of a task that is done.
        keep: workers for the next tasks, if they are `kept`.
        fewer: what lowers the number of workers, in words.

    Raises:
        AjbenchError: what stopped a task; the others are interrupted.
        MissingError: a worker was killed.
    """
    count = min(workers, len(tasks))
    waiting, running = list(reversed(range(len(tasks)))), dict[Worker, int]()
    with borrowed(count, keep) as lent:
        idle = list(lent)
        while waiting or running:
            for worker in idle[: len(waiting)]:
                running[worker] = waiting.pop()
                worker.give(count, function, *tasks[running[worker]][1])
            ready = connection.wait([worker.pipe for worker in running])
            idle = [worker for worker in running if worker.pipe in ready]
            for worker in idle:
                number = running.pop(worker)
                title = tasks[number][0]
                try:
                    answer = worker.answer()
                except WorkerDied as died:
                    raise MissingError(
                        f"{title}: its process ended with code {died}, most likely out of memory; run again "
                        f"with {fewer}"
                    ) from None
                hear(title, answer)
                finished(number)


def end_idle(but: int = 0) -> None:
    """End workers that are kept, but for as many as the next tasks can use."""
    surplus = _IDLE[but:]
    del _IDLE[but:]
    _end(surplus)


def hear(title: str, answer: Answer) -> None:
    """Print what a worker has to say of a task, and raise what stopped it, if anything did."""
    for text in answer.said:
        console.say(f"{title}: {text}")
    for what, files in answer.tallies.items():
        for file in files:
            console.tally(what, file)
    if isinstance(answer.error, AjbenchError):
        raise type(answer.error)(f"{title}: {answer.error}")
    if answer.error is not None:
        raise RuntimeError(f"{title}:\n{answer.error}")


def attempt(function: Callable[..., Any], *args: Any) -> Answer:
    """Call a function in a worker."""
    error: AjbenchError | str | None = None
    before = cost.start()
    with console.keeping() as said:
        try:
            function(*args)
        except Exception as caught:
            error = expected(caught) or traceback.format_exc()
    used = cost.read().cpu_s - before.cpu_s, cost.peak_memory_mb(before.children_mb)
    return Answer(error, said, console.take_tallies(), *used)


def _idle() -> Worker | None:
    while _IDLE:
        worker = _IDLE.pop()
        if worker.process.is_alive():
            return worker
        _end([worker])
    return None


def _end(workers: Sequence[Worker]) -> None:
    for worker in workers:
        if worker.busy and worker.process.pid and worker.process.is_alive():
            os.kill(worker.process.pid, signal.SIGINT)
        worker.pipe.close()
    for worker in workers:
        if worker.process.pid:
            worker.process.join()


def _serve(pipe: Connection) -> None:
    """Do the tasks that arrive and answer each."""
    # Ctrl-C then reaches only the parent, which passes it on once; a second one would stop the saving.
    os.setpgrp()
    end_with_parent()
    console.configure(quiet=True)
    gc.set_threshold(10_000)  # imports take a sixth less time
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        # Even if the parent was started to ignore it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        while True:
            _serve_one(pipe)
            gc.collect()  # models are in cycles; before the next task, as this process may wait for long


def _serve_one(pipe: Connection) -> None:
    beside, function, args = pipe.recv()
    os.environ[WORKERS] = str(beside)
    pipe.send(attempt(function, *args))


@contextlib.contextmanager
def _child_settings(number: int) -> Iterator[None]:
    """Start a process with one thread for BLAS and OpenMP, one of this process's GPUs, and SIGINT blocked."""
    changed = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    if gpus := visible_gpus():
        changed[GPUS] = gpus[number % len(gpus)]
    before = {name: os.environ.get(name) for name in changed}
    resource_tracker.ensure_running()  # which would unblock SIGINT when the first process starts
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ |= changed
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # a pending Ctrl-C arrives here
