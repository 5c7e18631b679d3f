"""Your own clips in a table: CSV or Parquet with a row a clip.

Columns: `path` and `labels`, and any of `clip_id, split, fold, start_s, duration_s, caption, video,
visual_caption, parent_id, source`; others are passed over. A label set beside the table (`label_set.csv`,
`labels.csv`, `<table>.labels.csv` or AudioSet's `class_labels_indices.csv`) fixes the classes and their
order.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data
from ajbench.core.registry import suggest
from ajbench.data.corpora.splits import check_keys, hashed_fold, need_splits, split_by_fold, unique_ids
from ajbench.data.labels import LabelSet
from ajbench.data.manifest import SPLIT_NAMES, Manifest, Problem, Row, csv_records, read_label_set

TABLES = ("manifest.parquet", "manifest.csv", "clips.csv")
LABEL_SETS = ("label_set.csv", "labels.csv", "class_labels_indices.csv")
_BESIDE = (".labels.csv", ".problems.csv")


def read(data: Data, root: Path | None) -> Manifest:
    """Read the table `root`, or the one table in folder `root`.

    Labels of a row are separated by `data.label_separator` (in Parquet they may be a list) and may be names
    or mids. Relative paths start at the table's folder. Splits come from `split`; or from `fold` where there
    is no split column or `data.eval_fold` is given; or, with neither column, from five folds by a hash of the
    file name's stem. A row without `clip_id` is called by its path without suffix, with `@start` where it
    starts later than 0 s. The lines of problems are those of the CSV (its header is line 1), or a Parquet
    file's rows counted from 1.

    Raises:
        UsageError: no root, a subset, several tables, a column missing, or an eval fold that holds no clip.
        MissingError: no table there, or no usable clip in it.
    """
    if root is None:
        raise UsageError(
            "corpus table: say where it lies with --data FILE (CSV or Parquet, columns path and labels)"
        )
    check_keys(data, folds=True)
    path = find_table(root)
    folder = path.resolve().parent
    if path.suffix == ".csv":
        records, problems = csv_records(path, ("path", "labels"))
    else:
        records, problems = _parquet_records(path), []
    known = _label_set(path)
    by_name = {name: name for name in known.names} if known else None
    if known and known.mids and by_name is not None:
        by_name.update(zip(known.mids, known.names, strict=True))
    columns = records[0][1].keys() if records else set()
    if "split" in columns and (data.eval_fold is None or "fold" not in columns):
        sides = "split"
    else:
        sides = "fold" if "fold" in columns else "hash"
    if sides == "split" and data.eval_fold is not None:
        raise UsageError(f"data.eval_fold={data.eval_fold}: {path} has a column 'split' and no column 'fold'")

    rows, lines = [], []
    for line, cells in records:
        # The side is settled first: what was expected is counted by split, whether or not it is usable.
        split, fold, reason = _side(cells, sides)
        try:
            if reason:
                raise ValueError(reason)
            rows.append(_row(cells, folder, split, fold, data.label_separator, by_name))
            lines.append(line)
        except ValueError as error:
            written = _text(cells, "clip_id")
            known_split = split if sides == "split" and not reason else None
            problems.append(Problem(written, str(path), line, str(error), known_split, fold))
    if not rows:
        first = f"; first problem, line {problems[0].line}: {problems[0].reason}" if problems else ""
        raise MissingError(f"{path}: no usable clip{first}")
    if sides != "split":
        rows, problems = split_by_fold(rows, problems, data.eval_fold)
    need_splits(rows, path)
    rows, repeated = unique_ids(rows, lines)
    label_set = known or LabelSet.from_names(name for row in rows for name in row.labels)
    return Manifest(rows, label_set, sorted(problems + repeated, key=lambda problem: problem.line or 0))


def find_table(root: Path) -> Path:
    """Return the table that `root` is or holds: manifest.parquet, manifest.csv, clips.csv, or the only one.

    Raises:
        MissingError: there is none.
        UsageError: there are several, or `root` is a file of another kind.
    """
    if root.is_file():
        if root.suffix not in (".csv", ".parquet"):
            raise UsageError(f"{root}: a table is .csv or .parquet")
        return root
    if not root.is_dir():
        raise MissingError(f"{root}: no such file or folder; expected a table with columns path and labels")
    found = [root / name for name in TABLES if (root / name).is_file()]
    if not found:
        found = sorted(
            path
            for path in root.iterdir()
            if path.suffix in (".csv", ".parquet")
            and path.name not in LABEL_SETS
            and not path.name.endswith(_BESIDE)
        )
    if not found:
        raise MissingError(f"{root}: no table; expected {', '.join(TABLES)} or one other .csv or .parquet")
    if len(found) > 1:
        raise UsageError(
            f"{root}: several tables ({', '.join(p.name for p in found)}); name one with --data FILE"
        )
    return found[0]


def _side(cells: Mapping[str, Any], sides: str) -> tuple[str, int | None, str | None]:
    """Return (split, fold, what is wrong with them)."""
    fold_text, split_text = _text(cells, "fold"), _text(cells, "split")
    fold = _whole(fold_text)
    if sides == "hash":
        fold = hashed_fold(Path(_text(cells, "path") or "").stem)
    elif fold is None and (fold_text is not None or sides == "fold"):
        return "train", None, f"fold {fold_text or ''!r} is not a number from 1 on"
    if sides == "split" and split_text not in SPLIT_NAMES:
        return "train", fold, f"split {split_text or ''!r} is none of {', '.join(SPLIT_NAMES)}"
    return SPLIT_NAMES[split_text or "train"] if sides == "split" else "train", fold, None


def _row(
    cells: Mapping[str, Any],
    folder: Path,
    split: str,
    fold: int | None,
    separator: str,
    by_name: Mapping[str, str] | None,
) -> Row:
    written, video = _text(cells, "path"), _text(cells, "video")
    if written is None:
        raise ValueError("path is empty")
    # Not resolve(): links keep the names by which the table knows them.
    path = Path(os.path.normpath(folder / written))
    if not path.is_file():
        raise ValueError(f"{written}: no such file in {folder}")
    start_s = _seconds(cells, "start_s") or 0.0
    duration_s = _seconds(cells, "duration_s")
    if start_s < 0:
        raise ValueError(f"start_s {start_s:g} is negative")
    if duration_s is not None and duration_s <= 0:
        raise ValueError(f"duration_s {duration_s:g} is not above 0")
    stem = path.relative_to(folder).with_suffix("").as_posix() if path.is_relative_to(folder) else path.stem
    return Row(
        clip_id=_text(cells, "clip_id") or (f"{stem}@{start_s:g}" if start_s else stem),
        path=str(path),
        start_s=start_s,
        duration_s=duration_s,
        labels=_labels(cells["labels"], separator, by_name),
        split=split,
        fold=fold,
        source=_text(cells, "source") or "real",
        caption=_text(cells, "caption"),
        video=os.path.normpath(folder / video) if video else None,
        visual_caption=_text(cells, "visual_caption"),
        parent_id=_text(cells, "parent_id"),
    )


def _labels(value: Any, separator: str, by_name: Mapping[str, str] | None) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split(separator)
    parts = value if isinstance(value, list) else [] if value is None else [value]
    names = tuple(dict.fromkeys(part for part in (str(part).strip() for part in parts) if part))
    if not names:
        raise ValueError("labels is empty")
    if by_name is None:
        return names
    for name in names:
        if name not in by_name:
            raise ValueError(f"label {name!r} is not in the label set{suggest(name, by_name)}")
    return tuple(dict.fromkeys(by_name[name] for name in names))


def _text(cells: Mapping[str, Any], column: str) -> str | None:
    value = cells.get(column)
    return None if value is None or str(value).strip() == "" else str(value).strip()


def _seconds(cells: Mapping[str, Any], column: str) -> float | None:
    text = _text(cells, column)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{column} {text!r} is not a number of seconds")
    return value


def _whole(text: str | None) -> int | None:
    # pandas writes whole numbers of a column with gaps as 1.0
    digits = (text or "").removesuffix(".0")
    return int(digits) if digits.isdecimal() and int(digits) > 0 else None


def _label_set(table: Path) -> LabelSet | None:
    names = (f"{table.stem}.labels.csv", *LABEL_SETS)
    found = [table.with_name(name) for name in names if table.with_name(name).is_file()]
    return read_label_set(found[0]) if found else None


def _parquet_records(path: Path) -> list[tuple[int, dict[str, Any]]]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path}: not readable as Parquet ({' '.join(str(error).split())})") from None
    for name in ("path", "labels"):
        if name not in table.column_names:
            near = suggest(name, table.column_names)
            raise UsageError(
                f"{path}: column {name!r} is missing{near}; found: {', '.join(table.column_names)}"
            )
    return list(enumerate(table.to_pylist(), start=1))
