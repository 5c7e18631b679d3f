"""What corpus readers check and settle alike: subsets, folds, splits, clip ids."""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data
from ajbench.data.manifest import Problem, Row

FOLDS = 5  # of corpora that bring neither splits nor folds


def check_keys(data: Data, subsets: Collection[str] = (), folds: bool = False) -> None:
    """Refuse a subset that the corpus has not, and an eval fold where it has no folds.

    Raises:
        UsageError: the data section asks for one.
    """
    if data.subset is not None and data.subset not in subsets:
        allowed = f"allowed: {', '.join(subsets)}" if subsets else "it has none"
        raise UsageError(f"data.subset={data.subset}: corpus {data.corpus} has no such subset; {allowed}")
    if data.eval_fold is not None and not folds:
        raise UsageError(
            f"data.eval_fold={data.eval_fold}: corpus {data.corpus} has splits, no folds; leave it out"
        )


def hashed_fold(name: str) -> int:
    """Return the fold 1 … 5 of a file by its name alone, so that adding files never moves others."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % FOLDS + 1


def split_by_fold(
    rows: Sequence[Row], problems: Sequence[Problem], eval_fold: int | None
) -> tuple[list[Row], list[Problem]]:
    """Put what is in `eval_fold` (None: the last fold with clips) in the eval split and all else in train.

    Problems whose fold is known get their split too: what was expected is counted by split.

    Raises:
        UsageError: no clip is in that fold; the message lists those that hold clips.
        MissingError: all clips are in one fold, so nothing is left to train on.
    """
    present = sorted({row.fold for row in rows if row.fold is not None})
    chosen = present[-1] if eval_fold is None and present else eval_fold
    if chosen not in present:
        raise UsageError(f"data.eval_fold={eval_fold}: no such fold; allowed: {', '.join(map(str, present))}")
    if len(present) < 2:
        raise MissingError(
            f"all {len(rows)} clips are in fold {chosen}: one fold is evaluated, another must be trained on"
        )

    def side(fold: int | None) -> str:
        return "eval" if fold == chosen else "train"

    known = (p if p.fold is None else replace(p, split=side(p.fold)) for p in problems)
    return [replace(row, split=side(row.fold)) for row in rows], list(known)


def need_splits(rows: Iterable[Row], where: Path) -> None:
    """Check that there are clips to train on and clips to evaluate on.

    Raises:
        MissingError: the train or the eval split is empty.
    """
    found = {row.split for row in rows}
    for split in ("train", "eval"):
        if split not in found:
            raise MissingError(f"{where}: no clips in split {split!r}; found: {', '.join(sorted(found))}")


def unique_ids(rows: Iterable[Row], lines: Iterable[int | None]) -> tuple[list[Row], list[Problem]]:
    """Keep the first row of every clip id; later ones become problems (`lines`: each row's line, or None)."""
    first: dict[str, Row] = {}
    problems = []
    for row, line in zip(rows, lines, strict=True):
        if row.clip_id in first:
            reason = f"clip id {row.clip_id!r} occurs twice; first used by {first[row.clip_id].path}"
            problems.append(Problem(row.clip_id, row.path, line, reason, row.split, row.fold))
        else:
            first[row.clip_id] = row
    return list(first.values()), problems
