"""Your own clips in a table: CSV, TSV, JSON or Parquet with one row per clip.

Columns: `path` (a sound file, or a video with sound) and `labels`, or what such tables often call them
(`table_files.NAMES`: `file_name`, `label`, …), or a column of 0 and 1 for each class, and any of `clip_id,
split, fold, start_s, duration_s, caption, video, visual_caption, parent_id, source, recording`; other columns
are ignored. Where files have several rows, columns such as `start` and `end` are times in seconds
(`table_segments`). A `video` starts with the file in `path`: `start_s` is the same in both. A label set next
to the table (`label_set.csv`, `labels.csv`, `<table>.labels.csv` or AudioSet's `class_labels_indices.csv`)
defines the classes and their order.
"""

import contextlib
import math
import os
import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.files import printable
from ajbench.core.recipe import Data
from ajbench.data import archive
from ajbench.data.audio import SUFFIXES
from ajbench.data.clip_names import ClipNames
from ajbench.data.corpora import label_cells, table_files, table_segments, table_splits
from ajbench.data.corpora.recordings import in_name
from ajbench.data.corpora.splits import (
    clip_labels,
    corpus_root,
    need_splits,
    split_by_fold,
    unique_ids,
    with_eval,
    with_every_class,
)
from ajbench.data.corpora.table_splits import text
from ajbench.data.labels import LabelSet
from ajbench.data.manifest import Manifest, Problem, Row, read_label_set
from ajbench.data.reasons import NO_FILE
from ajbench.data.video import is_video

TABLES = ("manifest.parquet", "manifest.csv", "clips.csv")
LABEL_SETS = ("label_set.csv", "labels.csv", "class_labels_indices.csv")
_WRITTEN_WITH_MANIFEST = (".labels.csv", ".problems.csv")


def read(data: Data, root: Path | None) -> Manifest:
    """Read the table `root`, or the one table in folder `root`.

    Labels of a row are names or mids, separated by `data.label_separator` (in Parquet they may be a list).
    Paths are relative to the table's folder. Splits come from the column `split`, unless all clips have the
    same (without an eval split, val is evaluated), or from another column with names of splits
    (`table_splits.OTHERS`); from `fold` (numbers, or a few names in their order) if there are no splits or
    `data.eval_fold` is given; without both, from five folds by a hash of the recording or, where it is
    unknown, of the file name, unless a class would be missing from one (`with_every_class`). The default of
    `clip_id` is the path without suffix, with `@start` if the clip starts later than 0 s. An empty
    `recording` is taken from the file's name by `data.recording_from`, or is that of the clip `parent_id`;
    without these, clips of one file are of one recording, the path. Problems have the line number in a CSV
    (its header is line 1), or the row number in a Parquet or JSON file, from 1 on.

    Raises:
        UsageError: no root, a subset, several tables, a missing column, or an eval fold without clips.
        MissingError: no table there, or no usable clip in it.
    """
    root = corpus_root(data, root, "a table with the columns path and labels", folds=True)
    path = find_table(root)
    return of_records(data, path, *table_files.read(path), _label_set(path))


