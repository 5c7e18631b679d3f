"""The manifest: a table with one row per clip, and the problems that left clips out.

Also the CSV readers with line numbers that all corpora use.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import sparse

from ajbench.core.documents import parse_json
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.files import atomic_write, need_regular
from ajbench.core.registry import suggest
from ajbench.data import parquet
from ajbench.data.labels import LabelSet

SPLIT_NAMES = {  # name in a corpus → name in ajbench
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "eval": "eval",
    "evaluation": "eval", "test": "eval", "testing": "eval",
}  # fmt: skip
NOT_UTF8 = "the line is not UTF-8; save the table as UTF-8"
LABEL_SEPARATOR = ";"  # between labels in a CSV manifest
_ESCAPED = re.compile("[\udc80-\udcff]")  # bytes that are not UTF-8, as surrogateescape decodes them
NAME_COLUMNS = ("name", "display_name", "label")


@dataclass(frozen=True, slots=True)  # there may be millions
class Row:
    """One clip: its file, labels and captions, its split, and the recording it was cut from (None: unknown).

    Recordings of YouTube and Freesound are `youtube:<video id>` and `freesound:<sound id>` in every corpus.
    """

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
    recording: str | None = None
    more_captions: tuple[str, ...] = ()  # besides `caption`, the first
    subset: str | None = None  # as the corpus names it, for `mix.real`


@dataclass(frozen=True)
class Problem:
    """A clip that is left out: its id, the file or table with the line number, and the reason."""

    clip_id: str | None
    path: str
    line: int | None
    reason: str
    split: str | None = None
    fold: int | None = None


_OTHER_TYPES = {  # of the columns that do not hold text
    "start_s": pa.float64(), "duration_s": pa.float64(), "labels": pa.list_(pa.string()), "fold": pa.int32(),
    "more_captions": pa.list_(pa.string()),
}  # fmt: skip
SCHEMA = pa.schema([(item.name, _OTHER_TYPES.get(item.name, pa.string())) for item in fields(Row)])


@dataclass(frozen=True)
class Manifest:
    """Rows in the order of the corpus, their label set, and the problems of reading it."""

    rows: list[Row]
    label_set: LabelSet
    problems: list[Problem] = field(default_factory=list)

    def split(self, name: str) -> list[Row]:
        """Return the rows of one split, in order."""
        return [row for row in self.rows if row.split == name]

    def held_out(self) -> dict[str, str]:
        """Return the recording of each eval clip, by its id: what the leak rule protects."""
        return {row.clip_id: row.recording or row.clip_id for row in self.split("eval")}

    def sparse_targets(self, places: Sequence[int]) -> sparse.csr_array:
        """Return the multi-hot targets of the rows at `places`, sparse float32 [n, C]."""
        labels = [self.rows[place].labels for place in places]
        ids = [self.label_set.index(name) for names in labels for name in names]
        ends = np.cumsum([0, *map(len, labels)])
        shape = (len(labels), len(self.label_set))
        return sparse.csr_array((np.ones(len(ids), np.float32), ids, ends), shape=shape)

    def write(self, path: Path) -> None:
        """Write a .parquet file with label set and problems in its metadata, or a .csv file with
        `<stem>.labels.csv` and `<stem>.problems.csv` next to it.

        Raises:
            UsageError: another suffix, or a label that contains the separator of the CSV.
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
        """Read what `write` wrote.

        Raises:
            MissingError: no such file.
            IntegrityError: not a manifest, or damaged.
        """
        if not path.exists():
            raise MissingError(f"{path}: missing; `ajbench prepare` writes it")
        try:
            return _read_csv(path) if _suffix(path) == ".csv" else _read_parquet(path)
        except (pa.ArrowException, ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"{path}: not a manifest ({' '.join(str(error).split())})") from None


def csv_records(
    path: Path, required: Iterable[str] = (), delimiter: str = ","
) -> tuple[list[tuple[int, dict[str, str]]], list[Problem]]:
    """Read a CSV with a header as records (line number, {column: cell}); the header is line 1.

    A record with too few or too many cells, or that is not UTF-8, becomes a problem. Empty lines are skipped.

    Raises:
        MissingError: no such file.
        UsageError: not CSV, its header or every record is not UTF-8, or a repeated or missing column.
    """
    records: list[tuple[int, dict[str, str]]] = []
    problems: list[Problem] = []
    need_regular(path)
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except FileNotFoundError:
        raise MissingError(f"{path}: missing") from None
    whole = is_utf8(text)
    if not whole and (not is_utf8(text.partition("\n")[0]) or "\0" in text):
        raise _undecoded(path)
    content = io.StringIO(text, newline="")
    lines = csv.reader(content, strict=True, skipinitialspace=True, delimiter=delimiter)
    try:
        header = [name.strip() for name in next(lines, [])]
        for name in required:
            if name not in header:
                near = suggest(name, header)
                raise UsageError(
                    f"{path}: column {name!r} is missing{near}; found: {', '.join(header) or 'no header'}"
                )
        if repeated := sorted(name for name, count in Counter(header).items() if count > 1):
            raise UsageError(f"{path}: column {repeated[0]!r} occurs more than once; rename or remove one")
        for cells in lines:
            if not cells:
                continue
            if len(cells) != len(header):
                reason = f"cells: {len(cells)} in the row, {len(header)} in the header"
                problems.append(Problem(None, str(path), lines.line_num, reason))
                continue
            if not whole and not is_utf8("".join(cells)):
                problems.append(Problem(None, str(path), lines.line_num, NOT_UTF8))
                continue
            records.append((lines.line_num, dict(zip(header, map(str.strip, cells), strict=True))))
    except csv.Error as error:
        raise UsageError(f"{path}:{lines.line_num}: not readable as CSV ({error})") from None
    if not whole and not records:
        raise _undecoded(path)
    return records, problems


