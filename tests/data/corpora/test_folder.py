"""Folder per class, with and without folders per split."""

import pytest

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data
from ajbench.data.corpora import folder
from ajbench.data.corpora.splits import hashed_fold

FOLDER = Data(corpus="folder")


@pytest.fixture
def make(tmp_path):
    """make(*names) -> root with those (empty) files; the reader only looks at names."""

    def files(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return files


def test_classes_and_hashed_folds(make):
    names = [f"{label}/{i}.wav" for label in ("dog", "a cat") for i in range(20)]
    manifest = folder.read(FOLDER, make(*names, "dog/deep/20.FLAC", "dog/.hidden.wav", ".git/x.wav"))
    assert manifest.label_set.names == ("a cat", "dog")
    assert {row.clip_id for row in manifest.rows} == {name[:-4] for name in names} | {"dog/deep/20"}
    assert next(row for row in manifest.rows if row.clip_id == "dog/deep/20").labels == ("dog",)
    assert all(row.fold == hashed_fold(row.clip_id.rsplit("/", 1)[1]) for row in manifest.rows)
    assert {row.fold for row in manifest.split("eval")} == {5}
    assert manifest.problems == []


def test_a_new_file_moves_no_other(make):
    before = folder.read(FOLDER, make(*[f"dog/{i}.wav" for i in range(20)]))
    after = folder.read(FOLDER, make("dog/00.wav", "ant/7.wav"))
    assert {row.clip_id: row.split for row in before.rows}.items() <= {
        r.clip_id: r.split for r in after.rows
    }.items()
    # The same name in another class or container is in the same fold.
    assert len({row.fold for row in after.rows if row.clip_id.endswith("/7")}) == 1


def test_eval_fold(make):
    root = make(*[f"dog/{i}.wav" for i in range(20)])
    manifest = folder.read(Data(corpus="folder", eval_fold=2), root)
    assert {row.fold for row in manifest.split("eval")} == {2}
    with pytest.raises(UsageError, match=r"data.eval_fold=6: no such fold; allowed: 1, 2, 3, 4, 5"):
        folder.read(Data(corpus="folder", eval_fold=6), root)


def test_a_subset_is_refused(make):
    with pytest.raises(UsageError, match=r"data.subset=full: corpus folder has no such subset; it has none"):
        folder.read(Data(corpus="folder", subset="full"), make("dog/1.wav", "cat/2.wav"))


def test_split_folders(make):
    root = make("train/dog/1.wav", "train/cat/2.wav", "validation/dog/3.wav", "test/dog/1.wav", "README.md")
    manifest = folder.read(FOLDER, root)
    assert [(row.clip_id, row.split, row.labels, row.fold) for row in manifest.rows] == [
        ("test/dog/1", "eval", ("dog",), None),
        ("train/cat/2", "train", ("cat",), None),
        ("train/dog/1", "train", ("dog",), None),
        ("validation/dog/3", "val", ("dog",), None),
    ]
    assert [problem.clip_id for problem in manifest.problems] == ["README"]
    with pytest.raises(UsageError, match=r"eval_fold=1: .* has split folders \(test, train, validation\)"):
        folder.read(Data(corpus="folder", eval_fold=1), root)


def test_a_class_may_be_called_train(make):
    manifest = folder.read(
        FOLDER, make(*[f"{label}/{i}.wav" for label in ("train", "tram") for i in range(9)])
    )
    assert manifest.label_set.names == ("train", "tram")


def test_what_is_left_out_is_named(make):
    root = make(*[f"dog/{i}.wav" for i in range(20)], "dog/notes.txt", "loose.wav", "dog/7.ogg", "dog/a.m4a")
    (root / "dog" / "gone.wav").symlink_to(root / "nowhere.wav")
    manifest = folder.read(FOLDER, root)
    assert len(manifest.rows) == 20
    reasons = {problem.clip_id: (problem.reason.split(";")[0], problem.line) for problem in manifest.problems}
    assert reasons == {
        "loose": ("not read: lies outside a class folder", None),
        "dog/notes": ("not read: suffix '.txt'", None),
        "dog/a": ("not read: suffix '.m4a'", None),
        "dog/gone": ("missing: a link to a file that is not there", None),
        "dog/7": ("clip id 'dog/7' occurs twice", None),
    }
    split = {problem.clip_id: problem.split for problem in manifest.problems}
    assert split["loose"] is None
    assert split["dog/gone"] in ("train", "eval")


def test_linked_class_folders_are_followed_but_not_in_circles(make, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for i in range(20):
        (elsewhere / f"{i}.wav").touch()
    root = make("dog/1.wav")
    (root / "cat").symlink_to(elsewhere)
    (root / "dog" / "circle").symlink_to(root)
    manifest = folder.read(FOLDER, root)
    assert len(manifest.rows) == 21
    assert manifest.label_set.names == ("cat", "dog")


def test_nothing_to_read(make, tmp_path):
    with pytest.raises(UsageError, match="--data DIR"):
        folder.read(FOLDER, None)
    with pytest.raises(MissingError, match="no such folder"):
        folder.read(FOLDER, tmp_path / "nowhere")
    with pytest.raises(MissingError, match="no clips; expected <class>/<file>"):
        folder.read(FOLDER, make("dog/notes.txt"))
    with pytest.raises(MissingError, match="all 1 clips are in fold"):
        folder.read(FOLDER, make("dog/1.wav"))


def test_split_folders_need_train_and_eval(make):
    with pytest.raises(MissingError, match="no clips in split 'eval'; found: train, val"):
        folder.read(FOLDER, make("train/dog/1.wav", "val/dog/1.wav"))
