"""Child processes of this one, and its garbage collection."""

import gc
import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

CLIPS_PER_PROCESS = 50  # a process takes about as long to start as to generate a few dozen clips


def end_with_parent() -> None:
    """End this process as soon as its parent has ended, even if the parent was killed."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def default_workers() -> int:
    """Return how many processes should compute at the same time: one per core on a CPU, one on a GPU."""
    from ajbench.core.device import device_of

    if device_of().type != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worth_starting(jobs: int, clips: int) -> int:
    """Return how many of `jobs` processes save time in a synthesis of this many clips."""
    return max(1, min(jobs, clips // CLIPS_PER_PROCESS))


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Search no reference cycles meanwhile: among millions of new objects, that takes half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
