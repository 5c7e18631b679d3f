"""FSD50K's layout, its own splits, and what a damaged copy of it gives."""

from pathlib import Path

import pytest

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data
from ajbench.data.corpora import fsd50k
from ajbench.data.manifest import Row

FSD50K = Data(corpus="fsd50k")
VOCABULARY = ["0,Bark,/m/05tny_", "1,Dog,/m/0bt9lr", "2,Electric_guitar,/m/02sgy"]
DEV = ['64760,"Bark,Dog","/m/05tny_,/m/0bt9lr",train', "16399,Electric_guitar,/m/02sgy,val"]
EVAL = ["37199,Electric_guitar,/m/02sgy"]
DEV_AUDIO, EVAL_AUDIO = "FSD50K.dev_audio", "FSD50K.eval_audio"
FILES = [f"{DEV_AUDIO}/64760.wav", f"{DEV_AUDIO}/16399.flac", f"{EVAL_AUDIO}/37199.wav"]


@pytest.fixture
def make(tmp_path):
    """make(dev, eval, vocabulary, files) -> root of that layout with empty files."""

    def build(dev=DEV, held_out=EVAL, vocabulary=VOCABULARY, files=FILES):
        truth = tmp_path / "FSD50K.ground_truth"
        for folder in (truth, tmp_path / DEV_AUDIO, tmp_path / EVAL_AUDIO):
            folder.mkdir(exist_ok=True)
        (truth / "dev.csv").write_text("\n".join(["fname,labels,mids,split", *dev, ""]))
        (truth / "eval.csv").write_text("\n".join(["fname,labels,mids", *held_out, ""]))
        (truth / "vocabulary.csv").write_text("\n".join([*vocabulary, ""]))
        for name in files:
            (tmp_path / name).touch()
        return tmp_path

    return build


def test_splits_labels_and_vocabulary(make):
    root = make()
    manifest = fsd50k.read(FSD50K, root)
    assert manifest.problems == []
    assert manifest.rows == [
        Row("64760", str(root / FILES[0]), labels=("Bark", "Dog"), split="train"),
        Row("16399", str(root / FILES[1]), labels=("Electric_guitar",), split="val"),
        Row("37199", str(root / FILES[2]), labels=("Electric_guitar",), split="eval"),
    ]
    assert manifest.label_set.names == ("Bark", "Dog", "Electric_guitar")
    assert manifest.label_set.mids == ("/m/05tny_", "/m/0bt9lr", "/m/02sgy")


def test_problems_are_named_with_their_line_and_split(make):
    dev = [
        *DEV,
        "1,Bark,/m/05tny_,train",
        "2,Dogg,/m/0bt9lr,val",
        "3,Dog,/m/05tny_,train",
        "4,Dog,/m/0bt9lr,test",
        '5,"",/m/0bt9lr,train',
        "6,Dog,/m/0bt9lr",
        DEV[0],
    ]
    root = make(
        dev, [*EVAL, "7,Dog,/m/0bt9lr"], files=[*FILES, *(f"{DEV_AUDIO}/{k}.wav" for k in range(2, 7))]
    )
    manifest = fsd50k.read(FSD50K, root)
    assert len(manifest.rows) == 3
    found = [(Path(p.path).name, p.line, p.clip_id, p.reason, p.split) for p in manifest.problems]
    gone = "with any of .wav, .flac, .ogg, .oga, .opus, .mp3, .aif, .aiff, .aifc, .au, .caf, .w64"
    assert found == [
        ("dev.csv", 4, "1", f"missing: not in {root / DEV_AUDIO} {gone}", "train"),
        ("dev.csv", 5, "2", "label 'Dogg' is not in vocabulary.csv, did you mean 'Dog'?", "val"),
        ("dev.csv", 6, "3", "mids /m/05tny_ disagree with the labels', /m/0bt9lr", "train"),
        ("dev.csv", 7, "4", "split 'test' is neither train nor val", None),
        ("dev.csv", 8, "5", "labels is empty", "train"),
        ("dev.csv", 9, None, "3 cells in the row, 4 in the header", None),
        (
            "64760.wav", 10, "64760",
            f"clip id '64760' occurs twice; first used by {root / FILES[0]}", "train",
        ),
        ("eval.csv", 3, "7", f"missing: not in {root / EVAL_AUDIO} {gone}", "eval"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "lines", [["1,Bark,/m/05tny_"], ["index,label,mid", *VOCABULARY], ["0,Bark"], ["0,a,b", "0,c,d"]]
)
def test_a_vocabulary_that_is_none(make, lines):
    with pytest.raises(UsageError, match=r"vocabulary.csv: expected lines of index, label, mid"):
        fsd50k.read(FSD50K, make(vocabulary=lines))


def test_what_is_not_there_is_named(make, tmp_path):
    with pytest.raises(UsageError, match="--data DIR"):
        fsd50k.read(FSD50K, None)
    with pytest.raises(MissingError, match=r"dev.csv: missing; get FSD50K from https"):
        fsd50k.read(FSD50K, tmp_path)
    root = make(files=[])
    with pytest.raises(MissingError, match=r"no usable clip; first problem, line 2: missing: not in"):
        fsd50k.read(FSD50K, root)
    make(files=FILES[:2])
    with pytest.raises(MissingError, match=r"no clips in split 'eval'; found: train, val"):
        fsd50k.read(FSD50K, root)
    with pytest.raises(UsageError, match=r"data.subset=esc10: corpus fsd50k has no such subset"):
        fsd50k.read(Data(corpus="fsd50k", subset="esc10"), root)
    (root / EVAL_AUDIO).rmdir()
    with pytest.raises(MissingError, match=r"FSD50K.eval_audio: missing"):
        fsd50k.read(FSD50K, root)
