"""Tasks on Ray: the parts of a job, each done by one worker, on this machine or on a cluster.

RAY_ADDRESS names a cluster; its machines need ajbench and the same folders under the same paths.
"""

import contextlib
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

from ajbench.core import console
from ajbench.core.device import WORKERS, default_workers, device_of
from ajbench.core.errors import MissingError
from ajbench.core.failures import expected

Engine = Literal["local", "ray"]
RETRIES = 5  # how many dead workers a part survives
WAIT_S = 0.2  # how often this process looks for Ctrl-C
PATIENCE_S = 60.0  # time for a worker to save its state, before it is interrupted again
CONNECT_S = 10.0
STORE_BYTES = 1 << 28  # for Ray's objects on this machine: settings and lists of clips, no sound
# Besides all of AJBENCH_*.
INHERITED = ("ACCELERATE_USE_CPU", "HF_HUB_OFFLINE", "OMP_WAIT_POLICY", "TRANSFORMERS_OFFLINE")

Part = TypeVar("Part")


@dataclass(frozen=True)
class _Setting:
    """What a worker takes over from the process that gives the tasks."""

    folder: str
    command: list[str]
    variables: dict[str, str]
    shared: list[Path]


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


def run(
    work: Callable[[Any, Part, int], Any],
    common: Any,
    parts: Iterable[Part],
    finished: Callable[[Part, Any], None],
    *,
    title: Callable[[Part], str],
    workers: int | None,
    threads: int,
    shared: Sequence[Path],
    fewer: str,
) -> None:
    """Let Ray's workers do the parts of a job; a part whose worker dies is given to another worker.

    A task takes `threads` CPUs, and a GPU if this machine has one. Ctrl-C and errors interrupt all workers,
    which then have time to save their state.

    Args:
        work: called in a worker with `common`, a part, and how many workers have died on this part; a
            function of a module.
        common: sent to every worker once.
        parts: sent one by one, a few more than can be worked on.
        finished: called here with a part and what `work` returned.
        title: name of a part in messages.
        workers: at a time, if Ray is started here; None: one per GPU, or as many as the cores allow.
        threads: of a worker.
        shared: files and folders that every machine has to see.
        fewer: what lowers the number of workers, in words.

    Raises:
        MissingError: Ray, the cluster or a shared folder is missing, or too many workers died on one part.
        Exception: what a worker raised.
    """
    ray = need()
    on_gpu = device_of(0).type == "cuda"
    running: dict[Any, tuple[Part, int]] = {}
    with _started(ray, workers or _fitting(threads, on_gpu), threads):
        here, there = _at_a_time(ray, threads, on_gpu)
        if not there:
            what = f"{threads} CPUs" + " and a GPU" * on_gpu
            console.say(f"Ray: no machine of the cluster has {what}; waiting for one")
        variables = _variables(threads, max(1, math.ceil(there / max(1, here))), on_gpu)
        setting = _Setting(str(Path.cwd()), sys.argv, variables, [path.absolute() for path in shared])
        sent = ray.put((work, common))
        # Dead workers are counted here: Ray would try again for ever after an end by lack of memory.
        task = ray.remote(num_cpus=threads, num_gpus=int(on_gpu), max_retries=0)(_do)
        task = task.options(name=work.__name__)
        waiting = iter(parts)
        try:
            while True:
                ahead = 2 * max(1, _at_a_time(ray, threads, on_gpu)[1])
                for part in islice(waiting, max(0, ahead - len(running))):
                    running[task.remote(setting, [sent], part, 0)] = part, 0
                if not running:
                    return
                for answer in ray.wait(list(running), timeout=WAIT_S)[0]:
                    part, deaths = running.pop(answer)
                    try:
                        found, tallies = ray.get(answer)
                    except ray.exceptions.RayTaskError as error:
                        raise _told(error) from None
                    except ray.exceptions.RayError as error:
                        deaths += 1
                        how = f"its worker died ({type(error).__name__})"
                        if deaths > RETRIES:
                            raise MissingError(
                                f"{title(part)}: {how}, as {RETRIES} before it, most likely because memory "
                                f"ran out; run again with {fewer}"
                            ) from None
                        console.say(f"{title(part)}: {how}; given to another worker")
                        running[task.remote(setting, [sent], part, deaths)] = part, deaths
                        continue
                    for what, files in tallies.items():
                        for file in files:
                            console.tally(what, file)
                    finished(part, found)
        finally:
            _interrupt(ray, list(running))


