"""Preparing a corpus: what is in the store, what is rejected, kills and processes, estimates, decoding."""

import hashlib
import json
import os
import signal
import time
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import soxr
import torch
from fakes import flip_in, video_bytes

from ajbench.codec.whitening import Whitening
from ajbench.core import console
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.recipe import CodecSection, Data, Recipe
from ajbench.core.sealed_json import write_sealed
from ajbench.data import audio, shards, sound_file, store
from ajbench.data.corpora import folder, mini
from ajbench.data.manifest import Manifest
from ajbench.data.verify import verify
from ajbench.pipeline.prepare import SAMPLE, _originals, estimate, prepare
from ajbench.pipeline.shard_encoding import BATCH

DURATION = 0.42
N = 6720


class FakeCodec:
    """Eight random projections of every 320 samples, each quantised to 1,024 levels."""

    name, weights_hash, sample_rate, hop, n_codebooks, dim = "fake", "f00d", 16_000, 320, 8, 128

    def __init__(self, stop_at=None, how=None, frames=None, log=None):
        rng = np.random.default_rng(5)
        self.inward = rng.normal(size=(320, 8)).astype(np.float32)
        self.outward = torch.from_numpy(rng.normal(size=(8, 128)).astype(np.float32))
        self.batches, self.stop_at, self.how, self.frames, self.log = [], stop_at, how, frames, log

    def encode(self, wav):
        wav = np.asarray(wav)
        self.batches.append(len(wav))
        if self.log:
            with self.log.open("a") as file:
                file.write(f"{len(wav)}\n")
        if self.stop_at is not None and len(self.batches) > self.stop_at:
            self.how()
        pieces = wav.reshape(len(wav), -1, 320)[:, : self.frames]
        return np.clip(pieces @ self.inward * 40 + 512, 0, 1023).astype(np.uint16).transpose(0, 2, 1)

    def latents(self, codes):
        return torch.einsum("bkt,kc->bct", torch.from_numpy(np.asarray(codes, np.float32)), self.outward)


@pytest.fixture(autouse=True)
def quiet():
    console.configure(quiet=True)
    yield
    console.configure()


def recipe(corpus="folder", whitening="pca", **data):
    section = Data(**{"corpus": corpus, "duration_s": DURATION} | data)
    return Recipe(name="test", data=section, codec=CodecSection(name="tiny", whitening=whitening))


def run(out, root, what=None, codec=None, shard_clips=3, **options):
    options = {"fingerprint": "abc", "codec": codec or FakeCodec(), "shard_clips": shard_clips} | options
    return prepare(what or recipe(), root, out, **options)


def same(number):
    return dict.fromkeys(("expected", "found", "decoded", "kept"), number)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def corpus(tmp_path, write_wav, tone):
    """Eleven good files: two classes, two splits, three sample rates."""
    for k, rate in enumerate([16_000, 44_100, 8_000, 16_000, 16_000, 16_000, 44_100]):
        write_wav(f"corpus/train/{'ab'[k % 2]}/{k}.wav", tone(300 + 40 * k, 0.3 + 0.1 * k, rate), rate)
    for k in range(4):
        write_wav(f"corpus/eval/{'ab'[k % 2]}/{k}.wav", tone(320 + 40 * k, 1.0))
    return tmp_path / "corpus"


