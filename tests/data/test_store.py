import contextlib
import fcntl
import json
import pickle
import resource
import signal
import sys
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ajbench.core import files
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.data import audio, shard_job, shards, store
from ajbench.data.manifest import Problem
from ajbench.data.verify import verify

FRAMES = 21
SAMPLES = FRAMES * 320
LABELS = ["Bark", "Rain", "Siren"]
SIZES = (4, 1, 3)


def codes_of(i):
    return np.random.default_rng(i).integers(0, 1024, (8, FRAMES)).astype(np.uint16)


def wave_of(i):
    return (np.random.default_rng([7, i]).uniform(-0.5, 0.5, SAMPLES)).astype(np.float32)


def record(i, **changes):
    ids = [i % 3] if i % 2 else [i % 3, (i + 1) % 3]
    values = {
        "clip_id": f"clip-{i}",
        "path": f"/sounds/{i}.wav",
        "labels": [LABELS[k] for k in ids],
        "label_ids": ids,
        "split": "eval" if i % 4 == 3 else "train",
        "fold": i % 5 + 1,
        "caption": f"Sound {i}" if i % 2 else None,
        "audio": audio.flac_encode(wave_of(i)),
        "codes": codes_of(i),
    }
    return values | changes


def meta(**changes):
    values = {
        "codec": "fake",
        "codec_hash": "00ff",
        "clip_samples": SAMPLES,
        "labels": LABELS,
        "fingerprint": "0123456789ab",
        "whitening": {"mean": [0.1, -2e-5], "std": [1.0, 0.3]},
    }
    return shards.StoreMeta(**(values | changes))


def build(folder, sizes=SIZES, changes=None, **meta_changes):
    folder.mkdir(parents=True, exist_ok=True)
    start = 0
    for index, size in enumerate(sizes):
        records = [record(i, **(changes or {}).get(i, {})) for i in range(start, start + size)]
        shards.write_shard(folder, index, records)
        start += size
    shards.finish(folder, meta(**meta_changes))
    return folder


@pytest.fixture
def folder(tmp_path):
    return build(tmp_path / "clips")


def test_clips_come_back_as_they_were_written_whatever_the_shard(folder):
    clips = store.ClipStore.open(folder)
    assert len(clips) == 8
    assert clips.clip_ids == [f"clip-{i}" for i in range(8)]
    for i, clip in enumerate(clips):
        written = record(i)
        assert clip == clips[i]
        for name in ("clip_id", "path", "labels", "label_ids", "split", "fold", "caption"):
            assert getattr(clip, name) == written[name]
        assert (clip.start_s, clip.source, clip.seed, clip.generator) == (0.0, "real", None, None)
        np.testing.assert_array_equal(clip.codes, written["codes"])
        np.testing.assert_allclose(clip.audio(), wave_of(i), rtol=0, atol=0.5 / 32768 + 1e-9)
        assert bytes(clips.flac(i)) == written["audio"]
    assert clips[-1].clip_id == "clip-7"
    with pytest.raises(IndexError):
        clips[8]


@pytest.mark.parametrize("sizes", [SIZES, (8,)])
def test_codes_and_audio_follow_the_order_asked_for(tmp_path, rng, sizes):
    clips = store.ClipStore.open(build(tmp_path / "s", sizes))
    for size in (0, 1, 5, 50):
        indices = rng.integers(0, 8, size)
        codes = clips.codes(indices)
        assert codes.shape == (size, 8, FRAMES)
        assert codes.dtype == np.uint16
        np.testing.assert_array_equal(codes, np.array([codes_of(i) for i in indices]).reshape(-1, 8, FRAMES))
        waves = clips.audio(indices)
        assert waves.shape == (size, SAMPLES)
        assert waves.dtype == np.float32
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
    assert clips.split_indices("eval").tolist() == [3, 7]
    assert clips.split_indices("train").tolist() == [0, 1, 2, 4, 5, 6]
    assert clips.split_indices("val").tolist() == []
    assert clips.split_indices("val").dtype == np.int64
    assert clips.column("fold") == [i % 5 + 1 for i in range(8)]
    with pytest.raises(UsageError, match=r"'captoin' is unknown, did you mean 'caption'\?"):
        clips.column("captoin")


