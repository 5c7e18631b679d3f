"""Synthesis in several processes of this machine."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from ajbench.core.device import end_with_parent
from ajbench.core.errors import MissingError
from ajbench.data.shard_job import POLL_S
from ajbench.generation.worker import Job


def share(job: Job, processes: int, first: int, advance: Callable[[int], None]) -> None:
    """Let `processes` child processes, numbered from `first`, do the job, and report finished clips.

    Raises:
        MissingError: a process was killed.
    """
    context = multiprocessing.get_context("spawn")
    done = 0
    with ProcessPoolExecutor(processes, context, initializer=end_with_parent) as pool:
        ranks = range(first, first + processes)
        running: set[Future[None]] = {pool.submit(_work, job, rank) for rank in ranks}
        while running:
            finished, running = wait(running, timeout=POLL_S)
            for future in finished:
                try:
                    future.result()
                except BrokenProcessPool:
                    raise MissingError(
                        f"{job.out}: a process was killed, most likely because memory ran out; run again "
                        "with fewer --processes"
                    ) from None
            written = filter(job.shards.written, job.shards.shards)
            now = sum(len(job.shards.items(shard)) for shard in written)
            advance(now - done)
            done = now


def _work(job: Job, rank: int) -> None:
    job.work(rank, lambda n: None)  # the parent reports progress
