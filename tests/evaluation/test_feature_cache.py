import errno
import os

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch
from fakes import EnvelopeExtractor, FrameExtractor, save_untrained_classifier, write_envelope

from ajbench.core import console
from ajbench.core.errors import IntegrityError
from ajbench.data.clip_set import Change, open_set
from ajbench.evaluation import feature_cache, protocols
from ajbench.evaluation.feature_cache import embed
from ajbench.features.extractor import LazyExtractor, Reference

PLAIN, WINDOWED, OTHER = map(protocols.find, ("ajbench", "stable-audio-metrics", "audioldm_eval"))


class Frames(FrameExtractor):
    """Mean and level of every tenth of a second, without classes."""

    name, min_samples = "frames", 1_600

    def __call__(self, wav):
        self.seen += len(wav)
        k = wav.shape[1] // 1_600
        pieces = np.asarray(wav)[:, : k * 1_600].reshape(len(wav), k, 1_600)
        rows = np.stack([pieces.mean(axis=2), pieces.std(axis=2)], axis=2)
        return rows, np.zeros((len(wav), 0), np.float32)


@pytest.fixture(scope="module")
def gen(kinds):
    return open_set(kinds / "gen")


# One vector per clip


def test_features_are_computed_once_per_content_protocol_and_weights(own_kinds):
    extractor, cache, gen = EnvelopeExtractor(), own_kinds / "cache", open_set(own_kinds / "gen")
    first, again = (embed(gen, extractor, PLAIN, cache) for _ in range(2))
    assert (first.computed, again.computed, extractor.seen) == (24, 0, 24)
    assert np.array_equal(first.vectors(), again.vectors()) and np.array_equal(first.logits, again.logits)
    assert again.vectors().dtype == np.float64
    for number in (0, 7):  # each in its place
        assert np.array_equal(again.vectors()[number], extractor(gen.samples(number)[0].T)[0][0])
    write_envelope(own_kinds / "gen" / "wind" / "clip-5.wav", 77)
    gen = open_set(own_kinds / "gen")
    assert embed(gen, extractor, PLAIN, cache).computed == 1
    assert embed(gen, extractor, OTHER, cache).computed == 24
    extractor.weights_hash = "w2"
    assert embed(gen, extractor, PLAIN, cache).computed == 24


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_cache_that_cannot_be_written_stops_nothing(gen, tmp_path, monkeypatch, capsys, number):
    def failing(descriptor):
        raise OSError(number, os.strerror(number))

    plain = embed(gen, EnvelopeExtractor(), PLAIN, tmp_path / "cache")
    monkeypatch.setattr(os, "fsync", failing)
    monkeypatch.setattr(feature_cache, "PART", 7)
    console.configure()
    found = embed(gen, EnvelopeExtractor(), PLAIN, tmp_path / "full")
    assert found.computed == 24 and np.array_equal(found.vectors(), plain.vectors())
    said = capsys.readouterr().err
    assert said.count("features are not kept") == 1 and os.strerror(number) in said
    assert not [path for path in (tmp_path / "full").rglob("*") if path.is_file()]


def test_cached_features_need_no_network(gen, tmp_path, monkeypatch):
    save_untrained_classifier(tmp_path / "judge", ("rain", "dog"), 4_000)
    made = [LazyExtractor("reference", tmp_path / "judge") for _ in range(2)]
    first = embed(gen, made[0], PLAIN, tmp_path / "cache")
    monkeypatch.setattr(Reference, "__init__", lambda *_: pytest.fail("the network is loaded again"))
    again = embed(gen, made[1], PLAIN, tmp_path / "cache")
    assert (first.computed, again.computed) == (24, 0)
    assert np.array_equal(first.vectors(), again.vectors())


def test_a_gpu_gets_larger_batches(tmp_path, monkeypatch):
    for k in range(70):
        write_envelope(tmp_path / "sounds" / f"{k:02d}.wav", k, 0.5)
    clips, sizes = open_set(tmp_path / "sounds"), []

    class Counting(EnvelopeExtractor):
        def __call__(self, wav):
            sizes.append(len(wav))
            return super().__call__(wav)

    monkeypatch.setattr("ajbench.evaluation.feature_cache.device_of", lambda: torch.device("cuda", 0))
    found = embed(clips, Counting(), PLAIN, tmp_path / "cache")
    assert found.numbers.tolist() == list(range(70)) and sizes == [64, 1, 1, 1, 1, 1, 1]


