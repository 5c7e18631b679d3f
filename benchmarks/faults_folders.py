"""Folders whose disk is full or that cannot be written to, for benchmarks/faults.py: a tmpfs, or modes."""

import functools
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@functools.cache
def may_mount() -> bool:
    """Return whether this process may mount a tmpfs."""
    with tempfile.TemporaryDirectory() as place:
        found = _mount("-t", "tmpfs", "tmpfs", place)
        if found:
            subprocess.run(["umount", place], check=True)
    return found


@contextmanager
def mounted(place: Path) -> Iterator[None]:
    """Mount a tmpfs over a folder for the duration of the block."""
    if not _mount("-t", "tmpfs", "-o", "size=2g", "tmpfs", str(place)):
        raise PermissionError(f"{place}: a tmpfs cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def remount(place: Path, option: str) -> bool:
    """Change an option of a mounted tmpfs; return whether that worked."""
    return _mount("-o", f"remount,{option}", str(place))


def lock(place: Path) -> bool:
    """Make a folder read-only; return whether that worked: not while a file is open on a tmpfs."""
    if not may_mount():
        return _modes(place)
    return remount(place, "ro")


def unlock(place: Path) -> bool:
    """Undo `lock`."""
    if not may_mount():
        return _modes(place, 0o200)
    return remount(place, "rw")


def _modes(place: Path, add: int = 0) -> bool:
    for path in (place, *place.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222 | add)
    return True


def _mount(*words: str) -> bool:
    try:
        return subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0
    except OSError:
        return False
