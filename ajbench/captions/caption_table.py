"""Captions tables: a folder of Parquet chunks, written chunk by chunk, and read back.

A table is `part-00000.parquet`, `part-00001.parquet`, … and, written last, `_captions.json` with settings,
counts and the chunks' checksums. Each chunk is either whole or absent. While a job is filling the table, the
folder `.claims/` holds its locks; a run that was killed continues with the missing chunks. Neither kills nor
the number of processes change the bytes.
"""

import io
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.files import atomic_write, checksum
from ajbench.core.sealed_json import read_sealed, write_sealed
from ajbench.data import parquet
from ajbench.data.shard_job import POLL_S, claim, claimed, write_note
from ajbench.data.shards import CLAIMS, SUM, read_note

INFO = "_captions.json"
VERSION = 1
KINDS = ("audio", "visual", "merge")
CHUNK_CLIPS = 6000
_PARTS = "part-*.parquet"
SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("labels", pa.list_(pa.string())),
        pa.field("frames", pa.list_(pa.float64())),  # times of a visual caption's frames in s
        pa.field("sources", pa.list_(pa.string())),  # texts that a summary or merge was made of
        pa.field("backend", pa.string(), nullable=False),
        pa.field("model", pa.string()),
        pa.field("model_hash", pa.string()),
        pa.field("prompt_hash", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("fallback", pa.string()),  # why this is a fall-back caption
    ]
)

Record = Mapping[str, Any]
Chunks = Callable[[], Iterable[tuple[int, Any]]]  # number and content of each chunk, from the beginning


def start(folder: Path, fingerprint: str, force: bool = False) -> bool:
    """Start or join the job that fills a table; return whether the table is finished.

    Args:
        folder: of the table.
        fingerprint: of everything that affects it.
        force: remove a table with other settings, or a finished one, and start anew.

    Raises:
        IntegrityError: the folder has captions made with other settings, or chunks of an unknown job.
    """
    folder.mkdir(parents=True, exist_ok=True)
    job = folder / CLAIMS / "job"
    with claimed(folder, "start"):
        if force:
            _discard(folder)
        finished = (folder / INFO).exists()
        if not finished and not job.exists():
            if strange := next(folder.glob(_PARTS), None):
                raise IntegrityError(f"{strange}: a chunk of an unknown job; remove it or use another folder")
            atomic_write(job, fingerprint)
        found = info(folder)["fingerprint"] if finished else job.read_text(errors="replace")
    if found != fingerprint:
        raise IntegrityError(
            f"{folder}: holds captions of fingerprint {found}, not {fingerprint} (other clips, prompts, "
            "model or options); use another folder or --force"
        )
    if finished:
        _clear(folder)
    return finished


def fill(
    folder: Path, chunks: Chunks, n: int, make: Callable[[Any], list[Record]], advance: Callable[[int], None]
) -> None:
    """Write every missing chunk that no other process is writing, and wait for the others.

    Args:
        folder: of the table.
        chunks: yields number and clips of each chunk.
        n: number of chunks.
        make: makes the records of a chunk from its clips, and reports its own progress.
        advance: called with the number of clips of each chunk that was there or that another process made.

    Raises:
        IntegrityError: there are fewer chunks than `n`.
    """
    left = set(range(n))
    while left:
        before, found = len(left), set[int]()
        for number, clips in chunks():
            found.add(number)
            if number in left and _settle(folder, number, clips, make, advance):
                left.remove(number)
        if left - found:
            raise IntegrityError(f"{folder}: the list of clips changed while captions were made; run again")
        if len(left) == before:
            time.sleep(POLL_S)


def finish(folder: Path, n: int, about: Mapping[str, Any]) -> dict[str, Any]:
    """Write `_captions.json` unless another process has, and return its content.

    Args:
        folder: of the table.
        n: number of chunks.
        about: content besides version, counts of rows and the list of chunks; has `fingerprint`, `counts`.

    Raises:
        IntegrityError: a chunk is not as it was written.
    """
    with claimed(folder, "finish"):
        if not (folder / INFO).exists():
            rows: Counter[str] = Counter()
            fallbacks: Counter[str] = Counter()
            parts = []
            for number in range(n):
                path, note = part_path(folder, number), _note(folder, number)
                found = checksum(path)
                if note.exists() and read_note(note).get(SUM) != found:
                    raise IntegrityError(
                        f"{path}: damaged since it was written; delete it and run the same command again"
                    )
                with path.open("rb") as file:  # pyarrow takes no path that is not UTF-8
                    table = pq.read_table(file, columns=["kind", "fallback"])
                rows.update(table["kind"].to_pylist())
                fallbacks.update(reason for reason in table["fallback"].to_pylist() if reason)
                parts.append({"file": path.name, "rows": table.num_rows, "xxh3": found})
            counts = about["counts"] | {"rows": dict(rows), "fallbacks": dict(sorted(fallbacks.items()))}
            document = {"version": VERSION, **about, "counts": counts, "parts": parts}
            write_sealed(folder / INFO, document, indent=1)
    _clear(folder)
    return info(folder)


