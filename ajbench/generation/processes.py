"""The shards of a synthesis in processes of this machine, started here."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from ajbench.core.errors import MissingError
from ajbench.core.processes import end_with_parent
from ajbench.generation.worker import POLL_S, Job


def share(job: Job, processes: int, first: int, advance: Callable[[int], None]) -> None:
    """Let `processes` others, numbered from `first`, do the job, and report what they have finished.

    Raises:
        MissingError: one was killed.
    """
    context = multiprocessing.get_context("spawn")
    done = 0
    with ProcessPoolExecutor(processes, context, initializer=end_with_parent) as pool:
        running: set[Future[None]] = {
            pool.submit(_work, job, rank) for rank in range(first, first + processes)
        }
        while running:
            finished, running = wait(running, timeout=POLL_S)
            for future in finished:
                try:
                    future.result()
                except BrokenProcessPool:
                    raise MissingError(
                        f"{job.out}: a process was killed, most likely for want of memory; run "
                        "again with fewer --processes"
                    ) from None
            ready = sum(job.note(shard).exists() for shard in job.shards)
            now = min(job.n, ready * job.section.shard_size)
            advance(now - done)
            done = now


def _work(job: Job, rank: int) -> None:
    job.work(rank, lambda n: None)  # the parent tells how far it is
