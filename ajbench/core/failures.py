"""Failures of files and memory that other libraries report, told as expected ones."""

import errno
import re

from ajbench.core.errors import AjbenchError, IntegrityError, MissingError
from ajbench.core.files import DISK_FULL, UNUSABLE

# torch, oneDNN, Arrow's memory maps, libsndfile and soxr have no error class for a lack of memory.
_OUT_OF_MEMORY = re.compile(
    "out of memory|can(no|')t allocate memory|not enough memory|could not create a (primitive|memory)|"
    r"problem while creating flac decoder|malloc failed|internal malloc \(\) failed",
    re.I,
)
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


def expected(error: Exception) -> AjbenchError | None:
    """Return what to say of an error, or None if it is a bug.

    Expected are files that cannot be read or written or that are gone, a full disk, and a lack of memory or
    threads.
    """
    if isinstance(error, IntegrityError) and (told := _of_memory(error.__context__)):
        return MissingError(told)  # a file that could not be read for lack of memory is not damaged
    if isinstance(error, AjbenchError):
        return error
    if told := _of_memory(error):
        return MissingError(told)
    if isinstance(error, OSError) and (reason := _of_files(error)):
        return MissingError(reason)
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return MissingError("no more threads or memory (ulimit -u, ulimit -v); finished stages are kept")
    return None


def _of_memory(error: BaseException | None) -> str:
    """Return what to say of a lack of memory; empty if neither the error nor its cause is one."""
    if error is None:
        return ""
    short = isinstance(error, OSError) and error.errno == errno.ENOMEM
    short = short or (
        isinstance(error, RuntimeError | OSError) and _OUT_OF_MEMORY.search(str(error)) is not None
    )
    if short or isinstance(error, MemoryError):
        reason = (str(error).splitlines() or ["allocation refused"])[0]
        return f"out of memory ({reason}); finished stages are kept"
    return _of_memory(error.__context__) if isinstance(error, AjbenchError) else ""


def _of_files(error: OSError) -> str:
    """Return what to say of a file; empty if the error is of something else."""
    name = str(error.filename or "disk")[-200:]
    if isinstance(error, FileNotFoundError):
        gone = error.filename or next((text for text in error.args if isinstance(text, str)), "")
        return gone and f"{str(gone)[-200:]}: no such file; restore it, then run the same command again"
    if error.errno in DISK_FULL:
        return f"{name}: no space left; free some, then run the same command again"
    if error.errno in NO_LOCKS:
        return (
            f"{name}: this file system has no file locks; mount it with them (Lustre: -o flock), or choose "
            "other folders with --work and --results"
        )
    if error.errno in UNUSABLE:
        return f"{name}: {error.strerror}; choose other files, or folders with --work and --results"
    return ""