def test_the_store_has_all_clips_in_order_with_audio_codes_and_labels(tmp_path, corpus):
    meta = run(tmp_path / "store", corpus)
    clips = store.ClipStore.open(tmp_path / "store")
    assert clips.meta == meta
    files = [*(f"part-{i:05d}.arrow" for i in range(4)), "quarantine.csv", "store.json"]
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == files
    paths = sorted(corpus.rglob("*.wav"))
    assert clips.clip_ids == [str(path.relative_to(corpus).with_suffix("")) for path in paths]
    codec = FakeCodec()
    for clip, path in zip(clips, paths, strict=True):
        sound, rate = soundfile.read(path, dtype="float32")
        sound = sound[: round(DURATION * rate)]
        sound = sound if rate == 16_000 else soxr.resample(sound, rate, 16_000, quality="HQ")
        sound = np.pad(sound, (0, max(0, N - len(sound))))[:N]
        np.testing.assert_allclose(clip.audio(), sound, rtol=0, atol=0.5 / 32768 + 1e-7)
        np.testing.assert_array_equal(clip.codes, codec.encode(clip.audio()[None])[0])
        assert (clip.path, clip.split) == (str(path), path.parts[-3])
        assert (clip.labels, clip.label_ids) == ([path.parent.name], ["ab".index(path.parent.name)])
    assert meta.labels == ["a", "b"]
    assert (meta.codec, meta.codec_hash, meta.clip_samples, meta.hop) == ("fake", "f00d", N, 320)
    assert (meta.fingerprint, meta.source) == ("abc", "real")
    assert meta.train_ids_hash == shards.ids_hash(name for name in clips.clip_ids if name.startswith("train"))
    assert meta.counts == {"eval": same(4), "train": same(7)}
    assert meta.extra["source_rates"] == {"8000": 1, "16000": 8, "44100": 2} and meta.extra["frames"] == 21
    assert verify(tmp_path / "store")["clips"] == 11


def test_a_given_manifest_is_used(tmp_path, corpus):
    run(tmp_path / "store", corpus)
    run(tmp_path / "again", None, manifest=folder.read(recipe().data, corpus))
    assert contents(tmp_path / "again") == contents(tmp_path / "store")


def test_whitening_is_fitted_on_the_train_split_alone(tmp_path, corpus):
    meta = run(tmp_path / "store", corpus, recipe(whitening="channel"))
    clips = store.ClipStore.open(tmp_path / "store")
    latents = FakeCodec().latents(clips.codes(clips.split_indices("train"))).double()
    np.testing.assert_allclose(meta.whitening["mean"], latents.mean((0, 2)), rtol=1e-12)
    np.testing.assert_allclose(meta.whitening["std"], latents.std((0, 2), correction=0), rtol=1e-9)
    assert Whitening.from_json(meta.whitening).basis is None
    meta = run(tmp_path / "turned", corpus)
    assert Whitening.from_json(meta.whitening) == Whitening.fit([latents.float()], "pca")


@pytest.fixture
def flawed(corpus, write_wav, tone):
    """The good corpus and one file with each defect."""
    train = corpus / "train" / "a"
    write_wav("corpus/train/a/silent.wav", np.zeros(8000, np.float32))
    write_wav("corpus/train/a/clipped.wav", np.sign(tone(500, 1.0)))
    write_wav("corpus/train/a/short.wav", tone(500, 0.05))
    (train / "empty.wav").write_bytes(b"")
    (train / "noise.wav").write_bytes(np.random.default_rng(0).bytes(3000))
    whole = (train / "0.wav").read_bytes()
    (train / "cut.wav").write_bytes(whole[:-2000])
    (corpus / "eval" / "b" / "leak.wav").write_bytes((train / "2.wav").read_bytes())
    (train / "link.wav").symlink_to(train / "4.wav")
    (train / "gone.wav").symlink_to(train / "nothing.wav")
    (train / "notes.txt").write_text("hello")
    return corpus


def test_rejected_files_are_listed_with_the_reason(tmp_path, flawed):
    good = run(tmp_path / "good", flawed)
    table = pd.read_csv(tmp_path / "good" / "quarantine.csv", keep_default_na=False)
    assert list(table) == ["clip_id", "path", "line", "reason", "sha256"]
    reasons = dict(zip(table["clip_id"], table["reason"], strict=True))
    expected = {
        "train/a/silent": "silent",
        "train/a/clipped": "clipped",
        "train/a/short": "too short",
        "train/a/empty": "empty",
        "train/a/noise": "unreadable",
        "train/a/cut": "truncated",
        "train/a/2": "byte-level duplicate of eval/b/leak (split eval)",
        "train/a/link": "byte-level duplicate of train/a/4 (split train)",
        "train/a/notes": "not a sound file ('.txt'",
        "train/a/gone": "missing",
    }
    assert reasons.keys() == expected.keys()
    for clip_id, start in expected.items():
        assert reasons[clip_id].startswith(start)
    digests = dict(zip(table["clip_id"], table["sha256"], strict=True))
    silent = (flawed / "train" / "a" / "silent.wav").read_bytes()
    assert digests["train/a/silent"] == hashlib.sha256(silent).hexdigest()
    # Seven good files, one of them also in eval; six that are not usable, a link, a dead link; a text file.
    assert good.counts["train"] == {"expected": 15, "found": 14, "decoded": 8, "kept": 6, "not_sound": 1}
    assert good.counts["eval"] == same(5)
    clips = store.ClipStore.open(tmp_path / "good")
    assert len(clips) == 11
    assert not set(clips.clip_ids) & set(expected)


