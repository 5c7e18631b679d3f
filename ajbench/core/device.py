"""What a process computes with: device, precision, workers, garbage collection; and arrays of any device."""

import gc
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from ajbench.core.errors import MissingError

if TYPE_CHECKING:  # a stage that only asks for a precision must not wait for torch
    import torch

Array: TypeAlias = "np.ndarray | torch.Tensor"
Precision = Literal["auto", "fp32", "bf16"]
WORKERS = "AJBENCH_WORKERS"  # variable with the number of worker processes that one of them runs beside
GPUS = "CUDA_VISIBLE_DEVICES"
CLIPS_PER_PROCESS = 50  # a process takes about as long to start as to generate a few dozen clips


def device_of(rank: int | None = None) -> "torch.device":
    """Return the device of a process; processes on one machine take its GPUs in turn.

    Args:
        rank: of the process on this machine; None: as torchrun or accelerate set it, else 0.
    """
    import torch

    # accelerate's PartialState would make the processes of a launch wait for each other.
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        return torch.device("cpu")
    if torch.cuda.is_available():
        local = int(os.environ.get("LOCAL_RANK", 0)) if rank is None else rank
        return torch.device("cuda", local % torch.cuda.device_count())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def visible_gpus() -> list[str]:
    """Return how CUDA_VISIBLE_DEVICES names the GPUs that this process may use; none without CUDA."""
    torch = sys.modules.get("torch")  # a process that uses a GPU has imported it
    if torch is None or not torch.cuda.is_available():
        return []
    named = [name.strip() for name in os.environ.get(GPUS, "").split(",") if name.strip()]
    return named or [str(number) for number in range(torch.cuda.device_count())]


def available(device: str) -> str:
    """Return the device that `--device` names: itself, or for `auto` the best one here.

    Raises:
        MissingError: this machine does not have it.
    """
    import torch

    usable = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(name for name, found in usable.items() if found)
    if not usable[device]:
        raise MissingError(
            f"--device {device}: not found on this machine, or its driver is missing; use --device cpu"
        )
    return device


def resolve_precision(setting: Precision, device: str) -> Literal["fp32", "bf16"]:
    """Return the precision of a training: `auto` is bf16 on CUDA and fp32 elsewhere.

    Some CPUs multiply bf16 and others do not. With fp32 on all of them, the same recipe gives the same
    numbers; benchmarks/cpu_precision.py measures what bf16 would save.

    Args:
        setting: of the recipe.
        device: kind of device: cpu, cuda or mps.
    """
    if setting == "auto":
        return "bf16" if device == "cuda" else "fp32"
    return setting


class _Full:
    """Torch's settings are the process's: the last of several threads to leave restores them."""

    lock, within = threading.Lock(), 0
    before = (True, False)


_FULL = _Full()


@contextmanager
def full_fp32() -> Iterator[None]:
    """Multiply fp32 with all its bits meanwhile, in convolutions too.

    torch lets cuDNN round the factors of convolutions to TF32, 10 bits, by default: features and codes would
    depend on the kind of device.
    """
    import torch

    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    with _FULL.lock:
        if not _FULL.within:
            _FULL.before = convolutions.allow_tf32, products.allow_tf32
            convolutions.allow_tf32 = products.allow_tf32 = False
        _FULL.within += 1
    try:
        yield
    finally:
        with _FULL.lock:
            _FULL.within -= 1
            if not _FULL.within:
                convolutions.allow_tf32, products.allow_tf32 = _FULL.before


def release_gpu_memory() -> None:
    """Give the GPU memory of finished work back, for other processes; nothing without a GPU in use."""
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        gc.collect()  # modules are in reference cycles
        torch.cuda.empty_cache()


def to_numpy(array: Any) -> np.ndarray:
    """Return an array or tensor of any device as NumPy, in its own dtype (bfloat16 becomes float32)."""
    if isinstance(array, np.ndarray):
        return array
    import torch

    if isinstance(array, torch.Tensor):
        array = array.detach().cpu()
        return (array.float() if array.dtype == torch.bfloat16 else array).numpy()
    return np.asarray(array)


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
    return cores() if device_of().type == "cpu" else 1


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def use_threads(n: int) -> Iterator[None]:
    """Let torch use `n` threads within the context."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def readers() -> int:
    """Return how many threads should decode sound in this process: its share of the machine's cores, 2 to 32.

    Two on a machine with two cores, where processes compute too.
    """
    return min(32, max(2, cores() // _side_by_side()))


def memory_share(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Return the bytes of memory that are this process's share: of the machine or, if less, its job's limit.

    Args:
        groups: where Linux mounts control groups, by which containers and cluster jobs are limited.
        own: lists the control groups of this process.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for line in own.read_text().splitlines() if own.exists() else ():
        _, controllers, name = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        file = "memory/{}/memory.limit_in_bytes" if controllers else "{}/memory.max"
        group = PurePosixPath(name.lstrip("/"))
        for one in (group, *group.parents):
            with suppress(OSError, ValueError):  # `max`: no limit
                limits.append(int((groups / file.format(one)).read_text()))
    return min(limits) // _side_by_side()


def _side_by_side() -> int:
    """Return how many processes share this machine: those of a launch, or worker processes (`WORKERS`)."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) * int(os.environ.get(WORKERS, "1"))


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
