"""Clips of a store as files that other tools read: class folders, an audiofolder, WebDataset, a table.

The store is read shard by shard. A shard that is finished has a part of the table in the folder `.export/`,
so that an interrupted export goes on with the next one.
"""

import csv
import io
import json
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import soundfile

from ajbench.core.documents import IDS_BYTES
from ajbench.core.errors import UsageError
from ajbench.core.files import sync, sync_folder, writing
from ajbench.core.recipe import fingerprint
from ajbench.core.sealed_json import read_sealed, write_sealed
from ajbench.data import audio
from ajbench.data.manifest import LABEL_SEPARATOR
from ajbench.data.store import ClipStore

STATE, NOTE = ".export", "export.json"
COLUMNS = (
    "clip_id", "labels", "caption", "parent_id", "recording", "split", "fold", "source", "seed", "strength",
    "guidance", "steps", "generator", "fidelity",
)  # fmt: skip
# Layout → its table, and the column in it that has the file; None: metadata is in the tars.
LAYOUTS: dict[str, tuple[str, str] | None] = {
    "folders": ("metadata.csv", "file_name"),
    "audiofolder": ("metadata.csv", "file_name"),
    "webdataset": None,
    "table": ("clips.csv", "path"),
}
Record = dict[str, Any]


@dataclass(frozen=True)
class Export:
    """What is written.

    Attributes:
        store: of the clips.
        out: the folder.
        layout: `folders`: `<class>/<clip>`; `audiofolder`: `<split>/<shard>/<clip>`; both with metadata.csv;
            `table`: clips.csv and `audio/<shard>/<clip>`; `webdataset`: `<split>-<shard>.tar`.
        suffix: `.wav` or `.flac`, both with 16 bits at 16 kHz.
        split: only the clips of this split; None: all.
    """

    store: ClipStore
    out: Path
    layout: str
    suffix: str = ".flac"
    split: str | None = None

    @property
    def key(self) -> str:
        """A hash of everything that decides what is written."""
        checksums = [entry.xxh3 for entry in self.store.meta.shards]
        return fingerprint(checksums, self.layout, self.suffix, self.split)


def export(job: Export, advance: Callable[[int], None] = lambda clips: None) -> dict[str, Any]:
    """Write the clips, or those that an interrupted export has not written, and return what there is.

    Args:
        job: what is written.
        advance: called with numbers of clips that are finished.

    Returns:
        path, layout, clips, and `table`, None for WebDataset.

    Raises:
        UsageError: the folder has other files, or the store has no clip of the split.
        IntegrityError: a note of an interrupted export is damaged.
    """
    out, state, table = job.out, job.out / STATE, LAYOUTS[job.layout]
    begun = _note(out / NOTE) or _note(state / NOTE)
    if begun.get("key", job.key) != job.key or (not begun and out.exists() and any(out.iterdir())):
        raise UsageError(f"{out}: holds other files; choose a new folder")
    if "clips" in begun:
        shutil.rmtree(state, ignore_errors=True)  # if it was killed before it had
        advance(len(job.store))
        return begun
    state.mkdir(parents=True, exist_ok=True)
    write_sealed(state / NOTE, {"key": job.key})
    start = clips = 0
    for number, shard in enumerate(job.store.meta.shards):
        part = state / f"part-{number:05d}.json"
        if not part.exists():
            write_sealed(part, {"rows": _write(job, number, range(start, start + shard.clips))})
        clips += len(_rows(part))
        start += shard.clips
        advance(shard.clips)
    if not clips:
        shutil.rmtree(state)
        raise UsageError(f"--split {job.split}: {job.store.path} has no such clips")
    if table:
        _write_table(out / table[0], table[1], sorted(state.glob("part-*.json")))
        _sync(out, {table[0]})
    done = {
        "path": str(out),
        "layout": job.layout,
        "clips": clips,
        "table": table and table[0],
        "key": job.key,
    }
    write_sealed(out / NOTE, done, indent=1)
    shutil.rmtree(state)
    return done


