"""The manifest: round trips, CSV records with line numbers, splits from folds."""

from dataclasses import replace
from pathlib import Path

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.data.corpora.splits import hashed_fold, need_splits, split_by_fold, unique_ids
from ajbench.data.labels import LabelSet
from ajbench.data.manifest import SCHEMA, Manifest, Problem, Row, csv_records, csv_rows, read_label_set

ROWS = [
    Row("dog/1", "/data/dog/1.wav", labels=("Bark", "Dog"), split="train", fold=1),
    Row(
        "x@2.5", "/data/x, y.wav", 2.5, 5.04, ("Dog",), "eval", 5,
        'a "dog", barking', "/v.mp4", "grass", "dog/1", "synthetic",
    ),
]  # fmt: skip
MANIFEST = Manifest(
    ROWS,
    LabelSet(("Dog", "Bark", "Speech, male"), ("/m/0bt9lr", "/m/05tny_", "/m/05zppz")),
    [
        Problem("b", "/data/b.wav", 7, "no such file", "eval", 5),
        Problem(None, "/data/t.csv", None, "odd, 3 cells"),
    ],
)


@pytest.mark.parametrize("name", ["manifest.parquet", "manifest.csv"])
@pytest.mark.parametrize("manifest", [MANIFEST, Manifest([ROWS[0]], LabelSet.from_names(["Dog", "Bark"]))])
def test_round_trip(tmp_path, name, manifest):
    manifest.write(tmp_path / name)
    assert Manifest.read(tmp_path / name) == manifest


def test_parquet_opens_in_pandas_with_the_documented_columns(tmp_path):
    MANIFEST.write(tmp_path / "manifest.parquet")
    frame = pandas.read_parquet(tmp_path / "manifest.parquet")
    assert list(frame.columns) == [
        "clip_id", "path", "start_s", "duration_s", "labels", "split", "fold", "caption", "video",
        "visual_caption", "parent_id", "source",
    ]  # fmt: skip
    assert list(frame.labels[0]) == ["Bark", "Dog"]


