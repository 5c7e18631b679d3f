"""VGGSound's list, several pieces of one video, and labels with commas."""

from pathlib import Path

import pytest

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data
from ajbench.data.corpora import vggsound
from ajbench.data.manifest import Row

VGGSOUND = Data(corpus="vggsound")
REPEATED = "clip id '---g-f_I2yQ_000001' occurs twice; first used in line 1 of vggsound.csv"
LINES = [
    '---g-f_I2yQ,1,"people marching",test',
    "--PJHxphWEs,30,bowling impact,train",
    '--PJHxphWEs,95,"bird chirping, tweeting",train',
]


@pytest.fixture
def make(tmp_path):
    """make(lines, files) -> root with vggsound.csv and those empty files."""

    def build(lines, files):
        (tmp_path / "vggsound.csv").write_text("\n".join([*lines, ""]))
        for name in files:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return build


def test_pieces_of_one_video_are_clips_of_their_own(make):
    files = ["test/---g-f_I2yQ_000001.wav", "a/--PJHxphWEs_000030.flac", "a/--PJHxphWEs_000095.flac"]
    root = make(LINES, files)
    manifest = vggsound.read(VGGSOUND, root)
    paths = [str(root / name) for name in files]
    assert manifest.problems == []
    assert manifest.rows == [
        Row("---g-f_I2yQ_000001", paths[0], 0.0, 10.0, ("people marching",), "eval"),
        Row("--PJHxphWEs_000030", paths[1], 0.0, 10.0, ("bowling impact",), "train"),
        Row("--PJHxphWEs_000095", paths[2], 0.0, 10.0, ("bird chirping, tweeting",), "train"),
    ]
    assert manifest.label_set.names == ("bird chirping, tweeting", "bowling impact", "people marching")
    assert manifest.label_set.mids is None


def test_problems_are_named_and_labels_of_lost_clips_stay(make):
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
    root = make(lines, files)
    manifest = vggsound.read(VGGSOUND, root)
    assert [Path(row.path).name for row in manifest.rows] == files
    assert [(p.line, p.clip_id, p.reason, p.split) for p in manifest.problems] == [
        (2, "--PJHxphWEs_000030", "missing: another start than 30 s (--PJHxphWEs_000095.wav)", "train"),
        (4, "abcdefghij1_000005", "missing: no file is named by this id", "train"),
        (5, "abcdefghij2", "split 'dev' is neither train nor test", None),
        (6, "abcdefghij3", "label is empty", "train"),
        (7, "abcdefghij4", "3 cells in the row; expected id, start, label, split", None),
        (8, "abcdefghij5", "'-5' is not a time in seconds", "train"),
        (9, "abcdefghi", "id 'abcdefghi' is not 11 letters, digits, - and _", "eval"),
        (10, "---g-f_I2yQ_000001", REPEATED, "eval"),
    ]  # fmt: skip
    assert "owl hooting" in manifest.label_set


def test_what_is_not_there_is_named(make, tmp_path):
    with pytest.raises(UsageError, match="--data DIR"):
        vggsound.read(VGGSOUND, None)
    with pytest.raises(MissingError, match=r"vggsound.csv: missing; get it from https"):
        vggsound.read(VGGSOUND, tmp_path)
    root = make(LINES, ["---g-f_I2yQ.wav"])
    with pytest.raises(MissingError, match=r"no clips in split 'train'; found: eval"):
        vggsound.read(VGGSOUND, root)
    with pytest.raises(
        UsageError, match=r"data.subset=full: corpus vggsound has no such subset; it has none"
    ):
        vggsound.read(Data(corpus="vggsound", subset="full"), root)
