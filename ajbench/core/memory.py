"""A reserve of memory: libraries that get none may compute other bits without an error.

oneMKL's matrix products and transforms ask for work buffers. Without one they take another kernel, which adds
in another order. Memory is refused before it is used up where it is limited: by `ulimit -v`, `ulimit -d`, or
`vm.overcommit_memory=2`. Elsewhere nothing here costs more than two microseconds.
"""

import functools
import mmap
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ajbench.core.errors import MissingError

RESERVE = 64 << 20  # bytes; more than any work buffer, each of which has up to 10 MB
_PEAK = b"VmPeak:"
_STATUS = Path("/proc/self/status")
_OVERCOMMIT = Path("/proc/sys/vm/overcommit_memory")


def need_reserve() -> None:
    """Refuse to go on if this process lacks the reserve, or has lacked it at any time since it started.

    Call it before each unit of work, and before a result is kept.

    Raises:
        MissingError: it does; what was computed may have other bits than with more memory.
    """
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    limited = limit != resource.RLIM_INFINITY
    peak = _peak() if limited else None
    if peak is not None and peak > limit - RESERVE:
        raise MissingError(
            f"out of memory: this process came within {RESERVE >> 20} MB of its limit of {limit >> 20} MB "
            "(ulimit -v), where libraries may compute other bits without an error; raise the limit, then run "
            "the same command again"
        )
    # Of the other limits the kernel tells no peak: what is free now has to do.
    data_limited = resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY
    if (limited and peak is None) or data_limited or _never_overcommits():
        _map_reserve()


@contextmanager
def reserved() -> Iterator[None]:
    """Need the reserve before and after what is done within; errors as `need_reserve`."""
    need_reserve()
    yield
    need_reserve()


def _peak() -> int | None:
    """Return the largest address space that this process has had, in bytes; None where the kernel hides it.

    A request for less than the reserve was refused only if the peak came closer to the limit than that.
    """
    try:
        lines = _STATUS.read_bytes().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(_PEAK)), None)


@functools.cache
def _never_overcommits() -> bool:
    """Return whether the system refuses memory that it might not have."""
    try:
        return _OVERCOMMIT.read_text().strip() == "2"
    except OSError:
        return False


def _map_reserve() -> None:
    """Map the reserve and give it back; no page of it is touched."""
    try:
        mmap.mmap(-1, RESERVE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        raise MissingError(
            f"out of memory: {RESERVE >> 20} MB are refused (ulimit -v, -d or vm.overcommit_memory=2), and "
            "with less, libraries may compute other bits without an error; free memory or raise the limit, "
            "then run the same command again"
        ) from None
