"""Odd folders: names of splits and folds, links, names that are not UTF-8, few clips, one folder per clip."""

import os
from pathlib import Path

import numpy as np
import pytest
from fakes import write_clip
from typer.testing import CliRunner

from ajbench.cli.app import app
from ajbench.core import console
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data
from ajbench.data.clip_set import open_set
from ajbench.data.corpora import detection, folder
from ajbench.data.corpora.recordings import read_corpus
from ajbench.pipeline import name_patterns, own_data
from ajbench.pipeline.inputs import corpus_identity

FOLDER = Data(corpus="folder")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(own_data, "measured_speed", lambda duration_s, classes: 1.0)


@pytest.fixture
def invoke():
    """invoke(*arguments) -> result of an ajbench command."""
    yield lambda *arguments: CliRunner().invoke(app, [*map(str, arguments)])
    console.configure()


def touch(root, *names):
    for path in (root / name for name in names):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def splits(manifest):
    return {split: {row.clip_id for row in manifest.split(split)} for split in ("train", "val", "eval")}


@pytest.mark.parametrize(
    ("train", "val", "held_out"),
    [
        ("Train", "Val", "Test"),
        ("dev", "", "eval"),
        ("TRAINING", "dev", "Testing"),
        ("Train", "", "evaluation"),
        ("train_set", "", "test_set"),
        ("train-clean", "dev-clean", "test-clean"),
        ("my training", "", "my test"),
    ],
)
def test_split_names_in_any_case(tmp_path, train, val, held_out):
    names = {
        train: ["dog/1.wav", "cat/2.wav"],
        val: ["dog/3.wav"] * bool(val),
        held_out: ["dog/4.wav", "cat/5.wav"],
    }
    touch(tmp_path, *(f"{top}/{name}" for top, below in names.items() for name in below))
    touch(tmp_path, "docs/README.md", "notes.txt", "__MACOSX/Train/dog/._1.wav")
    manifest = folder.read(FOLDER, tmp_path)
    assert manifest.label_set.names == ("cat", "dog")
    sizes = {split: len(clips) for split, clips in splits(manifest).items()}
    assert sizes == {"train": 2, "val": len(names[val]), "eval": 2}
    assert {problem.clip_id for problem in manifest.problems} == {"docs/README", "notes"}


@pytest.mark.parametrize(
    "tops", [("fold1", "fold2", "fold3"), ("Fold 0", "Fold 1", "Fold 2"), ("cv_a", "cv_b", "cv_c")]
)
def test_folds_are_no_classes(tmp_path, tops):
    touch(tmp_path, *(f"{top}/{name}/{k}.wav" for k, top in enumerate(tops) for name in ("dog", "cat")))
    manifest = folder.read(FOLDER, tmp_path)
    assert manifest.label_set.names == ("cat", "dog")
    assert splits(manifest)["eval"] == {f"{tops[2]}/cat/2", f"{tops[2]}/dog/2"}
    number = int(tops[0][-1]) if tops[0][-1].isdecimal() else 1
    first = folder.read(Data(corpus="folder", eval_fold=number), tmp_path)
    assert splits(first)["eval"] == {f"{tops[0]}/cat/0", f"{tops[0]}/dog/0"}


@pytest.mark.parametrize("parts", [("train", "test"), ("Train_set", "Test_set"), ("train", "val")])
def test_splits_inside_class_folders(tmp_path, parts):
    touch(
        tmp_path, *(f"{name}/{part}/{k}.wav" for name in ("dog", "cat") for part in parts for k in range(3))
    )
    found = detection.detect(tmp_path)
    assert found.layout == "class folders with split folders"
    manifest = folder.read(Data(**found.data), tmp_path)
    assert manifest.label_set.names == ("cat", "dog")
    assert {len(clips) for clips in splits(manifest).values()} == {0, 6}
    assert {clip.split("/")[1] for clip in splits(manifest)["eval"]} == {parts[1]}


