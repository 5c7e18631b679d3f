"""The file format of clip stores, and how it is written.

A store is `part-00000.arrow`, `part-00001.arrow`, … (one uncompressed record batch each), `quarantine.csv`
(which clips were rejected, and why) and, written last, `store.json` with a checksum of every shard. While a
job is filling the store, the folder `.claims/` holds its locks and notes (see `ajbench.data.shard_job`).
`ajbench.data.store` reads stores.
"""

import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import xxhash
from pydantic import BaseModel, ConfigDict, Field

from ajbench.core.documents import read_json
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.files import atomic_write, checksum, need_regular
from ajbench.core.sealed_json import read_sealed
from ajbench.data import audio, manifest
from ajbench.data.shard_check import need_sound, plain_batch

VERSION = 2
META_BYTES = 1 << 26  # of store.json
SHARD_CLIPS = 4096
CODEBOOKS, ENTRIES = 8, 1024  # codes [8, T], each below 1024
CLAIMS = ".claims"
SUM = "xxh3"  # of a shard, in its note
QUARANTINE_COLUMNS = ("clip_id", "path", "line", "reason", "sha256")
LATER = "subset"  # the column that older stores lack
_REQUIRED = ("clip_id", "path", "start_s", "labels", "label_ids", "split", "source")
VIDEO_TOKENS = "video_tokens"
OF_VIDEO = "video: "  # starts the reasons in quarantine.csv of clips that are kept, without their video
_SHARD = re.compile(r"part-\d{5}\.arrow")