def of_records(
    data: Data,
    path: Path,
    records: table_files.Records,
    problems: list[Problem],
    known: LabelSet | None = None,
) -> Manifest:
    """Return the clips of a table that has been read; arguments and errors as `read`.

    Args:
        data: section of the recipe.
        path: of the table, to whose folder the paths in it are relative.
        records: (line number, {column: cell}).
        problems: broken lines.
        known: label set, if there is one.
    """
    folder = table_files.folder_of(path, records)
    by_name = {name: name for name in known.names} if known else None
    if known and known.mids and by_name is not None:
        by_name.update(zip(known.mids, known.names, strict=True))
    records, division = table_splits.division(records, data, path)
    records = table_segments.with_times(records, path)
    table_segments.unused_groups(records, path)
    records = label_cells.read(records, data.label_separator, by_name, path)
    rows, lines, hashed = [], [], []
    clips_of = Counter(text(cells, "path") for _, cells in records)
    families, records = _families(records, folder, data, clips_of)
    for line, cells in records:
        # The split comes first: expected clips are counted per split, whether or not they are usable.
        recording, unnamed = _recording(cells, data)
        family = families.get(text(cells, "parent_id") or _clip_id(cells, folder))
        name = recording or (family[1] if family else _name(cells))
        recording = recording or (family[0] if family else None)
        split, fold, undecided = division.of(cells, name)
        try:
            if reason := undecided or unnamed or cells.get(table_files.REASON):
                raise ValueError(reason)
            file = text(cells, "path")
            if recording is None and clips_of[file] > 1:
                recording = file
            rows.append(_row(cells, folder, split, fold, by_name, recording))
            lines.append(line)
            hashed.append(name)
        except ValueError as error:
            clip_id = text(cells, "clip_id")
            known_split = split if division.by == "split" and not undecided else None
            clip_id = clip_id and printable(clip_id)
            member = text(cells, "path") or ""
            where = printable(member) if archive.is_member(member) else cells.get(table_files.TABLE)
            problems.append(
                Problem(clip_id, where or str(path), line, printable(str(error)), known_split, fold)
            )
    if division.by == "hash":
        rows = with_every_class(rows, hashed)
    if division.by == "split":
        rows, problems = with_eval(rows, problems)
    else:
        rows, problems = split_by_fold(rows, problems, data.eval_fold)
    need_splits(rows, problems, path)
    rows, problems = unique_ids(rows, lines, problems)
    label_set = known or LabelSet.from_names(name for row in rows for name in row.labels)
    return Manifest(rows, label_set, problems)


def find_table(root: Path) -> Path:
    """Return `root` if it is a table, or the one in it: manifest.parquet, manifest.csv, clips.csv or another.

    Raises:
        MissingError: there is none.
        UsageError: there are several, or `root` is a file with another suffix.
    """
    if root.is_file():
        if root.suffix.lower() not in table_files.SUFFIXES:
            raise UsageError(f"{root}: a table is one of {', '.join(table_files.SUFFIXES)}")
        return root
    if not root.is_dir():
        raise MissingError(f"{root}: no such file or folder; expected a table with columns path and labels")
    found = [root / name for name in TABLES if (root / name).is_file()]
    if not found:
        found = sorted(
            path
            for path in root.iterdir()
            if path.suffix.lower() in table_files.SUFFIXES
            and (path.suffix.lower() != ".json" or _is_table(path))
            and (path.name not in LABEL_SETS or _has_files(path))
            and not path.name.endswith(_WRITTEN_WITH_MANIFEST)
        )
    if not found:
        raise MissingError(f"{root}: no table; expected {', '.join(TABLES)}, or one other table")
    if len(found) > 1:
        raise UsageError(
            f"{root}: several tables ({', '.join(p.name for p in found)}); name one with --data FILE"
        )
    return found[0]


def _has_files(path: Path) -> bool:
    """Return whether a file called like a label set is a table of clips."""
    with contextlib.suppress(UsageError):
        return "path" in table_files.contents(path)[0]
    return False


def _is_table(path: Path) -> bool:
    with contextlib.suppress(UsageError):
        return table_files.check(path) or True
    return False


def _recording(cells: Mapping[str, Any], data: Data) -> tuple[str | None, str | None]:
    """Return the recording, in the table or the file's name, and the problem with it if there is one."""
    try:
        return text(cells, "recording") or in_name(data, _name(cells)), None
    except ValueError as error:
        return None, str(error)


def _name(cells: Mapping[str, Any]) -> str:
    """Return what is hashed for the fold of a clip whose recording is unknown."""
    written = text(cells, "path") or ""
    in_archive = text(cells, "clip_id") if archive.is_member(written) else None
    return in_archive or _without_suffix(Path(written)).name


def _without_suffix(path: Path) -> Path:
    return path if path.suffix[1:].isdecimal() else path.with_suffix("") if path.name else path


