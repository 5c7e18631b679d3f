"""Shards that a stranger wrote: what would crash Arrow's readers, or allocate without end, is refused."""

import json

import numpy as np
import pyarrow as pa
import pytest

from ajbench.core.errors import IntegrityError
from ajbench.core.files import checksum
from ajbench.data import shards
from ajbench.data.store import ClipStore

FILE = "part-00000.arrow"


def written(folder, columns, compression=None):
    """Write the first shard of a store again with other columns, and seal it."""
    batch = pa.ipc.open_file(str(folder / FILE)).get_batch(0)
    for name, column in columns.items():
        place = batch.schema.get_field_index(name)
        batch = batch.set_column(place, batch.schema.field(name), column)
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with (
        pa.OSFile(str(folder / FILE), "wb") as file,
        pa.ipc.new_file(file, batch.schema, options=options) as out,
    ):
        out.write_batch(batch)
    seal(folder, {})


def seal(folder, changes):
    """Write `store.json` with changes and the checksums of what is there."""
    tree = json.loads((folder / "store.json").read_text()) | changes
    tree.pop("xxh3")
    for entry in tree["shards"]:
        entry["xxh3"] = checksum(folder / entry["file"])
    (folder / "store.json").write_text(json.dumps(tree | {"xxh3": shards._digest_of(tree)}))


def offsets(kind, values, data, numbers=np.int32):
    """Return a column whose offsets are changed after Arrow has seen it: it refuses to make such ones."""
    ends = np.arange(len(values)).astype(numbers)
    made = pa.Array.from_buffers(kind, len(values) - 1, [None, pa.py_buffer(ends), pa.py_buffer(data)])
    ends[:] = values
    return made


def lists(values):
    ends = np.zeros(len(values), np.int32)
    inside = [pa.array([0, 1], pa.int32())]
    made = pa.Array.from_buffers(
        pa.list_(pa.int32()), len(values) - 1, [None, pa.py_buffer(ends)], children=inside
    )
    ends[:] = values
    return made


CASES = {
    "offsets beyond the text": {"clip_id": offsets(pa.string(), [0, 1, 2, 3, 2**30], b"abcd")},
    "negative offsets": {"clip_id": offsets(pa.string(), [0, -5, 2, 3, 4], b"abcd")},
    "not UTF-8": {"caption": offsets(pa.string(), [0, 1, 2, 3, 4], b"\xff\xfe\xfd\xfc")},
    "offsets beyond the sound": {"audio": offsets(pa.large_binary(), [0, 1, 2, 3, 2**40], b"abcd", np.int64)},
    "lists beyond their values": {"label_ids": lists([0, 1, 2, 2, 2**20])},
    "labels that there are not": {"label_ids": pa.array([[0], [1], [2**30], [0]], pa.list_(pa.int32()))},
    "negative labels": {"label_ids": pa.array([[0], [-1], [0], [0]], pa.list_(pa.int32()))},
    "missing labels": {"label_ids": pa.array([[0], [None], [0], [0]], pa.list_(pa.int32()))},
    "no ids": {"clip_id": pa.array(["a", None, "b", "c"])},
    "starts that are no number": {"start_s": pa.array([0.0, np.nan, 0.0, 0.0])},
    "negative durations": {"duration_s": pa.array([1.0, -1.0, None, 1.0])},
    "another split": {"split": pa.array(["train", "tst", "val", "eval"])},
}


@pytest.mark.parametrize("columns", CASES.values(), ids=CASES)
def test_columns_that_are_not_what_they_say_are_refused(folder, columns):
    written(folder, columns)
    with pytest.raises(IntegrityError, match=FILE):
        ClipStore.open(folder)


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_compressed_shards_are_refused_unread(folder, compression):
    written(folder, {}, compression)
    with pytest.raises(IntegrityError, match="compressed"):
        shards.map_shard(folder / FILE)


def test_the_batch_that_is_read_is_the_one_that_has_been_checked(folder):
    """A footer that points to a compressed batch elsewhere in the file changes nothing."""
    path = folder / FILE
    plain = path.read_bytes()
    plain += bytes(-len(plain) % 64)
    written(folder, {}, "zstd")
    packed = path.read_bytes()
    # The stream of the plain file, then the whole compressed one, whose footer counts from the beginning.
    at = len(packed) - 10 - int.from_bytes(packed[-10:-6], "little")
    (block,) = [n for n in range(at, len(packed) - 8) if packed[n : n + 8] == _first_batch(packed)]
    moved = int.from_bytes(packed[block : block + 8], "little") + len(plain)
    path.write_bytes(plain + packed[:block] + moved.to_bytes(8, "little") + packed[block + 8 :])
    theirs = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    assert theirs.equals(shards.map_shard(path))
    assert shards.map_shard(path).get_total_buffer_size() <= len(plain)
    before = pa.total_allocated_bytes()
    kept = shards.map_shard(path)
    assert pa.total_allocated_bytes() - before < 1000 < kept.nbytes


def _first_batch(content):
    """Return where the first record batch of an Arrow file is, as its footer writes it."""
    with pa.BufferReader(content) as file:
        file.seek(8)
        messages = pa.ipc.MessageReader.open_stream(file)
        messages.read_next_message()
        return file.tell().to_bytes(8, "little")


def test_a_shard_written_again_unchanged_is_read(folder):
    written(folder, {})
    assert len(ClipStore.open(folder)) == 8


@pytest.mark.parametrize(
    "changes",
    [
        {"clip_samples": -1},
        {"clip_samples": 2**60},
        {"hop": 0},
        {"labels": []},
        {"extra": {"a": [[[[]]]]}, "shards": [{"file": "../x", "clips": 1, "xxh3": ""}]},
    ],
)
def test_numbers_and_names_of_store_json_are_bounded(folder, changes):
    tree = json.loads((folder / "store.json").read_text()) | changes
    tree.pop("xxh3")
    (folder / "store.json").write_text(json.dumps(tree | {"xxh3": shards._digest_of(tree)}))
    with pytest.raises(IntegrityError):
        ClipStore.open(folder)


def test_store_json_that_is_nested_without_end_is_damaged(folder):
    (folder / "store.json").write_text("[" * 100_000)
    with pytest.raises(IntegrityError, match="damaged"):
        ClipStore.open(folder)
