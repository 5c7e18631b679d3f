"""Measurements as lines of rows.csv: append-only, whole lines, of which the last of a measurement counts."""

import csv
import fcntl
import io
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.files import atomic_write
from ajbench.core.memory import need_reserve

Row = dict[str, Any]

ROW_COLUMNS = (
    "time", "run", "recipe", "fingerprint", "git", "table", "row", "column", "dataset", "split", "metric",
    "features", "value", "ci_low", "ci_high", "n", "seed", "seconds", "device", "precision", "pool", "real",
    "codec", "settings",
)  # fmt: skip
OLDEST = ROW_COLUMNS[: ROW_COLUMNS.index("precision")]  # files without the columns that came later are read
# Lines that agree in these are of one measurement; value, interval and time are its result.
KEY = (
    "run", "recipe", "fingerprint", "table", "row", "column", "dataset", "split", "metric", "features",
    "seed",
)  # fmt: skip
_NUMBERS = ("value", "ci_low", "ci_high", "n", "seconds")
_NAN = (float("nan"), float("nan"))


@dataclass(frozen=True)
class Context:
    """The origin of measurements, which all rows of one evaluation share.

    Attributes:
        run: name of the run, such as that of its folder.
        recipe: name of the recipe.
        fingerprint: fingerprint of the stage whose output is measured.
        git: commit of the code.
        dataset: corpus, such as `esc10 fold 1`; of a value over folds, `esc10 folds 1-5`.
        split: split of the real clips that are scored or compared with.
        device: `cpu`, `cuda`, …
        seconds: duration of the measured stage; None if unknown.
        precision: precision of the measured training, or else of the extractor.
        pool: clips that the generator was trained on; None: there is none, or it is unknown.
        real: clips that `mix.real` chooses, or that the measured mix has of them.
        codec: codec of the stores, with the hash of its weights.
        settings: of a line of Table A11, see `settings_of_lines`.
    """

    run: str
    recipe: str
    fingerprint: str
    git: str
    dataset: str
    split: str = "eval"
    device: str = "cpu"
    seconds: float | None = None
    precision: str = "fp32"
    pool: int | None = None
    real: int | None = None
    codec: str = ""
    settings: str = ""


def is_control(column: str) -> bool:
    """Return whether a column of Table A11 is a control, such as `esc10 (decoded)`, rather than a mix."""
    return column.endswith(")")


def folds_name(folds: Sequence[int]) -> str:
    """Return how the column `dataset` names folds, ascending: `fold 5`, `folds 1-5`, `folds 1,3`."""
    if len(folds) == 1:
        return f"fold {folds[0]}"
    whole = len(folds) == folds[-1] - folds[0] + 1
    return "folds " + (f"{folds[0]}-{folds[-1]}" if whole else ",".join(map(str, folds)))


def folds_in(dataset: str) -> int:
    """Return over how many folds a value with this `dataset` is averaged; 1 if it names none."""
    found = re.search(r" folds (?:(\d+)-(\d+)|([\d,]+))$", dataset)
    if not found:
        return 1
    first, last, listed = found.groups()
    return listed.count(",") + 1 if listed else int(last) - int(first) + 1


def is_rival(column: str) -> bool:
    """Return whether a mix of Table A11 adds augmented or repeated clips: `+160A`, `+160R`, `+160A+160G`."""
    return re.match(r"\+\d+k?[AR]", column) is not None


def without_generated(column: str) -> str:
    """Return the mix that `+160A+160G` adds generated clips to, `+160A`; "" for a mix of one source."""
    return column.rpartition("+")[0]


def source_of(column: str) -> str:
    """Return X for a mix of Table A11 that adds synthetic clips from elsewhere, such as `+160X`, else G."""
    return "X" if re.match(r"\+\d+k?X", column) else "G"