def test_good_files_are_not_rejected_when_memory_is_short(tmp_path, corpus, monkeypatch):
    whole = sound_file.part

    def lacking(file, *about):
        if file.samplerate == 8_000:
            raise MemoryError("Unable to allocate 4.00 MiB")
        return whole(file, *about)

    monkeypatch.setattr(sound_file, "part", lacking)
    with pytest.raises(MemoryError):
        run(tmp_path / "store", corpus)
    monkeypatch.undo()
    assert run(tmp_path / "store", corpus).counts["train"] == same(7)


@pytest.mark.parametrize("text", ["{", "[1]", None])
def test_a_damaged_note_of_duplicates_is_named(tmp_path, text):
    claims = tmp_path / shards.CLAIMS
    claims.mkdir()
    write_sealed(claims / "duplicates.json", {"7": 2})
    assert _originals([], tmp_path, None) == {7: 2}
    if text is None:
        flip_in(claims / "duplicates.json", '"7": 2')
    else:
        (claims / "duplicates.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"duplicates\.json: damaged .*; delete it"):
        _originals([], tmp_path, None)


def test_only_equal_segments_of_equal_files_are_duplicates(tmp_path, write_wav, tone):
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 32_000).astype(np.float32)
    write_wav("table/x.wav", sound)
    write_wav("table/y.wav", sound)
    rows = ["x.wav,p,train,0", "x.wav,q,train,0.5", "y.wav,p,eval,0.5", "y.wav,q,eval,1", "x.wav,p,train,9"]
    (tmp_path / "table" / "clips.csv").write_text("\n".join(["path,labels,split,start_s", *rows]))
    meta = run(tmp_path / "store", tmp_path / "table", recipe("table"))
    clips = store.ClipStore.open(tmp_path / "store")
    assert clips.clip_ids == ["x", "x@0.5", "y@1"]
    np.testing.assert_allclose(clips[1].audio(), sound[8000 : 8000 + N], atol=1e-4)
    assert clips[1].start_s == 0.5
    table = pd.read_csv(tmp_path / "store" / "quarantine.csv")
    assert table["reason"][0] == "byte-level duplicate of x@0.5 (split train)"
    assert table["reason"][1].startswith("start 9 s is after the end")
    assert meta.counts["train"] == {"expected": 3, "found": 3, "decoded": 2, "kept": 2}
    assert meta.counts["eval"] == {"expected": 2, "found": 2, "decoded": 2, "kept": 1}


def test_entries_that_the_corpus_reader_rejects_are_counted_and_listed(tmp_path, corpus):
    lines = ["path,labels,split", "gone.wav,a,eval"]
    for path in sorted(corpus.rglob("*.wav")):
        lines.append(f"{path.relative_to(corpus)},{path.parent.name},{path.parts[-3]}")
    (corpus / "clips.csv").write_text("\n".join([*lines, "train/a/0.wav,a,tset"]))
    meta = run(tmp_path / "store", corpus, recipe("table"))
    table = pd.read_csv(tmp_path / "store" / "quarantine.csv")
    assert table["line"].tolist() == [2, 14]
    assert table["reason"][0] == "no such file (gone.wav)"
    assert meta.counts["eval"] == {"expected": 5, "found": 4, "decoded": 4, "kept": 4}
    assert meta.counts["unassigned"] == {"expected": 1, "found": 0, "decoded": 0, "kept": 0}
    verify(tmp_path / "store")


