"""Sealed JSON: every flipped bit is found that changes a value, and files without a seal are read."""

import json

import pytest
from fakes import flip_in

from ajbench.core.errors import IntegrityError
from ajbench.core.sealed_json import read_sealed, sealed, write_sealed

TREE = {"max_tokens": 16, "ids": ["a", "é"], "share": 0.1, "by_number": {2: 1, 10: None}}
READ = TREE | {"by_number": {"2": 1, "10": None}}


@pytest.fixture
def path(tmp_path):
    write_sealed(tmp_path / "note.json", TREE)
    return tmp_path / "note.json"


def test_a_file_reads_as_it_was_written(path):
    assert read_sealed(path, "remedy", keys=("ids",)) == READ
    with pytest.raises(FileNotFoundError):
        read_sealed(path.with_name("none"), "remedy")


def test_no_flipped_bit_changes_a_value(path):
    content = path.read_bytes()
    for place in range(8 * len(content)):
        data = bytearray(content)
        data[place // 8] ^= 1 << place % 8
        path.write_bytes(data)
        try:
            found = read_sealed(path, "remedy")
        except IntegrityError as error:
            assert str(path) in str(error) and str(error).endswith("; remedy") and "\n" not in str(error)
        else:  # the name of the seal has changed, or a blank
            assert READ.items() <= found.items(), data


def test_a_file_of_an_earlier_version_has_no_seal(path):
    path.write_text(json.dumps(TREE))
    assert read_sealed(path, "remedy") == READ


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "3", '{"seal": 1}', "[" * 9000, b"\xff", json.dumps(sealed({"other": 1}))]
)
def test_anything_else_is_damaged(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(IntegrityError, match=r"note\.json: damaged \(.*\); remedy"):
        read_sealed(path, "remedy", keys=("ids",))


def test_a_digit_that_becomes_another_is_found(path):
    flip_in(path, '"max_tokens": 16')
    assert json.loads(path.read_text())["max_tokens"] == 17
    with pytest.raises(IntegrityError, match="checksum mismatch"):
        read_sealed(path, "remedy")
