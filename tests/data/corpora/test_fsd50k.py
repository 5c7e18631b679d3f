"""FSD50K's layout, its own splits, and a damaged copy."""

import tarfile
from pathlib import Path

import pytest
from fakes import check_problems

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
def make(touch):
    """make(dev, eval, vocabulary, files) -> root of that layout with empty files."""

    def build(dev=DEV, held_out=EVAL, vocabulary=VOCABULARY, files=FILES):
        tables = {
            "dev": ["fname,labels,mids,split", *dev],
            "eval": ["fname,labels,mids", *held_out],
            "vocabulary": vocabulary,
        }
        root = touch(*files, tables={f"FSD50K.ground_truth/{name}.csv": tables[name] for name in tables})
        for folder in (DEV_AUDIO, EVAL_AUDIO):
            (root / folder).mkdir(exist_ok=True)
        return root

    return build


def test_splits_labels_and_vocabulary(make):
    root = make()
    manifest = fsd50k.read(FSD50K, root)
    assert manifest.problems == []
    clips = [("64760", "train", "Bark", "Dog"), ("16399", "val", "Electric_guitar")]
    clips.append(("37199", "eval", "Electric_guitar"))
    assert manifest.rows == [
        Row(name, str(root / file), labels=tuple(labels), split=split, recording=f"freesound:{name}")
        for file, (name, split, *labels) in zip(FILES, clips, strict=True)
    ]
    assert manifest.label_set.names == ("Bark", "Dog", "Electric_guitar")
    assert manifest.label_set.mids == ("/m/05tny_", "/m/0bt9lr", "/m/02sgy")


def test_sounds_in_archives_are_found(make):
    root = make(files=FILES[2:])
    with tarfile.open(root / DEV_AUDIO / "dev.tar", "w") as file:
        for name in ("64760.wav", "64760.json", "16399.flac"):
            file.addfile(tarfile.TarInfo(name))
    paths = [Path(row.path).name for row in fsd50k.read(FSD50K, root).rows]
    assert paths == ["dev.tar::64760.wav", "dev.tar::16399.flac", "37199.wav"]


def test_problems_have_their_line_and_split(make):
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
    files = [*FILES, *(f"{DEV_AUDIO}/{k}.wav" for k in range(2, 7))]
    root = make(dev, [*EVAL, "7,Dog,/m/0bt9lr"], files=files)
    manifest = fsd50k.read(FSD50K, root)
    assert len(manifest.rows) == 3
    assert [Path(problem.path).name for problem in manifest.problems] == [
        *["dev.csv"] * 6, "64760.wav", "eval.csv",
    ]  # fmt: skip
    check_problems(
        manifest.problems,
        (4, "1", f"missing: not in {root / DEV_AUDIO}", "train"),
        (5, "2", "'Dogg' is not in vocabulary.csv, did you mean 'Dog'", "val"),
        (6, "3", "/m/05tny_", "train"),
        (7, "4", "'test'", None),
        (8, "5", "labels", "train"),
        (9, None, "cells: 3", None),
        (10, "64760", str(root / FILES[0]), "train"),
        (3, "7", f"missing: not in {root / EVAL_AUDIO}", "eval"),
    )


@pytest.mark.parametrize(
    "lines", [["1,Bark,/m/05tny_"], ["index,label,mid", *VOCABULARY], ["0,Bark"], ["0,a,b", "0,c,d"]]
)
def test_a_malformed_vocabulary_is_refused(make, lines):
    with pytest.raises(UsageError, match=r"vocabulary\.csv"):
        fsd50k.read(FSD50K, make(vocabulary=lines))


def test_missing_parts_are_named(make, tmp_path):
    with pytest.raises(MissingError, match=r"dev\.csv"):
        fsd50k.read(FSD50K, tmp_path)
    root = make(files=[])
    with pytest.raises(MissingError, match=f"line 2: .*{DEV_AUDIO}"):
        fsd50k.read(FSD50K, root)
    make(files=FILES[:2])
    with pytest.raises(MissingError, match=r"'eval'.* train, val"):
        fsd50k.read(FSD50K, root)
    (root / EVAL_AUDIO).rmdir()
    with pytest.raises(MissingError, match=EVAL_AUDIO):
        fsd50k.read(FSD50K, root)
