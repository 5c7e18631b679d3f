"""Sounds in tars and Parquet shards: each one's own bytes, in any order, and a few at a time."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ajbench.core.errors import MissingError
from ajbench.data import archive
from ajbench.data.audio import AudioError

N = 300


def content_of(row):
    return f"sound {row}".encode() * (row % 7 + 1)


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    path = tmp_path_factory.mktemp("shard") / "a.parquet"
    rows = [{"audio": {"bytes": content_of(k) if k != 5 else None, "path": f"{k}.wav"}} for k in range(N)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=70)
    return str(path)


@pytest.fixture(scope="module")
def tar(tmp_path_factory):
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    with tarfile.open(path, "w") as file:
        for k in range(N):
            info = tarfile.TarInfo(f"{k}.wav")
            info.size = len(content_of(k))
            file.addfile(info, io.BytesIO(content_of(k)))
    return str(path)


@pytest.mark.parametrize("order", ["ascending", "descending", "random"])
def test_rows_of_a_shard_in_any_order(shard, order):
    rows = [k for k in range(N) if k != 5]
    rows = {
        "ascending": rows,
        "descending": rows[::-1][:40],
        "random": np.random.default_rng(0).permutation(rows)[:40],
    }
    for row in rows[order]:
        assert archive.content(f"{shard}::{row}") == content_of(int(row))
    kept = archive._shard(shard).kept
    assert sum(map(len, kept.values())) <= archive.KEPT * archive.BATCH


def test_a_row_far_away_is_read_from_its_row_group_on(shard, monkeypatch):
    opened = archive._Shard(shard)
    restarted = []
    restart = opened.restart
    monkeypatch.setattr(opened, "restart", lambda group: (restarted.append(group), restart(group)))
    for row in (0, 290, 291, 100, 120, 210, 30):
        assert opened.sound(row) == content_of(row)
    # Rows 291 and 120 follow in the group that was being read, the others lie elsewhere.
    assert restarted == [4, 1, 3, 0]
    with pytest.raises(IndexError):
        opened.sound(N)


def test_sounds_of_archives_are_named_by_their_files(shard, tar):
    assert list(archive.sounds(shard)) == [(f"{shard}::{k}", str(k)) for k in range(N)]
    assert list(archive.sounds(tar)) == [(f"{tar}::{k}.wav", str(k)) for k in range(N)]


def test_a_column_of_video_ids_names_sounds_whose_files_do_not(tmp_path):
    paths = ["abcdefghijk_30.flac", "7.flac", None]
    rows = [{"video_id": "abcdefghijk", "audio": {"bytes": b"x", "path": path}} for path in paths]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    names = [name for _, name in archive.sounds(str(tmp_path / "a.parquet"))]
    assert names == ["abcdefghijk_30", "abcdefghijk", "abcdefghijk"]


NAMES = {"number": 7, "bytes": b"a.wav", "list": ["a.wav"], "missing": None}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("ids", [True, False])
def test_names_that_are_no_text_are_none(tmp_path, name, ids):
    sound = {"bytes": b"x"} | ({} if name is None else {"path": name})
    rows = [{"audio": sound} | ({"ytid": f"id {k}"} if ids else {}) for k in range(3)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    expected = [(f"{tmp_path}/a.parquet::{k}", f"id {k}" if ids else "") for k in range(3)]
    assert list(archive.sounds(f"{tmp_path}/a.parquet")) == expected


def test_names_may_be_categories(tmp_path):
    names = pa.array(["a.wav", "b.wav", "a.wav"]).dictionary_encode()
    sounds = pa.StructArray.from_arrays([pa.array([b"x"] * 3), names], ["bytes", "path"])
    pq.write_table(pa.table({"audio": sounds}), tmp_path / "a.parquet")
    assert [name for _, name in archive.sounds(f"{tmp_path}/a.parquet")] == ["a", "b", "a"]


@pytest.mark.parametrize("content", [1 << 40, "x", [1]])
def test_sounds_that_are_no_bytes_are_none(tmp_path, content):
    pq.write_table(pa.table({"audio": [{"bytes": content, "path": "a.wav"}]}), tmp_path / "a.parquet")
    assert list(archive.sounds(f"{tmp_path}/a.parquet")) == []


def test_a_shard_that_claims_too_many_rows_is_refused(tmp_path, monkeypatch):
    pq.write_table(pa.table({"audio": [{"bytes": b"x"}] * 3}), tmp_path / "a.parquet")
    monkeypatch.setattr(archive.parquet, "MAX_ROWS", 2)
    with pytest.raises(MissingError, match="3 rows"):
        list(archive.sounds(f"{tmp_path}/a.parquet"))


def test_other_files_of_an_archive_are_no_sounds(tmp_path):
    pq.write_table(pa.table({"audio": ["a.wav"]}), tmp_path / "a.parquet")
    assert list(archive.sounds(str(tmp_path / "a.parquet"))) == []
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for name in ("a/1.json", "a/.1.wav", "a/1.FLAC"):
            file.addfile(tarfile.TarInfo(name))
    assert list(archive.sounds(f"{tmp_path}/a.tar")) == [(f"{tmp_path}/a.tar::a/1.FLAC", "1")]
    for name in ("b.tar", "b.parquet"):
        (tmp_path / name).write_bytes(b"cut" * 500)
        with pytest.raises(MissingError, match=name):
            list(archive.sounds(str(tmp_path / name)))


def test_members_of_a_tar(tar):
    for k in (7, 0, N - 1):
        path = f"{tar}::{k}.wav"
        assert archive.content(path) == content_of(k)
        assert archive.size(path) == len(content_of(k))
        with archive.local(path) as file:
            assert file.endswith(".wav")
            assert Path(file).read_bytes() == content_of(k)
    assert archive.size(f"{tar}::none.wav") is None


@pytest.mark.parametrize("name", ["a.wav", "std::vector/a.wav", "a::b.wav"])
def test_plain_files_are_themselves(tmp_path, name):
    with archive.local(str(tmp_path / name)) as file:
        assert file == str(tmp_path / name) == archive.container(file)
    assert not archive.is_member(file)


@pytest.mark.parametrize("member", ["300", "5", "x", "-1"])
def test_rows_that_are_not_there(shard, member):
    with pytest.raises(AudioError, match=r"a\.parquet"):
        archive.content(f"{shard}::{member}")


def test_a_tar_that_is_none(tmp_path, tar):
    (tmp_path / "b.tar").write_bytes(b"not a tar" * 100)
    for path in (f"{tmp_path}/b.tar::1.wav", f"{tar}::none.wav", f"{tmp_path}/none.tar::1.wav"):
        with pytest.raises(AudioError, match="tar"):
            archive.content(path)


def test_a_sparse_file_in_a_tar_which_may_say_any_size_is_none(tmp_path):
    head = tarfile.TarInfo("1.wav")
    head.size, head.type = 512, tarfile.GNUTYPE_SPARSE
    block = bytearray(head.tobuf(tarfile.GNU_FORMAT))
    block[386:410] = b"%011o\0%011o\0" % (0, 512)  # its one piece
    block[483:495] = b"%011o\0" % (8**11 - 1)  # 8 GB
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    (tmp_path / "a.tar").write_bytes(block + bytes(512) + bytes(1024))
    with tarfile.open(tmp_path / "a.tar") as file:
        assert [(one.isfile(), one.size) for one in file] == [(True, 8**11 - 1)]
    assert archive.members(str(tmp_path / "a.tar")) == {}


def test_long_sounds_of_a_shard_are_read_one_at_a_time(tmp_path, monkeypatch):
    """A sound that is stored once for a thousand rows must not be in memory sixteen times."""
    path, sound = tmp_path / "a.parquet", bytes(1 << 20)
    pq.write_table(pa.table({"audio": [{"bytes": sound, "path": "a.wav"}] * 64}), path)
    assert archive._Shard(str(path)).at_once == archive.BATCH
    monkeypatch.setattr(archive, "BATCH_BYTES", 3 << 20)
    shard = archive._Shard(str(path))
    assert shard.at_once == 2 and shard.sound(9) == shard.sound(63) == sound
