"""The one table that every corpus becomes: a row a clip, with what had to be left out and why.

Also CSV with line numbers, which corpus readers share.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.files import atomic_write
from ajbench.core.registry import suggest
from ajbench.data.labels import LabelSet

SPLIT_NAMES = {  # as corpora write them → as they are called here
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "eval": "eval",
    "test": "eval",
}
LABEL_SEPARATOR = ";"  # between labels in a manifest's CSV form
NAME_COLUMNS = ("name", "display_name", "label")


@dataclass(frozen=True, slots=True)  # there may be millions
class Row:
    """One clip: where it is, what is heard in it, and on which side of the evaluation it stands."""

    clip_id: str
    path: str
    start_s: float = 0.0
    duration_s: float | None = None
    labels: tuple[str, ...] = ()
    split: str = "train"
    fold: int | None = None
    caption: str | None = None
    video: str | None = None
    visual_caption: str | None = None
    parent_id: str | None = None
    source: str = "real"


@dataclass(frozen=True)
class Problem:
    """Something left out: which clip and file, on which line of which table if any, and why."""

    clip_id: str | None
    path: str
    line: int | None
    reason: str
    split: str | None = None
    fold: int | None = None


SCHEMA = pa.schema(
    [
        ("clip_id", pa.string()),
        ("path", pa.string()),
        ("start_s", pa.float64()),
        ("duration_s", pa.float64()),
        ("labels", pa.list_(pa.string())),
        ("split", pa.string()),
        ("fold", pa.int32()),
        ("caption", pa.string()),
        ("video", pa.string()),
        ("visual_caption", pa.string()),
        ("parent_id", pa.string()),
        ("source", pa.string()),
    ]
)


@dataclass(frozen=True)
class Manifest:
    """Rows in corpus order, the label set they use, and the problems met on the way."""

    rows: list[Row]
    label_set: LabelSet
    problems: list[Problem] = field(default_factory=list)

    def split(self, name: str) -> list[Row]:
        """Return the rows of one split, in order."""
        return [row for row in self.rows if row.split == name]

    def write(self, path: Path) -> None:
        """Write Parquet (label set and problems in its metadata), or CSV with `<stem>.labels.csv` and
        `<stem>.problems.csv` beside it, by suffix.

        Raises:
            UsageError: another suffix, or a label that contains the CSV's separator.
        """
        columns = {name: [getattr(row, name) for row in self.rows] for name in SCHEMA.names}
        if _suffix(path) == ".csv":
            _write_csv(path, self, columns)
            return
        columns["labels"] = [list(labels) for labels in columns["labels"]]
        notes = {
            "label_set": self.label_set.to_json(),
            "problems": json.dumps([vars(p) for p in self.problems]),
        }
        buffer = io.BytesIO()
        pq.write_table(pa.table(columns, schema=SCHEMA.with_metadata(notes)), buffer)
        atomic_write(path, buffer.getvalue())

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Inverse of `write`.

        Raises:
            MissingError: no such file.
            IntegrityError: it is no manifest, or damaged.
        """
        if not path.exists():
            raise MissingError(f"{path}: missing; `ajbench prepare` writes it")
        try:
            return _read_csv(path) if _suffix(path) == ".csv" else _read_parquet(path)
        except (pa.ArrowException, ValueError, KeyError, TypeError) as error:
            raise IntegrityError(
                f"{path}: not a manifest of ajbench ({' '.join(str(error).split())})"
            ) from None


def csv_records(
    path: Path, required: Iterable[str] = ()
) -> tuple[list[tuple[int, dict[str, str]]], list[Problem]]:
    """Read a CSV with header as (line number, {column: cell}) records; the header is line 1.

    A record with too few or too many cells becomes a problem. Empty lines are passed over.

    Raises:
        MissingError: no such file.
        UsageError: not UTF-8, not CSV, a repeated or a missing column (named).
    """
    records: list[tuple[int, dict[str, str]]] = []
    problems: list[Problem] = []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except FileNotFoundError:
        raise MissingError(f"{path}: missing") from None
    lines = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    try:
        header = [name.strip() for name in next(lines, [])]
        for name in required:
            if name not in header:
                near = suggest(name, header)
                raise UsageError(
                    f"{path}: column {name!r} is missing{near}; found: {', '.join(header) or 'no header'}"
                )
        if repeated := sorted({name for name in header if header.count(name) > 1}):
            raise UsageError(f"{path}: column {repeated[0]!r} occurs more than once; rename or remove one")
        for cells in lines:
            if not cells:
                continue
            if len(cells) != len(header):
                reason = f"{len(cells)} cells in the row, {len(header)} in the header"
                problems.append(Problem(None, str(path), lines.line_num, reason))
                continue
            records.append((lines.line_num, dict(zip(header, map(str.strip, cells), strict=True))))
    except csv.Error as error:
        raise UsageError(f"{path}:{lines.line_num}: not readable as CSV ({error})") from None
    return records, problems


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) of a CSV without header; empty lines and those that begin with # are not.

    Unlike `csv_records` this holds one line at a time: some of these tables have millions.

    Raises:
        MissingError: no such file.
        UsageError: not UTF-8, or not CSV.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True, skipinitialspace=True)
            for cells in lines:
                if cells and not cells[0].startswith("#"):
                    yield lines.line_num, cells
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8 text after line {lines.line_num}; save it as UTF-8") from None
    except FileNotFoundError:
        raise MissingError(f"{path}: missing") from None
    except csv.Error as error:
        raise UsageError(f"{path}:{lines.line_num}: not readable as CSV ({error})") from None


