"""Which errors of other libraries are expected, and what is said of them."""

import errno
import os
from pathlib import Path

import pytest
import soundfile

from ajbench.core.errors import IntegrityError, MissingError
from ajbench.core.failures import expected
from ajbench.data.audio import AudioError


def of_system(number, name="part-00000.arrow"):
    return OSError(number, os.strerror(number), name)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EIO])
def test_a_file_is_named(number):
    told = expected(of_system(number))
    assert type(told) is MissingError and str(told).startswith("part-00000.arrow: ")
    assert "\n" not in str(told)


def test_a_vanished_file_is_named_as_the_system_does_it(tmp_path):
    with pytest.raises(FileNotFoundError) as found:
        Path(tmp_path / "shard").read_bytes()
    assert str(expected(found.value)).startswith(f"{tmp_path / 'shard'}: no such file")
    assert expected(FileNotFoundError("store.json")) is not None  # as `documents` raises it


LACKS = (
    MemoryError(),
    RuntimeError("could not create a primitive"),
    RuntimeError("unable to mmap 200 bytes from file </a.safetensors>: Cannot allocate memory (12)"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 200 bytes"),
    of_system(errno.ENOMEM),
    OSError("Memory mapping file failed: Cannot allocate memory"),  # Arrow's, without a number
    soundfile.LibsndfileError(156),
    soundfile.LibsndfileError(17),  # no FLAC decoder; malloc failed
    RuntimeError("malloc failed"),  # soxr's
)


@pytest.mark.parametrize("error", LACKS)
def test_a_lack_of_memory(error):
    assert str(expected(error)).startswith("out of memory")


def damaged(reason, kind=IntegrityError):
    """Return the error of a reader that takes any reason for damage."""
    try:
        try:
            raise reason
        except Exception:
            raise kind("model.safetensors: damaged") from None
    except kind as found:
        return found


@pytest.mark.parametrize("reason", LACKS)
def test_a_file_that_memory_does_not_suffice_for_is_not_damaged(reason):
    told = expected(damaged(reason))
    assert type(told) is MissingError and str(told).startswith("out of memory")
    again = expected(damaged(damaged(reason)))
    assert type(again) is MissingError
    assert type(expected(damaged(damaged(reason, AudioError)))) is MissingError
    kept = damaged(ValueError("header"))
    assert expected(kept) is kept


def test_a_limit_on_threads_names_it():
    assert "ulimit -u" in str(expected(RuntimeError("can't start new thread")))


def test_a_bug_is_none_of_these():
    bugs = ZeroDivisionError(), RuntimeError("shape mismatch"), OSError("a bug"), FileNotFoundError()
    assert not any(map(expected, bugs))
    known = IntegrityError("x")
    assert expected(known) is known


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_as_such(number):
    told = expected(OSError(number, os.strerror(number)))
    assert type(told) is MissingError and "no file locks" in str(told) and "--work" in str(told)