@pytest.mark.parametrize(
    ("tops", "told"), [(("1", "2", "3"), True), (("bird", "dog"), True), (("a",), False)]
)
def test_folders_with_the_same_folders_inside_are_told(tmp_path, capsys, tops, told):
    names = [f"{top}/{name}/{k}.wav" for top in tops for name in ("x", "y") for k in range(3)]
    assert detection.detect(touch(tmp_path, *names)).layout == "class folders"
    assert ("if these are the classes" in capsys.readouterr().err) == told


@pytest.mark.parametrize("tops", [("Train", "Test"), ("fold1", "fold2")])
def test_splits_beside_other_folders_are_refused(tmp_path, tops):
    touch(tmp_path, *(f"{top}/{name}/1.wav" for top in (*tops, "extra") for name in ("dog", "cat")))
    with pytest.raises(UsageError, match=r"extra"):
        folder.read(FOLDER, tmp_path)


@pytest.mark.parametrize("tops", [("Train", "Test"), ("fold1", "fold2")])
def test_splits_without_class_folders_are_no_classes(tmp_path, tops):
    with pytest.raises(MissingError, match="<class>"):
        folder.read(FOLDER, touch(tmp_path, *(f"{top}/{k}.wav" for top in tops for k in range(9))))


@pytest.mark.parametrize("inside", [True, False])
def test_links_to_folders_are_followed_once_by_all(tmp_path, inside):
    root, elsewhere = tmp_path / "root", tmp_path / ("root/dog" if inside else "elsewhere")
    for k in range(5):
        write_clip(root / "dog", f"{k}", [0.1, -0.1] * 4000)
        write_clip(elsewhere, f"{k}", [0.1, -0.1] * 4000)
    (root / "cat").symlink_to(elsewhere)
    (root / "dog" / "circle").symlink_to(root)
    touch(root, ".cache/hidden.wav", "dog/._1.wav")
    count = 5 if inside else 10
    assert len(open_set(root)) == count
    assert len(folder.read(FOLDER, root).rows) == count


def bad_name(folder, name):
    """Write a clip whose name is not UTF-8."""
    write_clip(folder, "x", [0.1, -0.1] * 4000)
    (folder / "x.wav").rename(folder / os.fsdecode(name + b".wav"))


def test_names_that_are_not_utf8_are_listed_or_escaped(tmp_path, invoke):
    for k in range(10):
        write_clip(tmp_path / "root" / "dog", f"d{k}", [0.1, -0.1 - k / 100] * 8000)
        write_clip(tmp_path / "root" / "cat", f"c{k}", [0.1, 0.1, -0.1 - k / 100] * 8000)
    for name in (b"caf\xe9", b"\xff\xfe"):
        bad_name(tmp_path / "root" / "dog", name)
    write_clip(tmp_path / "root" / "x", "1", [0.1, -0.1] * 8000)
    (tmp_path / "root" / "x").rename(tmp_path / "root" / os.fsdecode(b"h\xf6ren"))
    manifest = folder.read(FOLDER, tmp_path / "root")
    assert len(manifest.rows) == 20 and manifest.label_set.names == ("cat", "dog")
    assert {problem.clip_id for problem in manifest.problems} == {
        r"dog/caf\udce9", r"dog/\udcff\udcfe", r"h\udcf6ren/1"
    }  # fmt: skip
    recipe = ("--recipe", "mini", "--data", tmp_path / "root", "--work", tmp_path / "work")
    done = invoke("prepare", *recipe, "data.corpus=folder", "data.duration_s=0.42")
    assert done.exit_code == 0, done.output
    (listed,) = (tmp_path / "work").rglob("quarantine.csv")
    assert r"caf\udce9" in listed.read_text(encoding="utf-8")
    assert r"dog/caf\udce9" in open_set(tmp_path / "root").names


@pytest.mark.parametrize("name", ["{k}/audio", "{k}/sound/x"])
def test_a_folder_per_clip_spreads_over_folds(tmp_path, name):
    names = [f"{label}/{name.format(k=k)}.wav" for label in ("dog", "cat") for k in range(30)]
    manifest = folder.read(FOLDER, touch(tmp_path, *names))
    assert {row.fold for row in manifest.rows} == {1, 2, 3, 4, 5}
    assert manifest.label_set.names == ("cat", "dog")