def _families(
    records: table_files.Records, folder: Path, data: Data, clips_of: Mapping[str | None, int]
) -> tuple[dict[str, tuple[str, str]], table_files.Records]:
    """Return recording and hashed name of each clip that others name as `parent_id`, and records with its id.

    They are those of its own first ancestor: its recording, else its file if that has several clips, else its
    id. A cell `parent_id` may have the parent's id or file.
    """
    if not any(text(cells, "parent_id") for _, cells in records):
        return {}, records
    known = {_clip_id(cells, folder): cells for _, cells in records}
    names = ClipNames((clip, text(cells, "path")) for clip, cells in known.items())
    parents = {
        clip: names.find(parent) or parent
        for clip, cells in known.items()
        if (parent := text(cells, "parent_id"))
    }
    records = [
        (line, {**cells, "parent_id": parents.get(_clip_id(cells, folder))}) for line, cells in records
    ]
    found = {}
    for clip in parents.values():
        first, above = clip, {clip}
        while (parent := parents.get(first)) and parent not in above:
            first = parent
            above.add(first)
        cells = known.get(first, {})
        recording, file = _recording(cells, data)[0] if cells else None, text(cells, "path")
        name = recording or (_name(cells) if cells else first)
        found[clip] = recording or (file if file and clips_of[file] > 1 else first), name
    return found, records


def _row(
    cells: Mapping[str, Any],
    folder: Path,
    split: str,
    fold: int | None,
    by_name: Mapping[str, str] | None,
    recording: str | None,
) -> Row:
    written, video = text(cells, "path"), text(cells, "video")
    if written is None:
        raise ValueError("path is empty")
    # Not resolve(): clip ids come from the names in the table, not from the targets of links.
    path = Path(os.path.normpath(folder / written))
    if not _is_file(archive.container(str(path))):
        # From macOS, accents may be in the other form; from Windows come backslashes. Some omit the suffix.
        forms = (unicodedata.normalize(form, str(path)) for form in ("NFC", "NFD"))
        others = (*forms, os.path.normpath(folder / written.replace("\\", "/")))
        found = next((other for other in others if _is_file(other)), None)
        complete = [] if found else [one for one in SUFFIXES if _is_file(f"{path}{one}")]
        if found is None and len(complete) != 1:
            raise ValueError(f"{NO_FILE} ({written})")
        path = Path(found or f"{path}{complete[0]}")
    clip_id, labels = _clip_id(cells, folder), clip_labels(cells["labels"], by_name, "the label set")
    for what, texts in (("its name", (str(path), clip_id)), ("a label", labels)):
        if any(printable(text) != text for text in texts):
            raise ValueError(f"{what} is not UTF-8; rename it")
    start_s = _seconds(cells, "start_s") or 0.0
    duration_s = _seconds(cells, "duration_s")
    if start_s < 0:
        raise ValueError(f"start_s {start_s:g} is negative")
    if duration_s is not None and duration_s <= 0:
        raise ValueError(f"duration_s {duration_s:g} is not above 0")
    return Row(
        clip_id=clip_id,
        path=str(path),
        start_s=start_s,
        duration_s=duration_s,
        labels=labels,
        split=split,
        fold=fold,
        source=text(cells, "source") or "real",
        caption=text(cells, "caption"),
        video=os.path.normpath(folder / video) if video else str(path) if is_video(path) else None,
        visual_caption=text(cells, "visual_caption"),
        parent_id=text(cells, "parent_id"),
        recording=recording,
    )


def _is_file(path: str) -> bool:
    with contextlib.suppress(OSError):  # such as a name that is too long
        return Path(path).is_file()
    return False


def _clip_id(cells: Mapping[str, Any], folder: Path) -> str:
    """Return the id of a clip: as written, or its path without suffix, with the start unless that is 0."""
    written, file = text(cells, "clip_id"), text(cells, "path")
    if written or not file:
        return written or ""
    path = Path(os.path.normpath(folder / file))
    stem = _without_suffix(
        path.relative_to(folder) if path.is_relative_to(folder) else Path(path.name)
    ).as_posix()
    start = text(cells, "start_s")
    with contextlib.suppress(ValueError):
        return f"{stem}@{float(start):g}" if start and float(start) else stem
    return stem


def _seconds(cells: Mapping[str, Any], column: str) -> float | None:
    written = text(cells, column)
    if written is None:
        return None
    try:
        value = float(written)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{column} {written!r} is not a number of seconds")
    return value


def _label_set(table: Path) -> LabelSet | None:
    names = (f"{table.stem}.labels.csv", *LABEL_SETS)
    beside = (table.with_name(name) for name in names if name != table.name)
    found = next((path for path in beside if path.is_file() and not _has_files(path)), None)
    return read_label_set(found) if found else None