@contextlib.contextmanager
def _started(ray: Any, workers: int, threads: int) -> Iterator[None]:
    """Connect to the cluster, or start Ray here for so many workers, unless that was done before."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    cluster = os.environ.get("RAY_ADDRESS")
    host, _, port = (cluster or "").rpartition(":")
    size: dict[str, Any] = {"num_cpus": workers * threads, "object_store_memory": STORE_BYTES}
    with contextlib.redirect_stdout(sys.stderr):  # Ray reports dead workers on stdout, which is for data
        try:
            how = {} if cluster else {"include_dashboard": False, **size}
            if host and "/" not in host:  # Ray itself would try for minutes
                socket.create_connection((host, int(port)), CONNECT_S).close()
            ray.init(address=cluster, log_to_driver=False, logging_level="error", **how)
        except (OSError, RuntimeError, ValueError) as error:
            if not cluster:
                raise
            reason = " ".join(str(error).split())[:200]
            raise MissingError(
                f"RAY_ADDRESS={cluster}: no Ray cluster there ({reason}); start one with `ray start --head`, "
                "or unset RAY_ADDRESS"
            ) from None
        try:
            yield
        finally:
            ray.shutdown()


def _fitting(threads: int, on_gpu: bool) -> int:
    if not on_gpu:
        return max(1, default_workers() // threads)
    import torch

    return torch.cuda.device_count()


def _at_a_time(ray: Any, threads: int, on_gpu: bool) -> tuple[int, int]:
    """Return how many machines can do tasks, and how many tasks at a time they can do together."""
    found = []
    for node in ray.nodes():
        has = node["Resources"] if node["Alive"] else {}
        tasks = int(has.get("CPU", 0) // threads)
        found.append(min(tasks, int(has.get("GPU", 0))) if on_gpu else tasks)
    return sum(tasks > 0 for tasks in found), sum(found)


def _variables(threads: int, beside: int, on_gpu: bool) -> dict[str, str]:
    names = [name for name in os.environ if name.startswith("AJBENCH_") or name in INHERITED]
    own = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), WORKERS: str(beside)}
    return {name: os.environ[name] for name in names} | own | ({} if on_gpu else {"CUDA_VISIBLE_DEVICES": ""})


def _do(setting: _Setting, sent: list[Any], part: Any, deaths: int) -> tuple[Any, dict[str, list[str]]]:
    """Do one part (runs in a worker); return what `work` returns, and the remarks on files."""
    import ray

    os.environ |= setting.variables  # before anything that reads them is imported by what was sent
    for path in (Path(setting.folder), *setting.shared):
        if not path.exists():
            raise MissingError(
                f"{path}: not on {socket.gethostname()}, a machine of the Ray cluster; all of them need the "
                "same folders under the same paths"
            )
    os.chdir(setting.folder)
    sys.argv = setting.command  # the command that run.json names
    signal.signal(signal.SIGINT, signal.default_int_handler)  # even if Ray was started to ignore it
    console.configure(quiet=True)
    work, common = ray.get(sent[0])
    return work(common, part, deaths), console.take_tallies()


def _told(error: Any) -> BaseException:
    """Return the error that a worker raised; a bug as Ray reports it, with the traceback of the worker."""
    return (isinstance(error.cause, Exception) and expected(error.cause)) or error


def _interrupt(ray: Any, running: list[Any]) -> None:
    """Interrupt tasks as Ctrl-C does, and wait until they have ended."""
    while running:
        for answer in running:
            ray.cancel(answer)
        _, running = ray.wait(running, num_returns=len(running), timeout=PATIENCE_S)