def test_files_that_are_no_manifest_are_refused(tmp_path):
    with pytest.raises(MissingError, match=r"none.parquet: missing; `ajbench prepare`"):
        Manifest.read(tmp_path / "none.parquet")
    with pytest.raises(UsageError, match=r"\.parquet or \.csv"):
        MANIFEST.write(tmp_path / "manifest.xlsx")
    (tmp_path / "manifest.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(IntegrityError, match="not a manifest"):
        Manifest.read(tmp_path / "manifest.parquet")
    pandas.DataFrame({"path": ["a"]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(IntegrityError, match="columns path; expected clip_id"):
        Manifest.read(tmp_path / "other.parquet")
    MANIFEST.write(tmp_path / "manifest.csv")
    (tmp_path / "manifest.csv").write_text(",".join(SCHEMA.names) + "\n" + "x," * 11 + "x\n")
    with pytest.raises(IntegrityError, match="not a manifest"):
        Manifest.read(tmp_path / "manifest.csv")


def test_a_label_with_the_separator_cannot_be_written_as_csv(tmp_path):
    labels = LabelSet(("a;b",))
    with pytest.raises(UsageError, match=r"label 'a;b' contains ';'; write the manifest as .parquet"):
        Manifest([], labels).write(tmp_path / "manifest.csv")


def test_csv_records_number_the_lines_as_an_editor_does(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b'\xef\xbb\xbfpath, labels\r\na.wav, "Bark, Dog"\r\n\r\nb.wav\r\n c.wav ,x\r\n')
    records, problems = csv_records(path, ["path", "labels"])
    assert records == [(2, {"path": "a.wav", "labels": "Bark, Dog"}), (5, {"path": "c.wav", "labels": "x"})]
    assert problems == [Problem(None, str(path), 4, "1 cells in the row, 2 in the header")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,label\na,b\n", "column 'labels' is missing, did you mean 'label'.; found: path, label$"),
        (b"", "column 'path' is missing; found: no header"),
        (b"path,labels,path\n", "column 'path' occurs more than once"),
        (b"path,labels\n\xff\xfe,x\n", r"not UTF-8 text \(byte 12\)"),
        (b'path,labels\n"a,b\n', r"t.csv:2: not readable as CSV"),
    ],
)
def test_broken_csv_is_refused_with_its_place(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        csv_records(path, ["path", "labels"])


def test_csv_rows_have_no_header_and_comments_are_passed_over(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b'\xef\xbb\xbf# a, b\r\n-x, 1.0, "c,d"\r\n\r\n# "\ny,2\n')
    assert list(csv_rows(path)) == [(2, ["-x", "1.0", "c,d"]), (5, ["y", "2"])]
    with pytest.raises(MissingError, match=r"none.csv: missing"):
        list(csv_rows(tmp_path / "none.csv"))


@given(st.binary(max_size=200))
def test_any_bytes_are_rows_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    path.write_bytes(content)
    try:
        assert all(line >= 1 and cells for line, cells in csv_rows(path))
    except UsageError as error:
        assert str(path) in str(error)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    path.write_bytes(b"path,labels\n" + content)
    try:
        records, problems = csv_records(path, ["path"])
    except UsageError as error:
        assert str(path) in str(error)
    else:
        assert all(line > 1 for line, _ in records)
        assert all(problem.line > 1 for problem in problems)


def test_audiosets_label_file_is_a_label_set(audioset_dir):
    labels = read_label_set(audioset_dir / "class_labels_indices.csv")
    assert len(labels) == 527
    assert labels.index("Male speech, man speaking") == 1
    assert labels.mids[0] == "/m/09x0r"


def test_label_sets_are_ordered_by_index(tmp_path):
    path = tmp_path / "label_set.csv"
    path.write_text("index,name\n1,b\n0,a\n")
    assert read_label_set(path) == LabelSet(("a", "b"))
    path.write_text("label\nb\na\n")
    assert read_label_set(path) == LabelSet(("b", "a"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("index,title\n0,a\n", "no column of class names; expected one of name, display_name, label"),
        ("index,name\n0,a\n2,b\n", "'index' must hold 0 … 1, each once"),
        ("index,name\nzero,a\n", "'index' must hold"),
        ("name\na\na\n", "label_set.csv: label set: label 'a' occurs 2 times"),
        ("index,name\n0,a,b\n", "label_set.csv:2: 3 cells"),
    ],
)
def test_broken_label_sets_are_refused(tmp_path, content, message):
    path = tmp_path / "label_set.csv"
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        read_label_set(path)


def rows_in(folds):
    return [Row(str(i), f"{i}.wav", labels=("a",), fold=fold) for i, fold in enumerate(folds)]


@given(st.lists(st.integers(1, 5), min_size=2, max_size=40), st.data())
def test_exactly_one_fold_is_evaluated(folds, data):
    present = sorted(set(folds))
    wanted = data.draw(st.sampled_from([None, *present]))
    if len(present) == 1:
        with pytest.raises(MissingError, match=r"all .* clips are in fold"):
            split_by_fold(rows_in(folds), [], wanted)
        return
    chosen = wanted or present[-1]
    problems = [Problem("p", "t.csv", 2, "bad", fold=fold) for fold in (chosen, None)]
    rows, told = split_by_fold(rows_in(folds), problems, wanted)
    assert [row.split for row in rows] == ["eval" if fold == chosen else "train" for fold in folds]
    assert [replace(row, split="train") for row in rows] == rows_in(folds)  # nothing else changed
    assert [problem.split for problem in told] == ["eval", None]


def test_a_fold_without_clips_is_refused():
    with pytest.raises(UsageError, match=r"data.eval_fold=4: no such fold; allowed: 1, 2, 5"):
        split_by_fold(rows_in([1, 2, 5]), [], 4)


def test_both_sides_need_clips():
    need_splits([Row("a", "a", split="train"), Row("b", "b", split="eval")], Path("data"))
    with pytest.raises(MissingError, match="data: no clips in split 'eval'; found: train, val"):
        need_splits([Row("a", "a", split="train"), Row("b", "b", split="val")], Path("data"))


def test_hashed_folds_are_even_and_never_change():
    folds = [hashed_fold(f"clip-{i}") for i in range(5000)]
    assert all(900 < folds.count(fold) < 1100 for fold in range(1, 6))
    assert folds[:8] == [5, 5, 2, 2, 4, 1, 3, 5]


def test_the_first_of_a_repeated_id_is_kept():
    rows = [Row("a", "1.wav"), Row("b", "2.wav"), Row("a", "3.wav", split="eval")]
    kept, problems = unique_ids(rows, [2, 3, 4])
    assert kept == rows[:2]
    assert problems == [Problem("a", "3.wav", 4, "clip id 'a' occurs twice; first used by 1.wav", "eval")]
