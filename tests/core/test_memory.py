"""The reserve of memory: with less, libraries may compute other bits, so nothing is computed or kept."""

import resource
import subprocess
import sys
import timeit
from pathlib import Path

import pytest

from ajbench.core import memory
from ajbench.core.errors import MissingError

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")

# Limits are set in a process of its own, as they cannot be raised again. `limit(n)` leaves n MB.
START = """
import resource, sys
from ajbench.core import memory
from ajbench.core.errors import MissingError
def limit(megabytes, kind=resource.RLIMIT_AS):
    pages = int(open("/proc/self/statm").read().split()[0 if kind == resource.RLIMIT_AS else 5])
    most = pages * resource.getpagesize() + (megabytes << 20)
    resource.setrlimit(kind, (most, most))
def told():
    try:
        memory.need_reserve()
    except MissingError as error:
        return str(error)
"""


def said(code, *arguments):
    done = subprocess.run([sys.executable, "-c", START + code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_a_limit_nothing_is_read_or_mapped(monkeypatch):
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
    monkeypatch.setattr(memory, "_peak", None)
    monkeypatch.setattr(memory, "_map_reserve", None)
    memory.need_reserve()
    assert min(timeit.repeat(memory.need_reserve, number=1000, repeat=5)) < 0.1  # seconds per thousand


@pytest.mark.parametrize("kind", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_less_than_the_reserve_is_refused(kind):
    code = f"limit(int(sys.argv[1]), resource.{kind}); print(told())"
    assert said(code, "200") == "None"
    line = said(code, "40")
    assert line.startswith("out of memory") and "64 MB" in line and "raise the limit" in line
    assert "\n" not in line


def test_a_limit_that_was_nearly_reached_is_refused_though_memory_is_free_again():
    code = """
import mmap
limit(200)
for size in (100, 180):
    mmap.mmap(-1, size << 20).close()
    print(bool(told()), end=" ")
"""
    assert said(code) == "False True"


def test_without_a_peak_the_reserve_is_mapped(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none")
    assert memory._peak() is None
    code = """
memory._STATUS = memory.Path("none")
limit(int(sys.argv[1])); print(told())
"""
    assert said(code, "200") == "None" and "are refused" in said(code, "40")


def test_a_system_that_never_overcommits_is_asked(monkeypatch, tmp_path):
    def refuse(*about, **how):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(memory, "_OVERCOMMIT", tmp_path / "mode")
    monkeypatch.setattr(memory.mmap, "mmap", refuse)
    for mode in ("0", "2"):
        (tmp_path / "mode").write_text(f"{mode}\n")
        memory._never_overcommits.cache_clear()
        if mode == "0":
            memory.need_reserve()
        else:
            with pytest.raises(MissingError, match="overcommit"):
                memory.need_reserve()
    memory._never_overcommits.cache_clear()


def test_what_is_computed_with_little_memory_is_not_kept(tmp_path):
    code = """
from pathlib import Path
from ajbench.core.files import atomic_write, replacing
from ajbench.core.rows import append_rows
folder = Path(sys.argv[1])
def library():
    with replacing(folder / "b") as part:
        part.write_text("1")
limit(40)
for write in (lambda: atomic_write(folder / "a", "1"), library, lambda: append_rows(folder / "c", [])):
    try:
        write()
    except MissingError:
        print("refused", end=" ")
"""
    assert said(code, str(tmp_path)) == "refused refused refused"
    assert not any(tmp_path.iterdir())


def test_features_under_a_limit_are_the_same_or_refused():
    code = """
import ctypes, hashlib, os
import numpy as np, torch
torch.set_num_threads(1)
from ajbench.features.extractor import LazyExtractor
extractor = LazyExtractor("tiny").extractor
wave = np.random.default_rng(0).normal(0, 0.1, (1, 13440)).astype(np.float32)
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
def features(megabytes, block):
    read, write = os.pipe()
    if pid := os.fork():
        os.waitpid(pid, 0)
        return os.read(read, 1000).decode()
    if megabytes:
        limit(megabytes)
    while block and libc.malloc(block << 20):  # the free parts of the heap, as a corpus of features would
        pass
    try:
        found = hashlib.sha1(extractor(wave)[0].tobytes()).hexdigest()
    except MissingError:
        found = "refused"
    except BaseException as error:
        found = f"failed: {error}"
    os.write(write, found.encode())
    os._exit(0)
same = features(0, 0)
assert features(400, 0) == same
print(*{features(more, 2) for more in (1, 2, 4, 6)} - {same})
"""
    assert said(code) == "refused"
