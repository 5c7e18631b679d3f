"""What a stage uses besides its time: CPU, GPU, memory, disk and, where the machine tells, energy."""

import os
import resource
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

RAPL = Path("/sys/class/powercap")  # Intel's and AMD's energy counters on Linux, readable by root

USED = ("seconds", "cpu_seconds", "gpu_seconds", "energy_j", "peak_memory_mb", "gpu_peak_memory_mb")

_workers = {"cpu_s": 0.0, "peak_mb": 0.0}  # of workers that are kept


class Reading(NamedTuple):
    """The counters of this process and machine at one time.

    Attributes:
        wall_s: monotonic clock in s.
        cpu_s: CPU time of this process, of its finished children and of `count_worker` in s.
        joules: energy counters by the name of the processor or GPU; empty where there are none.
        children_mb: largest resident size of a finished child so far in MB.
    """

    wall_s: float
    cpu_s: float
    joules: dict[str, float]
    children_mb: float = 0.0


def start() -> Reading:
    """Begin a stage: forget the peaks of memory of earlier ones, where the system allows it, and read."""
    _workers["peak_mb"] = 0.0
    with suppress(OSError):  # not Linux, or not permitted
        Path("/proc/self/clear_refs").write_text("5")
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    return read()


def read() -> Reading:
    """Read the counters."""
    times = os.times()
    cpu_s = sum(times[:4]) + _workers["cpu_s"]
    return Reading(time.monotonic(), cpu_s, _processor_joules() | _gpu_joules(), _children_mb())


def used(before: Reading, device: str, processes: int = 1) -> dict[str, Any]:
    """Return what was used since a reading, as `run.json` has it.

    `seconds`, `cpu_seconds` and `peak_memory_mb`; on CUDA `gpu_seconds`, those of all `processes` together,
    and `gpu_peak_memory_mb` of this one; `energy_j`, the energy of the whole machine in joules, where all of
    its counters can be read: on CUDA also those of the GPUs.
    """
    now = read()
    seconds = now.wall_s - before.wall_s
    found: dict[str, Any] = {
        "seconds": round(seconds, 3),
        "cpu_seconds": round(now.cpu_s - before.cpu_s, 3),
        "peak_memory_mb": peak_memory_mb(before.children_mb),
    }
    torch = sys.modules.get("torch")
    if device.startswith("cuda") and torch:
        found["gpu_seconds"] = round(seconds * processes, 3)
        found["gpu_peak_memory_mb"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    # A counter that went back has wrapped or been reset.
    whole = now.joules.keys() == before.joules.keys() and (
        not device.startswith("cuda") or any(name.startswith("gpu") for name in now.joules)
    )
    grown = [now.joules[name] - start for name, start in before.joules.items()] if whole else []
    if grown and min(grown) >= 0:
        found["energy_j"] = round(sum(grown), 1)
    return found


def added(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Return what two sessions used together, each as `used` has it: sums, and the larger of two peaks.

    Energy that only one of them knows is left out.
    """
    if not earlier:
        return dict(later)
    both = dict(later)
    for name in (name for name in USED if name in earlier):
        if name == "energy_j" and name not in later:
            continue
        one, other = earlier[name], later.get(name, 0)
        both[name] = max(one, other) if "peak" in name else round(one + other, 3)
    if "energy_j" not in earlier:
        both.pop("energy_j", None)
    return both


def count_worker(cpu_s: float, peak_mb: float) -> None:
    """Add what a worker has used that does not end yet; the system tells this of finished children only."""
    _workers["cpu_s"] += cpu_s
    _workers["peak_mb"] = max(_workers["peak_mb"], peak_mb)


def disk_mb(folder: Path) -> float:
    """Return the size of the files in and below a folder in MB, without those that links lead to."""
    sizes = (path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return round(sum(sizes) / 1e6, 3)


def peak_memory_mb(children_mb: float = 0.0) -> float:
    """Return the largest resident size since `start` in MB: of this process, a worker or a finished child.

    `children_mb`: that of the children that were finished at `start`. One that is no larger is not counted.
    """
    # Not their sum: on Linux, the figure of a forked child starts from the size of its parent.
    children = _children_mb()
    sizes = _resident_mb(resource.RUSAGE_SELF), _workers["peak_mb"], children if children > children_mb else 0
    return round(max(sizes), 1)


def _children_mb() -> float:
    return _resident_mb(resource.RUSAGE_CHILDREN)


def _resident_mb(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _processor_joules() -> dict[str, float]:
    """Return the counters of the processor packages; their parts (cores, memory) are contained in them."""
    found = {}
    for folder in RAPL.glob("*-rapl:*"):
        if folder.name.count(":") == 1:
            try:
                found[folder.name] = int((folder / "energy_uj").read_text()) / 1e6
            except (OSError, ValueError):
                continue
    return found


def _gpu_joules() -> dict[str, float]:
    """Return the counters of the GPUs, if there are any and NVIDIA's Python library is installed."""
    try:
        import pynvml
    except ImportError:
        return {}
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(k) for k in range(pynvml.nvmlDeviceGetCount())]
        return {f"gpu{k}": pynvml.nvmlDeviceGetTotalEnergyConsumption(h) / 1e3 for k, h in enumerate(handles)}
    except pynvml.NVMLError:  # no driver, or a GPU without a counter
        return {}