@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize("sizes", [(8, 8, 2, 1), (5, 2, 2, 2), (30, 3, 2, 1)])
def test_few_clips_are_split_by_class(tmp_path, sizes, numbered):
    names = [f"c{n}/{k if numbered else f'{n}-{k}'}.wav" for n, size in enumerate(sizes) for k in range(size)]
    manifest = folder.read(FOLDER, touch(tmp_path, *names))
    labels = {split: {row.labels[0] for row in manifest.split(split)} for split in ("train", "eval")}
    assert labels["train"] == {f"c{n}" for n in range(4)}
    assert labels["eval"] == {f"c{n}" for n, size in enumerate(sizes) if size > 1}


@pytest.mark.parametrize(
    ("group", "name"),
    [
        ("^([a-z]+)_", "{who}_{k}"),
        ("[a-z]+(?=-)", "{who}-{k}"),
        ("(r[a-z]+)/", "r{who}/{k}"),
        ("_(.+)_", "7_{who}_{k}"),
    ],
)
def test_clips_of_a_group_are_in_one_fold(tmp_path, invoke, group, name):
    people = ("ann", "bob", "cyd", "dan", "eve", "fay", "gus")
    for label in ("dog", "cat"):
        for who in people:
            for k in range(3):
                path = tmp_path / "set" / label / name.format(who=who, k=k)
                write_clip(path.parent, path.name, [0.1, -0.1] * 4000)
    places = ("--work", tmp_path / "work", "--results", tmp_path / "results")
    done = invoke(
        "run", "--data", tmp_path / "set", "--group", group, "--dry-run", *places, "data.duration_s=1.26"
    )
    assert done.exit_code == 0 and "recordings: 7;" in done.stderr, done.output
    made = own_data.make(tmp_path / "set", tmp_path / "work", tmp_path / "results", patterns={"group": group})
    folds = {}
    for row in made.manifest.rows:
        folds.setdefault(row.recording.removeprefix("r"), set()).add(row.fold)
    assert folds.keys() == {*people} and all(len(own) == 1 for own in folds.values())
    again = own_data.make(tmp_path / "set", tmp_path / "work", tmp_path / "results")
    assert again.tree == made.tree
    none = own_data.make(tmp_path / "set", tmp_path / "work", tmp_path / "results", patterns={"group": ""})
    assert "recording_from" not in none.tree["data"]


@pytest.mark.parametrize("option", ["--group", "--label"])
@pytest.mark.parametrize("pattern", ["(", "(a)(b)"])
def test_what_is_no_pattern_is_refused(tmp_path, invoke, option, pattern):
    touch(tmp_path, *(f"{label}/{k}.wav" for label in ("dog", "cat") for k in range(9)))
    done = invoke("run", "--data", tmp_path, option, pattern, "--dry-run")
    assert done.exit_code == 2 and done.stderr.count("\n") == 1 and option in done.stderr, done.output


@pytest.mark.parametrize("inside", ["", "audio/", "{split}/", "fold{k}/"])
def test_classes_are_found_in_names(tmp_path, invoke, inside):
    names = [
        f"{inside.format(split='test' if k == 3 else 'train', k=k)}{label}_{who}_{n}.wav"
        for label in ("dog", "cat", "3")
        for k, who in enumerate(("ann", "bob", "cyd", "dan"))
        for n in range(2)
    ]
    root = tmp_path / "set"
    for name in names:
        write_clip((root / name).parent, (root / name).name, [0.1, -0.1] * 4000)
    (root / "README.txt").write_text("digits")
    places = ("--work", tmp_path / "work", "--results", tmp_path / "results")
    how = ("--label", "^([^_]+)_", "--group", "_(.+)_")
    done = invoke("run", "--data", root, *how, "--dry-run", *places, "data.duration_s=1.26")
    assert done.exit_code == 0 and "24 clips of 3 classes" in done.stderr, done.output
    assert "classes from the files' names" in done.stderr and "class folders" not in done.stderr
    patterns = dict(zip(("label", "group"), how[1::2], strict=True))
    made = own_data.make(root, tmp_path / "work", tmp_path / "results", patterns=patterns)
    for row in made.manifest.rows:
        label, who, _ = Path(row.path).stem.split("_")
        assert (*row.labels, row.recording) == (label, who)
        if "split" in inside:
            assert row.split == ("eval" if who == "dan" else "train")
        if "fold" in inside:
            assert row.fold == ("ann", "bob", "cyd", "dan").index(who)
    again = own_data.make(root, tmp_path / "work", tmp_path / "results")
    assert again.tree == made.tree


