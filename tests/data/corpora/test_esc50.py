"""ESC-50 as it is shipped, and what a damaged copy of it gives."""

from collections import Counter
from pathlib import Path

import pytest

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data
from ajbench.data.corpora import esc50

HEADER = "filename,fold,target,category,esc10,src_file,take"
ESC50 = Data(corpus="esc50")


@pytest.fixture
def make_esc50(tmp_path):
    """make_esc50(lines, files=those of the lines) -> root of that layout; the reader only looks at names."""

    def make(lines, header=HEADER, files=None):
        (tmp_path / "audio").mkdir()
        (tmp_path / "meta").mkdir()
        (tmp_path / "meta" / "esc50.csv").write_text("\n".join([header, *lines, ""]))
        for name in files if files is not None else [line.split(",")[0] for line in lines]:
            (tmp_path / "audio" / name).touch()
        return tmp_path

    return make


GOOD = [
    "1-1-A-0.wav,1,0,dog,True,1,A",
    "2-2-A-0.wav,2,0,dog,True,2,A",
    "3-3-A-1.wav,3,1,rooster,True,3,A",
    "5-4-A-30.wav,5,30,door_wood_knock,False,4,A",
    "5-5-A-0.wav,5,0,dog,True,5,A",
]


def test_esc10_has_its_official_folds(esc10_dir):
    manifest = esc50.read(Data(corpus="esc50", subset="esc10"), esc10_dir)
    assert manifest.problems == []
    assert manifest.label_set.names == (
        "dog", "rooster", "rain", "sea_waves", "crackling_fire", "crying_baby", "sneezing", "clock_tick",
        "helicopter", "chainsaw",
    )  # fmt: skip
    assert Counter((row.fold, row.labels[0]) for row in manifest.rows) == {
        (fold, name): 8 for fold in range(1, 6) for name in manifest.label_set.names
    }
    assert {row.split for row in manifest.rows if row.fold == 5} == {"eval"}
    assert {row.split for row in manifest.rows if row.fold != 5} == {"train"}
    assert all(Path(row.path).is_file() and Path(row.path).is_absolute() for row in manifest.rows)
    assert all(row.clip_id.startswith(f"{row.fold}-") for row in manifest.rows)
    # Clips cut from one recording never stand on both sides.
    recordings = [{row.clip_id.split("-")[1] for row in manifest.split(split)} for split in ("train", "eval")]
    assert not recordings[0] & recordings[1]


@pytest.mark.parametrize("fold", [1, 3])
def test_eval_fold_is_the_one_asked_for(esc10_dir, fold):
    manifest = esc50.read(Data(corpus="esc50", eval_fold=fold), esc10_dir)
    assert {row.fold for row in manifest.split("eval")} == {fold}
    assert len(manifest.split("train")) == 320


def test_a_subset_of_another_corpus_is_refused(make_esc50):
    with pytest.raises(
        UsageError, match=r"data.subset=full: corpus esc50 has no such subset; allowed: esc10"
    ):
        esc50.read(Data(corpus="esc50", subset="full"), make_esc50(GOOD))


def test_unknown_eval_fold_names_those_there_are(make_esc50):
    with pytest.raises(UsageError, match=r"data.eval_fold=4: no such fold; allowed: 1, 2, 3, 5"):
        esc50.read(Data(corpus="esc50", eval_fold=4), make_esc50(GOOD))


def test_all_classes_in_order_of_target_or_only_esc10(make_esc50):
    root = make_esc50(GOOD)
    assert esc50.read(ESC50, root).label_set.names == ("dog", "rooster", "door_wood_knock")
    ten = esc50.read(Data(corpus="esc50", subset="esc10"), root)
    assert ten.label_set.names == ("dog", "rooster")
    assert len(ten.rows) == 4
    assert ten.problems == []


def test_wav_and_ogg_stand_for_each_other(make_esc50):
    files = [line.split(",")[0].replace(".wav", ".ogg") for line in GOOD[:3]] + [
        "5-4-A-30.wav",
        "5-5-A-0.wav",
    ]
    manifest = esc50.read(ESC50, make_esc50(GOOD, files=files))
    assert [Path(row.path).name for row in manifest.rows] == files


def test_problems_are_named_with_their_line_and_left_out(make_esc50):
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
    root = make_esc50(GOOD + bad, files=files)
    manifest = esc50.read(Data(corpus="esc50", subset="esc10"), root)
    assert len(manifest.rows) == 4
    found = [(p.line, p.clip_id, p.reason, p.split) for p in manifest.problems]
    audio = root / "audio"
    assert found == [
        (7, "1-7-A-0", "fold '6' is none of 1 to 5", None),
        (8, "1-8-A-0", "fold 'one' is none of 1 to 5", None),
        (9, "1-9-A-1", "target 1 disagrees with 'dog', 0 elsewhere", "train"),
        (10, "1-10-A-0", "'cat' disagrees with target 0, 'dog' elsewhere", "train"),
        (11, None, "4 cells in the row, 7 in the header", None),
        (12, "5-12-A-0", f"5-12-A-0.wav: not in {audio}", "eval"),
        (13, "1-1-A-0", f"clip id '1-1-A-0' occurs twice; first used by {audio}/1-1-A-0.wav", "train"),
        (14, "esc50", f"../meta/esc50.csv: not in {audio}", "train"),
        (15, "1-13-A-x", "target 'x' is not a number", "train"),
        (16, "1-14-A-0", "esc10 'perhaps' is neither True nor False", "train"),
    ]


@pytest.mark.parametrize("column", ["filename", "fold", "target", "category"])
def test_a_missing_column_is_named(make_esc50, column):
    root = make_esc50([], header=HEADER.replace(column, "x"))
    with pytest.raises(UsageError, match=rf"esc50.csv: column '{column}' is missing.*; found: "):
        esc50.read(ESC50, root)


def test_esc10_column_is_needed_for_esc10_only(make_esc50):
    header = HEADER.replace("esc10", "is_ten")
    root = make_esc50(GOOD, header=header)
    assert len(esc50.read(ESC50, root).rows) == 5
    with pytest.raises(UsageError, match="column 'esc10' is missing"):
        esc50.read(Data(corpus="esc50", subset="esc10"), root)


def test_what_is_not_there_is_named(make_esc50, tmp_path):
    with pytest.raises(UsageError, match="--data DIR"):
        esc50.read(ESC50, None)
    with pytest.raises(MissingError, match=r"esc50.csv: missing; ESC-50 is a folder"):
        esc50.read(ESC50, tmp_path / "nowhere")
    root = make_esc50(GOOD, files=[])
    with pytest.raises(MissingError, match=r"no usable clip; first problem, line 2: 1-1-A-0.wav: not in "):
        esc50.read(ESC50, root)
