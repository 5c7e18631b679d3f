"""Checksums, atomic writes and locks."""

import errno
import hashlib
import multiprocessing
import os
import resource
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from ajbench.core.errors import MissingError
from ajbench.core.files import atomic_write, checksum, lock, replacing, sha256, writing


def test_hashes_are_those_of_the_whole_file(tmp_path):
    path = tmp_path / "weights"
    content = bytes(range(256)) * 40_000  # more than one block
    path.write_bytes(content)
    assert checksum(path) == xxhash.xxh3_128_hexdigest(content)
    assert sha256(path) == hashlib.sha256(content).hexdigest()


def test_a_failed_write_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "store.json"
    atomic_write(path, "old")
    atomic_write(path, b"newer")
    assert path.read_bytes() == b"newer"

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MissingError, match=r"store\.json"):
        atomic_write(path, "newest")
    assert path.read_bytes() == b"newer"
    assert [entry.name for entry in tmp_path.iterdir()] == ["store.json"]


@pytest.fixture
def small_files():
    """Let no file of this process grow beyond 100 kB, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_tensors(path):
    import torch
    from safetensors.torch import save_file

    save_file({"weights": torch.zeros(100_000)}, path)


def write_optimiser(path):
    import torch

    torch.save({"weights": torch.zeros(100_000)}, path)


def write_array(path):
    with path.open("wb") as file:
        np.savez(file, weights=np.zeros(100_000))


def write_arrow(path):
    table = pa.table({"weights": np.zeros(100_000)})
    with pa.ipc.new_file(str(path), table.schema) as file:
        file.write_table(table)


@pytest.mark.parametrize("write", [write_tensors, write_optimiser, write_array, write_arrow])
def test_what_a_library_cannot_write_is_named_and_the_old_file_stays(tmp_path, small_files, write):
    path = tmp_path / "weights"
    path.write_text("old")
    with (
        pytest.raises(MissingError, match=r"weights: cannot be written \(.*\); make space"),
        replacing(path) as part,
    ):
        write(part)
    assert path.read_text() == "old" and [*tmp_path.iterdir()] == [path]


def test_only_errors_of_writing_are_renamed(tmp_path):
    with pytest.raises(ValueError, match="a bug"), replacing(tmp_path / "weights"):
        raise ValueError("a bug")
    with replacing(tmp_path / "weights") as part:
        part.write_text("new")
    assert (tmp_path / "weights").read_text() == "new"


def test_a_write_killed_before_the_rename_leaves_no_file_of_that_name(tmp_path):
    script = """
import os, pathlib, signal, sys
from ajbench.core.files import atomic_write
pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
atomic_write(pathlib.Path(sys.argv[1]), "content")"""
    path = tmp_path / "store.json"
    assert subprocess.run([sys.executable, "-c", script, str(path)]).returncode == -signal.SIGKILL
    assert not path.exists()


def hold(path, ready, release):
    with lock(path):
        ready.set()
        release.wait(600)


def test_a_lock_names_its_holder_and_dies_with_it(tmp_path):
    path = tmp_path / "deep" / "stage.lock"
    context = multiprocessing.get_context("spawn")
    ready, release = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(path, ready, release))
    holder.start()
    assert ready.wait(600)
    with pytest.raises(MissingError, match=f"held by process {holder.pid} on "), lock(path):
        pass
    holder.kill()
    holder.join()
    with lock(path), pytest.raises(MissingError, match=f"held by process {os.getpid()} on "), lock(path):
        pass
    with lock(path):
        pass


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOSPC])
def test_what_is_read_while_a_file_is_written_has_its_own_name(tmp_path, number):
    def failing(name):
        with writing(tmp_path / "out.parquet"):
            raise OSError(number, "", str(tmp_path / name))

    with pytest.raises(OSError, match=r"clip\.wav"):
        failing("clip.wav")
    for name in ("out.parquet", ".out.parquet.host.1.0.tmp", "out.parquet/part"):
        with pytest.raises(MissingError, match=r"out\.parquet: cannot be written"):
            failing(name)
