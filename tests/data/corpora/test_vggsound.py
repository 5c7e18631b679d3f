"""VGGSound's list, several clips of one video, and labels with commas."""

from pathlib import Path

import pytest
from fakes import check_problems

from ajbench.core.errors import MissingError
from ajbench.core.recipe import Data
from ajbench.data.corpora import vggsound
from ajbench.data.manifest import Row

VGGSOUND = Data(corpus="vggsound")
LINES = [
    '---g-f_I2yQ,1,"people marching",test',
    "--PJHxphWEs,30,bowling impact,train",
    '--PJHxphWEs,95,"bird chirping, tweeting",train',
]


def test_a_video_may_have_several_clips(touch):
    files = ["test/---g-f_I2yQ_000001.wav", "a/--PJHxphWEs_000030.flac", "a/--PJHxphWEs_000095.flac"]
    root = touch(*files, tables={"vggsound.csv": LINES})
    manifest = vggsound.read(VGGSOUND, root)
    assert manifest.problems == []
    clips = [("people marching", "eval"), ("bowling impact", "train"), ("bird chirping, tweeting", "train")]
    ids = [Path(name).stem for name in files]
    assert manifest.rows == [
        Row(i, str(root / name), 0.0, 10.0, (label,), split, recording=f"youtube:{i[:11]}")
        for i, name, (label, split) in zip(ids, files, clips, strict=True)
    ]
    assert manifest.label_set.names == ("bird chirping, tweeting", "bowling impact", "people marching")
    assert manifest.label_set.mids is None


def test_problems_are_listed_and_labels_of_missing_clips_are_kept(touch):
    lines = [
        *LINES,
        "abcdefghij1,5,owl hooting,train",
        "abcdefghij2,5,dog barking,dev",
        "abcdefghij3,5,,train",
        "abcdefghij4,5,dog barking",
        "abcdefghij5,-5,dog barking,train",
        "abcdefghi,5,dog barking,test",
        LINES[0],
    ]
    files = ["---g-f_I2yQ_000001.wav", "--PJHxphWEs_000095.wav"]
    manifest = vggsound.read(VGGSOUND, touch(*files, tables={"vggsound.csv": lines}))
    assert [Path(row.path).name for row in manifest.rows] == files
    check_problems(
        manifest.problems,
        (2, "--PJHxphWEs_000030", "--PJHxphWEs_000095.wav", "train"),
        (4, "abcdefghij1_000005", "missing", "train"),
        (5, "abcdefghij2", "'dev'", None),
        (6, "abcdefghij3", "label", "train"),
        (7, "abcdefghij4", "cells: 3", None),
        (8, "abcdefghij5", "'-5'", "train"),
        (9, "abcdefghi", "'abcdefghi'", "eval"),
        (10, "---g-f_I2yQ_000001", "line 1 of vggsound.csv", "eval"),
    )
    assert "owl hooting" in manifest.label_set


def test_the_list_and_both_splits_are_required(touch, tmp_path):
    with pytest.raises(MissingError, match=r"vggsound\.csv"):
        vggsound.read(VGGSOUND, tmp_path)
    with pytest.raises(MissingError, match="'train'"):
        vggsound.read(VGGSOUND, touch("---g-f_I2yQ.wav", tables={"vggsound.csv": LINES}))
