"""ESC-50 as published, and a damaged copy."""

from collections import Counter
from pathlib import Path

import pytest
from fakes import check_problems

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data
from ajbench.data.corpora import esc50

HEADER = "filename,fold,target,category,esc10,src_file,take"
ESC50, ESC10 = Data(corpus="esc50"), Data(corpus="esc50", subset="esc10")
GOOD = [
    "1-1-A-0.wav,1,0,dog,True,1,A",
    "2-2-A-0.wav,2,0,dog,True,2,A",
    "3-3-A-1.wav,3,1,rooster,True,3,A",
    "5-4-A-30.wav,5,30,door_wood_knock,False,4,A",
    "5-5-A-0.wav,5,0,dog,True,5,A",
]


@pytest.fixture
def make(touch):
    """make(lines, header, files=those of the lines) -> root of that layout."""

    def build(lines=GOOD, header=HEADER, files=None):
        files = files or [line.split(",")[0] for line in lines]
        return touch(*(f"audio/{name}" for name in files), tables={"meta/esc50.csv": [header, *lines]})

    return build


def test_esc10_has_its_official_folds(esc10_dir):
    manifest = esc50.read(ESC10, esc10_dir)
    assert manifest.problems == []
    assert manifest.label_set.names == (
        "dog", "rooster", "rain", "sea_waves", "crackling_fire", "crying_baby", "sneezing", "clock_tick",
        "helicopter", "chainsaw",
    )  # fmt: skip
    assert Counter((row.fold, row.labels[0]) for row in manifest.rows) == {
        (fold, name): 8 for fold in range(1, 6) for name in manifest.label_set.names
    }
    assert all((row.split == "eval") == (row.fold == 5) for row in manifest.rows)
    assert all(Path(row.path).is_file() and Path(row.path).is_absolute() for row in manifest.rows)
    assert all(row.clip_id.startswith(f"{row.fold}-") for row in manifest.rows)
    # All clips cut from one recording are in the same split.
    assert all(row.recording == f"freesound:{row.clip_id.split('-')[1]}" for row in manifest.rows)
    train, held_out = ({row.recording for row in manifest.split(split)} for split in ("train", "eval"))
    assert not train & held_out and len(held_out) == 57


@pytest.mark.parametrize("fold", [1, 3])
def test_the_requested_fold_is_evaluated(esc10_dir, fold):
    manifest = esc50.read(Data(corpus="esc50", eval_fold=fold), esc10_dir)
    assert {row.fold for row in manifest.split("eval")} == {fold}
    assert len(manifest.split("train")) == 320


def test_classes_are_ordered_by_target(make):
    root = make()
    assert esc50.read(ESC50, root).label_set.names == ("dog", "rooster", "door_wood_knock")
    ten = esc50.read(ESC10, root)
    assert ten.label_set.names == ("dog", "rooster") and len(ten.rows) == 4 and ten.problems == []


def test_an_ogg_file_may_replace_a_wav_file(make):
    files = [f"{line.split('.')[0]}.{'ogg' if i < 3 else 'wav'}" for i, line in enumerate(GOOD)]
    manifest = esc50.read(ESC50, make(files=files))
    assert [Path(row.path).name for row in manifest.rows] == files


def test_problems_have_their_line_and_are_left_out(make):
    bad = [
        "1-7-A-0.wav,6,0,dog,True,7,A",
        "1-8-A-0.wav,one,0,dog,True,8,A",
        "1-9-A-1.wav,1,1,dog,True,9,A",
        "1-10-A-0.wav,1,0,cat,True,10,A",
        "1-11-A-0.wav,1,0,dog",
        "5-12-A-0.wav,5,0,dog,True,12,A",
        "1-1-A-0.wav,1,0,dog,True,1,A",
        "../meta/esc50.csv,1,0,dog,True,1,A",
        "1-13-A-x.wav,1,x,owl,True,13,A",
        "1-14-A-0.wav,1,0,dog,perhaps,14,A",
    ]
    files = [line.split(",")[0] for line in GOOD + bad if "-12-" not in line and "/" not in line]
    audio = make(GOOD + bad, files=files) / "audio"
    manifest = esc50.read(ESC10, audio.parent)
    assert len(manifest.rows) == 4
    check_problems(
        manifest.problems,
        (7, "1-7-A-0", "fold '6'", None),
        (8, "1-8-A-0", "fold 'one'", None),
        (9, "1-9-A-1", "target 1 disagrees with 'dog', 0", "train"),
        (10, "1-10-A-0", "'cat' disagrees with target 0, 'dog'", "train"),
        (11, None, "cells: 4", None),
        (12, "5-12-A-0", f"5-12-A-0.wav: not in {audio}", "eval"),
        (13, "1-1-A-0", f"{audio}/1-1-A-0.wav", "train"),
        (14, "esc50", f"../meta/esc50.csv: not in {audio}", "train"),
        (15, "1-13-A-x", "target 'x'", "train"),
        (16, "1-14-A-0", "esc10 'perhaps'", "train"),
    )


@pytest.mark.parametrize("column", ["filename", "fold", "target", "category", "esc10"])
def test_a_missing_column_is_named(make, column):
    root = make(header=HEADER.replace(column, "x"))
    with pytest.raises(UsageError, match=rf"esc50\.csv.*'{column}'"):
        esc50.read(ESC10, root)
    if column == "esc10":  # needed for that subset only
        assert len(esc50.read(ESC50, root).rows) == 5


def test_a_corpus_without_audio_is_refused(make):
    root = make()
    for path in (root / "audio").iterdir():
        path.unlink()
    with pytest.raises(MissingError, match=r"line 2: .*1-1-A-0\.wav"):
        esc50.read(ESC50, root)
    (root / "audio").rmdir()
    with pytest.raises(MissingError, match="audio"):
        esc50.read(ESC50, root)
