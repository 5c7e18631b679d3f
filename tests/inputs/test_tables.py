"""Odd tables: recordings without a split, fold 0, lists and separators in cells, one row per label."""

import json

import pandas
import pytest
from typer.testing import CliRunner

from ajbench.cli.app import app
from ajbench.core import console
from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data
from ajbench.core.section import overlay
from ajbench.data.corpora import clip_table, detection, fold_names, table_files
from ajbench.data.corpora.recordings import HELD_OUT, left_out, read_corpus
from ajbench.pipeline import preflight

TABLE = Data(corpus="table")


@pytest.fixture
def invoke():
    """invoke(*arguments) -> result of an ajbench command."""
    yield lambda *arguments: CliRunner().invoke(app, [*map(str, arguments)])
    console.configure()


@pytest.fixture
def table(tmp_path):
    """table(header, *lines, name=...) -> path of a CSV, whose first column names files that exist."""

    def make(header, *lines, name="clips.csv"):
        for line in lines:
            (tmp_path / line.split(",")[0]).touch()
        (tmp_path / name).write_text("\n".join([header, *lines, ""]))
        return tmp_path / name

    console.configure()
    return make


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("bad", [b"caf\xe9", b"\xff\xfe"])
def test_lines_that_are_not_utf8_are_listed(tmp_path, suffix, bad):
    rows = [(f"{k}.wav", "ab"[k % 2]) for k in range(20)]
    for name, _ in rows:
        (tmp_path / name).touch()
    if suffix == ".csv":
        lines = [b"path,label", *(f"{name},{label}".encode() for name, label in rows)]
        lines[4] = bad + b".wav,a"
    else:
        lines = [json.dumps({"path": name, "label": label}).encode() for name, label in rows]
        lines[3] = b'{"path": "' + bad + b'", "label": "a"}'
    path = tmp_path / f"clips{suffix}"
    path.write_bytes(b"\n".join(lines))
    manifest = read_corpus(TABLE, path)
    assert len(manifest.rows) == 19
    assert [problem.line for problem in manifest.problems] == [5 if suffix == ".csv" else 4]
    path.write_bytes("path,label\n1.wav,a\n".encode("utf-16"))
    with pytest.raises(UsageError):
        read_corpus(TABLE, path)


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
@pytest.mark.parametrize("header", [("path", "label", "Split"), ("File Name", "Category", "SPLIT")])
def test_other_separators_and_names_of_columns(tmp_path, delimiter, header):
    lines = [header, *((f"{k}.wav", "ab"[k % 2], ("Train", "Test")[k // 2 % 2]) for k in range(20))]
    for name, *_ in lines[1:]:
        (tmp_path / name).touch()
    (tmp_path / "clips.csv").write_text("\n".join(map(delimiter.join, lines)))
    manifest = read_corpus(TABLE, tmp_path)
    assert manifest.label_set.names == ("a", "b")
    assert len(manifest.split("train")) == len(manifest.split("eval")) == 10


@pytest.mark.parametrize(
    "cells", [{"split": ["train"]}, {"clip_id": {"a": 1}}, {"path": "x" * 300}, {"path": 7}, {"labels": None}]
)
def test_odd_cells_of_json_are_listed(tmp_path, cells):
    rows = [
        {"path": f"{k}.wav", "labels": f"{k % 2}", "split": ("train", "test")[k // 2 % 2]} for k in range(20)
    ]
    for row in rows:
        (tmp_path / row["path"]).touch()
    rows[4] |= cells
    path = tmp_path / "clips.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    manifest = read_corpus(TABLE, path)
    odd_id = "clip_id" in cells  # text like any other
    assert len(manifest.rows) == 19 + odd_id and len(manifest.problems) == 1 - odd_id


@pytest.mark.parametrize(
    "names",
    [("train.csv", "test.csv"), ("Train/labels.csv", "test/labels.csv"), ("a/train.jsonl", "a/val.jsonl")],
)
def test_a_table_for_each_split(tmp_path, names):
    for n, name in enumerate(names):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        rows = [{"file": f"{n}-{k}.wav", "label": "ab"[k % 2]} for k in range(6)]
        for row in rows:
            (path.parent / row["file"]).touch()
        lines = ["file,label", *(",".join(row.values()) for row in rows)]
        path.write_text("\n".join(map(json.dumps, rows) if path.suffix == ".jsonl" else lines))
    found = detection.detect(tmp_path)
    manifest = read_corpus(Data(**found.data), found.root)
    assert found.layout.startswith("a table for each split") and not manifest.problems
    assert {split: {row.clip_id[-3] for row in manifest.split(split)} for split in ("train", "eval")} == {
        "train": {"0"}, "eval": {"1"}
    }  # fmt: skip


@pytest.mark.parametrize("suffixes", [(".wav",), (".ogg", ".WAV"), (".wav", ".flac")])
def test_files_without_their_suffix(tmp_path, suffixes):
    for k in range(20):
        for suffix in suffixes:
            (tmp_path / f"v1.{k}{suffix}").touch()
    path = tmp_path / "clips.csv"
    path.write_text("\n".join(["path,label", *(f"v1.{k},{'ab'[k % 2]}" for k in range(20))]))
    if suffixes == (".wav", ".flac"):  # which one is meant?
        with pytest.raises(MissingError, match="no such file"):
            read_corpus(TABLE, path)
    else:
        assert {row.path for row in read_corpus(TABLE, path).rows} == {
            str(tmp_path / f"v1.{k}{suffixes[0]}") for k in range(20)
        }


def test_a_table_without_a_header_is_refused(table):
    with pytest.raises(UsageError, match="no header"):
        read_corpus(TABLE, table("0.wav,a", *(f"{k}.wav,{'ab'[k % 2]}" for k in range(1, 20))))


def labels_of(manifest):
    return {row.clip_id: row.labels for row in manifest.rows}


@pytest.mark.parametrize("corpus", ["table", "hub"])
def test_lines_of_json_without_a_file_or_labels_are_listed(tmp_path, corpus):
    rows = [{"file_name": f"{k}.wav", "label": f"{k % 2}"} for k in range(20)]
    for row in rows:
        (tmp_path / row["file_name"]).touch()
    del rows[3]["file_name"], rows[5]["label"]
    (tmp_path / "metadata.jsonl").write_text("\n\n".join(map(json.dumps, rows)))  # every second line is empty
    manifest = read_corpus(Data(corpus=corpus), tmp_path)
    assert len(manifest.rows) == 18 and {problem.line for problem in manifest.problems} == {7, 11}
    (tmp_path / "metadata.jsonl").write_text("\n\n{}\n[]\n")
    with pytest.raises(UsageError, match=r"metadata\.jsonl:4"):
        read_corpus(Data(corpus=corpus), tmp_path)


@pytest.mark.parametrize("split", [True, False])
def test_parents_that_share_a_file_keep_its_recording(table, split):
    lines = [
        "path,labels,start_s,clip_id,parent_id,split",
        "long.wav,dog,0,first,,train", "long.wav,dog,5,second,,test",
        "r0.wav,dog,0,made,first,train", "r1.wav,dog,0,again,made,train",
        *(f"r{k}.wav,{'dog' if k % 4 else 'cat'},0,,,{'test' if k % 3 else 'train'}" for k in range(2, 40)),
    ]  # fmt: skip
    manifest = read_corpus(TABLE, table(*(line if split else line.rpartition(",")[0] for line in lines)))
    family = {row.clip_id: row for row in manifest.rows if row.recording}
    assert {row.recording for row in family.values()} == {"long.wav"}
    assert len({row.split for row in family.values()}) == 1
    left = {problem.clip_id for problem in manifest.problems}
    assert (left, family.keys()) == (
        ({"first", "made", "again"}, {"second"}) if split else (set(), {"first", "second", "made", "again"})
    )


@pytest.mark.parametrize("column", ["parent_id", "recording"])
@pytest.mark.parametrize("with_parents", [True, False])
def test_clips_of_a_recording_stay_in_one_fold(table, column, with_parents):
    lines = [f"{k}-{n}.wav,{'dog' if k % 2 else 'cat'},r{k}" for k in range(12) for n in range(5)]
    lines += [f"r{k}.wav,{'dog' if k % 2 else 'cat'}," for k in range(12)] if with_parents else []
    manifest = read_corpus(TABLE, table(f"path,labels,{column}", *lines))
    of_fold = {}
    for row in manifest.rows:
        if with_parents and column == "recording" and row.recording is None:
            continue  # nothing says that r0.wav is the recording r0
        of_fold.setdefault(row.recording, set()).add(row.fold)
    assert len(of_fold) == 12 and all(len(folds) == 1 for folds in of_fold.values())
    assert not left_out(manifest.problems)


def test_a_split_that_separates_a_recording_is_told(table):
    lines = [
        f"{k}-{n}.wav,{'dog' if k % 2 else 'cat'},r{k},{('train', 'Test')[n]}"
        for k in range(4)
        for n in (0, 1)
    ]
    lines += [f"own-{k}.wav,dog,,TRAIN" for k in range(3)]
    manifest = read_corpus(TABLE, table("path,labels,parent_id,split", *lines))
    ((reason, problems),) = left_out(manifest.problems).items()
    assert reason == HELD_OUT and {one.clip_id for one in problems} == {f"{k}-0" for k in range(4)}


@pytest.mark.parametrize("form", ["{}", "{}.wav"])
def test_a_parent_may_be_named_by_its_id_or_file(table, form):
    lines = [f"c{k}.wav,{'dog' if k % 2 else 'cat'},,{'test' if k % 3 else 'train'}" for k in range(12)]
    lines += [f"made{k}.wav,{'dog' if k % 2 else 'cat'},{form.format(f'c{k}')},train" for k in range(12)]
    rows = read_corpus(TABLE, table("path,labels,parent_id,split", *lines)).rows
    made = {row.clip_id: row.parent_id for row in rows if row.clip_id.startswith("made")}
    assert made == {f"made{k}": f"c{k}" for k in range(0, 12, 3)}, "others are of eval clips"
    free = read_corpus(TABLE, table("path,labels,parent_id", *(line.rpartition(",")[0] for line in lines)))
    fold_of = {row.clip_id: row.fold for row in free.rows}
    assert all(fold_of[f"made{k}"] == fold_of[f"c{k}"] for k in range(12))


@pytest.mark.parametrize("form", ["{}", "{}.0", "fold{}", "Fold {}", "cv_{}"])
def test_folds_from_0(table, form):
    lines = [f"{k}.wav,{'dog' if k // 5 % 2 else 'cat'},{form.format(k % 5)}" for k in range(20)]
    path = table("path,labels,fold", *lines)
    manifest = clip_table.read(TABLE, path)
    assert len(manifest.rows) == 20 and not manifest.problems
    assert {row.fold for row in manifest.split("eval")} == {4}
    first = clip_table.read(Data(corpus="table", eval_fold=0), path)
    assert {row.clip_id for row in first.split("eval")} == {"0", "5", "10", "15"}


CELLS = {
    "json": ['"[""dog"", ""x""]"', '"[""x""]"', '"[""dog""]"'],
    "python": ["\"['dog', 'x']\"", "['x']", "['dog']"],
    "bare": ['"[dog, x]"', "[x]", "[dog]"],
    "bar": ["dog|x", "x", "dog"],
    "comma": ['"dog, x"', "x", "dog"],
    "semicolon": ["dog; x", "x", "dog"],
}


@pytest.mark.parametrize("cells", CELLS.values(), ids=CELLS)
def test_lists_of_labels(table, cells, capsys):
    lines = [f"{k}.wav,{cells[k % 3]}" for k in range(15)]
    manifest = clip_table.read(TABLE, table("path,labels", *lines))
    assert manifest.label_set.names == ("dog", "x")
    assert labels_of(manifest)["0"] == ("dog", "x") and labels_of(manifest)["2"] == ("dog",)
    assert ("data.label_separator" in capsys.readouterr().err) == (cells[0] in ("dog|x", '"dog, x"'))


def test_commas_in_class_names_are_no_separators(table, capsys):
    names = ['"Child speech, kid speaking"', '"Bark, dog"', "[other]noise"]
    lines = [f"{k}.wav,{names[k % 3]}" for k in range(15)]
    manifest = clip_table.read(TABLE, table("path,labels", *lines))
    assert manifest.label_set.names == ("Bark, dog", "Child speech, kid speaking", "[other]noise")
    assert not capsys.readouterr().err


@pytest.mark.parametrize("header", ["path,labels", "path,labels,annotator"])
def test_one_row_per_label_is_merged(table, header, capsys):
    more = ",a" if "annotator" in header else ""
    lines = [f"{k}.wav,{label}{more}" for k in range(10) for label in (("dog", "x") if k % 2 else ("cat",))]
    manifest = clip_table.read(TABLE, table(header, *lines))
    assert len(manifest.rows) == 10 and not manifest.problems
    assert labels_of(manifest)["1"] == ("dog", "x") and labels_of(manifest)["2"] == ("cat",)
    assert "5 rows" in capsys.readouterr().err


def test_a_row_that_is_repeated_is_listed(table):
    lines = [*(f"{k}.wav,{'dog' if k % 2 else 'cat'}" for k in range(10)), "3.wav,dog"]
    manifest = clip_table.read(TABLE, table("path,labels", *lines))
    assert len(manifest.rows) == 10 and [problem.clip_id for problem in manifest.problems] == ["3"]


@pytest.mark.parametrize("other", ["Dog", "dog  bark"])
def test_labels_that_differ_only_in_case_or_blanks_are_told(table, other, capsys):
    names = ("dog bark", "cat") if " " in other else ("dog", "cat")
    lines = [f"{k}.wav,{[*names, other][k % 3]}" for k in range(15)]
    manifest = read_corpus(TABLE, table("path,labels", *lines))
    assert len(manifest.label_set) == 3
    assert repr(other) in capsys.readouterr().err


@pytest.mark.parametrize("name", ["clips.CSV", "Clips.Csv"])
def test_suffixes_in_any_case(table, name):
    path = table("path,labels", *(f"{k}.wav,{'dog' if k % 2 else 'cat'}" for k in range(10)), name=name)
    assert len(clip_table.read(TABLE, path).rows) == len(clip_table.read(TABLE, path.parent).rows) == 10


def split_table(table, train, held_out):
    names = [("train", name) for name in train] + [("test", name) for name in held_out]
    lines = [f"{split}-{name}-{k}.wav,{name},{split}" for split, name in names for k in range(3)]
    return clip_table.read(TABLE, table("path,labels,split", *lines))


@pytest.mark.parametrize("train", [("dog", "cat"), ("cat",)])
def test_one_class_in_the_eval_split_is_refused(table, train):
    with pytest.raises(UsageError, match="dog"):
        preflight.check_classes(split_table(table, train, ("dog",)), "table")


@pytest.mark.parametrize(
    ("train", "held_out"), [(("dog", "cat", "cow"), ("dog", "cat")), (("dog", "cat"), ("dog", "cat", "cow"))]
)
def test_classes_that_a_split_lacks_are_named(table, train, held_out, capsys):
    preflight.check_classes(split_table(table, train, held_out), "table")
    (line,) = capsys.readouterr().err.splitlines()
    assert "cow" in line and "dog" not in line


@pytest.mark.parametrize(("change", "left"), [({}, set()), ({"noise": {"n": 3}}, {"noise", "other"})])
def test_an_empty_mapping_switches_probes_off(change, left):
    base = {"evaluate": {"probes": {"noise": {"n": 9}, "other": {}}}}
    assert overlay(base, {"evaluate": {"probes": change}})["evaluate"]["probes"].keys() == left


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_a_column_for_each_class(tmp_path, suffix, capsys):
    rows = [
        {
            "mp3_path": f"{k}.wav",
            "note": f"n{k}",
            "dog": k % 2,
            "cat": int(k % 3 == 0),
            "cow": 0,
            "fold": k % 4,
        }
        for k in range(24)
    ]
    for row in rows:
        (tmp_path / row["mp3_path"]).touch()
    path, frame = tmp_path / f"tags{suffix}", pandas.DataFrame(rows)
    if suffix == ".parquet":
        frame.to_parquet(path)
    elif "json" in suffix:
        frame.to_json(path, orient="records", lines=suffix == ".jsonl")
    else:
        frame.to_csv(path, index=False, sep="\t" if suffix == ".tsv" else ",")
    found = detection.detect(tmp_path)
    assert found.layout == f"the table tags{suffix} with a column for each class"
    manifest = read_corpus(Data(**found.data), found.root)
    assert labels_of(manifest) == {
        str(k): tuple(name for name, has in (("dog", k % 2), ("cat", k % 3 == 0)) if has)
        for k in range(24) if k % 2 or k % 3 == 0
    }  # fmt: skip
    assert {one.reason for one in manifest.problems} == {"no class: 0 in all of their columns"}
    assert len(manifest.problems) == 8 and not manifest.split("val")
    said = capsys.readouterr().err
    assert "3 columns of 0 and 1 are the classes: dog, cat, cow; 1 class without a clip: cow" in said


def test_a_table_without_labels_says_what_is_read(tmp_path):
    (tmp_path / "clips.csv").write_text("path,dog\n1.wav,0.5\n")
    with pytest.raises(UsageError, match="a column of 0 and 1 for each class"):
        read_corpus(TABLE, tmp_path)


@pytest.mark.parametrize("made", [False, True])
@pytest.mark.parametrize("name", ["clips.json", "metadata.json"])
def test_tables_in_json_beside_other_json(tmp_path, made, name):
    rows = [{"audio": {"path": f"{k}.wav"}, "label": ["a", "b"][: k % 2 + 1]} for k in range(20)]
    for k in range(20):
        (tmp_path / f"{k}.wav").touch()
    (tmp_path / name).write_text(json.dumps({"data": rows} if made else rows, indent=1))
    (tmp_path / "dataset_info.json").write_text('{"version": 3}')
    found = detection.detect(tmp_path)
    assert found.root == tmp_path / name
    for root in (tmp_path, found.root):
        manifest = read_corpus(Data(**found.data), root)
        assert labels_of(manifest)["1"] == ("a", "b") and len(manifest.rows) == 20 and not manifest.problems


@pytest.mark.parametrize("names", ["ABCDE", ("w", "X", "y", "Z", "ü")])
def test_folds_with_names(table, names, capsys):
    lines = [f"{k}.wav,{'dog' if k // 5 % 2 else 'cat'},{names[k % 5]}" for k in range(20)]
    manifest = clip_table.read(TABLE, table("path,labels,fold", *lines))
    assert not manifest.problems and {row.clip_id: row.fold for row in manifest.rows} == {
        str(k): k % 5 + 1 for k in range(20)
    }
    assert f"folds by name: {names[0]} is 1, {names[1]} is 2" in capsys.readouterr().err


@pytest.mark.parametrize("column", ["fold", "subset", "Set", "Partition"])
@pytest.mark.parametrize("names", [("train", "test"), ("Train", "VAL"), ("train-clean", "dev-clean")])
def test_splits_in_another_column(table, column, names, capsys):
    lines = [f"{k}.wav,{'dog' if k // 2 % 2 else 'cat'},{names[k % 2]}" for k in range(20)]
    manifest = clip_table.read(TABLE, table(f"path,labels,{column}", *lines))
    assert {row.clip_id for row in manifest.split("eval")} == {str(k) for k in range(1, 20, 2)}
    assert f"column {column!r} has the splits" in capsys.readouterr().err
    sizes = table(f"path,labels,{column}", *(line.replace(names[0], "small") for line in lines))
    if column != "fold":  # no splits: something else
        assert len({row.fold for row in clip_table.read(TABLE, sizes).rows}) == 5


@pytest.mark.parametrize("form", ["{}", "fold{}"])
def test_folds_in_the_column_of_splits(table, form, capsys):
    lines = [f"{k}.wav,{'dog' if k // 5 % 2 else 'cat'},{form.format(k % 5 + 1)}" for k in range(20)]
    manifest = clip_table.read(TABLE, table("path,labels,split", *lines))
    assert {row.clip_id: row.fold for row in manifest.rows} == {str(k): k % 5 + 1 for k in range(20)}
    assert "column 'split' has the folds" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_json_that_is_nested_without_end_is_refused(tmp_path, suffix):
    path = tmp_path / f"clips{suffix}"
    path.write_text('{"path": ' + "[" * 100_000)
    with pytest.raises(UsageError, match="nested"):
        table_files.read(path)


@pytest.mark.parametrize("fold", ["9" * 5000, "99999999999", "fold" + "9" * 5000])
def test_folds_that_no_column_can_hold_are_no_numbers(fold):
    assert fold_names.number(fold) is None
    assert fold_names.of_folders([fold, f"{fold}1"]) == {}


def test_several_rows_of_a_file_are_clips_where_their_times_are_given(table, capsys):
    lines = ["1.wav,dog,0,1", "1.wav,cat,1,2.5", "1.wav,dog,3,4", *(f"{k}.wav,cat,0,1" for k in range(2, 12))]
    path = table("path,label,Start,end", *lines)
    found = read_corpus(TABLE, path)
    rows = {row.clip_id: row for row in found.rows}
    assert [(rows[one].labels, rows[one].duration_s) for one in ("1", "1@1", "1@3")] == [
        (("dog",), 1.0), (("cat",), 1.5), (("dog",), 1.0),
    ]  # fmt: skip
    assert len(found.rows) == 13 and len({rows[one].recording for one in ("1", "1@1", "1@3")}) == 1
    assert "the times of clips" in capsys.readouterr().err
    again = [*lines[2:], "3.wav,cat,0,1"]  # a row twice, and UrbanSound8K's times of what files were cut from
    once = read_corpus(TABLE, table("path,label,start,end", *again))
    assert {row.start_s for row in once.rows} == {0.0}


def test_a_column_of_speakers_is_named(table, capsys):
    read_corpus(TABLE, table("path,label,speaker", *(f"{k}.wav,{'ab'[k % 2]},x" for k in range(12))))
    assert "column speaker is not used" in capsys.readouterr().err


def test_times_count_for_all_files_once_one_has_several_clips(table):
    lines = [
        f"long{k}.wav,{'dog' if k % 2 else 'cat'},{start},{start + 1}" for k in range(8) for start in (2, 5)
    ]
    lines += [f"one{k}.wav,{'dog' if k % 2 else 'cat'},8,9.5" for k in range(8)] + ["bad.wav,dog,late,9"]
    manifest = read_corpus(TABLE, table("path,label,onset,offset", *lines))
    times = {row.clip_id: (row.start_s, row.duration_s) for row in manifest.rows}
    assert times["one3@8"] == (8.0, 1.5) and times["long3@5"] == (5.0, 1.0) and len(times) == 24
    (problem,) = manifest.problems
    assert "'late'" in problem.reason


@pytest.mark.parametrize("several", [True, False])
def test_offsets_with_durations_are_the_starts_of_clips(tmp_path, several):
    rows = [
        {"audio_filepath": f"{k}.wav", "offset": offset, "duration": 1.5, "label": "dog" if k % 2 else "cat"}
        for k in range(12)
        for offset in ((0.5, 3.0, 6.0) if several else (4.0,))
    ]
    for row in rows:
        (tmp_path / row["audio_filepath"]).touch()
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    manifest = read_corpus(TABLE, tmp_path / "manifest.jsonl")
    found = {(row.clip_id, row.start_s, row.duration_s) for row in manifest.rows}
    assert not manifest.problems and len(found) == len(rows)
    assert ("3@3", 3.0, 1.5) in found if several else ("3@4", 4.0, 1.5) in found


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("header", ["path,label", "filename,class"])
def test_a_table_of_clips_may_be_called_like_a_label_set(tmp_path, named, header):
    for k in range(12):
        (tmp_path / f"{k}.wav").touch()
    lines = [header, *(f"{k}.wav,{'dog' if k % 2 else 'cat'}" for k in range(12))]
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    manifest = read_corpus(TABLE, tmp_path / "labels.csv" if named else tmp_path)
    assert len(manifest.rows) == 12 and manifest.label_set.names == ("cat", "dog")
    (tmp_path / "label_set.csv").write_text("name\ndog\ncat\n")
    assert read_corpus(TABLE, tmp_path / "labels.csv").label_set.names == ("dog", "cat")
    (tmp_path / "clips.csv").write_text("\n".join(lines[:9]))
    (tmp_path / "label_set.csv").unlink()
    assert len(read_corpus(TABLE, tmp_path).rows) == 8, (
        "clips.csv is the table, labels.csv no label set of it"
    )
