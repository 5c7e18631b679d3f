"""The manifest: round trips, CSV records with line numbers, label sets."""

import pandas
import pytest
from fakes import check_problems
from hypothesis import given
from hypothesis import strategies as st

from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.data.labels import LabelSet
from ajbench.data.manifest import SCHEMA, Manifest, Problem, Row, csv_records, csv_rows, read_label_set

ROWS = [
    Row("dog/1", "/data/dog/1.wav", labels=("Bark", "Dog"), split="train", fold=1),
    Row(
        "x@2.5", "/data/x, y.wav", 2.5, 5.04, ("Dog",), "eval", 5,
        'a "dog", barking', "/v.mp4", "grass", "dog/1", "synthetic", "freesound:1",
        ("a dog; barking", 'a "hound"'),
    ),
]  # fmt: skip
MANIFEST = Manifest(
    ROWS,
    LabelSet(("Dog", "Bark", "Speech, male"), ("/m/0bt9lr", "/m/05tny_", "/m/05zppz")),
    [Problem("b", "/b.wav", 7, "no such file", "eval", 5), Problem(None, "/t.csv", None, "odd, 3 cells")],
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
        "visual_caption", "parent_id", "source", "recording", "more_captions", "subset",
    ]  # fmt: skip
    assert list(frame.labels[0]) == ["Bark", "Dog"]


def test_other_files_are_refused(tmp_path):
    with pytest.raises(MissingError, match=r"none\.parquet"):
        Manifest.read(tmp_path / "none.parquet")
    with pytest.raises(UsageError, match=r"manifest\.xlsx"):
        MANIFEST.write(tmp_path / "manifest.xlsx")
    (tmp_path / "manifest.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(IntegrityError, match=r"manifest\."):
        Manifest.read(tmp_path / "manifest.parquet")
    pandas.DataFrame({"path": ["a"]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(IntegrityError, match=r"other\.parquet.*clip_id"):
        Manifest.read(tmp_path / "other.parquet")
    MANIFEST.write(tmp_path / "manifest.csv")
    (tmp_path / "manifest.csv").write_text(",".join(SCHEMA.names) + "\n" + "x," * 12 + "x\n")
    with pytest.raises(IntegrityError, match=r"manifest\."):
        Manifest.read(tmp_path / "manifest.csv")


def test_a_label_with_the_separator_cannot_be_written_as_csv(tmp_path):
    with pytest.raises(UsageError, match="'a;b'"):
        Manifest([], LabelSet(("a;b",))).write(tmp_path / "manifest.csv")


def test_csv_records_number_the_lines_as_an_editor_does(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b'\xef\xbb\xbfpath, labels\r\na.wav, "Bark, Dog"\r\n\r\nb.wav\r\n c.wav ,x\r\n')
    records, problems = csv_records(path, ["path", "labels"])
    assert records == [(2, {"path": "a.wav", "labels": "Bark, Dog"}), (5, {"path": "c.wav", "labels": "x"})]
    check_problems(problems, (4, None, "cells: 1", None))
    assert problems[0].path == str(path)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"path,label\na,b\n", "'labels'.*did you mean 'label'.*path, label$"),
        (b"", "'path'"),
        (b"path,labels,path\n", "'path'"),
        (b"path,labels\n\xff\xfe,x\n", "UTF-8.*byte 12"),
        (b'path,labels\n"a,b\n', r"t\.csv:2"),
    ],
)
def test_a_malformed_csv_is_refused_with_its_line(tmp_path, content, word):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=word):
        csv_records(path, ["path", "labels"])


def test_csv_rows_skip_comments_and_have_no_header(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b'\xef\xbb\xbf# a, b\r\n-x, 1.0, "c,d"\r\n\r\n# "\ny,2\n')
    assert list(csv_rows(path)) == [(2, ["-x", "1.0", "c,d"]), (5, ["y", "2"])]
    with pytest.raises(MissingError, match=r"none\.csv"):
        list(csv_rows(tmp_path / "none.csv"))


@pytest.mark.parametrize(("read", "head"), [(csv_rows, b""), (csv_records, b"path,labels\n")])
@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, read, head, content):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    path.write_bytes(head + content)
    try:
        found = list(read(path))
    except UsageError as error:
        assert str(path) in str(error)
        return
    if read is csv_rows:
        assert all(line >= 1 and cells for line, cells in found)
    else:
        assert all(line > 1 for line, _ in found[0]) and all(problem.line > 1 for problem in found[1])


def test_label_sets_are_ordered_by_index(tmp_path):
    path = tmp_path / "label_set.csv"
    path.write_text("index,name\n1,b\n0,a\n")
    assert read_label_set(path) == LabelSet(("a", "b"))
    path.write_text("label\nb\na\n")
    assert read_label_set(path) == LabelSet(("b", "a"))


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("index,title\n0,a\n", "name, display_name, label"),
        ("index,name\n0,a\n2,b\n", "'index'.* 0 … 1"),
        ("index,name\nzero,a\n", "'index'"),
        ("name\na\na\n", r"label_set\.csv.*'a' occurs 2 times"),
        ("index,name\n0,a,b\n", r"label_set\.csv:2: cells: 3"),
    ],
)
def test_a_malformed_label_set_is_refused(tmp_path, content, word):
    path = tmp_path / "label_set.csv"
    path.write_text(content)
    with pytest.raises(UsageError, match=word):
        read_label_set(path)
