"""Samples of clips as 16-bit integers and floats, and many clips read by several threads, each once."""

import threading

import numpy as np
import pytest

from ajbench.data import clip_audio
from ajbench.data.audio import int16
from ajbench.data.store import ClipStore

from .conftest import SAMPLES, build, wave_of


def test_all_16_bit_samples_survive_the_way_to_floats_and_back():
    every = np.arange(-32768, 32768).astype(np.int16)
    wave = clip_audio.as_float([every], len(every))[0]
    np.testing.assert_array_equal(wave, (every / 32768).astype(np.float32))
    again = np.empty_like(every)
    clip_audio.write_int16(wave, again)
    np.testing.assert_array_equal(again, every)


def test_floats_are_rounded_and_clipped_as_in_a_file(rng):
    wave = np.concatenate([rng.uniform(-1, 1, 500), [-2, 2, 1, -1]]).astype(np.float32)
    found = np.empty(len(wave), np.int16)
    clip_audio.write_int16(wave, found)
    np.testing.assert_array_equal(found, int16(wave))


@pytest.mark.parametrize("threads", [1, 3])
def test_each_clip_is_read_once_by_as_many_threads_as_there_are_readers(monkeypatch, threads):
    monkeypatch.setattr(clip_audio, "readers", lambda: threads)
    together, asked, names = threading.Barrier(threads), [], set()

    def read(index):
        together.wait(10)  # only so many threads pass
        asked.append(index)
        names.add(threading.current_thread().name)
        return np.full(2, index, np.int16)

    indices = np.array([7, 3, 7, 7, 1, 3, 2, 8, 9])
    out = np.empty((len(indices), 2), np.float32)
    clip_audio.read_into(out, indices, read, clip_audio.write_float)
    np.testing.assert_array_equal(out, (indices / 32768)[:, None].repeat(2, 1).astype(np.float32))
    assert sorted(asked) == [1, 2, 3, 7, 8, 9] and len(names) == threads


def test_a_store_decodes_a_clip_once_and_gives_it_in_16_bits(folder, monkeypatch):
    clips, found = ClipStore.open(folder), []
    decode = clips._samples
    monkeypatch.setattr(clips, "_samples", lambda index: found.append(index) or decode(index))
    wanted = [5, 0, 5, 5, 3, 0]
    waves = clips.audio(wanted)
    assert sorted(found) == [0, 3, 5]
    whole = np.array(clips.audio16(wanted))
    assert whole.dtype == np.int16 and whole.shape == (6, SAMPLES)
    np.testing.assert_array_equal(whole, [int16(wave_of(i)) for i in wanted])
    np.testing.assert_array_equal(whole.astype(np.float32) / 32768, waves)


def test_linked_files_are_rounded_to_16_bits(tmp_path, write_wav, rng):
    sound = rng.uniform(-0.5, 0.5, SAMPLES).astype(np.float32)
    path = str(write_wav("a.wav", sound, subtype="FLOAT"))
    clips = ClipStore.open(build(tmp_path / "s", (2,), {0: {"audio": None, "path": path}}))
    np.testing.assert_array_equal(clips.audio16([0])[0], int16(sound))
    np.testing.assert_array_equal(clips.audio([0])[0], sound)
