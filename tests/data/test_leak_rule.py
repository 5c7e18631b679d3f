"""AudioCaps' test videos are in AudioSet: its generators are refused whatever the files are called."""

import csv
import tracemalloc
from contextlib import nullcontext

import numpy as np
import pytest
from fakes import prepared_store

from ajbench.core.errors import IntegrityError
from ajbench.core.recipe import Data
from ajbench.data.corpora import audioset
from ajbench.data.corpora.recordings import read_corpus
from ajbench.data.corpora.youtube import Segment
from ajbench.data.leak_rule import HEARD, heard, refuse_heard, refuse_leak

VIDEOS = ("-_-PJHxph_3", "Yabcdefgh30", "r1nicOVtvkQ")  # in both corpora, at other times
NAMES = (
    "{id}.wav", "{id}_30.wav", "{id}_30.000.flac", "{id}_30000.wav", "{id}_30_40.ogg",
    "{id}_30000_40000.flac", "Y{id}.wav", "Y{id}_30.wav", "id_{id}.mp3",
)  # fmt: skip


@pytest.fixture
def corpora(tmp_path):
    """corpora(pattern, **options) -> AudioSet with these files, and AudioCaps whose test videos are in it."""

    def make(pattern, **options):
        names = [pattern.format(id=video) for video in (*VIDEOS, "abcdefghij1", "abcdefghij2")]
        lines = [f'{video}, 30.000, 40.000, "/m/09x0r"' for video in (*VIDEOS, "abcdefghij1", "abcdefghij2")]
        captions = [f"{k},{video},{10 * k},a sound" for k, video in enumerate((*VIDEOS, "abcdefghij3"))]
        head = "audiocap_id,youtube_id,start_time,caption"
        for path, text in {
            "set/balanced_train_segments.csv": lines[:-1],
            "set/eval_segments.csv": lines[-1:],
            "caps/test.csv": [head, *captions],
            "caps/train.csv": [head, "9,abcdefghij4,30,a sound"],
            **{f"set/{name}": () for name in names},
            **{f"caps/{k}.wav": () for k in (0, 1, 2, 3, 9)},
        }.items():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text("\n".join(text))
        trained = read_corpus(Data(corpus="audioset", **options), tmp_path / "set")
        return trained.split("train"), read_corpus(Data(corpus="audiocaps"), tmp_path / "caps")

    return make


@pytest.mark.parametrize("pattern", NAMES)
def test_audiosets_generators_are_refused_with_audiocaps(corpora, tmp_path, pattern):
    trained, caps = corpora(pattern)
    assert len(trained) == 4 and len(caps.split("eval")) == 4
    pool = [row.clip_id for row in trained], [row.recording for row in trained]
    with pytest.raises(
        IntegrityError, match=r" 3 of the 4 .*-_-PJHxph_3_0\b.*-_-PJHxph_3\b.*data\.leave_out"
    ):
        refuse_leak(tmp_path, *pool, caps.held_out())
    # The way out: its test list is left out of the training.
    trained, _ = corpora(pattern, leave_out=str(tmp_path / "caps" / "test.csv"))
    assert [row.clip_id for row in trained] == ["abcdefghij1"]
    refuse_leak(tmp_path, ["abcdefghij1"], [trained[0].recording], caps.held_out())


def test_stores_keep_the_recordings_that_the_rule_compares(corpora, tmp_path, write_wav):
    corpora("Y{id}_30.wav")
    for path in sorted(tmp_path.glob("*/*.wav")):
        write_wav(str(path.relative_to(tmp_path)))
    trained, caps = (
        prepared_store(tmp_path / f"{corpus} store", tmp_path / folder, Data(corpus=corpus, duration_s=1.26))
        for corpus, folder in (("audioset", "set"), ("audiocaps", "caps"))
    )
    train = trained.split_indices("train")
    ids, recordings = ([names[i] for i in train] for names in (trained.clip_ids, trained.recordings))
    with pytest.raises(IntegrityError, match=" 3 of the 4 "):
        refuse_leak(tmp_path, ids, recordings, caps.held_out())


def test_of_the_real_lists_only_the_unbalanced_one_has_audiocaps_test_videos(audioset_dir, tmp_path):
    by_mid = dict(zip(audioset.label_set().mids, audioset.label_set().names, strict=True))
    with (audioset_dir / "audiocaps_test.csv").open() as file:
        videos = {cells["youtube_id"] for cells in csv.DictReader(file)}
    assert len(videos) == 975
    held_out = {f"{video}_30": f"youtube:{video}" for video in videos}
    for name in (audioset.BALANCED, audioset.EVAL):
        listed = audioset.segments(audioset_dir / name, "train", by_mid, {})
        rows = [item.row("") for item in listed if isinstance(item, Segment)]
        assert len(rows) > 20_000
        refuse_leak(tmp_path, [row.clip_id for row in rows], [row.recording for row in rows], held_out)


def test_a_classifier_that_knows_an_eval_clip_or_its_recording_is_refused(tmp_path):
    held_out = {"clip": "tape", "other": "disc"}
    refuse_heard(tmp_path, held_out)  # of the hub: it does not say
    for ids, recordings, refused in (
        (["a"], ["b"], ""),
        (["tape"], ["clip"], ""),  # a clip named like a recording is another thing
        (["clip"], ["b"], "clip"),
        (["a"], ["disc"], "other"),
    ):
        np.save(tmp_path / HEARD, heard(ids, recordings))
        with pytest.raises(IntegrityError, match=refused) if refused else nullcontext():
            refuse_heard(tmp_path, held_out)


@pytest.mark.parametrize("damage", ["shape", "npz", "empty"])
def test_what_a_classifier_heard_takes_no_more_memory_than_its_file(tmp_path, damage):
    with (tmp_path / HEARD).open("wb") as file:
        if damage == "shape":
            about = {"descr": "<u8", "fortran_order": False, "shape": (10**8,)}
            np.lib.format.write_array_header_1_0(file, about)
        elif damage == "npz":
            np.savez(file, np.arange(3))
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError, match=HEARD):
            refuse_heard(tmp_path, {"clip": "recording"})
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "content", [b"", b"PK\3\4", b"PK\5\6" + bytes(18), b"\x93NUMPY", b"\x93NUMPY\1\0\4\0{[(\n"]
)
def test_what_is_no_array_of_hashes_is_damaged(tmp_path, content):
    (tmp_path / HEARD).write_bytes(content)
    with pytest.raises(IntegrityError, match=rf"{HEARD}: damaged .*; train the classifier again"):
        refuse_heard(tmp_path, {"clip": "tape"})