def make_row(
    context: Context,
    table: str,
    row: str,
    column: str,
    metric: str,
    value: float,
    interval: tuple[float, float] = _NAN,
    *,
    n: int,
    seed: int | str = "",
    features: str = "",
    split: str | None = None,
) -> Row:
    """Return one measurement as a mapping with the keys of ROW_COLUMNS; `split` replaces the context's."""
    values = vars(context) | {"table": table, "row": row, "column": column, "metric": metric, "value": value}
    values |= {"ci_low": interval[0], "ci_high": interval[1], "n": n, "seed": seed, "features": features}
    values["time"] = datetime.now(UTC).isoformat(timespec="seconds")
    if split is not None:
        values["split"] = split
    return {name: values[name] for name in ROW_COLUMNS}


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]], last: bool = False) -> int:
    """Append measurements that the file does not have yet; several processes may do so at once.

    Lines with the same KEY are of one measurement. If its last line in the file has the same result, nothing
    is added; with another result (another machine, other versions) a line is added, and the last one counts.
    The new lines are written all at once or, if the disk is full, not at all.

    Args:
        path: rows.csv, created if missing.
        rows: of one evaluation, if `last`.
        last: the rows shall stand behind those of other evaluations of the recipe by the same command: those
            that do not are added again.

    Returns:
        The number of lines added.

    Raises:
        UsageError: the keys of a row are not ROW_COLUMNS.
        IntegrityError: the file has another header, or ends in an incomplete line.
        MissingError: memory is so short that the values may be wrong.
    """
    need_reserve()
    new = [{name: _text(value) for name, value in row.items()} for row in rows]
    for row in new:
        if set(row) != set(ROW_COLUMNS):
            odd = sorted(set(row) ^ set(ROW_COLUMNS))
            raise UsageError(
                f"row for {path}: missing or unknown keys: {', '.join(odd)}; see rows.ROW_COLUMNS"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path) as file:
        old = path.read_bytes()
        stored = _parse(path, old.decode()) if old else []
        behind = _after_others(stored, new) if last else 0
        known = {_key(row): _result(row) for row in stored[behind:]}
        fresh: list[dict[str, str]] = []
        for row in new:
            if known.get(_key(row)) != _result(row):
                known[_key(row)] = _result(row)
                fresh.append(row)
        if not fresh:
            return 0
        # A file without the columns that came later is replaced by one with them.
        extended = bool(old) and not old.startswith(",".join(ROW_COLUMNS).encode())
        text = io.StringIO()
        writer = csv.DictWriter(text, ROW_COLUMNS, lineterminator="\n")
        if extended or not old:
            writer.writeheader()
        writer.writerows([*stored, *fresh] if extended else fresh)
        block = text.getvalue().encode()
        if extended:
            atomic_write(path.resolve(), block)
            return len(fresh)
        try:
            if file.write(block) != len(block):
                raise OSError(f"{path}: only a part was written of {len(block)} bytes")
        except OSError:
            file.truncate(len(old))
            raise
        os.fsync(file.fileno())
    return len(fresh)


@contextmanager
def _locked(path: Path) -> Iterator[io.FileIO]:
    """Open the file to append to it, and lock it."""
    while True:
        # The file itself, so that no lock file stays in a folder that is committed.
        with path.open("ab", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Another process may have replaced the file that this one waited for.
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
                yield file
                return


def read_rows(path: Path) -> pd.DataFrame:
    """Return rows.csv in file order: value, ci_low, ci_high, n, seconds as float64, everything else as text.

    Raises:
        MissingError: there is no such file.
        IntegrityError: it is not a rows.csv, or ends in an incomplete line.
    """
    if not path.exists():
        raise MissingError(f"{path}: no measurements yet; first run `ajbench run` or `ajbench eval-cls`")
    try:
        parsed = _parse(path, path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, csv.Error) as error:
        raise IntegrityError(f"{path}: not CSV in UTF-8 ({error}); restore it, or run again") from None
    frame = pd.DataFrame(parsed, columns=list(ROW_COLUMNS), dtype=str)
    for name in _NUMBERS:
        try:
            frame[name] = pd.to_numeric(frame[name].replace("", np.nan)).astype("float64")
        except ValueError as error:
            raise IntegrityError(f"{path}: column {name} is not numeric ({error})") from None
    return frame


def _parse(path: Path, text: str) -> list[dict[str, str]]:
    lines = list(csv.reader(io.StringIO(text)))
    columns = tuple(lines[0]) if lines else ()
    if len(columns) < len(OLDEST) or columns != ROW_COLUMNS[: len(columns)]:
        raise IntegrityError(
            f"{path}: the first line is not the header of rows.csv; move the file away and run again"
        )
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(lines[0]) or (number == len(lines) and not text.endswith("\n")):
            raise IntegrityError(f"{path}: line {number} is incomplete; delete it and run again")
    return [dict(zip_longest(ROW_COLUMNS, line, fillvalue="")) for line in lines[1:]]


def _after_others(stored: Sequence[Mapping[str, str]], new: Sequence[Mapping[str, str]]) -> int:
    """Return from which line on no other evaluation stands that measures the same as that of the new rows."""
    runs = {row["run"] for row in new}
    kinds = {_kind(row) for row in new}
    others = (i for i, row in enumerate(stored) if _kind(row) in kinds and row["run"] not in runs)
    return max(others, default=-1) + 1


def _kind(row: Mapping[str, str]) -> tuple[str, str]:
    """Return recipe and stage: a run is named after its folder, `eval-cls-<fingerprint>`."""
    return row["recipe"], row["run"].rpartition("-")[0]


def _key(row: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in KEY)


def _result(row: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in ("value", "ci_low", "ci_high", "n"))


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return format(float(value), ".6g") if isinstance(value, float) else str(value)
