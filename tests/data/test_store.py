"""Reading stores: clips, codes, audio, views of the mapped files, and damage."""

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ajbench.core import files
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.data import audio, shards, store
from ajbench.data.verify import verify

from .conftest import FRAMES, SAMPLES, SIZES, build, codes_of, meta, record, wave_of


def test_clips_are_read_as_they_were_written(folder):
    clips = store.ClipStore.open(folder)
    assert len(clips) == 8
    assert clips.clip_ids == [f"clip-{i}" for i in range(8)]
    for i, clip in enumerate(clips):
        written = record(i)
        assert clip == clips[i]
        for name in ("clip_id", "path", "labels", "label_ids", "split", "fold", "caption", "recording"):
            assert getattr(clip, name) == written[name]
        assert (clip.start_s, clip.source, clip.seed, clip.generator) == (0.0, "real", None, None)
        np.testing.assert_array_equal(clip.codes, written["codes"])
        np.testing.assert_allclose(clip.audio(), wave_of(i), rtol=0, atol=0.5 / 32768 + 1e-9)
        assert bytes(clips.flac(i)) == written["audio"]
    assert clips[-1].clip_id == "clip-7"
    assert clips.recordings[:4] == ["clip-0", "youtube:0", "clip-2", "youtube:0"]
    with pytest.raises(IndexError):
        clips[8]


@pytest.mark.parametrize("sizes", [SIZES, (8,)])
def test_codes_and_audio_are_in_the_requested_order(tmp_path, rng, sizes):
    clips = store.ClipStore.open(build(tmp_path / "s", sizes))
    for size in (0, 1, 5, 50):
        indices = rng.integers(0, 8, size)
        codes, waves = clips.codes(indices), clips.audio(indices)
        assert codes.shape == (size, 8, FRAMES) and codes.dtype == np.uint16
        assert waves.shape == (size, SAMPLES) and waves.dtype == np.float32
        np.testing.assert_array_equal(codes, np.array([codes_of(i) for i in indices]).reshape(-1, 8, FRAMES))
        for wave, i in zip(waves, indices, strict=True):
            np.testing.assert_allclose(wave, wave_of(i), rtol=0, atol=0.5 / 32768 + 1e-9)
    for wrong in ([8], [-1], [0, 99]):
        with pytest.raises(IndexError):
            clips.codes(wrong)


def test_targets_and_splits(folder):
    clips = store.ClipStore.open(folder)
    expected = np.zeros((8, 3), np.float32)
    for i in range(8):
        expected[i, record(i)["label_ids"]] = 1
    np.testing.assert_array_equal(clips.targets(), expected)
    assert clips.targets().dtype == np.float32
    for split, indices in (("eval", [3, 7]), ("train", [0, 1, 2, 4, 5, 6]), ("val", [])):
        assert clips.split_indices(split).tolist() == indices
    assert clips.split_indices("val").dtype == np.int64
    assert clips.column("fold") == [i % 5 + 1 for i in range(8)]
    with pytest.raises(UsageError, match=r"captoin.*caption"):
        clips.column("captoin")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/maps")
def test_codes_and_flac_are_views_of_the_mapped_file(folder):
    before = pa.total_allocated_bytes()
    clips = store.ClipStore.open(folder)
    codes, flac = clips[6].codes, clips.flac(6)
    assert pa.total_allocated_bytes() < before + 1000  # bits that say which clips have audio
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if "part-00002" in line]
    ranges = [[int(end, 16) for end in line.split()[0].split("-")] for line in mapped]
    for address in (codes.ctypes.data, np.frombuffer(flac, np.uint8).ctypes.data):
        assert any(low <= address < high for low, high in ranges)
    assert not codes.flags.writeable and flac.readonly