def test_each_clip_has_its_own_features_whatever_the_lengths_around_it(tmp_path, monkeypatch):
    monkeypatch.setattr("ajbench.evaluation.feature_cache.WAITING", 20)
    for k in range(40):
        write_envelope(tmp_path / "mixed" / f"{k:02d}.wav", k, (0.5, 0.5, 0.6, 0.3 + k / 100)[k % 4])
    clips, sizes = open_set(tmp_path / "mixed"), []

    class Counting(EnvelopeExtractor):
        def __call__(self, wav):
            sizes.append(len(wav))
            return super().__call__(wav)

    found = embed(clips, Counting(), PLAIN, tmp_path / "cache")
    assert found.numbers.tolist() == list(range(40)) and {1, 8} == set(sizes) and sum(sizes) == 40
    for number in range(40):
        expected = EnvelopeExtractor()(clips.samples(number)[0].T)
        assert found.vectors()[number] == pytest.approx(expected[0][0], rel=1e-5)
        assert found.logits[number] == pytest.approx(expected[1][0], rel=1e-4, abs=1e-4)


def test_an_interrupted_run_continues_where_it_stopped(gen, tmp_path, monkeypatch):
    monkeypatch.setattr("ajbench.evaluation.feature_cache.PART", 4)

    class Stopping(EnvelopeExtractor):
        def __call__(self, wav):
            if self.seen == 8:
                raise KeyboardInterrupt
            return super().__call__(wav)

    with pytest.raises(KeyboardInterrupt):
        embed(gen, Stopping(), PLAIN, tmp_path / "cache")
    assert embed(gen, EnvelopeExtractor(), PLAIN, tmp_path / "cache").computed == 16


def test_batches_are_the_same_after_an_interruption(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "PART", 24)
    monkeypatch.setattr(feature_cache, "WAITING", 20)
    folder = tmp_path / "sounds"
    for k in range(96):  # an unusable clip in every part, and clips of an earlier part again
        write_envelope(folder / f"{k:02d}.wav", k, (0.5, 0.5, 0.6, 0.3 + k / 500)[k % 4])
        if k % 24 == 7:
            soundfile.write(folder / f"{k:02d}.wav", np.zeros(4_000), 16_000)
        if k > 24 and k % 9 == 0:
            (folder / f"{k:02d}.wav").write_bytes((folder / f"{k - 20:02d}.wav").read_bytes())

    class Sizes(EnvelopeExtractor):
        def __call__(self, wav):
            return super().__call__(wav)[0], np.full((len(wav), 1), len(wav), np.float32)

    whole = embed(open_set(folder), Sizes(), PLAIN, tmp_path / "whole")
    assert set(whole.logits[:, 0]) == {1, 8} and len(whole.left_out) == 5
    write = feature_cache._write
    for stop in (0, 1, 2, 3):
        written = []

        def interrupt(*about, stop=stop, written=written):
            if len(written) == stop:
                raise KeyboardInterrupt
            written.append(write(*about))
            return written[-1]

        cache = tmp_path / f"stopped-{stop}"
        with monkeypatch.context() as changed, pytest.raises(KeyboardInterrupt):
            changed.setattr(feature_cache, "_write", interrupt)
            embed(open_set(folder), Sizes(), PLAIN, cache)
        again = embed(open_set(folder), Sizes(), PLAIN, cache)
        assert np.array_equal(again.logits, whole.logits)
        assert np.array_equal(again.vectors(), whole.vectors())


def test_a_damaged_or_foreign_cache_is_refused(gen, tmp_path):
    embed(gen, EnvelopeExtractor(), PLAIN, tmp_path)
    (part,) = (tmp_path / "envelope-w1-ajbench").glob("part-*.arrow")
    other = tmp_path / "envelope-w1-audioldm_eval-2"
    other.mkdir()
    (other / part.name).write_bytes(part.read_bytes())
    with pytest.raises(IntegrityError, match="envelope-w1-audioldm_eval-2/part"):
        embed(gen, EnvelopeExtractor(), OTHER, tmp_path)
    whole = part.read_bytes()
    values = pa.ipc.open_file(pa.memory_map(str(part))).read_all()["features"].combine_chunks().flatten()
    at = whole.index(values.to_numpy().tobytes()[:32])
    part.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])  # a float that looks as good
    with pytest.raises(IntegrityError, match=r"envelope-w1-ajbench/part.*checksum"):
        embed(gen, EnvelopeExtractor(), PLAIN, tmp_path)
    part.write_bytes(whole[:200])
    with pytest.raises(IntegrityError, match="envelope-w1-ajbench/part"):
        embed(gen, EnvelopeExtractor(), PLAIN, tmp_path)