def mapped_ranges(path):
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(path)):
            low, high = line.split()[0].split("-")
            yield int(low, 16), int(high, 16)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/maps")
def test_codes_and_flac_are_views_of_the_mapped_file(folder):
    before = pa.total_allocated_bytes()
    clips = store.ClipStore.open(folder)
    codes, flac = clips[6].codes, clips.flac(6)
    assert pa.total_allocated_bytes() < before + 1000  # bits that say which clips have audio
    ranges = list(mapped_ranges(folder / "part-00002.arrow"))
    for address in (codes.ctypes.data, np.frombuffer(flac, np.uint8).ctypes.data):
        assert any(low <= address < high for low, high in ranges)
    assert not codes.flags.writeable
    assert flac.readonly


def test_a_clip_without_audio_is_read_from_its_file(tmp_path, write_wav):
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 32_000).astype(np.float32)
    path = str(write_wav("a.wav", sound, subtype="FLOAT"))
    linked = {"audio": None, "path": path}
    clips = store.ClipStore.open(
        build(
            tmp_path / "s",
            (3,),
            {0: linked | {"start_s": 0.5}, 1: linked | {"start_s": 0.5, "duration_s": 0.3}, 2: {}},
        )
    )
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
        "parent_id": "clip-9",
        "source": "synthetic",
        "seed": 2**62 + 1,
        "strength": 0.6,
        "guidance": 3.5,
        "steps": 20,
        "generator": "abc",
    }
    path = build(tmp_path / "s", (1,), {0: made}, source="synthetic", train_ids_hash="77")
    clip = store.ClipStore.open(path)[0]
    assert {name: getattr(clip, name) for name in made} == made


def test_pandas_and_arrow_open_shards_as_they_are(folder):
    frame = pd.read_feather(folder / "part-00000.arrow")
    assert frame["clip_id"].tolist() == [f"clip-{i}" for i in range(4)]
    np.testing.assert_array_equal(np.reshape(frame["codes"][2], (8, FRAMES)), codes_of(2))
    table = pa.ipc.open_file(pa.memory_map(str(folder / "part-00002.arrow"))).read_all()
    assert table.schema.field("codes").type == pa.list_(pa.uint16(), 8 * FRAMES)
    assert audio.flac_decode(table["audio"][0].as_py()).shape == (SAMPLES,)
    assert table["labels"].to_pylist() == [record(i)["labels"] for i in range(5, 8)]


def test_a_store_travels_to_other_processes_and_threads(folder):
    clips = pickle.loads(pickle.dumps(store.ClipStore.open(folder)))
    np.testing.assert_array_equal(clips.codes([5, 0]), [codes_of(5), codes_of(0)])


def test_every_flipped_bit_of_a_shard_is_found_and_the_shard_named(folder, rng):
    path = folder / "part-00001.arrow"
    whole = path.read_bytes()
    store.ClipStore.open(folder)
    for position in rng.integers(0, len(whole), 150):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(IntegrityError, match=r"part-00001\.arrow: checksum"):
            store.ClipStore.open(folder)
    path.write_bytes(whole)
    assert len(store.ClipStore.open(folder)) == 8


def test_every_flipped_bit_of_store_json_is_found_or_means_nothing(folder, rng):
    path = folder / "store.json"
    whole = path.read_bytes()
    meaning = shards.read_meta(folder)
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        # Only `1e-05` as `1E-05` and the like can pass.
        with contextlib.suppress(IntegrityError):
            assert shards.read_meta(folder) == meaning


@pytest.mark.parametrize("change", ["truncated", "longer", "missing", "empty"])
def test_a_shard_that_is_not_whole_is_found(folder, change):
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


def test_each_shard_is_verified_once_a_process_and_again_when_it_changed(folder, monkeypatch):
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