def test_a_clip_without_audio_is_read_from_its_file(tmp_path, write_wav):
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 32_000).astype(np.float32)
    path = str(write_wav("a.wav", sound, subtype="FLOAT"))
    linked = {"audio": None, "path": path, "start_s": 0.5}
    folder = build(tmp_path / "s", (3,), {0: linked, 1: linked | {"duration_s": 0.3}})
    clips = store.ClipStore.open(folder)
    waves = clips.audio([0, 1, 2])
    np.testing.assert_array_equal(waves[0], sound[8000 : 8000 + SAMPLES])
    np.testing.assert_array_equal(waves[1], np.pad(sound[8000:12_800], (0, SAMPLES - 4800)))
    np.testing.assert_allclose(waves[2], wave_of(2), rtol=0, atol=1e-4)
    assert clips.flac(0) is None
    (tmp_path / "a.wav").unlink()
    with pytest.raises(audio.AudioError, match="missing"):
        clips.audio([0])


def test_synthetic_columns_are_kept_exactly(tmp_path):
    made = {
        "parent_id": "clip-9", "source": "synthetic", "seed": 2**62 + 1, "strength": 0.6, "guidance": 3.5,
        "steps": 20, "generator": "abc",
    }  # fmt: skip
    path = build(tmp_path / "s", (1,), {0: made}, source="synthetic", train_ids_hash="77")
    clip = store.ClipStore.open(path)[0]
    assert {name: getattr(clip, name) for name in made} == made


def test_stores_without_the_column_subset_are_read(tmp_path):
    path = build(tmp_path / "s", (2,), {0: {"subset": "balanced"}})
    assert store.ClipStore.open(path).column("subset") == ["balanced", None]
    shard = path / "part-00000.arrow"
    with pa.ipc.open_file(shard) as reader:
        older = reader.get_batch(0)
    older = older.select([name for name in older.schema.names if name != "subset"])
    with pa.ipc.new_file(shard, older.schema) as writer:
        writer.write_batch(older)
    clips = store.ClipStore.open(path, verify=False)
    assert clips[1].clip_id == "clip-1"
    assert clips.column("subset") == [None, None]


def test_a_store_can_be_pickled(folder):
    clips = pickle.loads(pickle.dumps(store.ClipStore.open(folder)))
    np.testing.assert_array_equal(clips.codes([5, 0]), [codes_of(5), codes_of(0)])


def test_every_flipped_bit_of_a_shard_is_found(folder, rng):
    path = folder / "part-00001.arrow"
    whole = path.read_bytes()
    store.ClipStore.open(folder)
    for position in rng.integers(0, len(whole), 150):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(IntegrityError, match=r"part-00001\.arrow"):
            store.ClipStore.open(folder)
    path.write_bytes(whole)
    assert len(store.ClipStore.open(folder)) == 8


@pytest.mark.parametrize("change", ["truncated", "longer", "missing", "empty"])
def test_an_incomplete_shard_is_found(folder, change):
    path = folder / "part-00000.arrow"
    whole = path.read_bytes()
    if change == "missing":
        path.unlink()
    else:
        path.write_bytes({"truncated": whole[:-100], "longer": whole + b"\0", "empty": b""}[change])
    with pytest.raises(IntegrityError, match=r"part-00000\.arrow"):
        store.ClipStore.open(folder)
    if change != "longer":
        with pytest.raises(IntegrityError, match=r"part-00000\.arrow"):
            store.ClipStore.open(folder, verify=False)


def test_each_shard_is_verified_once_per_process_and_again_after_a_change(folder, monkeypatch):
    seen = []
    real = files.checksum
    monkeypatch.setattr(files, "checksum", lambda path: seen.append(path.name) or real(path))
    for _ in range(3):
        store.ClipStore.open(folder)
    assert seen == ["part-00000.arrow", "part-00001.arrow", "part-00002.arrow"]
    (folder / "part-00001.arrow").touch()
    store.ClipStore.open(folder)
    assert seen[3:] == ["part-00001.arrow"]
    verify(folder)
    assert len(seen) == 7


