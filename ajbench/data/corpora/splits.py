"""Checks that corpus readers share: options of the data section, labels, folds, splits and clip ids."""

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ajbench.core.errors import MissingError, UsageError
from ajbench.core.recipe import Data
from ajbench.core.registry import suggest
from ajbench.data import reasons
from ajbench.data.manifest import SPLIT_NAMES, Problem, Row

FOLDS = 5  # of corpora that have neither splits nor folds


def corpus_root(
    data: Data, root: Path | None, contents: str, subsets: Collection[str] = (), folds: bool = False
) -> Path:
    """Return `root`, the value of --data, after checking it and the options; `contents` is for the message.

    Raises:
        UsageError: no root, an unknown subset, or an eval fold of a corpus without folds.
    """
    if root is None:
        raise UsageError(f"corpus {data.corpus}: give its location with --data PATH ({contents})")
    check_options(data, subsets, folds)
    return root


def check_options(data: Data, subsets: Collection[str] = (), folds: bool = False) -> None:
    """Refuse a subset that the corpus does not have, and an eval fold if it has no folds.

    Raises:
        UsageError: the data section asks for one.
    """
    if data.subset is not None and data.subset not in subsets:
        allowed = f"allowed: {', '.join(subsets)}" if subsets else "it has none"
        raise UsageError(f"data.subset={data.subset}: corpus {data.corpus} has no such subset; {allowed}")
    if data.eval_fold is not None and not folds:
        raise UsageError(
            f"data.eval_fold={data.eval_fold}: corpus {data.corpus} has splits, not folds; leave it out"
        )


def clip_labels(written: Iterable[str], by_name: Mapping[str, str] | None, where: str) -> tuple[str, ...]:
    """Return the distinct labels of one clip, in order; empty ones are skipped.

    Args:
        written: label names or mids.
        by_name: name or mid → name; None if any name is a label.
        where: the known labels are listed, for the message.

    Raises:
        ValueError: no label, or an unknown one.
    """
    names = tuple(dict.fromkeys(filter(None, map(str.strip, written))))
    if not names:
        raise ValueError("labels is empty")
    if by_name is None:
        return names
    for name in names:
        if name not in by_name:
            raise ValueError(f"label {name!r} is not in {where}{suggest(name, by_name)}")
    return tuple(dict.fromkeys(by_name[name] for name in names))


def splits_named(names: Iterable[str]) -> dict[str, str]:
    """Return name → split of those names that mean a split, in any case.

    `dev` and `development` are the train split, or the val split if another name is the train split.
    """
    found = {name: SPLIT_NAMES.get(name.strip().lower(), "") for name in dict.fromkeys(names)}
    dev = "val" if "train" in found.values() else "train"
    found |= {name: dev for name in found if name.strip().lower() in ("dev", "development")}
    return {name: split for name, split in found.items() if split}


def split_folders(names: Iterable[str]) -> dict[str, str]:
    """Return folder → split of those that are named after one, as `splits_named`.

    Where all of them begin or end with such a word, and not all with the same one, these count as well:
    `train_set` and `test_set`, `train-clean` and `dev-clean`.
    """
    names = list(dict.fromkeys(names))
    exact = splits_named(names)
    if len(exact) == len(names):
        return exact
    ends = {name: re.split(r"[-_. ]+", name.strip().lower()) for name in names}
    words = {
        name: next((w for w in (own[0], own[-1]) if splits_named([w])), "") for name, own in ends.items()
    }
    splits = splits_named(words.values())
    if all(words.values()) and len({*splits.values()}) > 1:
        return {name: splits[word] for name, word in words.items()}
    return exact


def hashed_fold(name: str) -> int:
    """Return a fold 1 … 5 that depends on the file's name only, so that adding files never moves others."""
    return int.from_bytes(_digest(name)[:8], "big") % FOLDS + 1


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()


