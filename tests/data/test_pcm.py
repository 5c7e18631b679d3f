"""Decoded sound in mapped files: the same samples, written once, never stale, damaged or partial."""

import multiprocessing
import os
import shutil
import signal
from collections import namedtuple

import numpy as np
import pytest

from ajbench.core import console
from ajbench.core.errors import IntegrityError, MissingError
from ajbench.data import pcm
from ajbench.data.pcm import open_store
from ajbench.data.store import ClipStore

from .conftest import SAMPLES, build

ORDER = [5, 0, 7, 5, 3]
fork = multiprocessing.get_context("fork")


def caches(folder):
    return [path for path in folder.iterdir() if path.is_dir()]


def no_decoding(monkeypatch):
    monkeypatch.setattr(pcm, "_write", None)
    monkeypatch.setattr("ajbench.data.audio.flac_samples", None)


@pytest.mark.parametrize("block", [3, 64])
def test_samples_are_those_of_decoding_bit_for_bit(folder, tmp_path, monkeypatch, block):
    monkeypatch.setattr(pcm, "BLOCK", block)
    plain = ClipStore.open(folder)
    mapped = open_store(folder, tmp_path / "cache")
    assert plain.pcm is None and open_store(folder, None).pcm is None
    expected = plain.audio(ORDER), plain.audio16(ORDER)
    no_decoding(monkeypatch)
    for store in (mapped, open_store(folder, tmp_path / "cache")):
        rows = store.audio16(ORDER)
        np.testing.assert_array_equal(store.audio(ORDER), expected[0])
        np.testing.assert_array_equal(rows, expected[1])
        assert all(np.shares_memory(row, store.pcm.samples) and not row.flags.writeable for row in rows)
    with pytest.raises(IndexError):
        mapped.audio16([8])


def test_the_size_is_told_and_a_full_disk_refuses_it_in_one_line(folder, tmp_path, monkeypatch, capsys):
    console.configure()
    usage = namedtuple("usage", "total used free")
    size = 8 * SAMPLES * 2
    monkeypatch.setattr(pcm.shutil, "disk_usage", lambda path: usage(0, 0, size - 1))
    with pytest.raises(MissingError, match=r"0 MB for .* 8 clips \(data\.cache=pcm\).*--work") as error:
        open_store(folder, tmp_path / "cache")
    assert "\n" not in str(error.value) and not caches(tmp_path / "cache")
    monkeypatch.setattr(pcm.shutil, "disk_usage", lambda path: usage(0, 0, size))
    open_store(folder, tmp_path / "cache")
    assert "8 clips (data.cache=pcm)" in capsys.readouterr().err
    (cache,) = caches(tmp_path / "cache")
    assert (cache / pcm.SAMPLES).stat().st_size == size


def test_a_disk_that_fills_up_leaves_nothing(folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pcm.np, "save", full)
    with pytest.raises(MissingError, match="No space left"):
        open_store(folder, tmp_path / "cache")
    assert not caches(tmp_path / "cache")


def test_a_store_with_other_content_has_another_cache(tmp_path, write_wav, rng):
    sound = rng.uniform(-0.5, 0.5, (2, SAMPLES)).astype(np.float32)
    linked = {"audio": None, "path": str(write_wav("a.wav", sound[0], subtype="FLOAT"))}
    path = build(tmp_path / "s", (3,), {1: linked})
    cache = tmp_path / "cache"
    first = open_store(path, cache).audio16([0, 1])
    np.testing.assert_array_equal(first[1], np.rint(sound[0] * 32768))
    # Linked files are rounded in training alone.
    np.testing.assert_array_equal(open_store(path, cache).audio([1])[0], sound[0])
    write_wav("a.wav", sound[1], subtype="FLOAT")
    os.utime(linked["path"], ns=(1, 1))
    np.testing.assert_array_equal(open_store(path, cache).audio16([1])[0], np.rint(sound[1] * 32768))
    shutil.rmtree(path)
    build(tmp_path / "s", (2, 2))
    np.testing.assert_array_equal(open_store(path, cache).audio16([0])[0], first[0])
    assert len(caches(cache)) == 3


def test_a_flipped_bit_is_found_when_the_clip_is_read(folder, tmp_path):
    open_store(folder, tmp_path / "cache")
    (cache,) = caches(tmp_path / "cache")
    content = bytearray((cache / pcm.SAMPLES).read_bytes())
    content[2 * SAMPLES * 3 + 100] ^= 4
    (cache / pcm.SAMPLES).write_bytes(content)
    store = open_store(folder, tmp_path / "cache")
    store.audio16([0, 1, 2, 4])
    for _ in range(2):
        with pytest.raises(IntegrityError, match="clip 3"):
            store.audio16([3])


@pytest.mark.parametrize("name", [pcm.SAMPLES, pcm.CHECKSUMS])
@pytest.mark.parametrize("size", [0, 100, -3])
def test_a_file_that_was_cut_is_named_when_the_cache_is_opened(folder, tmp_path, name, size):
    open_store(folder, tmp_path / "cache")
    (cache,) = caches(tmp_path / "cache")
    content = (cache / name).read_bytes()
    for damaged in (content[:size], bytes([content[0] ^ 1]) + content[1 : 10 * size], None):
        if damaged is None:
            (cache / name).unlink()
        else:
            (cache / name).write_bytes(damaged)
        with pytest.raises(IntegrityError, match=f"{cache}: damaged .*; delete the folder"):
            open_store(folder, tmp_path / "cache")


def killed_while_writing(folder, cache):
    decode, calls = ClipStore.audio16, []

    def audio16(self, indices):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return decode(self, indices)

    ClipStore.audio16, pcm.BLOCK = audio16, 3
    open_store(folder, cache)


def test_what_a_killed_writer_leaves_is_never_read_and_is_removed(folder, tmp_path):
    cache = tmp_path / "cache"
    process = fork.Process(target=killed_while_writing, args=(folder, cache))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    (partial,) = caches(cache)
    assert partial.name.endswith(".tmp")
    store = open_store(folder, cache)
    np.testing.assert_array_equal(store.audio16(ORDER), ClipStore.open(folder).audio16(ORDER))
    assert [path.name for path in caches(cache)] == [pcm.key(store)]


def write_and_say(folder, cache, pipe):
    write = pcm._write

    def told(*args):
        pipe.send("writes")
        write(*args)

    pcm._write = told
    found = open_store(folder, cache).audio16(ORDER)
    pipe.send(np.array(found).tobytes())


def test_of_several_processes_one_writes_and_all_read_the_same(folder, tmp_path):
    pipes = [fork.Pipe() for _ in range(3)]
    processes = [
        fork.Process(target=write_and_say, args=(folder, tmp_path / "cache", theirs)) for _, theirs in pipes
    ]
    for process in processes:
        process.start()
    said = []
    for (mine, _), process in zip(pipes, processes, strict=True):
        said.append(mine.recv())
        if said[-1] == "writes":
            said.append(mine.recv())
        process.join()
    assert said.count("writes") == 1
    expected = np.array(ClipStore.open(folder).audio16(ORDER)).tobytes()
    assert [one for one in said if one != "writes"] == 3 * [expected]