def test_damaged_flac_is_an_integrity_error(tmp_path):
    damaged = b"fLaC nonsense", audio.flac_encode(wave_of(0)[:4500])
    path = build(tmp_path / "s", (2,), {i: {"audio": flac} for i, flac in enumerate(damaged)})
    clips = store.ClipStore.open(path)
    for i in (0, 1):
        with pytest.raises(IntegrityError, match=f"clip-{i}"):
            clips.audio([i])


def test_an_unfinished_store_is_not_a_store(tmp_path):
    with pytest.raises(MissingError, match=r"store\.json"):
        store.ClipStore.open(tmp_path)
    shards.write_shard(tmp_path, 0, [record(0)])
    with pytest.raises(MissingError, match=r"store\.json"):
        store.ClipStore.open(tmp_path)


def test_another_format_and_a_path_outside_the_store_are_refused(folder):
    def rewrite(**changes):
        tree = json.loads((folder / "store.json").read_text())
        del tree["xxh3"]
        tree |= changes
        (folder / "store.json").write_text(json.dumps({**tree, "xxh3": shards._digest_of(tree)}))

    outside = {"file": "../part-00000.arrow", "clips": 4, "xxh3": ""}
    for changes in ({"version": 3, "novelty": 1}, {"version": 1}, {"version": 2, "shards": [outside]}):
        rewrite(**changes)
        with pytest.raises(IntegrityError, match=r"store\.json"):
            store.ClipStore.open(folder)


def test_another_codec_is_refused(folder):
    clips = store.ClipStore.open(folder)
    store.require_codec(clips, "fake", "00ff")
    for name, weights in (("fake", "00fe"), ("other", "00ff")):
        with pytest.raises(IntegrityError, match=f"codec fake .* {name} .weights {weights}"):
            store.require_codec(clips, name, weights)


def test_a_codec_that_is_a_file_may_have_moved(folder):
    clips = store.ClipStore.open(folder)
    clips.meta = clips.meta.model_copy(update={"codec": "before/tiny.safetensors"})
    store.require_codec(clips, "now/tiny.safetensors", "00ff")
    for name, weights in (("now/tiny.safetensors", "00fe"), ("tiny", "00ff")):
        with pytest.raises(IntegrityError, match=name):
            store.require_codec(clips, name, weights)


def test_video_tokens_are_read_with_the_clips_that_have_none(tmp_path):
    rng = np.random.default_rng(3)
    tokens = [rng.normal(size=(2, 3)).astype(np.float16) if i not in (1, 4) else None for i in range(8)]
    about = {"encoder": "fake", "weights_hash": "0", "windows": 2, "width": 3, "counts": {}}
    for index, (first, size) in enumerate(((0, 4), (4, 1), (5, 3))):
        records = [record(i, video_tokens=tokens[i]) for i in range(first, first + size)]
        shards.write_shard(tmp_path, index, records, video_width=6)
    shards.finish(tmp_path, meta(extra={"video": about}))
    clips = store.ClipStore.open(tmp_path)
    found, seen = clips.video_tokens([7, 1, 4, 0])
    assert found.dtype == np.float32 and found.shape == (4, 2, 3)
    assert seen.tolist() == [True, False, False, True]
    np.testing.assert_array_equal(found[[0, 3]], np.stack([tokens[7], tokens[0]]))
    assert not found[1:3].any()
    assert clips.video_tokens([])[0].shape == (0, 2, 3)
    table = pa.ipc.open_file(pa.memory_map(str(tmp_path / "part-00001.arrow"))).read_all()
    assert table["video_tokens"].null_count == 1 and clips[4].clip_id == "clip-4"
    np.testing.assert_array_equal(clips.codes([5]), [codes_of(5)])


def test_a_store_without_video_has_no_video_tokens(folder):
    with pytest.raises(UsageError, match=r"data\.video"):
        store.ClipStore.open(folder).video_tokens([0])