def _note(path: Path) -> dict[str, Any]:
    try:
        return read_sealed(path, "choose a new folder")
    except FileNotFoundError:
        return {}


def _rows(part: Path) -> list[Record]:
    found = read_sealed(part, "delete it and run the same command again", IDS_BYTES, keys=("rows",))
    return list(found["rows"])


def _write(job: Export, number: int, indices: range) -> list[Record]:
    """Write the sounds of one shard, so that they are on disk, and return its rows of the table."""
    rows = job.store.mapped[number].table.select([*COLUMNS]).to_pylist()
    chosen = [(i, row) for i, row in zip(indices, rows, strict=True) if job.split in (None, row["split"])]
    write = _tars if LAYOUTS[job.layout] is None else _files
    records = list(write(job, number, chosen))
    _sync(job.out, {record["file"] for record in records})
    return records


def _sync(out: Path, names: Set[str]) -> None:
    """Make files in or below `out` survive a loss of power, before a note says that they are there."""
    with writing(out):
        sync(out / name for name in names)
        for folder in {above for name in names for above in PurePath(name).parents}:
            sync_folder(out / folder)


def _files(job: Export, number: int, chosen: list[tuple[int, Record]]) -> Iterator[Record]:
    """Write a file for each clip of a shard; yield its row of the table."""
    for index, row in chosen:
        name = f"{_folder(job.layout, number, row)}/{_name(index, row)}{job.suffix}"
        path = job.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path):
            path.write_bytes(_sound(job, index))
        yield {"file": name, **row}


def _tars(job: Export, number: int, chosen: list[tuple[int, Record]]) -> Iterator[Record]:
    """Write a tar for each split of a shard; yield what names its clips."""
    for split in dict.fromkeys(row["split"] for _, row in chosen):
        path = job.out / f"{split}-{number:05d}.tar"
        partial = path.with_suffix(".tar.tmp")
        with writing(path), tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar:
            for index, row in chosen:
                if row["split"] != split:
                    continue
                about = json.dumps({k: v for k, v in row.items() if v is not None}, ensure_ascii=False)
                for suffix, content in ((job.suffix, _sound(job, index)), (".json", about.encode())):
                    member = tarfile.TarInfo(f"{_name(index, row)}{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
                yield {"file": path.name, "clip_id": row["clip_id"]}
        partial.replace(path)


def _folder(layout: str, shard: int, row: Mapping[str, Any]) -> str:
    if layout == "folders":
        return _safe((row["labels"] or ["no label"])[0])
    return f"{row['split'] if layout == 'audiofolder' else 'audio'}/{shard:05d}"


def _name(index: int, row: Mapping[str, Any]) -> str:
    """Return the name of a clip's file, different for every clip of a store, without a dot."""
    name = f"{index:06d}-{_safe(row['clip_id']).replace('.', '_')}"
    return name.encode()[:120].decode(errors="ignore")  # file systems limit the bytes of a name


def _safe(text: str) -> str:
    return re.sub(r"[^\w .,()&+-]+", "_", text).strip(" .") or "_"


def _sound(job: Export, index: int) -> bytes:
    """Return the clip as a file."""
    flac = job.store.flac(index)
    if job.suffix == ".flac":
        return bytes(flac) if flac is not None else audio.flac_encode(job.store.audio([index])[0])
    buffer = io.BytesIO()
    soundfile.write(
        buffer, audio.int16(job.store.audio([index])[0]), audio.SAMPLE_RATE, "PCM_16", format="WAV"
    )
    return buffer.getvalue()


def _write_table(path: Path, column: str, parts: list[Path]) -> None:
    """Write the rows of all parts as CSV, part by part."""
    partial = path.with_suffix(".csv.tmp")
    with writing(path), partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([column, *COLUMNS])
        for part in parts:
            for row in _rows(part):
                names = row["labels"]
                plain = not any(LABEL_SEPARATOR in name for name in names)
                row["labels"] = (
                    LABEL_SEPARATOR.join(names) if plain else json.dumps(names, ensure_ascii=False)
                )
                table.writerow([row["file"], *(row[name] for name in COLUMNS)])
    partial.replace(path)
