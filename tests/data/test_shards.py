"""The file format: shards, `store.json`, and records that are refused."""

import contextlib
import resource
import signal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ajbench.core.errors import IntegrityError, MissingError
from ajbench.data import audio, shards

from .conftest import FRAMES, SAMPLES, build, codes_of, meta, record


def test_pandas_and_arrow_open_shards_as_they_are(folder):
    frame = pd.read_feather(folder / "part-00000.arrow")
    assert frame["clip_id"].tolist() == [f"clip-{i}" for i in range(4)]
    np.testing.assert_array_equal(np.reshape(frame["codes"][2], (8, FRAMES)), codes_of(2))
    table = pa.ipc.open_file(pa.memory_map(str(folder / "part-00002.arrow"))).read_all()
    assert table.schema.field("codes").type == pa.list_(pa.uint16(), 8 * FRAMES)
    assert audio.flac_decode(table["audio"][0].as_py()).shape == (SAMPLES,)
    assert table["labels"].to_pylist() == [record(i)["labels"] for i in range(5, 8)]


def test_every_flipped_bit_of_store_json_is_found_or_has_no_effect(folder, rng):
    path = folder / "store.json"
    whole = path.read_bytes()
    meaning = shards.read_meta(folder)
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        # Only `1e-05` as `1E-05` and the like can pass.
        with contextlib.suppress(IntegrityError):
            assert shards.read_meta(folder) == meaning


def test_equal_records_make_equal_bytes(tmp_path):
    first, second = (
        {path.name: path.read_bytes() for path in build(tmp_path / name).iterdir()} for name in "ab"
    )
    assert first.keys() == {"part-00000.arrow", "part-00001.arrow", "part-00002.arrow", "store.json"}
    assert first == second


def test_invalid_records_are_refused(tmp_path):
    for records, reason in [
        ([], "at least one"),
        ([record(0, colour="red")], "unknown columns: colour"),
        ([record(0, clip_id=None)], "clip_id has 1 missing"),
        ([record(0, codes=codes_of(0).astype(np.int64))], "int64"),
        ([record(0, codes=codes_of(0)[:7])], "expected uint16"),
        ([record(0), record(1, codes=codes_of(1)[:, :20])], "same shape"),
    ]:
        with pytest.raises(ValueError, match=reason):
            shards.write_shard(tmp_path, 0, records)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_partial_file(tmp_path):
    shards.write_shard(tmp_path, 0, [record(0)])
    before = (tmp_path / "part-00000.arrow").read_bytes()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, old[1]))
        for index in (0, 1):
            with pytest.raises(MissingError, match=r"part-0000\d\.arrow"):
                shards.write_shard(tmp_path, index, [record(i) for i in range(5)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["part-00000.arrow"]
    assert (tmp_path / "part-00000.arrow").read_bytes() == before


def test_a_store_without_shards_is_refused(tmp_path):
    with pytest.raises(MissingError, match=str(tmp_path)):
        shards.finish(tmp_path, meta())


def test_ids_hash_does_not_depend_on_the_order():
    assert shards.ids_hash(["a", "b"]) == shards.ids_hash(["b", "a"]) != shards.ids_hash(["ab"])
