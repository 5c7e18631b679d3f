"""Whether the columns of a shard are what they say: Arrow's readers trust the offsets in a file."""

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ajbench.core.console import counted
from ajbench.core.errors import IntegrityError

if TYPE_CHECKING:
    from ajbench.data.shards import StoreMeta

SPLITS = ("train", "val", "eval")


def need_sound(batch: pa.RecordBatch, codebooks: int) -> None:
    """Refuse a record batch that would crash its readers.

    Args:
        batch: of a shard, whose schema has been checked.
        codebooks: of the codec.

    Raises:
        ValueError: offsets or lengths outside the buffers, text that is not UTF-8, missing values, or codes
            of another width.
    """
    batch.validate(full=True)
    for item, column in zip(batch.schema, batch.columns, strict=True):
        if not item.nullable and column.null_count:
            raise ValueError(f"column {item.name}: {counted(column.null_count, 'missing value')}")
        is_list = pa.types.is_list(item.type) or pa.types.is_fixed_size_list(item.type)
        if is_list and column.flatten().null_count:
            raise ValueError(f"column {item.name}: missing values in lists")
    if (width := batch.schema.field("codes").type.list_size) < 1 or width % codebooks:
        raise ValueError(f"column codes: {width} a clip, not {codebooks} of each frame")
    for name, least in (("start_s", 0.0), ("duration_s", None)):
        values = batch.column(name).drop_null().to_numpy(zero_copy_only=False)
        if not np.isfinite(values).all() or (values < (least or 0.0)).any():
            raise ValueError(f"column {name}: not seconds")
    if wrong := set(pc.unique(batch.column("split")).to_pylist()) - {*SPLITS}:
        raise ValueError(f"column split: {sorted(wrong)[0][:40]!r}")


def plain_batch(path: Path) -> pa.RecordBatch:
    """Map the record batch of a shard into memory; buffers of a compressed one could be of any size.

    It is the one whose message has been looked at: the footer of a file may point to any other.

    Raises:
        ValueError: it is compressed, or the file is damaged.
    """
    file = pa.memory_map(str(path))
    file.seek(8)  # after the magic number a file goes on like a stream
    messages = pa.ipc.MessageReader.open_stream(file)
    schema = pa.ipc.read_schema(messages.read_next_message())
    message = messages.read_next_message()
    if message.type != "record batch":
        raise ValueError(f"a {message.type} in place of a record batch")
    if _has_compression(bytes(message.metadata)):
        raise ValueError("compressed")
    return pa.ipc.read_record_batch(message, schema)


def _has_compression(metadata: bytes) -> bool:
    """Return whether the RecordBatch in an Arrow message (a FlatBuffer) names a compression.

    Of a Message the third field is its header, of a RecordBatch the fourth is the compression.
    """

    def field(table: int, number: int) -> int:
        vtable = table - struct.unpack_from("<i", metadata, table)[0]
        if 4 + 2 * number >= struct.unpack_from("<H", metadata, vtable)[0]:
            return 0
        return int(struct.unpack_from("<H", metadata, vtable + 4 + 2 * number)[0])

    try:
        message = struct.unpack_from("<I", metadata)[0]
        at = message + field(message, 2)
        return bool(field(at + struct.unpack_from("<I", metadata, at)[0], 3))
    except struct.error as error:
        raise ValueError(f"damaged metadata ({error})") from None


def need_fitting(path: Path, batch: pa.RecordBatch, meta: "StoreMeta", clips: int) -> None:
    """Refuse a shard that does not belong to its `store.json`.

    Args:
        path: of the shard, for the message.
        batch: its columns.
        meta: content of `store.json`.
        clips: that it says the shard has.

    Raises:
        IntegrityError: another number of clips, labels outside the label set, or no frames of such clips.
    """
    if batch.num_rows != clips:
        raise IntegrityError(
            f"{path}: {counted(batch.num_rows, 'clip')}, store.json says {clips}; make the store again"
        )
    ids = batch.column("label_ids").flatten().to_numpy()
    if ids.size and (ids.min() < 0 or ids.max() >= len(meta.labels)):
        raise IntegrityError(
            f"{path}: label ids {ids.min()} to {ids.max()}, store.json has {len(meta.labels)} labels; make "
            "the store again"
        )
