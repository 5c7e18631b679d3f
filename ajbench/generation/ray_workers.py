"""Synthesis with Ray, one task per shard, on this machine or on a cluster with a shared folder.

A task claims its shard as any process does, so Ray and other processes can work on the same store. When a
worker dies, its claim is released (see `ajbench.data.shard_job.claim` for shared folders) and another worker
gets the shard.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ajbench.core import ray_tasks
from ajbench.generation.settings import exact, require_same
from ajbench.generation.worker import Job, Models

_loaded: dict[Path, Models] = {}  # kept in a worker for its next shard


def share(job: Job, processes: int, began: Mapping[str, Any] | None, advance: Callable[[int], None]) -> None:
    """Let Ray's workers make the shards, and report finished clips.

    Args:
        job: the synthesis.
        processes: workers at a time, if there is no cluster.
        began: the settings that every worker must have; None: any are allowed.
        advance: called with the number of clips finished.

    Raises:
        AjbenchError: as `ray_tasks.run`.
    """
    missing = job.shards.missing
    advance(job.n - sum(len(job.shards.items(shard)) for shard in missing))
    ray_tasks.run(
        _make,
        (job, began),
        missing,
        lambda shard, _: advance(len(job.shards.items(shard))),
        title=lambda shard: f"{job.out}: shard {shard}",
        workers=processes,
        threads=job.threads,
        shared=[job.out],
        fewer="a lower --processes",
    )


def _make(common: tuple[Job, Mapping[str, Any] | None], shard: int, _: int) -> None:
    """Make one shard (runs in a worker)."""
    job, began = common
    if began is not None:
        require_same(job.out, began, exact(job.section, job.threads))
    models = job.work(0, lambda n: None, [shard], _loaded.get(job.out))
    if models:
        _loaded[job.out] = models