def test_names_without_a_class_are_listed(tmp_path):
    root = touch(
        tmp_path, *(f"dog-{k}.wav" for k in range(5)), "cat-1.wav", "notes.txt", "dog/7.wav", "x.wav"
    )
    found = folder.read(Data(corpus="folder", label_from="^([a-z]+)[-/]"), root)
    assert {row.clip_id: row.labels for row in found.rows} == {
        **{f"dog-{k}": ("dog",) for k in range(5)}, "cat-1": ("cat",), "dog/7": ("dog",)
    }  # fmt: skip
    reasons = {problem.clip_id: problem.reason for problem in found.problems}
    assert (
        reasons.keys() == {"notes", "x"}
        and "not a sound file" in reasons["notes"]
        and "label_from" in reasons["x"]
    )


NAMES = Data(corpus="folder", label_from="^([a-z]+)_")


@pytest.mark.parametrize("inside", ["{split}/", "fold{k}/", "audio/{split}/"])
def test_sounds_beside_the_folders_of_splits_and_folds_are_listed(tmp_path, inside):
    names = [
        f"{inside.format(split='train' if k else 'test', k=k)}{label}_{k}.wav"
        for label in ("dog", "cat")
        for k in range(3)
    ]
    found = folder.read(
        NAMES, touch(tmp_path, *names, "notes.txt", *(["dog_9.wav"] if "/" not in inside[:-1] else []))
    )
    assert len(found.rows) == 6
    assert {problem.clip_id for problem in found.problems} <= {"notes", "dog_9"}
    reasons = {problem.clip_id: problem.reason for problem in found.problems}
    assert "not a sound" in reasons.pop("notes")
    assert {*reasons.values()} <= {"not in a folder of a split or fold"}
    if "split" in inside:
        assert {row.split for row in found.rows if "test" in row.path.split("/")} == {"eval"}


@pytest.mark.parametrize(
    "names",
    [
        ("train/dog_1.wav", "test/dog_2.wav", "extra/cat_1.wav"),
        ("audio/train/dog_1.wav", "audio/test/dog_2.wav", "more/cat_1.wav"),
        ("a/b/train/dog_1.wav", "a/b/test/cat_2.wav"),
        ("fold1/dog_1.wav", "fold2/dog_2.wav", "cat_1/cat_1.wav"),
    ],
)
def test_splits_that_would_be_ignored_are_refused(tmp_path, names):
    with pytest.raises(UsageError, match="named after splits or folds"):
        folder.read(NAMES, touch(tmp_path, *names))


def test_a_pattern_may_begin_with_flags():
    assert name_patterns.data_keys({"label": "(?i)dog|cat"}, {}) == {"label_from": "(?i)(dog|cat)"}
    assert name_patterns.data_keys({"group": "youtube"}, {}) == {"recording_from": "youtube"}
    Data(corpus="folder", **name_patterns.data_keys({"label": "(?i)(?s)dog|cat"}, {}))