def read_label_set(path: Path) -> LabelSet:
    """Read a label set CSV: a column name, display_name or label; optional `mid` and `index` (0 … C-1).

    AudioSet's `class_labels_indices.csv` is one.

    Raises:
        UsageError: no name column, or indices that are not 0 … C-1 each once.
    """
    records, problems = csv_records(path)
    if problems:
        raise UsageError(f"{path}:{problems[0].line}: {problems[0].reason}")
    columns = records[0][1] if records else {}
    name_column = next((name for name in NAME_COLUMNS if name in columns), None)
    if name_column is None:
        raise UsageError(f"{path}: no column of class names; expected one of {', '.join(NAME_COLUMNS)}")
    if "index" in columns:
        try:
            records.sort(key=lambda record: int(record[1]["index"]))
            indices = [int(cells["index"]) for _, cells in records]
        except ValueError:
            indices = []
        if indices != list(range(len(records))):
            raise UsageError(f"{path}: column 'index' must hold 0 … {len(records) - 1}, each once")
    mids = tuple(cells["mid"] for _, cells in records) if "mid" in columns else None
    try:
        return LabelSet(tuple(cells[name_column] for _, cells in records), mids)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _suffix(path: Path) -> str:
    if path.suffix not in (".parquet", ".csv"):
        raise UsageError(f"{path}: a manifest is written as .parquet or .csv")
    return path.suffix


def _write_csv(path: Path, manifest: Manifest, columns: dict[str, list[Any]]) -> None:
    if clash := next((name for name in manifest.label_set.names if LABEL_SEPARATOR in name), None):
        raise UsageError(
            f"{path}: label {clash!r} contains {LABEL_SEPARATOR!r}; write the manifest as .parquet"
        )
    columns["labels"] = [LABEL_SEPARATOR.join(labels) for labels in columns["labels"]]
    _write_table(path, list(columns), zip(*columns.values(), strict=True))
    mids = manifest.label_set.mids
    names = manifest.label_set.names
    header = ["index", "name"] if mids is None else ["index", "name", "mid"]
    table = [range(len(names)), names] if mids is None else [range(len(names)), names, mids]
    _write_table(path.with_suffix(".labels.csv"), header, zip(*table, strict=True))
    header = [item.name for item in fields(Problem)]
    _write_table(
        path.with_suffix(".problems.csv"),
        header,
        ([*vars(problem).values()] for problem in manifest.problems),
    )


def _write_table(path: Path, header: list[str], rows: Iterable[Iterable[Any]]) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    atomic_write(path, buffer.getvalue())


def _read_csv(path: Path) -> Manifest:
    records, broken = csv_records(path, SCHEMA.names)
    if broken:
        raise ValueError(f"line {broken[0].line}: {broken[0].reason}")
    rows = [
        Row(
            clip_id=cells["clip_id"],
            path=cells["path"],
            start_s=float(cells["start_s"]),
            duration_s=float(cells["duration_s"]) if cells["duration_s"] else None,
            labels=tuple(filter(None, cells["labels"].split(LABEL_SEPARATOR))),
            split=cells["split"],
            fold=int(cells["fold"]) if cells["fold"] else None,
            caption=cells["caption"] or None,
            video=cells["video"] or None,
            visual_caption=cells["visual_caption"] or None,
            parent_id=cells["parent_id"] or None,
            source=cells["source"],
        )
        for _, cells in records
    ]
    label_set = read_label_set(path.with_suffix(".labels.csv"))
    listed, _ = csv_records(path.with_suffix(".problems.csv"), [item.name for item in fields(Problem)])
    problems = [
        Problem(
            clip_id=cells["clip_id"] or None,
            path=cells["path"],
            line=int(cells["line"]) if cells["line"] else None,
            reason=cells["reason"],
            split=cells["split"] or None,
            fold=int(cells["fold"]) if cells["fold"] else None,
        )
        for _, cells in listed
    ]
    return Manifest(rows, label_set, problems)


def _read_parquet(path: Path) -> Manifest:
    table = pq.read_table(path)
    if table.schema.remove_metadata() != SCHEMA:
        raise ValueError(f"columns {', '.join(table.schema.names)}; expected {', '.join(SCHEMA.names)}")
    notes = table.schema.metadata or {}
    rows = [Row(**{**values, "labels": tuple(values["labels"])}) for values in table.to_pylist()]
    problems = [Problem(**values) for values in json.loads(notes[b"problems"])]
    return Manifest(rows, LabelSet.from_json(notes[b"label_set"].decode()), problems)