def test_a_file_of_the_cache_is_verified_once_per_process(gen, tmp_path, monkeypatch):
    whole, digest = embed(gen, EnvelopeExtractor(), PLAIN, tmp_path), feature_cache._digest
    monkeypatch.setattr(feature_cache, "_digest", lambda table: pytest.fail("verified again"))
    again = embed(gen, EnvelopeExtractor(), PLAIN, tmp_path)
    assert again.computed == 0 and np.array_equal(again.vectors(), whole.vectors())
    (part,) = (tmp_path / "envelope-w1-ajbench").glob("part-*.arrow")
    part.touch()
    seen = []
    monkeypatch.setattr(feature_cache, "_digest", lambda table: seen.append(len(table)) or digest(table))
    embed(gen, EnvelopeExtractor(), PLAIN, tmp_path)
    assert seen == [24]


@pytest.mark.parametrize(("shortest", "longest", "length"), [(240, None, 240), (100, 150, 150), (300,) * 3])
def test_clips_are_fitted_to_the_lengths_that_an_extractor_takes(tmp_path, shortest, longest, length):
    write_envelope(tmp_path / "short" / "a.wav", 1, seconds=0.0125 if shortest != 100 else 0.02)

    class Short(EnvelopeExtractor):
        min_samples, max_samples = shortest, longest

        def __call__(self, wav):
            assert wav.shape == (1, length)
            return super().__call__(wav)

    assert embed(open_set(tmp_path / "short"), Short(), PLAIN, tmp_path / "cache").computed == 1


def test_features_of_windows_are_averaged(tmp_path):
    write_envelope(tmp_path / "long" / "a.wav", 1, seconds=13)
    clips = open_set(tmp_path / "long")
    found = embed(clips, EnvelopeExtractor(), WINDOWED, tmp_path / "cache")
    windows = WINDOWED.windows(WINDOWED.wave(clips.samples(0)[0], 16_000, 16_000), 16_000)
    assert len(windows) == 2
    assert found.vectors()[0] == pytest.approx(EnvelopeExtractor()(windows)[0].mean(axis=0), rel=1e-6)


def test_silence_is_refused_unless_it_is_a_change(gen, tmp_path):
    quiet = gen.changed(Change("zeros", lambda name, samples, rate: np.zeros_like(samples)))
    assert embed(quiet, EnvelopeExtractor(), PLAIN, tmp_path / "cache").computed == 24
    write_envelope(tmp_path / "set" / "a.wav", 1)
    soundfile.write(tmp_path / "set" / "b.wav", np.zeros(8_000), 16_000)
    plain = open_set(tmp_path / "set")
    for clips in (plain, plain.changed(quiet.change)):
        found = embed(clips, EnvelopeExtractor(), PLAIN, tmp_path / "other")
        assert [one.number for one in found.left_out] == [1]


# Frames


@pytest.fixture
def clips(tmp_path):
    (tmp_path / "set").mkdir()
    for k, seconds in enumerate((0.5, 0.3, 0.5, 0.1, 13.0)):
        wave = np.random.default_rng(k).normal(0, 0.1 * (k + 1) / 5, int(seconds * 16_000))
        soundfile.write(tmp_path / "set" / f"{k}.wav", wave, 16_000, subtype="FLOAT")
    return open_set(tmp_path / "set")


def test_frames_are_rows_of_their_clip(clips, tmp_path):
    found = embed(clips, Frames(), PLAIN, tmp_path / "cache")
    assert [rows.shape for rows in found.rows] == [(k, 2) for k in (5, 3, 5, 1, 130)]
    assert found.dimension == 2 and found.logits.shape == (5, 0)
    assert {rows.dtype for rows in found.rows} == {found.logits.dtype} == {np.dtype(np.float32)}
    for number in range(5):
        wave = clips.samples(number)[0].T
        assert found.rows[number] == pytest.approx(Frames()(wave)[0][0], rel=1e-6)


def test_frames_come_back_from_the_cache(clips, tmp_path):
    extractor = Frames()
    first, again = (embed(clips, extractor, PLAIN, tmp_path / "cache") for _ in range(2))
    assert extractor.seen == 5 and again.computed == 0
    assert all(map(np.array_equal, first.rows, again.rows))
    assert again.logits.shape == (5, 0) and again.numbers.tolist() == [0, 1, 2, 3, 4]