def test_recordings_that_may_not_be_trained_on_are_counted_and_listed(tmp_path, corpus):
    (tmp_path / "out.txt").write_text("train/a/4\n")
    meta = run(tmp_path / "store", corpus, recipe(leave_out=str(tmp_path / "out.txt"), recording_from="(.)"))
    # Files 0 to 3 of both splits have the same names.
    assert meta.counts["train"] == {**same(2), "left_out": 5}
    assert meta.counts["eval"] == same(4)
    assert pd.read_csv(tmp_path / "store" / "quarantine.csv")["reason"].str.startswith("left out").sum() == 5
    assert store.ClipStore.open(tmp_path / "store").recordings == ["0", "2", "1", "3", "6", "5"]


@pytest.mark.parametrize(("listed", "named"), [("train/a/4", True), ("train/a/44", False)])
def test_prepare_says_what_was_left_out(tmp_path, corpus, capsys, listed, named):
    (tmp_path / "out.txt").write_text(listed)
    console.configure()
    run(tmp_path / "store", corpus, recipe(leave_out=str(tmp_path / "out.txt")))
    said = [line for line in capsys.readouterr().err.splitlines() if "data.leave_out" in line]
    assert len(said) == 1 and ("train/a/4" in said[0]) == named


def test_mini_is_rendered_with_its_constant_label_set(tmp_path):
    meta = run(tmp_path / "store", None, recipe("mini", n_clips=10, corpus_seed=3), shard_clips=4)
    clips = store.ClipStore.open(tmp_path / "store")
    assert meta.labels == [name for name, _ in mini.CLASSES]
    assert meta.mids == [mid for _, mid in mini.CLASSES]
    assert len(clips) == 10
    for index in (0, 9):
        wav, labels, caption = mini.render(3, index, DURATION)
        np.testing.assert_allclose(clips[index].audio(), wav, rtol=0, atol=0.5 / 32768 + 1e-7)
        assert (clips[index].labels, clips[index].caption) == (list(labels), caption)
    assert clips.targets().sum() == sum(len(clip.labels) for clip in clips)
    assert meta.extra["source_rates"] == {"16000": 10}


def test_linked_stores_have_paths_instead_of_audio(tmp_path, corpus):
    run(tmp_path / "flac", corpus)
    run(tmp_path / "link", corpus, link=True)
    flac, link = (store.ClipStore.open(tmp_path / name) for name in ("flac", "link"))
    assert link.flac(0) is None
    np.testing.assert_allclose(link.audio(range(11)), flac.audio(range(11)), rtol=0, atol=1e-4)
    codec = FakeCodec()
    np.testing.assert_array_equal(codec.encode(link.audio([4, 7])), link.codes([4, 7]))


def test_the_codec_always_gets_full_batches_and_shards_do_not_change_a_clip(tmp_path, corpus):
    codecs = [FakeCodec(), FakeCodec()]
    run(tmp_path / "a", corpus, codec=codecs[0], shard_clips=3)
    run(tmp_path / "b", corpus, codec=codecs[1], shard_clips=100)
    for codec in codecs:
        assert set(codec.batches[1:]) == {BATCH}  # the first call determines the number of frames
    one, other = (store.ClipStore.open(tmp_path / name) for name in "ab")
    np.testing.assert_array_equal(one.codes(range(11)), other.codes(range(11)))
    assert one.meta.whitening == other.meta.whitening


@pytest.mark.parametrize("threads", [2, 3])
def test_batches_that_are_encoded_at_the_same_time_keep_their_order_and_bytes(tmp_path, corpus, threads):
    class Slow(FakeCodec):
        def encode(self, wav):
            time.sleep(0.05 / (1 + len(self.batches)))  # later ones are ready first
            return super().encode(wav)

    before = torch.get_num_threads()
    stores = []
    for n in (1, threads):
        torch.set_num_threads(n)
        try:
            run(tmp_path / str(n), corpus, codec=Slow(), shard_clips=100)
        finally:
            torch.set_num_threads(before)
        stores.append((tmp_path / str(n) / "part-00000.arrow").read_bytes())
    assert stores[0] == stores[1]
    run(tmp_path / "apart", corpus, shard_clips=3)
    assert store.ClipStore.open(tmp_path / "1").clip_ids == store.ClipStore.open(tmp_path / "apart").clip_ids


