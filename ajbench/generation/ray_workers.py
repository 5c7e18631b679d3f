"""Synthesis with Ray, one task per shard, on this machine or on a cluster with a shared folder.

A task claims its shard as any process does, so Ray and other processes can work on the same store. When a
worker dies, its claim is released (see `ajbench.data.shard_job.claim` for shared folders) and Ray gives the
shard to another worker.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ajbench.core.device import device_of
from ajbench.core.errors import AjbenchError, MissingError
from ajbench.data.shard_job import POLL_S
from ajbench.generation.settings import exact, require_same
from ajbench.generation.worker import Job, Models

RETRIES = 5  # how many dead workers a shard survives

_loaded: dict[Path, Models] = {}  # kept in a worker for its next shard


def need() -> Any:
    """Return the module `ray`.

    Raises:
        MissingError: Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise MissingError("--engine ray: Ray is not installed; pip install 'ajbench[ray]'") from None
    return ray


def share(job: Job, processes: int, began: Mapping[str, Any] | None, advance: Callable[[int], None]) -> None:
    """Let Ray's workers make the shards, and report finished clips.

    If RAY_ADDRESS names a cluster, its resources limit how many tasks run at a time: a task takes
    `job.threads` CPUs, and a GPU if this machine has one. Otherwise Ray is started here for `processes`
    workers.

    Args:
        job: the synthesis.
        processes: workers at a time, on this machine.
        began: the settings that every worker must have; None: any are allowed.
        advance: called with the number of clips finished.

    Raises:
        MissingError: too many workers died on one shard.
        AjbenchError: the error that a worker raised.
    """
    ray = need()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with contextlib.redirect_stdout(sys.stderr):  # Ray reports dead workers on stdout, which is for data
        _share(ray, job, processes, began, advance)


def _share(
    ray: Any, job: Job, processes: int, began: Mapping[str, Any] | None, advance: Callable[[int], None]
) -> None:
    ours = not ray.is_initialized()
    if ours:
        cluster = os.environ.get("RAY_ADDRESS")
        size = {} if cluster else {"num_cpus": processes * job.threads, "include_dashboard": False}
        ray.init(address=cluster, log_to_driver=False, logging_level="error", **size)
    try:
        on_gpu = device_of(0).type == "cuda"
        task = ray.remote(num_cpus=job.threads, num_gpus=int(on_gpu), max_retries=RETRIES)(_make)
        whole = ray.put(job)
        running = {task.remote(whole, shard, began): shard for shard in job.shards.shards}
        while running:
            for answer in ray.wait(list(running), timeout=POLL_S)[0]:
                shard = running.pop(answer)
                _result(ray, answer, job, shard)
                advance(len(job.shards.items(shard)))
    finally:
        if ours:
            ray.shutdown()


def _result(ray: Any, answer: Any, job: Job, shard: int) -> None:
    try:
        ray.get(answer)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, AjbenchError):  # anything else is a bug and needs its traceback
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise MissingError(
            f"{job.out}: {RETRIES + 1} workers died on shard {shard} ({type(error).__name__}), most likely "
            "because memory ran out; run again with fewer --processes"
        ) from None


def _make(job: Job, shard: int, began: Mapping[str, Any] | None) -> None:
    """Make one shard (runs in a worker)."""
    if began is not None:
        require_same(job.out, began, exact(job.section, job.threads))
    models = job.work(0, lambda n: None, [shard], _loaded.get(job.out))
    if models:
        _loaded[job.out] = models