# Every column of a shard except `codes`, a fixed_size_list<uint16>[8·T] whose width follows the clip length,
# and, in stores with video, `video_tokens`, a fixed_size_list<float16>[windows·d], null where it is unusable.
SCHEMA = pa.schema(
    [
        *(item.with_nullable(item.name not in _REQUIRED) for item in manifest.SCHEMA),
        pa.field("label_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("seed", pa.int64()),
        pa.field("strength", pa.float64()),
        pa.field("guidance", pa.float64()),
        pa.field("steps", pa.int32()),
        pa.field("generator", pa.string()),
        pa.field("fidelity", pa.float64()),  # see `ajbench.generation.fidelity`
        # 16-bit FLAC at 16 kHz; null if the clip is read from `path` at `start_s`. Offsets have 64 bits, as
        # 4,096 long clips exceed 2 GB.
        pa.field("audio", pa.large_binary()),
    ]
)


class ShardEntry(BaseModel):
    """One shard, as listed in `store.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(pattern=rf"^{_SHARD.pattern}$")
    clips: int = Field(ge=0, le=10**7)
    xxh3: str


class StoreMeta(BaseModel):
    """The content of `store.json`, without the checksum of the file itself.

    `counts` gives, for each split, how many clips were expected, found, decoded and kept. `train_ids_hash` is
    of the train split; for synthetic clips, of that of the real store that they were made for, and
    `eval_ids_hash` of its eval split, which their generator was compared with (the leak rule). In stores with
    video, `extra.video` has the encoder, the hash of its weights, the windows and width of a clip's tokens,
    and, by split, how many kept clips have a usable, a missing and an undecodable video.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = VERSION
    codec: str
    codec_hash: str
    sample_rate: int = Field(audio.SAMPLE_RATE, ge=1, le=10**6)
    hop: int = Field(audio.HOP, ge=1, le=10**5)
    clip_samples: int = Field(ge=1, le=3600 * audio.SAMPLE_RATE)
    labels: list[str]
    mids: list[str] | None = None
    counts: dict[str, dict[str, int]] = {}
    whitening: dict[str, list[float] | list[list[float]]] | None = None
    fingerprint: str
    shards: list[ShardEntry] = []
    source: Literal["real", "synthetic"] = "real"
    train_ids_hash: str | None = None
    eval_ids_hash: str | None = None
    extra: dict[str, Any] = {}


def same_codec(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Return whether two codecs, name and hash of the weights, are the same; files may have moved."""
    files = one[0].endswith(".safetensors") and other[0].endswith(".safetensors")
    return one[1] == other[1] and (files or one[0] == other[0])


def shard_path(folder: Path, index: int) -> Path:
    """Return the path of shard `index`."""
    return folder / f"part-{index:05d}.arrow"


def write_shard(folder: Path, index: int, records: Sequence[Mapping[str, Any]], video_width: int = 0) -> Path:
    """Write shard `index` whole or not at all.

    Args:
        folder: of the store.
        index: number of the shard.
        records: one mapping per clip from column names to values; `codes` is uint16 [8, T], `audio` is FLAC
            or None, `video_tokens` is float [windows, d] or None. Missing columns become null, except
            `start_s` (0) and `source` ("real").
        video_width: windows · d of the video tokens; 0: the store has none.

    Raises:
        ValueError: a column is unknown, a value is missing or of the wrong type, or codes differ in shape.
        MissingError: no space is left; no partial file remains.
    """
    batch = _batch(records, video_width)
    path = shard_path(folder, index)
    # The name contains the writer: on a file system without locks there may be two.
    partial = path.with_name(f"{path.stem}.{socket.gethostname()}.{os.getpid()}.arrow.tmp")
    try:
        with partial.open("wb") as file:
            with pa.ipc.new_file(file, batch.schema) as writer:
                writer.write_batch(batch)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        entry = os.open(folder, os.O_RDONLY)
        os.fsync(entry)
        os.close(entry)
    except OSError as error:
        partial.unlink(missing_ok=True)
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise MissingError(
            f"{path}: cannot write {batch.nbytes / 2**20:.1f} MB ({reason}); make space and run again"
        ) from None
    return path


def ids_hash(clip_ids: Iterable[str]) -> str:
    """Return a hash of a set of clip ids, independent of their order: the clips something was fitted on."""
    return hashlib.sha256(json.dumps(sorted(clip_ids), ensure_ascii=False).encode()).hexdigest()[:16]


def assemble(folder: Path, meta: StoreMeta) -> StoreMeta:
    """Return `meta` with the shards found in `folder`, with their clip counts and checksums.

    Raises:
        MissingError: there is no shard.
        IntegrityError: a file is not a shard, or not as it was written.
    """
    sums = {path: checksum(path) for path in written(folder)}
    for note in sorted((folder / CLAIMS).glob("part-*.json")):
        path = folder / f"{note.stem}.arrow"
        noted = read_note(note).get(SUM)
        if noted is not None and sums.get(path) != noted:
            note.unlink()  # without it, the shard counts as not yet written
            state = "damaged" if path in sums else "gone"
            raise IntegrityError(
                f"{path}: {state} since it was written; run the same command again, which makes it anew"
            )
    entries = [
        ShardEntry(file=path.name, clips=map_shard(path).num_rows, xxh3=found) for path, found in sums.items()
    ]
    if not entries:
        raise MissingError(f"{folder}: no shard was written; run the stage that makes the store again")
    return meta.model_copy(update={"shards": entries})


def finish(folder: Path, meta: StoreMeta) -> StoreMeta:
    """Close a store: list the shards (unless `assemble` did), write `store.json`, remove locks and notes."""
    whole = meta if meta.shards else assemble(folder, meta)
    tree = whole.model_dump(mode="json")
    text = json.dumps({**tree, "xxh3": _digest_of(tree)}, indent=1, ensure_ascii=False)
    atomic_write(folder / "store.json", text)
    clear(folder)
    return whole


def read_meta(path: Path) -> StoreMeta:
    """Read `store.json` in folder `path`.

    Raises:
        MissingError: there is no `store.json`.
        IntegrityError: the file is damaged, or was written by a newer or an older ajbench.
    """
    file = path / "store.json"
    try:
        tree = read_json(file, META_BYTES)
        digest = tree.pop("xxh3")
        if digest != _digest_of(tree):
            raise IntegrityError(f"{file}: its checksum does not match; make the store again")
        if tree["version"] > VERSION:
            raise IntegrityError(
                f"{file}: format {tree['version']}; this ajbench reads up to {VERSION}, update it"
            )
        if tree["version"] < VERSION:
            raise IntegrityError(
                f"{file}: format {tree['version']} of an older ajbench (no recordings); make the store again"
            )
        return StoreMeta.model_validate(tree)
    except FileNotFoundError:
        raise MissingError(
            f"{path}: no finished clip store (no store.json); run the stage that makes it"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise IntegrityError(f"{file}: damaged ({reason}); make the store again") from None


def read_note(path: Path) -> dict[str, Any]:
    """Return what is known about a shard of an unfinished store besides its clips.

    Raises:
        IntegrityError: the note is damaged.
    """
    return read_sealed(path, "delete it and run the same command again", META_BYTES)


def write_quarantine(
    folder: Path, problems: Iterable[manifest.Problem], sha256: Mapping[str, str] | None = None
) -> None:
    """Write `quarantine.csv`, one row per rejected clip; `sha256` maps paths to digests where known."""
    digests = sha256 or {}
    rows = ([p.clip_id, p.path, p.line, p.reason, digests.get(p.path)] for p in problems)
    manifest.write_table(folder / "quarantine.csv", QUARANTINE_COLUMNS, rows)


def read_quarantine(folder: Path) -> list[dict[str, str]]:
    """Return the rows of `quarantine.csv`; none without the file.

    Raises:
        IntegrityError: it is damaged.
    """
    file = folder / "quarantine.csv"
    if not file.exists():
        return []
    try:
        records, broken = manifest.csv_records(file, ("reason",))
    except UsageError as error:
        raise IntegrityError(f"{error}; make the store again") from None
    if broken:
        raise IntegrityError(f"{file}: line {broken[0].line}: {broken[0].reason}; make the store again")
    return [row for _, row in records]


def map_shard(path: Path) -> pa.RecordBatch:
    """Map a shard into memory without reading it.

    Raises:
        IntegrityError: the file is not a shard of this format.
    """
    need_regular(path)
    try:
        batch = plain_batch(path)
        found = batch.schema
        video_width = found.field(VIDEO_TOKENS).type.list_size if VIDEO_TOKENS in found.names else 0
        schema = _schema(found.field("codes").type.list_size, video_width)
        older = schema.remove(schema.get_field_index(LATER))
        batches = pa.ipc.open_file(pa.memory_map(str(path))).num_record_batches
        if batches != 1 or found not in (schema, older):
            raise ValueError("unexpected columns or batches")
        need_sound(batch, CODEBOOKS)
        if found == schema:
            return batch
        return batch.append_column(schema.field(LATER), pa.nulls(batch.num_rows, pa.string()))
    except (pa.ArrowException, OSError, ValueError, KeyError, AttributeError, StopIteration) as error:
        reason = " ".join(str(error).split())[:160]
        raise IntegrityError(f"{path}: not a readable shard ({reason}); make the store again") from None


def _schema(width: int, video_width: int) -> pa.Schema:
    schema = SCHEMA.append(pa.field("codes", pa.list_(pa.uint16(), width), nullable=False))
    return (
        schema.append(pa.field(VIDEO_TOKENS, pa.list_(pa.float16(), video_width))) if video_width else schema
    )


def _batch(records: Sequence[Mapping[str, Any]], video_width: int) -> pa.RecordBatch:
    if not records:
        raise ValueError("a shard holds at least one clip")
    if unknown := set().union(*records) - {*SCHEMA.names, "codes", VIDEO_TOKENS}:
        raise ValueError(f"unknown columns: {', '.join(sorted(unknown))}")
    codes = np.stack([np.asarray(record["codes"]) for record in records])
    if codes.dtype != np.uint16 or codes.ndim != 3 or codes.shape[1] != CODEBOOKS:
        raise ValueError(f"codes are {codes.dtype} {codes.shape[1:]}; expected uint16 ({CODEBOOKS}, T)")
    width = codes.shape[1] * codes.shape[2]
    defaults = {"start_s": 0.0, "source": "real"}
    columns = []
    for item in SCHEMA:
        values = [record.get(item.name, defaults.get(item.name)) for record in records]
        column = pa.array(values, item.type)
        if (missing := column.null_count) and not item.nullable:
            raise ValueError(f"column {item.name} has {missing} missing values; every clip needs one")
        columns.append(column)
    columns.append(pa.FixedSizeListArray.from_arrays(pa.array(codes.reshape(-1)), width))
    if video_width:
        tokens = [record.get(VIDEO_TOKENS) for record in records]
        filled = np.zeros((len(records), video_width), np.float16)
        for place, one in enumerate(tokens):
            if one is not None:
                filled[place] = np.asarray(one).reshape(-1)
        absent = pa.array([one is None for one in tokens])
        columns.append(
            pa.FixedSizeListArray.from_arrays(pa.array(filled.reshape(-1)), video_width, mask=absent)
        )
    return pa.RecordBatch.from_arrays(columns, schema=_schema(width, video_width))


def _digest_of(tree: Mapping[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(tree, sort_keys=True, ensure_ascii=False).encode())


def written(folder: Path) -> list[Path]:
    """Return the shards in `folder`, in order."""
    return sorted(path for path in folder.iterdir() if _SHARD.fullmatch(path.name))


def clear(folder: Path) -> None:
    """Remove the locks and notes of a job, and partial files of processes that were killed."""
    for pattern in ("part-*.arrow.tmp", ".store.json.*.tmp", ".quarantine.csv.*.tmp"):
        for partial in folder.glob(pattern):
            partial.unlink(missing_ok=True)
    shutil.rmtree(folder / CLAIMS, ignore_errors=True)
