"""Which errors of other libraries are expected, and what is said of them."""

import errno
import os
from pathlib import Path

import pytest

from ajbench.core.errors import IntegrityError, MissingError
from ajbench.core.failures import expected


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


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("could not create a primitive")])
def test_a_lack_of_memory(error):
    assert str(expected(error)).startswith("out of memory")


def test_a_limit_on_threads_names_it():
    assert "ulimit -u" in str(expected(RuntimeError("can't start new thread")))


def test_a_bug_is_none_of_these():
    bugs = ZeroDivisionError(), RuntimeError("shape mismatch"), OSError("a bug"), FileNotFoundError()
    assert not any(map(expected, bugs))
    known = IntegrityError("x")
    assert expected(known) is known
