"""Tables in JSON: every form that pandas and `datasets` write, and what is no table."""

import json

import pandas
import pytest

from ajbench.core.errors import MissingError, UsageError
from ajbench.data.corpora import json_tables

ROWS = [{"path": f"{k}.wav", "label": "ab"[k % 2]} for k in range(3)]
FRAME = pandas.DataFrame(ROWS)
FORMS = {
    "array": json.dumps(ROWS),
    "indented": json.dumps(ROWS, indent=2),
    "lines": "\n".join(map(json.dumps, ROWS)),
    **{orient: FRAME.to_json(orient=orient) for orient in ("records", "columns", "index", "split", "table")},
    "columns of lists": json.dumps(FRAME.to_dict("list")),
    "one list": json.dumps({"info": {"version": 1}, "data": ROWS}),
}


def has_files(names):
    return "path" in names


def read(tmp_path, text):
    path = tmp_path / "clips.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return json_tables.read(path, has_files)


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_a_table(tmp_path, form):
    found, problems = read(tmp_path, FORMS[form])
    assert [n for n, _ in found] == [1, 2, 3] and not problems
    assert [{name: row[name] for name in ("path", "label")} for _, row in found] == ROWS


def test_rows_by_name_and_labels_by_file(tmp_path):
    by_name, _ = read(tmp_path, json.dumps({"bell_01": {"pitch": 3}, "bell_02": {"pitch": 4}}))
    assert [row for _, row in by_name] == [
        {"path": "bell_01", "pitch": 3}, {"path": "bell_02", "pitch": 4}
    ]  # fmt: skip
    by_file, _ = read(tmp_path, json.dumps({"a.wav": "dog", "b.FLAC": ["dog", "cat"]}))
    assert [row for _, row in by_file] == [
        {"path": "a.wav", "labels": "dog"}, {"path": "b.FLAC", "labels": ["dog", "cat"]}
    ]  # fmt: skip


def test_rows_that_are_not_utf8_are_listed(tmp_path):
    text = json.dumps(ROWS).encode().replace(b"1.wav", b"caf\xe9.wav")
    found, problems = read(tmp_path, text)
    assert [n for n, _ in found] == [1, 3] and [problem.line for problem in problems] == [2]


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "{}", "3", '"a"', '["a.wav"]', '{"version": 1}', "[" * 99_999),
        '{"columns": ["path", "label"], "data": 5}',
        '{"columns": ["path", "label"], "data": null}',
        '{"columns": 5, "data": [["a.wav", "x"]]}',
        '{"columns": [["path"], "label"], "data": [["a.wav", "x"]]}',
        '{"columns": [1, "label"], "data": [["a.wav", "x"]]}',
    ],
)
def test_what_is_no_table(tmp_path, text):
    with pytest.raises(UsageError, match=r"clips\.json"):
        read(tmp_path, text)


def test_a_file_that_is_missing(tmp_path):
    for name in ("none.json", "none.ndjson"):
        with pytest.raises(MissingError, match="none"):
            json_tables.read(tmp_path / name, has_files)
