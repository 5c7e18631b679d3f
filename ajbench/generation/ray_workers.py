"""The shards of a synthesis as Ray tasks: on this machine, or on a cluster whose nodes see one folder.

A task claims its shard as any process does, so that a Ray job and others may share a store. A worker that
dies sets its claim free (see `ajbench.data.shards.claim` for shared folders), and Ray gives the shard to
another.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ajbench.core.errors import AjbenchError, MissingError
from ajbench.generation.settings import exact, require_same
from ajbench.generation.worker import POLL_S, Job, Models

RETRIES = 5  # deaths of workers that a shard survives

_loaded: dict[Path, Models] = {}  # in a worker, for its next shard


def need() -> Any:
    """Return the module `ray`.

    Raises:
        MissingError: it is not installed.
    """
    try:
        import ray
    except ImportError:
        raise MissingError("--engine ray: Ray is not installed; pip install 'ajbench[ray]'") from None
    return ray


def share(job: Job, processes: int, began: Mapping[str, Any] | None, advance: Callable[[int], None]) -> None:
    """Let Ray's workers make the shards, and report what they have finished.

    Where RAY_ADDRESS names a cluster, its resources say how many work at a time: a task takes `job.threads`
    CPUs, and a GPU where this machine has one. Else Ray is started here for `processes` workers.

    Args:
        job: what is to be done.
        processes: at a time, on this machine.
        began: the settings to which every worker must conform; None: any are allowed.
        advance: is told of clips.

    Raises:
        MissingError: the workers on one shard died again and again; or what a worker's own error says.
    """
    ray = need()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with contextlib.redirect_stdout(sys.stderr):  # Ray tells of dead workers on stdout, which is for data
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
        on_gpu = exact(job.section, job.threads)["device"] == "cuda"
        task = ray.remote(num_cpus=job.threads, num_gpus=int(on_gpu), max_retries=RETRIES)(_make)
        whole = ray.put(job)
        running = {task.remote(whole, shard, began): shard for shard in job.shards}
        while running:
            for answer in ray.wait(list(running), timeout=POLL_S)[0]:
                shard = running.pop(answer)
                _result(ray, answer, job, shard)
                advance(min(job.section.shard_size, job.n - shard * job.section.shard_size))
    finally:
        if ours:
            ray.shutdown()


def _result(ray: Any, answer: Any, job: Job, shard: int) -> None:
    try:
        ray.get(answer)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, AjbenchError):  # else it is a bug, whose traceback is wanted
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise MissingError(
            f"{job.out}: {RETRIES + 1} workers died on shard {shard} ({type(error).__name__}), most likely "
            "for want of memory; run again with fewer --processes"
        ) from None


def _make(job: Job, shard: int, began: Mapping[str, Any] | None) -> None:
    """Make one shard, in a worker."""
    if began is not None:
        require_same(job.out, began, exact(job.section, job.threads))
    models = job.work(0, lambda n: None, [shard], _loaded.get(job.out))
    if models:
        _loaded[job.out] = models
