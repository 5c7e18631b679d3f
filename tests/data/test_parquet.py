"""Small Parquet files whose rows would take gigabytes: refused, or read a few rows at a time."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ajbench.captions import caption_source, caption_table, score_file
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.files import checksum
from ajbench.data import archive, parquet
from ajbench.data.corpora import hub, table_files
from ajbench.data.manifest import SCHEMA, Manifest

LABELS = {"clip_id": "a", "path": "a.wav", "labels": "rain"}


def equal(path, rows, /, **cells):
    """Write a file of equal rows: a few hundred bytes, however many there are."""
    pq.write_table(pa.table({name: pa.repeat(cell, rows) for name, cell in cells.items()}), path)
    return path


def peak(call):
    """Return the most bytes that Arrow takes during a call."""
    kept, counted = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(counted)
    try:
        call()
    finally:
        pa.set_memory_pool(kept)
    return counted.max_memory()


@pytest.fixture
def small(monkeypatch):
    """Limits that files of a test exceed."""
    monkeypatch.setattr(parquet, "MAX_ROWS", 1000)
    monkeypatch.setattr(parquet, "MAX_CELLS", 5000)
    monkeypatch.setattr(parquet, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr(parquet, "PIECE", 1 << 18)


def test_a_corpus_of_ten_million_rows_is_below_the_limits_and_more_are_refused_unread(tmp_path):
    rows = 10_000_001
    file = equal(tmp_path / "t.parquet", rows, label="rain")
    before = pa.total_allocated_bytes()
    with pytest.raises(ValueError, match=f"{rows} rows; at most 10000000"):
        parquet.read(file)
    assert pa.total_allocated_bytes() - before < 1 << 20
    assert parquet.MAX_ROWS > 4 * 2_100_000 and parquet.MAX_CELLS > 40 * 2_100_000


def test_rows_cells_and_bytes_are_bounded_for_the_columns_that_are_read(tmp_path, small):
    def refused(why, rows, **cells):
        with pytest.raises(ValueError, match=why):
            parquet.read(equal(tmp_path / "t.parquet", rows, **cells))

    refused("1001 rows; at most 1000", 1001, a=1)
    refused("6000 cells; at most 5000", 1000, **{name: 1 for name in "abcdef"})
    refused("cells", 100, a=[1] * 100)
    refused("more than 0 GB in memory", 1000, a="x" * 2000)
    file = equal(tmp_path / "t.parquet", 1000, **{name: {"b": 1, "c": "x"} for name in "abcdef"})
    assert parquet.read(file, ["a.b", "d"]).num_rows == 1000


def test_a_long_text_that_is_stored_once_is_read_a_few_rows_at_a_time(tmp_path, small):
    pq.write_table(pa.table({"a": pa.repeat("x" * 200_000, 1000), "b": range(1000)}), tmp_path / "t.parquet")
    file = pq.ParquetFile(tmp_path / "t.parquet")
    found = [parquet.rows_at_once(file, columns, 100, 1 << 20) for columns in (None, ["a"], ["b"])]
    assert found == [5, 5, 100]

    def read():
        with pytest.raises(ValueError, match="in memory"):
            parquet.read(tmp_path / "t.parquet")

    assert peak(read) < 10 << 20, "of 200 MB"


def test_what_is_read_is_what_pyarrow_reads(tmp_path):
    rows = [{"a": f"{n}", "b": [n, n], "c": {"d": n}} for n in range(100)]
    table = pa.Table.from_pylist(rows)
    table = table.set_column(0, pa.field("a", pa.string(), nullable=False), table["a"])
    table = table.replace_schema_metadata({"k": "v"})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=30)
    pq.write_table(table.slice(0, 0), tmp_path / "none.parquet")
    for name, expected in (("t", table), ("none", table.slice(0, 0))):
        found = parquet.read(tmp_path / f"{name}.parquet")
        assert found.equals(expected) and found.schema.metadata[b"k"] == b"v"
        assert not found.schema.field("a").nullable


def test_texts_that_repeat_are_measured_before_they_are_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "PIECE", 1 << 16)
    texts = [None if n % 7 == 0 else "x" * (n % 50) for n in range(20_000)]
    plain = pa.table({"a": texts, "b": range(20_000)})
    category = plain.set_column(0, "a", plain["a"].dictionary_encode())
    for number, (table, how) in enumerate(((plain, {}), (category, {}), (plain, {"use_dictionary": False}))):
        path = tmp_path / f"{number}.parquet"
        pq.write_table(table, path, row_group_size=7000, **how)
        found = list(parquet.batches(path))
        assert pa.Table.from_batches(found).equals(plain)
        assert max(batch.num_rows for batch in found) < 7000, "some PIECE bytes of texts at a time"
    pq.write_table(plain, path, use_dictionary=False, column_encoding={"a": "DELTA_BYTE_ARRAY"})
    assert parquet.read(path).equals(plain)


def test_many_rows_of_an_honest_table_are_few_batches(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [f"a dog barks, clip {n}" for n in range(200_000)]}), path)
    assert len(list(parquet.batches(path))) < 8


def test_tables_of_clips_say_the_limit(tmp_path, small):
    path = equal(tmp_path / "clips.parquet", 1001, **LABELS)
    with pytest.raises(UsageError, match=r"clips\.parquet: 1001 rows; at most 1000"):
        table_files.read(path)
    with pytest.raises(UsageError, match=r"clips\.parquet: 1001 rows; at most 1000"):
        list(caption_source.of_table(path)())
    sounds = equal(tmp_path / "sounds.parquet", 1001, label=1, audio={"bytes": b"x", "path": "a.wav"})
    with pytest.raises(UsageError, match=r"sounds\.parquet: 1001 rows; at most 1000"):
        hub._rows(sounds, "sounds")
    with pytest.raises(MissingError, match=r"sounds\.parquet: .*1001 rows; at most 1000"):
        list(archive.sounds(str(sounds)))


def test_tables_that_ajbench_writes_are_bounded_where_they_are_read(tmp_path, small):
    row = {item.name: None for item in SCHEMA} | {"clip_id": "a", "labels": [], "more_captions": []}
    pq.write_table(pa.Table.from_pylist([row] * 1001, SCHEMA), tmp_path / "manifest.parquet")
    with pytest.raises(IntegrityError, match=r"manifest\.parquet: .*1001 rows; at most 1000"):
        Manifest.read(tmp_path / "manifest.parquet")
    scores = equal(tmp_path / "scores.parquet", 1001, clip_id="a", scorer="s", comparison="c", raw=0.1)
    with pytest.raises(IntegrityError, match=r"scores\.parquet: .*1001 rows; at most 1000"):
        score_file.read(scores, ["a"], "s", "c")
    chunk = equal(tmp_path / "part-00000.parquet", 1001, clip_id="a", kind="audio", text="x", backend="b")
    parts = [{"file": chunk.name, "rows": 1001, "xxh3": checksum(chunk)}]
    about = {"version": 1, "parts": parts, "fingerprint": "f", "counts": {"rows": {"audio": 1001}}}
    (tmp_path / caption_table.INFO).write_text(json.dumps(about))
    with pytest.raises(IntegrityError, match=r"part-00000\.parquet: .*1001 rows; at most 1000"):
        caption_table.texts(tmp_path, "audio")
