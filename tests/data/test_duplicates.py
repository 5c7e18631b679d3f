"""Byte-level duplicates: which files are read, and what counts."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from ajbench.data import duplicates
from ajbench.data.manifest import Row

END = b"e" * duplicates.ENDS_BYTES


@pytest.fixture
def read(monkeypatch):
    """The names of the files that were read whole."""
    names, checksum = [], duplicates.files.checksum
    monkeypatch.setattr(duplicates.files, "checksum", lambda path: names.append(path.name) or checksum(path))
    return names


def test_whole_files_are_read_only_where_sizes_and_ends_are_alike(tmp_path, read):
    contents = {
        "a": END + b"middle" + END,
        "copy": END + b"middle" + END,
        "other middle": END + b"sounds" + END,
        "other end": END + b"middle" + END[:-1] + b"x",
        "longer": END + b"middle!" + END,
        "short": b"x",
        "short too": b"x",
        "short other": b"y",
    }
    rows = []
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        rows.append(Row(name, str(tmp_path / name)))
    rows.append(Row("rendered", "mini:0:1"))
    with ThreadPoolExecutor(2) as pool:
        found = duplicates.duplicates(rows, pool)
    assert found == {1: 0, 6: 5}
    assert sorted(read) == ["a", "copy", "other middle", "short", "short too"]