def run_with_one_thread(*args, **options):
    torch.set_num_threads(1)  # a forked child lacks the threads of its parent
    run(*args, **options)


def in_a_process(*args, target=run_with_one_thread, **options):
    process = get_context("fork").Process(target=target, args=args, kwargs=options)
    process.start()
    return process


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("batches", [1, 3])
def test_a_killed_run_resumes_and_ends_with_the_same_bytes(tmp_path, flawed, batches):
    straight, codec = FakeCodec(), FakeCodec()
    run(tmp_path / "straight", flawed, codec=straight)
    process = in_a_process(tmp_path / "killed", flawed, codec=FakeCodec(batches, die))
    process.join()
    assert process.exitcode == -signal.SIGKILL
    done = len(list((tmp_path / "killed").glob("part-*.arrow")))
    assert done == batches - 1
    (tmp_path / "killed" / f"part-{done:05d}.arrow.tmp").write_bytes(b"torn")
    with pytest.raises(MissingError):
        store.ClipStore.open(tmp_path / "killed")
    run(tmp_path / "killed", flawed, codec=codec)
    assert len(codec.batches) == len(straight.batches) - done
    assert contents(tmp_path / "killed") == contents(tmp_path / "straight")


def run_until(k, *args, **options):
    """Run in this process and kill it at its k-th fsync or rename."""
    left = [k]

    def counted(function):
        def call(*arguments):
            left[0] -= 1
            return function(*arguments) if left[0] else die()

        return call

    os.fsync, os.replace = counted(os.fsync), counted(os.replace)
    run_with_one_thread(*args, **options)


def test_a_run_killed_at_every_write_ends_with_the_same_bytes(tmp_path, corpus):
    run(tmp_path / "straight", corpus, shard_clips=6)
    for k in range(1, 40):
        process = in_a_process(k, tmp_path / "killed", corpus, target=run_until, shard_clips=6)
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    assert k > 5
    assert contents(tmp_path / "killed") == contents(tmp_path / "straight")


@pytest.mark.parametrize("listed", [True, False])
def test_a_file_that_vanishes_after_the_corpus_was_listed_is_not_left_out(tmp_path, corpus, listed):
    given, gone = folder.read(recipe().data, corpus), corpus / "train" / "a" / "2.wav"
    content = gone.read_bytes()
    gone.unlink()
    about = {"manifest": given, "absent": set() if listed else {str(gone)}}
    if not listed:
        assert run(tmp_path / "store", corpus, **about).counts["train"]["kept"] == 6
        return
    with pytest.raises(MissingError, match=r"2\.wav: gone since"):
        run(tmp_path / "store", corpus, **about)
    gone.write_bytes(content)
    run(tmp_path / "store", corpus, **about)
    run(tmp_path / "straight", corpus)
    assert contents(tmp_path / "store") == contents(tmp_path / "straight")


def test_a_video_that_is_not_encoded_may_be_missing_beside_a_missing_sound(tmp_path, corpus):
    given, gone = folder.read(recipe().data, corpus), corpus / "train" / "a" / "2.wav"
    gone.unlink()
    rows = [replace(row, video=str(gone.with_suffix(".mp4"))) for row in given.rows]
    about = {"manifest": Manifest(rows, given.label_set, given.problems), "absent": {str(gone)}}
    assert run(tmp_path / "store", corpus, **about).counts["train"]["kept"] == 6


def interrupt():
    raise KeyboardInterrupt


