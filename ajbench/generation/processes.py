"""Synthesis in several processes of this machine."""

from collections.abc import Callable
from multiprocessing import connection
from typing import TYPE_CHECKING

from ajbench.core import process_pool
from ajbench.core.device import device_of
from ajbench.core.errors import MissingError
from ajbench.data.shard_job import POLL_S

if TYPE_CHECKING:
    from ajbench.generation.worker import Job


def share(job: "Job", processes: int, first: int, advance: Callable[[int], None]) -> None:
    """Let `processes` worker processes, numbered from `first`, do the job, and report finished clips.

    Raises:
        MissingError: a process was killed.
    """
    done = 0
    with process_pool.borrowed(processes, keep=device_of().type == "cpu", first=first) as lent:
        for rank, worker in enumerate(lent, start=first):
            worker.give(processes, _work, job, rank)
        running = list(lent)
        while running:
            ready = connection.wait([worker.pipe for worker in running], timeout=POLL_S)
            for worker in [one for one in running if one.pipe in ready]:
                running.remove(worker)
                try:
                    answer = worker.answer()
                except process_pool.WorkerDied:
                    raise MissingError(
                        f"{job.out}: a process was killed, most likely because memory ran out; run again "
                        "with fewer --processes"
                    ) from None
                process_pool.hear("synth", answer)
            written = filter(job.shards.written, job.shards.shards)
            now = sum(len(job.shards.items(shard)) for shard in written)
            advance(now - done)
            done = now


def _work(job: "Job", rank: int) -> None:
    job.work(rank, lambda n: None)  # the parent reports progress