def test_damaged_flac_is_an_integrity_error_where_checksums_were_not_verified(tmp_path):
    path = build(
        tmp_path / "s",
        (2,),
        {0: {"audio": b"fLaC nonsense"}, 1: {"audio": audio.flac_encode(wave_of(0)[: 9000 // 2])}},
    )
    clips = store.ClipStore.open(path)
    with pytest.raises(IntegrityError, match="clip-0 is damaged"):
        clips.audio([0])
    with pytest.raises(IntegrityError, match="clip-1 has 4500 samples, expected 6720"):
        clips.audio([1])


def test_an_unfinished_store_is_not_a_store(tmp_path):
    with pytest.raises(MissingError, match="no finished clip store"):
        store.ClipStore.open(tmp_path)
    shards.write_shard(tmp_path, 0, [record(0)])
    with pytest.raises(MissingError, match="no finished clip store"):
        store.ClipStore.open(tmp_path)


def test_a_newer_format_and_a_path_out_of_the_store_are_refused(folder):
    def rewrite(**changes):
        tree = json.loads((folder / "store.json").read_text())
        del tree["xxh3"]
        tree |= changes
        (folder / "store.json").write_text(json.dumps({**tree, "xxh3": shards._digest_of(tree)}))

    rewrite(version=2, novelty=1)
    with pytest.raises(IntegrityError, match="format 2"):
        store.ClipStore.open(folder)
    rewrite(version=1, shards=[{"file": "../part-00000.arrow", "clips": 4, "xxh3": ""}])
    with pytest.raises(IntegrityError, match="damaged"):
        store.ClipStore.open(folder)


def test_equal_records_make_equal_bytes(tmp_path):
    first, second = build(tmp_path / "a"), build(tmp_path / "b")
    names = sorted(path.name for path in first.iterdir())
    assert names == ["part-00000.arrow", "part-00001.arrow", "part-00002.arrow", "store.json"]
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_records_that_make_no_shard_are_refused(tmp_path):
    for records, reason in [
        ([], "at least one"),
        ([record(0, colour="red")], "unknown columns: colour"),
        ([record(0, clip_id=None)], "clip_id has 1 missing"),
        ([record(0, codes=codes_of(0).astype(np.int64))], "int64"),
        ([record(0, codes=codes_of(0)[:7])], "expected uint16"),
        ([record(0), record(1, codes=codes_of(1)[:, :20])], "same shape"),
    ]:
        with pytest.raises(ValueError, match=reason):
            shards.write_shard(tmp_path, 0, records)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing_partial(tmp_path):
    shards.write_shard(tmp_path, 0, [record(0)])
    before = (tmp_path / "part-00000.arrow").read_bytes()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, old[1]))
        for index in (0, 1):
            with pytest.raises(MissingError, match="cannot write"):
                shards.write_shard(tmp_path, index, [record(i) for i in range(5)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["part-00000.arrow"]
    assert (tmp_path / "part-00000.arrow").read_bytes() == before


def test_finish_removes_what_a_killed_job_left(tmp_path):
    shard_job.open_job(tmp_path, "0123456789ab")
    shards.write_shard(tmp_path, 0, [record(0)])
    (tmp_path / "part-00001.arrow.tmp").write_bytes(b"half")
    (tmp_path / "run.json").write_text("{}")
    with shard_job.claim(tmp_path, "part-00000"):
        pass
    whole = shards.finish(tmp_path, meta())
    assert {path.name for path in tmp_path.iterdir()} == {"part-00000.arrow", "run.json", "store.json"}
    assert [(entry.file, entry.clips) for entry in whole.shards] == [("part-00000.arrow", 1)]
    assert store.ClipStore.open(tmp_path).meta == whole


def test_finishing_nothing_is_refused(tmp_path):
    with pytest.raises(MissingError, match="no shard"):
        shards.finish(tmp_path, meta())


def hold(folder, pipe):
    held = shard_job.claim(folder, "part-00000")
    pipe.send("taken" if held is None else "held")
    pipe.recv()


def start_holder(folder):
    here, there = get_context("fork").Pipe()
    process = get_context("fork").Process(target=hold, args=(folder, there))
    process.start()
    return process, here, here.recv()


def test_a_claim_excludes_other_processes_and_dies_with_its_holder(tmp_path):
    first, _, answer = start_holder(tmp_path)
    assert answer == "held"
    assert shard_job.claim(tmp_path, "part-00000") is None
    with shard_job.claim(tmp_path, "part-00001"):
        pass
    first.kill()
    first.join()
    with shard_job.claim(tmp_path, "part-00000"):
        assert shard_job.claim(tmp_path, "part-00000") is None
        second, pipe, answer = start_holder(tmp_path)
        assert answer == "taken"
        pipe.send(None)
        second.join()
    with shard_job.claim(tmp_path, "part-00000"):
        pass


def test_a_claim_made_while_the_job_is_closed_holds_on_a_file_that_is_there(tmp_path, monkeypatch):
    # Between opening the lock and locking it, another process finishes and removes the folder.
    real = fcntl.flock
    left = ["close the job"]

    def flock(file, operation):
        if left:
            left.pop()
            shards.clear(tmp_path)
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with shard_job.claim(tmp_path, "part-00000"):
        assert shard_job.claim(tmp_path, "part-00000") is None


def test_another_job_is_refused(tmp_path):
    assert shard_job.open_job(tmp_path / "s", "0123456789ab") is False
    assert shard_job.open_job(tmp_path / "s", "0123456789ab") is False
    with pytest.raises(IntegrityError, match="holds work of fingerprint 0123456789ab, not ffff"):
        shard_job.open_job(tmp_path / "s", "ffff")
    build(tmp_path / "s")
    assert shard_job.open_job(tmp_path / "s", "0123456789ab") is True
    assert not (tmp_path / "s" / ".claims").exists()
    with pytest.raises(IntegrityError, match="not ffff"):
        shard_job.open_job(tmp_path / "s", "ffff")


def test_shards_of_an_unknown_job_are_refused(tmp_path):
    shards.write_shard(tmp_path, 0, [record(0)])
    with pytest.raises(IntegrityError, match="unknown job"):
        shard_job.open_job(tmp_path, "0123456789ab")


def test_discard_keeps_only_the_quarantine(tmp_path):
    shard_job.open_job(tmp_path, "0123456789ab")
    shards.write_shard(tmp_path, 0, [record(0)])
    shards.write_quarantine(tmp_path, [])
    shard_job.discard(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["quarantine.csv"]
    assert shard_job.open_job(tmp_path, "another") is False


def test_another_codec_is_refused(folder):
    clips = store.ClipStore.open(folder)
    store.require_codec(clips, "fake", "00ff")
    for name, weights in (("fake", "00fe"), ("other", "00ff")):
        with pytest.raises(
            IntegrityError, match=f"codec fake .*cannot be used with {name} .weights {weights}"
        ):
            store.require_codec(clips, name, weights)


def test_verify_reports_what_is_there(folder):
    problems = [
        Problem("x", "/sounds/x.wav", 7, "silent (peak 0)"),
        Problem(None, "/sounds/y,z.wav", None, 'odd "name"'),
    ]
    shards.write_quarantine(folder, problems, {"/sounds/x.wav": "ab" * 32})
    report = verify(folder)
    assert report["clips"] == 8
    assert report["splits"] == {"eval": 2, "train": 6}
    assert report["quarantined"] == 2
    assert [shard["clips"] for shard in report["shards"]] == list(SIZES)
    assert (report["codec"], report["source"], report["classes"]) == ("fake", "real", 3)
    json.dumps(report)
    table = pd.read_csv(folder / "quarantine.csv")
    assert list(table) == ["clip_id", "path", "line", "reason", "sha256"]
    assert table["sha256"].tolist()[0] == "ab" * 32
    assert table["path"].tolist() == ["/sounds/x.wav", "/sounds/y,z.wav"]


@pytest.mark.parametrize(
    ("changes", "meta_changes", "reason"),
    [
        ({5: {"clip_id": "clip-0"}}, {}, "1 clips have the id of another"),
        ({6: {"codes": np.full((8, FRAMES), 1024, np.uint16)}}, {}, r"part-00002\.arrow: code 1024"),
        ({2: {"label_ids": [0]}, 3: {"label_ids": [3]}}, {}, r"part-00000\.arrow: 2 clips"),
        (
            {},
            {"counts": {"train": {"kept": 6}, "eval": {"kept": 3}}},
            "split eval has 2 clips, store.json says 3",
        ),
    ],
)
def test_verify_finds_what_checksums_cannot(tmp_path, changes, meta_changes, reason):
    with pytest.raises(IntegrityError, match=reason):
        verify(build(tmp_path / "s", SIZES, changes, **meta_changes))


def test_ids_hash_is_that_of_a_set():
    assert shards.ids_hash(["a", "b"]) == shards.ids_hash(["b", "a"]) != shards.ids_hash(["ab"])