def test_ctrl_c_keeps_the_finished_shards(tmp_path, corpus):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "store", corpus, codec=FakeCodec(3, interrupt))
    first, second = sorted((tmp_path / "store").glob("part-*"))
    assert (first.name, second.name) == ("part-00000.arrow", "part-00001.arrow")
    before = second.stat().st_mtime_ns
    run(tmp_path / "store", corpus)
    run(tmp_path / "straight", corpus)
    assert second.stat().st_mtime_ns == before
    assert contents(tmp_path / "store") == contents(tmp_path / "straight")


def test_processes_share_shards_and_do_none_twice(tmp_path, flawed):
    alone = FakeCodec()
    run(tmp_path / "alone", flawed, shard_clips=1, codec=alone)
    shared, log = {"shard_clips": 1, "codec": FakeCodec(log=tmp_path / "log")}, tmp_path / "log"
    processes = [in_a_process(tmp_path / "shared", flawed, **shared) for _ in range(3)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")
    assert log.read_text().split().count(str(BATCH)) == len(alone.batches) - 1


def test_a_finished_store_is_not_changed_and_another_job_is_refused(tmp_path, corpus):
    meta = run(tmp_path / "store", corpus)
    before = contents(tmp_path / "store")
    codec = FakeCodec()
    assert run(tmp_path / "store", corpus, codec=codec) == meta
    assert codec.batches == []
    with pytest.raises(IntegrityError, match=r"abc.*xyz"):
        prepare(recipe(), corpus, tmp_path / "store", fingerprint="xyz", codec=FakeCodec())
    assert contents(tmp_path / "store") == before


def test_a_split_without_a_usable_clip_is_an_error_with_the_reasons(tmp_path, corpus):
    for path in (corpus / "eval").rglob("*.wav"):
        soundfile.write(path, np.zeros(16_000), 16_000)
    with pytest.raises(MissingError, match=r"'eval'.*silent") as caught:
        run(tmp_path / "store", corpus)
    assert "quarantine.csv" in str(caught.value)
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["quarantine.csv"]
    for k, path in enumerate(sorted((corpus / "eval").rglob("*.wav"))):
        soundfile.write(path, np.sin(np.arange(16_000) * (0.1 + 0.02 * k)), 16_000)
    assert run(tmp_path / "store", corpus).counts["eval"]["kept"] == 4


def test_durations_that_do_not_fit_the_grid_are_refused_before_any_work(tmp_path, corpus):
    codec = FakeCodec(frames=20)
    with pytest.raises(UsageError, match=r"data\.duration_s"):
        run(tmp_path / "store", corpus, codec=codec)
    assert codec.batches == [1]


def test_the_estimate_extrapolates_from_a_few_clips(tmp_path, corpus):
    manifest = folder.read(recipe().data, corpus)
    codec = FakeCodec()
    found = estimate(recipe(), manifest, workers=3, codec=codec)
    assert codec.batches == [1, 8, 8, 8]  # frames, eight clips to warm up, eleven clips
    assert (found["clips"], found["readers"]) == (11, 3)
    run(tmp_path / "store", corpus, shard_clips=100)
    assert found["bytes"] == (tmp_path / "store" / "part-00000.arrow").stat().st_size
    assert 0 < found["seconds"] < 60
    many = Manifest(manifest.rows * 100, manifest.label_set)
    codec = FakeCodec()
    again = estimate(recipe(), many, codec=codec)
    assert sum(codec.batches[2:]) == SAMPLE
    assert again["clips"] == 1100
    assert again["bytes"] == pytest.approx(100 * found["bytes"], rel=0.2)
    with pytest.raises(UsageError, match=r"data\.duration_s"):
        estimate(recipe(), manifest, codec=FakeCodec(frames=20))


def test_real_recordings_of_esc10(tmp_path, esc10_dir):
    paths = sorted((esc10_dir / "audio").iterdir())[::57]
    lines = ["path,labels,split"]
    for k, path in enumerate(paths):
        lines.append(f"{path},{path.stem.split('-')[-1]},{'eval' if k % 3 else 'train'}")
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    meta = run(tmp_path / "store", tmp_path / "clips.csv", recipe("table", duration_s=5.04))
    assert meta.extra["source_rates"] == {"44100": len(paths)}
    clips = store.ClipStore.open(tmp_path / "store")
    assert clips.codes(range(len(clips))).shape == (len(paths), 8, 252)
    for clip, path in zip(clips, paths, strict=True):
        sound, rate = soundfile.read(path, dtype="float32")
        assert rate == 44_100
        expected = audio.fit(soxr.resample(sound, 44_100, 16_000, quality="HQ"), 80_640)
        np.testing.assert_allclose(clip.audio(), expected, rtol=0, atol=0.5 / 32768 + 1e-6)
    json.dumps(verify(tmp_path / "store"))
    assert Path(clips[0].path).name == paths[0].name


def write_video_corpus(root):
    """A table of two videos with sound, three sounds with a video, and a cut, a lost and no video."""
    root.mkdir()
    lines = ["path,labels,split,video"]
    for k in range(8):
        name = f"{k}.mp4" if k < 2 else f"{k}.wav"
        shots = [(t / 25, 20 + 25 * k) for t in range(25)]
        content = video_bytes(shots, sound_s=1.0, tone=300 + 50 * k)
        if k >= 2:
            t = np.arange(16_000) / 16_000
            soundfile.write(root / name, 0.3 * np.sin(2 * np.pi * (300 + 50 * k) * t), 16_000)
        if k != 6:
            (root / f"{k}.mp4").write_bytes(content if k != 5 else content[:300])
        video = "" if k < 2 or k == 7 else f"{k}.mp4"
        lines.append(f"{name},{'ab'[k % 2]},{'train' if k % 4 else 'eval'},{video}")
    (root / "clips.csv").write_text("\n".join(lines))
    return root


def test_clips_without_a_usable_video_are_kept_and_listed(tmp_path):
    root = write_video_corpus(tmp_path / "corpus")
    meta = run(tmp_path / "store", root, recipe("table", video="tiny_video"))
    clips = store.ClipStore.open(tmp_path / "store")
    assert len(clips) == 8 and meta.counts == {"eval": same(2), "train": same(6)}
    tokens, seen = clips.video_tokens(range(8))
    assert tokens.shape == (8, 10, 128) and seen.tolist() == [True] * 5 + [False] * 3
    levels = [(40 + 50 * k) / 255 - 1 for k in range(5)]
    np.testing.assert_allclose(tokens[:5, :, :64].mean(axis=(1, 2)), levels, atol=0.05)
    about = meta.extra["video"]
    assert (about["encoder"], about["windows"], about["width"]) == ("tiny_video", 10, 128)
    assert about["counts"]["eval"] == {"usable": 2, "missing": 0, "undecodable": 0}
    assert about["counts"]["train"] == {"usable": 3, "missing": 2, "undecodable": 1}
    listed = pd.read_csv(tmp_path / "store" / "quarantine.csv")
    assert listed["clip_id"].astype(str).tolist() == ["5", "6", "7"]
    assert listed["reason"].str.startswith("video: ").all()
    assert verify(tmp_path / "store")["quarantined"] == 0
    again = run(tmp_path / "again", root, recipe("table", video="tiny_video"))
    assert [e.xxh3 for e in again.shards] == [e.xxh3 for e in meta.shards]


def test_stores_without_video_have_no_column_of_it(tmp_path):
    root = write_video_corpus(tmp_path / "corpus")
    meta = run(tmp_path / "store", root, recipe("table"))
    assert "video" not in meta.extra and len(meta.shards) == 3
    assert not len(pd.read_csv(tmp_path / "store" / "quarantine.csv"))
    assert "video_tokens" not in pd.read_feather(tmp_path / "store" / "part-00000.arrow").columns


def test_a_corpus_without_any_video_is_an_error(tmp_path, corpus):
    with pytest.raises(MissingError, match=r"data\.video=none"):
        run(tmp_path / "store", corpus, recipe(video="tiny_video"))


def test_mini_has_a_video_for_every_clip(tmp_path):
    meta = run(tmp_path / "store", None, recipe("mini", n_clips=6, video="tiny_video"))
    counts = meta.extra["video"]["counts"]
    assert sum(one["usable"] for one in counts.values()) == 6