def test_sounds_of_unknown_classes_are_refused_with_the_way_out(tmp_path, invoke):
    touch(tmp_path, "one/dog_1.wav", "one/cat_1.wav", "set.csv")
    elsewhere = "--work", f"{tmp_path}-work", "--results", f"{tmp_path}-results"
    for data, code in ((tmp_path / "one", 2), (tmp_path, 3)):
        done = invoke("run", "--data", data, "--dry-run", *elsewhere)
        assert done.exit_code == code and "--label PATTERN" in done.stderr, done.output
    (tmp_path / "set.csv").write_text("path,label\none/dog_1.wav,dog\none/cat_1.wav,cat\n")
    done = invoke("run", "--data", tmp_path / "set.csv", "--label", "^([a-z]+)", "--dry-run")
    assert done.exit_code == 2 and done.stderr.startswith("ajbench: --label: "), done.output


@pytest.mark.parametrize(
    ("pattern", "told"), [("dog", "--label (dog) fits 5 of 12 names"), ("^zzz(.)", "--label ^zzz(.)")]
)
def test_patterns_that_do_not_fit_are_named_as_they_were_given(tmp_path, invoke, pattern, told):
    root = touch(tmp_path / "set", *(f"dog_{k}.wav" for k in range(5)), *(f"cat_{k}.wav" for k in range(7)))
    elsewhere = "--work", tmp_path / "work", "--results", tmp_path / "results"
    done = invoke("run", "--data", root, "--label", pattern, "--dry-run", *elsewhere)
    assert done.exit_code == 3 and told in done.stderr, done.output
    assert "'^([^_]+)_'" in done.stderr or pattern != "dog"


def test_a_pattern_of_the_last_time_is_not_used_for_what_has_labels():
    table = detection.Found(Path("set.csv"), "a table of clips", {"corpus": "table"})
    found = name_patterns.applied(table, {}, {"label_from": "^(.)", "recording_from": "_(.)"})
    assert found.data == {"corpus": "table", "recording_from": "_(.)"} and found.layout == table.layout


def test_other_corpora_have_labels():
    with pytest.raises(ValueError, match=r"data\.label_from"):
        Data(corpus="table", label_from="^(.)")


def test_recipes_that_find_no_class_in_names_are_as_before():
    assert "label_from" not in FOLDER.identity()
    assert Data(corpus="folder", label_from="^(.)").identity()["label_from"] == "^(.)"


def test_a_pattern_of_recordings_is_refused_where_they_are_known(invoke, tmp_path):
    touch(tmp_path, "set/meta/esc50.csv", "set/audio/1-1-A-0.ogg")
    (tmp_path / "set/meta/esc50.csv").write_text("filename,fold,target,category,esc10,src_file,take\n")
    shown = invoke("run", "--data", tmp_path / "set", "--group", "-([0-9]+)-", "--dry-run")
    assert shown.exit_code == 2 and shown.stderr.startswith("ajbench: --group: ")


def test_folders_of_a_run_inside_the_clips_are_refused(invoke, tmp_path, monkeypatch):
    for k in range(20):
        write_clip(tmp_path / "set" / "ab"[k % 2], k, np.random.default_rng(k).normal(0, 0.1, 16_000))
    monkeypatch.chdir(tmp_path / "set")
    shown = invoke("run", "--data", ".", "--dry-run")
    assert shown.exit_code == 2 and "--work work: is inside --data ." in shown.stderr
    elsewhere = "--work", tmp_path / "w", "--results", tmp_path / "r"
    assert invoke("run", "--data", ".", "--dry-run", *elsewhere).exit_code == 0


def test_files_that_are_no_sounds_change_no_fingerprint(tmp_path):
    for k in range(20):
        write_clip(tmp_path / "set" / "ab"[k % 2], k, np.random.default_rng(k).normal(0, 0.1, 16_000))
    identities = set()
    for more in (None, "set/a/notes.txt", "set/README.md", "set/a/Thumbs.db"):
        touch(tmp_path, *([more] if more else []))
        identities.add(corpus_identity(read_corpus(FOLDER, tmp_path / "set")))
    assert len(identities) == 1
    (tmp_path / "set/a/20.wav").symlink_to("gone.wav")
    assert corpus_identity(read_corpus(FOLDER, tmp_path / "set")) not in identities