def with_every_class(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """Return rows in hashed folds; in dealt ones if a class would be missing from a fold that it can be in.

    A class of several names must be in the last fold, the default of `data.eval_fold`; one of a single name
    must not. Dealt folds: the names of each class, the rarest class first, go to the fold that has fewest of
    that class, the last fold first, or to the first fold if there is only one. Each name stays in one fold.

    Args:
        rows: with hashed folds.
        names: of each row, what is dealt as a whole; rows of one name have the same hashed fold.
    """
    labels_of: dict[str, set[str]] = {}
    folds: dict[str, int] = {}
    for row, name in zip(rows, names, strict=True):
        labels_of.setdefault(name, set()).update(row.labels)
        folds[name] = row.fold or 1
    of_label: dict[str, list[str]] = {}
    for name, labels in labels_of.items():
        for label in labels:
            of_label.setdefault(label, []).append(name)
    found = {label: {folds[name] for name in own} for label, own in of_label.items()}
    if all(
        len(found[label]) == min(FOLDS, len(own)) and (FOLDS in found[label]) == (len(own) > 1)
        for label, own in of_label.items()
    ):
        return list(rows)
    dealt: dict[str, int] = {}
    for _, own in sorted(of_label.items(), key=lambda item: (len(item[1]), item[0])):
        sizes = Counter(dealt[name] for name in own if name in dealt)
        for name in sorted((name for name in own if name not in dealt), key=_digest):
            fold = 1 if len(own) == 1 else min(range(FOLDS, 0, -1), key=sizes.__getitem__)
            dealt[name] = fold
            sizes[fold] += 1
    return [replace(row, fold=dealt[name]) for row, name in zip(rows, names, strict=True)]


def split_by_fold(
    rows: Sequence[Row], problems: Sequence[Problem], eval_fold: int | None
) -> tuple[list[Row], list[Problem]]:
    """Assign fold `eval_fold` (None: the last one with clips) to the eval split, all others to train.

    Problems whose fold is known get a split as well, since expected clips are counted per split.

    Raises:
        UsageError: no clip is in that fold; the message lists the folds that have clips.
        MissingError: all clips are in one fold, so that none is left to train on.
    """
    if not rows:
        return [], list(problems)
    present = sorted({row.fold for row in rows if row.fold is not None})
    chosen = present[-1] if eval_fold is None and present else eval_fold
    if chosen not in present:
        raise UsageError(f"data.eval_fold={eval_fold}: no such fold; allowed: {', '.join(map(str, present))}")
    if len(present) < 2:
        clips = "the only clip is" if len(rows) == 1 else f"all {len(rows)} clips are"
        raise MissingError(f"{clips} in fold {chosen}; add clips, since training needs a second fold")

    def side(fold: int | None) -> str:
        return "eval" if fold == chosen else "train"

    known = (p if p.fold is None else replace(p, split=side(p.fold)) for p in problems)
    return [replace(row, split=side(row.fold)) for row in rows], list(known)


def with_eval(rows: Sequence[Row], problems: Sequence[Problem]) -> tuple[list[Row], list[Problem]]:
    """Return a corpus in which the val split is the eval split if there is no other."""
    if any(row.split == "eval" for row in rows) or any(problem.split == "eval" for problem in problems):
        return list(rows), list(problems)
    return (
        [replace(row, split="eval") if row.split == "val" else row for row in rows],
        [replace(one, split="eval") if one.split == "val" else one for one in problems],
    )


def need_splits(rows: Collection[Row], problems: Sequence[Problem], where: Path, expected: str = "") -> None:
    """Check that there are clips to train on and clips to evaluate on.

    Args:
        rows: the usable clips.
        problems: of the others; the first one is quoted if there is no usable clip.
        where: path of the corpus, for the message.
        expected: contents of the corpus, for the message.

    Raises:
        MissingError: the train or the eval split is empty.
    """
    if not rows:
        place = f", line {problems[0].line}" if problems and problems[0].line else ""
        first = f"; first problem{place}: {problems[0].reason}" if problems else ""
        first += reasons.RELATIVE * (reasons.NO_FILE in first)
        raise MissingError(f"{where}: no usable clip{expected and f'; expected {expected}'}{first}")
    found = {row.split for row in rows}
    for split in ("train", "eval"):
        if split not in found:
            raise MissingError(f"{where}: no clips in split {split!r}; found: {', '.join(sorted(found))}")


def unique_ids(
    rows: Iterable[Row], lines: Iterable[int | None], problems: Iterable[Problem] = ()
) -> tuple[list[Row], list[Problem]]:
    """Keep the first row of each clip id and turn the others into problems.

    Args:
        rows: of one table.
        lines: line number of each row, or None.
        problems: found so far.

    Returns:
        The rows that are kept, and all problems ordered by line.
    """
    first: dict[str, Row] = {}
    found = list(problems)
    for row, line in zip(rows, lines, strict=True):
        if row.clip_id in first:
            reason = f"clip id occurs twice ({row.clip_id!r}, first used by {first[row.clip_id].path})"
            found.append(Problem(row.clip_id, row.path, line, reason, row.split, row.fold))
        else:
            first[row.clip_id] = row
    return list(first.values()), sorted(found, key=lambda problem: problem.line or 0)
