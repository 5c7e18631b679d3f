"""Independent stages at the same time, each with one thread: in processes of this machine, or on Ray."""

import time
from collections.abc import Sequence
from dataclasses import replace

from ajbench.core import console, process_pool, ray_tasks
from ajbench.core.device import default_workers
from ajbench.core.errors import MissingError
from ajbench.core.files import lock
from ajbench.data.shard_job import POLL_S
from ajbench.pipeline.stage import Stage

LONGEST_LOCK_S = 300  # until the server of the files releases the lock of a machine that died


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
    tasks = [(stage.title, (_bare(stage), device, force)) for stage in stages]
    with console.progress(len(stages), stages[0].name, "stages") as advance:

        def finished(number: int) -> None:
            console.detail(f"{stages[number].title}: done")
            advance(1)

        # On a GPU, a process that is kept holds memory.
        process_pool.share(_run, tasks, count, finished, keep=device == "cpu")


def _run(stage: Stage, device: str, force: bool) -> None:
    stage.run(device, force)


def _bare(stage: Stage) -> Stage:
    """Return a stage without what was used before its turn, and need not be picklable."""
    return replace(stage, needs=(), checks=(), estimate=None)


def _run_on_ray(stages: Sequence[Stage], processes: int | None, device: str, force: bool) -> None:
    stages[0].path.parent.mkdir(parents=True, exist_ok=True)
    for stage in stages if force else ():  # here and once, not by every worker that takes a stage over
        with lock(stage.folder.lock_file):
            stage.folder.clear()
    shared = {stages[0].path.parent, *(need.path for stage in stages for need in stage.needs)}
    with console.progress(len(stages), stages[0].name, "stages") as advance:

        def finished(stage: Stage, answer: process_pool.Answer) -> None:
            process_pool.hear(stage.title, answer)
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


def _work(device: str, stage: Stage, deaths: int) -> process_pool.Answer:
    """Run a stage (in a worker of Ray); after the death of a worker, continue what that has left."""
    end = time.monotonic() + LONGEST_LOCK_S
    while deaths and time.monotonic() < end:
        try:
            with lock(stage.folder.lock_file):
                break
        except MissingError:
            time.sleep(POLL_S)
    if deaths and stage.done():
        return process_pool.Answer()
    return process_pool.attempt(_run, stage, device, False)  # if the lock is still held, this says by whom