def part_path(folder: Path, number: int) -> Path:
    """Return the path of a chunk."""
    return folder / f"part-{number:05d}.parquet"


def info(folder: Path) -> dict[str, Any]:
    """Return the content of `_captions.json`.

    Raises:
        MissingError: there is no finished table.
        IntegrityError: the file is damaged, or was written by a newer ajbench.
    """
    path = folder / INFO
    try:
        found = read_sealed(path, "make the table again")
        if found["version"] > VERSION:
            raise IntegrityError(
                f"{path}: format {found['version']}, this ajbench reads {VERSION}; update it"
            )
        if absent := {"parts", "fingerprint", "counts"} - set(found):
            raise KeyError(f"no {min(absent)}")
        if not isinstance(found["parts"], list) or not isinstance(found["counts"], dict):
            raise ValueError("parts is no list, or counts no mapping")
    except (FileNotFoundError, NotADirectoryError):
        raise MissingError(
            f"{folder}: no finished captions table (no {INFO}); run `ajbench caption`"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"{path}: damaged ({error}); make the table again") from None
    return found


def parts(folder: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the chunks of a finished table, each with the given columns.

    Raises:
        MissingError: there is no finished table.
        IntegrityError: a chunk is missing or damaged.
    """
    for number, part in enumerate(info(folder)["parts"]):
        path = part_path(folder, number)
        if not isinstance(part, dict) or part.get("file") != path.name:
            raise IntegrityError(f"{folder / INFO}: chunk {number} is not {path.name}; make the table again")
        if not path.exists() or checksum(path) != part.get("xxh3"):
            raise IntegrityError(
                f"{path}: missing, or its checksum does not match {INFO}; make the table again"
            )
        try:
            with pq.ParquetFile(path) as file:
                if absent := {*(columns or ())} - {*file.schema_arrow.names}:
                    raise ValueError(f"column {min(absent)} is missing")
                table = parquet.read(path, columns)
            table.validate(full=True)
            for item in table.schema:
                if item.type != SCHEMA.field(item.name).type:
                    raise ValueError(f"column {item.name} is {item.type}")
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:160]
            raise IntegrityError(
                f"{path}: not a chunk of captions ({reason}); make the table again"
            ) from None
        yield table


def read(folder: Path) -> pa.Table:
    """Return a whole table with the columns of `SCHEMA`; errors as in `parts`."""
    return pa.concat_tables([SCHEMA.empty_table(), *parts(folder)])


def texts(folder: Path, kind: str) -> dict[str, str]:
    """Return clip id → caption of one kind; errors as in `parts`.

    Raises:
        UsageError: an unknown kind, or one that the table does not have.
    """
    found: dict[str, str] = {}
    for table in parts(folder, ("clip_id", "kind", "text")):
        own = table.filter(pc.equal(table["kind"], kind))
        found.update(zip(own["clip_id"].to_pylist(), own["text"].to_pylist(), strict=True))
    if not found:
        has = ", ".join(info(folder)["counts"]["rows"])
        raise UsageError(f"{folder}: no captions of kind {kind!r}; it has {has}")
    return found


def identity(folder: Path) -> list[str]:
    """Return what identifies the content of a table: its chunks' checksums; errors as in `info`."""
    return [part["xxh3"] for part in info(folder)["parts"]]


def _settle(
    folder: Path, number: int, clips: Any, make: Callable[[Any], list[Record]], advance: Callable[[int], None]
) -> bool:
    """Write a chunk unless it is there or claimed; return whether it is there."""
    path = part_path(folder, number)
    if not path.exists() and (lock := claim(folder, path.stem)):
        with lock:
            if not path.exists():
                buffer = io.BytesIO()
                pq.write_table(pa.Table.from_pylist(make(clips), SCHEMA), buffer, compression="zstd")
                write_note(_note(folder, number), {SUM: xxhash.xxh3_128_hexdigest(buffer.getvalue())})
                atomic_write(path, buffer.getvalue())
                return True
    finished = path.exists()
    advance(len(clips) if finished else 0)
    return finished


def _note(folder: Path, number: int) -> Path:
    return folder / CLAIMS / f"{part_path(folder, number).stem}.json"


def _discard(folder: Path) -> None:
    for path in (folder / INFO, folder / CLAIMS / "job", *folder.glob(_PARTS)):
        path.unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    """Remove locks, and partial files of processes that were killed."""
    for partial in (*folder.glob(".part-*.tmp"), *folder.glob(f".{INFO}.*.tmp")):
        partial.unlink(missing_ok=True)
    shutil.rmtree(folder / CLAIMS, ignore_errors=True)
