import os

import numpy as np
import pytest

from ajbench.core import documents


def grown(levels, width):
    lines = ["- &a0 [x]"] + [f"- &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (grown(9, 9), "values"),
        ("[" * 60 + "]" * 60, "deep"),
        ("[" * 5000, "deep"),
        ("&a {b: *a}", "own anchor"),
        ("&a\nb: {<<: *a}", "own anchor"),
        ("!!python/object/apply:os.system ['true']", "tag"),
        ("a: " + "9" * 5000, "digits"),
        ("!!timestamp x", "group"),
        ("!!int x", "invalid literal"),
        ("{[]: 1}", "unhashable"),
        ("#" + "x" * documents.YAML_BYTES, "at most"),
        ("a: \0", "special characters"),
    ],
)
def test_yaml_that_grows_or_makes_objects_is_refused(text, what):
    with pytest.raises(ValueError, match=what) as found:
        documents.parse_yaml(text)
    assert "\n" not in str(found.value)


def test_aliases_of_a_few_values_are_read():
    assert documents.parse_yaml("a: &a [1, 2]\nb: [*a, *a]\nc: {<<: {d: *a}}") == {
        "a": [1, 2],
        "b": [[1, 2], [1, 2]],
        "c": {"d": [1, 2]},
    }


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "{", b"\xff"])
def test_json_that_is_nested_or_damaged_is_refused(text):
    with pytest.raises(ValueError):
        documents.parse_json(text)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop", "long", "big"])
def test_only_regular_files_of_bounded_size_are_read(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind in ("device", "loop"):
        path.symlink_to("/dev/zero" if kind == "device" else "x")
    elif kind == "long":
        path = tmp_path / ("x" * 300)
    else:
        path.write_text("{}" * 10)
    with pytest.raises(FileNotFoundError if kind == "loop" else ValueError):
        documents.read_bytes(path, 10)


def test_arrays_are_read_and_anything_else_is_refused(tmp_path):
    path = tmp_path / "some.npz"
    np.savez_compressed(path, a=np.arange(3), b=np.array("text"))
    found = documents.read_arrays(path)
    assert found["a"].tolist() == [0, 1, 2] and str(found["b"]) == "text"
    np.savez(path, a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        documents.read_arrays(path)
    with path.open("wb") as file:
        np.save(file, np.arange(3))
    for content in (path.read_bytes(), b"", b"PK", b"text"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"."):
            documents.read_arrays(path)
    with pytest.raises(FileNotFoundError):
        documents.read_arrays(tmp_path / "missing.npz")


def test_arrays_that_are_larger_than_the_limit_are_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "NPZ_BYTES", 1 << 20)
    path = tmp_path / "a.npz"
    np.savez_compressed(path, a=np.zeros(1 << 17, np.uint8), b=np.zeros(1 << 17, np.uint8))
    assert documents.read_arrays(path)["b"].size == 1 << 17
    np.savez_compressed(path, a=np.zeros(1 << 23, np.uint8), b=np.zeros(1 << 17, np.uint8))
    assert path.stat().st_size < 1 << 16
    monkeypatch.setattr(np, "load", None)
    with pytest.raises(ValueError, match="8519936 bytes once unpacked; at most 1048576"):
        documents.read_arrays(path)
