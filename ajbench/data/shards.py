"""How a clip store comes to be: shards, the claims of the processes that write them, and the closing.

A store is `part-00000.arrow`, `part-00001.arrow`, … (one uncompressed record batch each), `quarantine.csv`
(what was left out, and why) and, written last, `store.json` with a checksum of every shard. Until then the
folder `.claims/` holds what the processes of one job tell each other. `ajbench.data.store` reads all this.
"""

import csv
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import xxhash
from pydantic import BaseModel, ConfigDict, Field

from ajbench.core.errors import IntegrityError, MissingError
from ajbench.core.files import atomic_write, checksum
from ajbench.data import audio, manifest

VERSION = 1
SHARD_CLIPS = 4096
CODEBOOKS, ENTRIES = 8, 1024  # codes [8, T], each below 1024
CLAIMS = ".claims"
QUARANTINE_COLUMNS = ("clip_id", "path", "line", "reason", "sha256")
_REQUIRED = ("clip_id", "path", "start_s", "labels", "label_ids", "split", "source")
_SHARD = re.compile(r"part-\d{5}\.arrow")

# Every column of a shard but `codes`, a fixed_size_list<uint16>[8·T] as wide as the store's clips are long.
SCHEMA = pa.schema(
    [
        *(item.with_nullable(item.name not in _REQUIRED) for item in manifest.SCHEMA),
        pa.field("label_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("seed", pa.int64()),
        pa.field("strength", pa.float64()),
        pa.field("guidance", pa.float64()),
        pa.field("steps", pa.int32()),
        pa.field("generator", pa.string()),
        pa.field("fidelity", pa.float64()),  # see `ajbench.generation.fidelity`; stores of before have none
        # 16-bit FLAC at 16 kHz; null where path and start_s say which file to read. Offsets have 64 bits, as
        # 4,096 long clips pass 2 GB.
        pa.field("audio", pa.large_binary()),
    ]
)


class ShardEntry(BaseModel):
    """A shard as `store.json` lists it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(pattern=rf"^{_SHARD.pattern}$")
    clips: int = Field(ge=0)
    xxh3: str


class StoreMeta(BaseModel):
    """What `store.json` holds besides a checksum of itself.

    `counts` gives, for each split, how many clips were expected, found, decoded and kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = VERSION
    codec: str
    codec_hash: str
    sample_rate: int = audio.SAMPLE_RATE
    hop: int = audio.HOP
    clip_samples: int
    labels: list[str]
    mids: list[str] | None = None
    counts: dict[str, dict[str, int]] = {}
    whitening: dict[str, list[float] | list[list[float]]] | None = None
    fingerprint: str
    shards: list[ShardEntry] = []
    source: Literal["real", "synthetic"] = "real"
    train_ids_hash: str | None = None
    extra: dict[str, Any] = {}


def shard_path(folder: Path, index: int) -> Path:
    """Return the path of shard `index`."""
    return folder / f"part-{index:05d}.arrow"


def write_shard(folder: Path, index: int, records: Sequence[Mapping[str, Any]]) -> Path:
    """Write shard `index` whole or not at all.

    Args:
        folder: the store's.
        index: number of the shard.
        records: a mapping per clip from column names to values; `codes` is uint16 [8, T], `audio` is FLAC or
            None. Columns left out are null, but `start_s` is then 0 and `source` "real".

    Raises:
        ValueError: an unknown column, a value missing or of another type, codes of unequal shapes.
        MissingError: no space left; nothing partial stays behind.
    """
    batch = _batch(records)
    path = shard_path(folder, index)
    # Named after its writer: where a file system carries no locks there may be two.
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
    """Hash a set of clip ids, whatever their order: which clips something was fitted on."""
    return hashlib.sha256(json.dumps(sorted(clip_ids), ensure_ascii=False).encode()).hexdigest()[:16]


def open_job(folder: Path, fingerprint: str) -> bool:
    """Make or join the job that fills `folder`; return whether the store is finished already.

    Raises:
        IntegrityError: the folder belongs to a job of another fingerprint, or holds shards of an unknown one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if finished := (folder / "store.json").exists():
        found = read_meta(folder).fingerprint
    else:
        job = folder / CLAIMS / "job"
        job.parent.mkdir(exist_ok=True)
        with (folder / CLAIMS / "job.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not job.exists():
                if strange := next(iter(_shards(folder)), None):
                    raise IntegrityError(
                        f"{strange}: a shard of no known job; remove it or use another folder"
                    )
                atomic_write(job, fingerprint)
            found = job.read_text()
    if found != fingerprint:
        raise IntegrityError(
            f"{folder}: holds work of fingerprint {found}, not {fingerprint}; use another folder or --force"
        )
    if finished:
        _clear(folder)  # a process that came late may have claimed something
    return finished


def claim(folder: Path, name: str) -> AbstractContextManager[Any] | None:
    """Claim a piece of a job, for instance a shard; None where another process holds it.

    The claim is a `flock`, so it ends with the context or with the process, and nothing has to be cleaned up
    after a kill. It holds between machines where the folder's file system carries locks to its server: NFS 4
    and NFS 3 with its lock service (Linux turns flock into locks of the whole file), Lustre with `-o flock`,
    GPFS, CephFS. There a process' death frees it at once, a machine's when the server notices (NFS 4: about
    90 s). On mounts with `nolock`, `local_lock=all` or `localflock`, machines do not see each other's claims:
    each makes every shard, which costs time but no byte, as shards are alike and put in place whole.
    """
    path = folder / CLAIMS / f"{name}.lock"
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("ab")
        except FileNotFoundError:  # the job was closed in between
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
            return file
        file.close()  # the lock is on a file that is no longer there


def assemble(folder: Path, meta: StoreMeta) -> StoreMeta:
    """Return `meta` with the shards found in `folder`, their clips and checksums.

    Raises:
        MissingError: there is none.
        IntegrityError: one is no shard.
    """
    entries = []
    for path in _shards(folder):
        entries.append(ShardEntry(file=path.name, clips=map_shard(path).num_rows, xxh3=checksum(path)))
    if not entries:
        raise MissingError(f"{folder}: no shard was written, so there is no store")
    return meta.model_copy(update={"shards": entries})


def finish(folder: Path, meta: StoreMeta) -> StoreMeta:
    """Close a store: list the shards (unless `assemble` did), write `store.json`, remove the claims."""
    whole = meta if meta.shards else assemble(folder, meta)
    tree = whole.model_dump(mode="json")
    text = json.dumps({**tree, "xxh3": _digest_of(tree)}, indent=1, ensure_ascii=False)
    atomic_write(folder / "store.json", text)
    _clear(folder)
    return whole


def discard(folder: Path) -> None:
    """Remove an unfinished store's shards and claims, so that its job starts anew; `quarantine.csv` stays."""
    for path in _shards(folder):
        path.unlink()
    _clear(folder)


def read_meta(path: Path) -> StoreMeta:
    """Read `store.json` of folder `path`.

    Raises:
        MissingError: there is none.
        IntegrityError: it is damaged, or written by a newer ajbench.
    """
    file = path / "store.json"
    if not file.exists():
        raise MissingError(f"{path}: no finished clip store (no store.json); run the stage that makes it")
    try:
        tree = json.loads(file.read_bytes())
        digest = tree.pop("xxh3")
        if digest != _digest_of(tree):
            raise IntegrityError(f"{file}: its checksum does not match; make the store again")
        if tree["version"] > VERSION:
            raise IntegrityError(
                f"{file}: format {tree['version']}; this ajbench reads up to {VERSION}, update it"
            )
        return StoreMeta.model_validate(tree)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise IntegrityError(f"{file}: damaged ({reason}); make the store again") from None


def write_quarantine(
    folder: Path, problems: Iterable[manifest.Problem], sha256: Mapping[str, str] | None = None
) -> None:
    """Write `quarantine.csv`, a row for everything left out; `sha256` maps paths to digests where known."""
    digests = sha256 or {}
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(QUARANTINE_COLUMNS)
    writer.writerows([p.clip_id, p.path, p.line, p.reason, digests.get(p.path)] for p in problems)
    atomic_write(folder / "quarantine.csv", buffer.getvalue())


def map_shard(path: Path) -> pa.RecordBatch:
    """Map a shard into memory without reading it.

    Raises:
        IntegrityError: it is no shard of this format.
    """
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        schema = _schema(reader.schema.field("codes").type.list_size)
        before = schema.remove(schema.get_field_index("fidelity"))
        if reader.num_record_batches != 1 or not (
            reader.schema.equals(schema) or reader.schema.equals(before)
        ):
            raise ValueError("other columns or batches than a shard has")
        batch = reader.get_batch(0)
        if reader.schema.equals(schema):
            return batch
        return batch.append_column("fidelity", pa.nulls(len(batch), pa.float64())).select(schema.names)
    except (pa.ArrowException, OSError, ValueError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise IntegrityError(f"{path}: not a readable shard ({reason}); make the store again") from None


def _schema(width: int) -> pa.Schema:
    return SCHEMA.append(pa.field("codes", pa.list_(pa.uint16(), width), nullable=False))


def _batch(records: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    if not records:
        raise ValueError("a shard holds at least one clip")
    if unknown := set().union(*records) - {*SCHEMA.names, "codes"}:
        raise ValueError(f"unknown columns: {', '.join(sorted(unknown))}")
    codes = np.stack([np.asarray(record["codes"]) for record in records])
    if codes.dtype != np.uint16 or codes.ndim != 3 or codes.shape[1] != CODEBOOKS:
        raise ValueError(f"codes are {codes.dtype} {codes.shape[1:]}; expected uint16 ({CODEBOOKS}, T)")
    width = codes.shape[1] * codes.shape[2]
    defaults = {"start_s": 0.0, "source": "real"}
    columns = [
        pa.array([record.get(item.name, defaults.get(item.name)) for record in records], item.type)
        for item in SCHEMA
    ]
    for item, column in zip(SCHEMA, columns, strict=True):
        if column.null_count and not item.nullable:
            raise ValueError(
                f"column {item.name} has {column.null_count} missing values; every clip needs one"
            )
    columns.append(pa.FixedSizeListArray.from_arrays(pa.array(codes.reshape(-1)), width))
    return pa.RecordBatch.from_arrays(columns, schema=_schema(width))


def _digest_of(tree: Mapping[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(tree, sort_keys=True, ensure_ascii=False).encode())


def _shards(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _SHARD.fullmatch(path.name))


def _clear(folder: Path) -> None:
    for pattern in ("part-*.arrow.tmp", ".store.json.*.tmp", ".quarantine.csv.*.tmp"):
        for partial in folder.glob(pattern):
            partial.unlink(missing_ok=True)
    shutil.rmtree(folder / CLAIMS, ignore_errors=True)
