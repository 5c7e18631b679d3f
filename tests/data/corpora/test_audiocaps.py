"""AudioCaps: captions, AudioSet's labels or none, and clips without labels in stores and plans."""

import pytest
from fakes import check_problems, prepared_store

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data, Synth
from ajbench.data.corpora import audiocaps, audioset
from ajbench.data.manifest import Row
from ajbench.data.verify import verify
from ajbench.generation.plan import ListedClips, plan

AUDIOCAPS = Data(corpus="audiocaps")
HEADER = "audiocap_id,youtube_id,start_time,caption"
TRAIN = ["91139,r1nicOVtvkQ,130,A woman talks nearby as water pours", "58146,--PJHxphWEs,30,A dog barks"]
VAL = ["97151,vfY_TJq7n_U,130,Rustling occurs", "97152,vfY_TJq7n_U,130,Ducks quack"]
TEST = [
    "103549,7fmOlUlwoNg,20,Constant rattling noise",
    '103550,7fmOlUlwoNg,20,"Sharp vibrations, again"',
    "103541,GOD8Bt5LfDE,100,Humming",
]
FILES = ["r1nicOVtvkQ.wav", "Y--PJHxphWEs.wav", "val/97152.wav", "7fmOlUlwoNg_20.flac", "test/103541.wav"]


@pytest.fixture
def make(touch):
    """make(train, val, test, files, **segment lists) -> root with these lists and empty files."""

    def build(train=TRAIN, val=VAL, test=TEST, files=FILES, prefix="", **lists):
        captions = {"train": train, "val": val, "test": test}
        tables = {f"{prefix}{name}.csv": lines and [HEADER, *lines] for name, lines in captions.items()}
        tables |= {f"{name}_segments.csv": ["# YTID, …", *lines] for name, lines in lists.items()}
        return touch(*files, tables=tables)

    return build


@pytest.mark.parametrize("prefix", ["", "audiocaps_"])
def test_a_clip_has_all_its_captions(make, prefix):
    root = make(prefix=prefix)
    manifest = audiocaps.read(AUDIOCAPS, root)
    assert manifest.problems == []
    paths = [str(root / name) for name in FILES]
    assert manifest.rows == [
        Row(
            clip_id, path, 0, 10, (), split, caption=caption, recording=f"youtube:{clip_id[:11]}",
            more_captions=tuple(more),
        )
        for path, (clip_id, split, caption, *more) in zip(
            paths,
            [
                ("r1nicOVtvkQ_130", "train", "A woman talks nearby as water pours"),
                ("--PJHxphWEs_30", "train", "A dog barks"),
                ("vfY_TJq7n_U_130", "val", "Rustling occurs", "Ducks quack"),
                ("7fmOlUlwoNg_20", "eval", "Constant rattling noise", "Sharp vibrations, again"),
                ("GOD8Bt5LfDE_100", "eval", "Humming"),
            ],
            strict=True,
        )
    ]  # fmt: skip
    assert manifest.label_set == audioset.label_set()


def test_labels_are_audiosets_by_id_and_start(make):
    unbalanced = [
        'r1nicOVtvkQ, 130.000, 140.000, "/m/09x0r,/m/0838f"',
        "vfY_TJq7n_U, 120.000, 130.000, /m/09x0r",  # another start
        "7fmOlUlwoNg, 20.000, 30.000, /m/0bt9lr",
        "GOD8Bt5LfDE, 100.000, 110.000, /m/nothing",
        "aaaaaaaaaaa, 0.000, 10.000, /m/09x0r",
    ]
    root = make(unbalanced_train=unbalanced, balanced_train=["--PJHxphWEs, 30.000, 40.000, /m/0bt9lr"])
    manifest = audiocaps.read(AUDIOCAPS, root)
    assert {row.clip_id: row.labels for row in manifest.rows} == {
        "r1nicOVtvkQ_130": ("Speech", "Water"),
        "--PJHxphWEs_30": ("Dog",),
        "7fmOlUlwoNg_20": ("Dog",),
    }
    check_problems(
        manifest.problems,
        (4, "GOD8Bt5LfDE_100", "AudioSet", "eval"),
        (2, "vfY_TJq7n_U_130", "AudioSet", "val"),
    )


def test_lists_without_any_of_the_clips_give_no_labels(make):
    root = make(balanced_train=["aaaaaaaaaaa, 30.000, 40.000, /m/0bt9lr"])
    assert [row.labels for row in audiocaps.read(AUDIOCAPS, root).rows] == [()] * 5


def test_problems_have_their_line_and_split(make):
    train = [*TRAIN, "1,short,0,x", "2,abcdefghijk,soon,x", "3,abcdefghijk,0", "4,abcdefghijk,0,Not there"]
    manifest = audiocaps.read(AUDIOCAPS, make(train, val=None, test=[*TEST, TRAIN[0]]))
    check_problems(
        manifest.problems,
        (5, "r1nicOVtvkQ_130", "line 2 of train.csv", "eval"),
        (4, "short", "'short'", "train"),
        (5, "abcdefghijk", "'soon'", "train"),
        (6, None, "cells: 3", "train"),
        (7, "abcdefghijk_0", "missing", "train"),
    )


def test_lists_are_required(make, tmp_path):
    with pytest.raises(MissingError, match=r"train\.csv"):
        audiocaps.read(AUDIOCAPS, tmp_path)
    root = make(test=None)
    with pytest.raises(MissingError, match=r"test\.csv"):
        audiocaps.read(AUDIOCAPS, root)
    (root / "test.csv").write_text("id,youtube_id,start_time,caption\n")
    with pytest.raises(UsageError, match=r"test\.csv.*'audiocap_id'"):
        audiocaps.read(AUDIOCAPS, root)


def test_the_official_test_list(audioset_dir, make, tmp_path):
    root = make(test=None, val=None)
    (root / "test.csv").symlink_to(audioset_dir / "audiocaps_test.csv")
    manifest = audiocaps.read(AUDIOCAPS, root)
    held_out = [row for row in manifest.rows if row.split == "eval"]
    assert [row.clip_id for row in held_out] == ["7fmOlUlwoNg_20", "GOD8Bt5LfDE_100"]
    assert held_out[0].caption == "Constant rattling noise and sharp vibrations"
    assert len(held_out) + sum(p.split == "eval" for p in manifest.problems) == 975
    listed = audiocaps.read(AUDIOCAPS, root, need_files=False)
    every = ListedClips.of_manifest(listed, "here", "eval", captions=True).captions
    assert len(every) == 4875 and all(every)


def test_clips_without_labels_can_be_stored_and_planned(make, tmp_path, write_wav):
    root = make(files=[])
    for name in FILES:
        write_wav(name.replace(".flac", ".wav"))
    clips = prepared_store(tmp_path / "store", root, Data(corpus="audiocaps", duration_s=0.84))
    assert {split: tally["kept"] for split, tally in clips.meta.counts.items()} == {
        "train": 2,
        "val": 1,
        "eval": 2,
    }
    assert clips.targets().shape == (5, 527) and clips.targets().sum() == 0
    assert clips.column("caption")[0] == "A woman talks nearby as water pours"
    assert clips.column("more_captions")[2:4] == [["Ducks quack"], ["Sharp vibrations, again"]]
    verify(clips.path)
    planned = plan(Synth(n=6, prompt="names"), ListedClips.of_store(clips))
    assert set(planned.column("prompt").to_pylist()) == {""}
    with pytest.raises(UsageError, match=r"synth\.plan=random-classes"):
        plan(Synth(n=6, plan="random-classes", prompt="names"), ListedClips.of_store(clips))