def test_rows_of_the_cache_are_not_held_in_memory(tmp_path):
    values = np.random.default_rng(0).normal(size=(200, 500, 8)).astype(np.float32)
    rows = {str(k): (own, np.zeros(0, np.float32)) for k, own in enumerate(values)}
    path = feature_cache._write(tmp_path / "cache", rows)
    before = pa.total_allocated_bytes()
    found = feature_cache._mapped(path)
    assert pa.total_allocated_bytes() - before < values.nbytes / 10
    assert all(np.array_equal(found[key][0], own) for key, (own, _) in rows.items())


def test_frames_of_all_windows_are_kept(clips, tmp_path):
    found = embed(clips, Frames(), WINDOWED, tmp_path / "cache")
    # 10 s from 0 s and from 5 s of the one clip that is longer; the others are padded or left as they are.
    assert [*map(len, found.rows)] == [5, 3, 5, 1, 200]


def test_clips_of_one_frame_are_read_as_vectors_are(clips, tmp_path):
    class Whole(Frames):
        def __call__(self, wav):
            features, logits = super().__call__(wav)
            return features[:, :1], logits

    found, again = (embed(clips, Whole(), PLAIN, tmp_path / "cache") for _ in range(2))
    assert [*map(len, found.rows)] == [*map(len, again.rows)] == [1] * 5
    assert np.array_equal(found.vectors(), again.vectors())


def test_a_cache_without_frames_is_read(clips, tmp_path):
    vectors = np.arange(15, dtype=np.float32).reshape(5, 3)
    columns = {"content": pa.array(clips.keys)}
    for name, values in (("features", vectors), ("logits", vectors[:, :2])):
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    folder = tmp_path / "cache" / "frames-w1-ajbench"
    folder.mkdir(parents=True)
    table = pa.table(columns).replace_schema_metadata({"of": folder.name})
    with pa.ipc.new_file(str(folder / "part-0.arrow"), table.schema) as file:
        file.write_table(table)
    found = embed(clips, Frames(), PLAIN, tmp_path / "cache")
    assert np.array_equal(found.vectors(), vectors) and np.array_equal(found.logits, vectors[:, :2])
    assert found.computed == 0 and [*map(len, found.rows)] == [1] * 5


def test_a_set_without_sound_has_no_rows(tmp_path):
    (tmp_path / "set").mkdir()
    soundfile.write(tmp_path / "set" / "a.wav", np.zeros(8_000), 16_000)
    found = embed(open_set(tmp_path / "set"), Frames(), PLAIN, tmp_path / "cache")
    assert len(found.numbers) == len(found.rows) == len(found.vectors()) == len(found.logits) == 0
    assert "silent" in found.left_out[0].reason


@pytest.mark.parametrize("protocol", [PLAIN, WINDOWED])
def test_every_window_is_fitted_to_an_extractor_of_one_length(clips, tmp_path, protocol):
    seen = []

    class Five(Frames):
        min_samples = max_samples = 5 * 16_000

        def __call__(self, wav):
            seen.extend(len(wave) for wave in wav)
            return super().__call__(wav)

    found = embed(clips, Five(), protocol, tmp_path / "cache")
    assert set(seen) == {80_000}
    assert [*map(len, found.rows)] == [50] * 4 + [50 if protocol is PLAIN else 100]


def test_sound_after_what_an_extractor_takes_is_no_silence(tmp_path):
    (tmp_path / "set").mkdir()
    write_envelope(tmp_path / "set" / "a.wav", 3)
    samples, rate = soundfile.read(tmp_path / "set" / "a.wav", dtype="float32")
    late = np.concatenate([np.zeros(3 * rate, np.float32), samples])
    soundfile.write(tmp_path / "set" / "a.wav", late, rate)

    class First(Frames):
        min_samples = max_samples = 2 * 16_000

    found = embed(open_set(tmp_path / "set"), First(), PLAIN, tmp_path / "cache")
    assert not found.left_out and len(found.rows) == 1


def test_a_fault_in_one_minute_of_a_long_clip_is_no_silence(tmp_path):
    wave = np.random.default_rng(0).normal(0, 0.1, 130 * 8_000).astype(np.float32)
    wave[80_000:88_000] = np.nan
    (tmp_path / "set").mkdir()
    soundfile.write(tmp_path / "set" / "a.wav", wave, 8_000, subtype="FLOAT")
    found = embed(open_set(tmp_path / "set"), Frames(), PLAIN, tmp_path / "cache")
    assert "finite" in found.left_out[0].reason and not found.rows
