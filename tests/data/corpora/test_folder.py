"""Folder per class, with and without folders per split."""

import pytest

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data
from ajbench.data.corpora import folder
from ajbench.data.corpora.splits import hashed_fold

FOLDER = Data(corpus="folder")
DOGS = [f"dog/{i}.wav" for i in range(20)]


def test_classes_and_hashed_folds(touch):
    names = [*DOGS, *(f"a cat/{i}.wav" for i in range(20))]
    manifest = folder.read(FOLDER, touch(*names, "dog/deep/20.FLAC", "dog/.hidden.wav", ".git/x.wav"))
    assert manifest.label_set.names == ("a cat", "dog")
    assert {row.clip_id for row in manifest.rows} == {name[:-4] for name in names} | {"dog/deep/20"}
    assert next(row for row in manifest.rows if row.clip_id == "dog/deep/20").labels == ("dog",)
    assert all(row.fold == hashed_fold(row.clip_id.rsplit("/", 1)[1]) for row in manifest.rows)
    assert {row.fold for row in manifest.split("eval")} == {5}
    assert manifest.problems == []


def test_a_new_file_moves_no_other(touch):
    before = folder.read(FOLDER, touch(*DOGS))
    after = folder.read(FOLDER, touch("dog/00.wav", "ant/7.wav"))
    splits = [{row.clip_id: row.split for row in manifest.rows} for manifest in (before, after)]
    assert splits[0].items() <= splits[1].items()
    # The same name in another class is in the same fold.
    assert len({row.fold for row in after.rows if row.clip_id.endswith("/7")}) == 1


def test_eval_fold(touch):
    manifest = folder.read(Data(corpus="folder", eval_fold=2), touch(*DOGS))
    assert {row.fold for row in manifest.split("eval")} == {2}


def test_split_folders(touch):
    root = touch("train/dog/1.wav", "train/cat/2.wav", "validation/dog/3.wav", "test/dog/1.wav", "README.md")
    manifest = folder.read(FOLDER, root)
    assert [(row.clip_id, row.split, row.labels, row.fold) for row in manifest.rows] == [
        ("test/dog/1", "eval", ("dog",), None),
        ("train/cat/2", "train", ("cat",), None),
        ("train/dog/1", "train", ("dog",), None),
        ("validation/dog/3", "val", ("dog",), None),
    ]
    assert [problem.clip_id for problem in manifest.problems] == ["README"]
    with pytest.raises(UsageError, match=r"data\.eval_fold=1.*test, train, validation"):
        folder.read(Data(corpus="folder", eval_fold=1), root)


def test_a_class_may_be_called_train(touch):
    names = [f"{label}/{i}.wav" for label in ("train", "tram") for i in range(9)]
    assert folder.read(FOLDER, touch(*names)).label_set.names == ("train", "tram")


def test_files_that_are_left_out_have_a_reason(touch):
    root = touch(*DOGS, "dog/notes.txt", "loose.wav", "dog/7.ogg", "dog/a.wma")
    (root / "dog" / "gone.wav").symlink_to(root / "nowhere.wav")
    manifest = folder.read(FOLDER, root)
    assert len(manifest.rows) == 20
    found = {problem.clip_id: problem for problem in manifest.problems}
    words = {"loose": "class folder", "dog/notes": "'.txt'", "dog/a": "'.wma'", "dog/gone": "missing"}
    assert found.keys() == {*words, "dog/7"}
    assert all(word in found[clip].reason for clip, word in words.items())
    assert "'dog/7'" in found["dog/7"].reason
    assert all(problem.line is None for problem in manifest.problems)
    assert found["loose"].split is None
    assert found["dog/gone"].split in ("train", "eval")


def test_linked_class_folders_are_followed_but_not_in_circles(touch, tmp_path_factory):
    elsewhere, root = tmp_path_factory.mktemp("elsewhere"), touch("dog/1.wav")
    for i in range(20):
        (elsewhere / f"{i}.wav").touch()
    (root / "cat").symlink_to(elsewhere)
    (root / "dog" / "circle").symlink_to(root)
    manifest = folder.read(FOLDER, root)
    assert len(manifest.rows) == 21 and manifest.label_set.names == ("cat", "dog")


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (["dog/notes.txt"], "<class>/<file>"),
        (["dog/1.wav"], "fold"),
        (["train/dog/1.wav", "train/cat/1.wav"], "'eval'.* train"),
    ],
)
def test_both_splits_are_required(touch, names, word):
    with pytest.raises(MissingError, match=word):
        folder.read(FOLDER, touch(*names))


def test_videos_are_clips_or_belong_to_the_sound_of_their_name(touch):
    root = touch(*DOGS, "dog/7.mp4", "dog/film.MOV", "cat/7.webm", *(f"cat/{i}.wav" for i in range(8, 20)))
    manifest = folder.read(FOLDER, root)
    assert manifest.problems == []
    found = {row.clip_id: (row.path, row.video) for row in manifest.rows if row.video}
    assert found == {
        "dog/7": (str(root / "dog/7.wav"), str(root / "dog/7.mp4")),
        "dog/film": (str(root / "dog/film.MOV"),) * 2,
        "cat/7": (str(root / "cat/7.webm"),) * 2,
    }