def is_utf8(text: str) -> bool:
    """Return whether text that was decoded with surrogateescape had no other bytes."""
    return _ESCAPED.search(text) is None


def _undecoded(path: Path) -> UsageError:
    try:
        path.read_text(encoding="utf-8-sig")
        where = "NUL"
    except UnicodeDecodeError as error:
        where = f"byte {error.start}"
    return UsageError(f"{path}: not UTF-8 text ({where}); save it as UTF-8")


def csv_header(path: Path, delimiter: str = ",") -> list[str]:
    """Return the names in the header of a CSV, of which nothing else is read.

    Raises:
        MissingError: no such file.
        UsageError: the header is not UTF-8, or not CSV.
    """
    need_regular(path)
    try:
        # Only the header must be UTF-8; what is decoded with it need not be.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            lines = csv.reader(file, strict=True, skipinitialspace=True, delimiter=delimiter)
            header = [name.strip() for name in next(lines, [])]
        if not is_utf8("".join(header)):
            raise UsageError(f"{path}: its header is not UTF-8 text; save it as UTF-8")
        return header
    except csv.Error as error:
        raise UsageError(f"{path}: not readable as CSV ({error}); save it as UTF-8") from None
    except FileNotFoundError:
        raise MissingError(f"{path}: missing") from None


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) of a CSV without a header; empty lines and # lines are skipped.

    Unlike `csv_records`, this reads line by line: some of these tables have millions of lines.

    Raises:
        MissingError: no such file.
        UsageError: not UTF-8, or not CSV.
    """
    need_regular(path)
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

    AudioSet's `class_labels_indices.csv` is such a file.

    Raises:
        UsageError: no column of names, or indices other than 0 … C-1, each once.
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
        raise UsageError(f"{path}: a manifest must be .parquet or .csv")
    return path.suffix


def _write_csv(path: Path, manifest: Manifest, columns: dict[str, list[Any]]) -> None:
    names, mids = manifest.label_set.names, manifest.label_set.mids
    if clash := next((name for name in names if LABEL_SEPARATOR in name), None):
        raise UsageError(
            f"{path}: label {clash!r} contains {LABEL_SEPARATOR!r}; write the manifest as .parquet"
        )
    columns["labels"] = [LABEL_SEPARATOR.join(labels) for labels in columns["labels"]]
    more = columns["more_captions"]
    columns["more_captions"] = [json.dumps(texts, ensure_ascii=False) if texts else None for texts in more]
    labels = {"index": range(len(names)), "name": names} | ({"mid": mids} if mids else {})
    problems = {item.name: [getattr(p, item.name) for p in manifest.problems] for item in fields(Problem)}
    for suffix, table in ((".csv", columns), (".labels.csv", labels), (".problems.csv", problems)):
        write_table(path.with_suffix(suffix), list(table), zip(*table.values(), strict=True))


def write_table(path: Path, header: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV with a header atomically; None is an empty cell."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows([header, *rows])
    atomic_write(path, buffer.getvalue())


def _read_csv(path: Path) -> Manifest:
    records, broken = csv_records(path, SCHEMA.names)
    if broken:
        raise ValueError(f"line {broken[0].line}: {broken[0].reason}")
    rows = []
    for _, cells in records:
        labels = tuple(filter(None, cells["labels"].split(LABEL_SEPARATOR)))
        more = tuple(parse_json(cells["more_captions"] or "[]"))
        texts = {"path": cells["path"], "labels": labels, "more_captions": more}
        rows.append(Row(**{**_values(cells, SCHEMA.names), **texts}))
    columns = [item.name for item in fields(Problem)]
    listed, _ = csv_records(path.with_suffix(".problems.csv"), columns)
    problems = [Problem(**_values(cells, columns)) for _, cells in listed]
    return Manifest(rows, read_label_set(path.with_suffix(".labels.csv")), problems)


def _values(cells: dict[str, str], columns: Iterable[str]) -> dict[str, Any]:
    kinds: dict[str, Callable[[str], Any]] = {"start_s": float, "duration_s": float, "fold": int, "line": int}
    return {name: kinds.get(name, str)(cells[name]) if cells[name] else None for name in columns}


def _read_parquet(path: Path) -> Manifest:
    table = parquet.read(path)
    if table.schema.remove_metadata() != SCHEMA:
        raise ValueError(f"columns {', '.join(table.schema.names)}; expected {', '.join(SCHEMA.names)}")
    notes = table.schema.metadata or {}
    lists = ("labels", "more_captions")
    rows = [Row(**{**row, **{name: tuple(row[name]) for name in lists}}) for row in table.to_pylist()]
    problems = [Problem(**values) for values in parse_json(notes[b"problems"])]
    return Manifest(rows, LabelSet.from_json(notes[b"label_set"].decode()), problems)
