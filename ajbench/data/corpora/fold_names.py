"""Folds as folders and tables name them: numbers, numbered words, letters, or a few other names."""

import re
from collections.abc import Iterable, Mapping

MOST = 20  # folds that have names
_WORDS = "fold|split|cv|part|partition|set|session"
_NUMBER = re.compile(rf"(?:(?:{_WORDS})[ _-]*)?(\d{{1,9}})(?:\.0)?", re.IGNORECASE)
_NUMBERED = re.compile(rf"(?:{_WORDS})[ _-]*(\d{{1,9}})", re.IGNORECASE)
# foldA and fold_a, but not folds
_LETTERED = re.compile(rf"(?:(?i:{_WORDS})[ _-]+([A-Za-z])|(?:{_WORDS})([A-Z]))")
_PLAIN = re.compile(r"(?:fold|split|cv)[ _-]*(?:\d{1,9}|[A-Za-z])", re.IGNORECASE)


def number(text: str | None) -> int | None:
    """Return the fold of a cell such as `3`, `3.0` (pandas' in a column with gaps) or `fold 3`; else None."""
    match = _NUMBER.fullmatch(text or "")
    return int(match[1]) if match else None


def of_folders(names: Iterable[str]) -> dict[str, int]:
    """Return the fold of each folder if all are named after one (fold1, fold_a, Session3); else nothing.

    Letters are the folds 1, 2, ….
    """
    found = {}
    for name in names:
        if match := _NUMBERED.fullmatch(name):
            found[name] = int(match[1])
        elif match := _LETTERED.fullmatch(name):
            found[name] = ord((match[1] or match[2]).lower()) - ord("a") + 1
        else:
            return {}
    return found if len({*found.values()}) == len(found) else {}


def are_plain(names: Iterable[str]) -> bool:
    """Return whether folders are called fold, split or cv and a number or letter, which no class is."""
    return all(_PLAIN.fullmatch(name) for name in names)


def named(cells: Iterable[str]) -> dict[str, int]:
    """Return cell → fold if the cells of a column are a few names, such as A … E; else nothing.

    Folds are 1, 2, … in the order of the names. There are at most 20 names, and two cells a name on average.
    """
    cells = list(cells)
    names = {*cells}
    if not 2 <= len(names) <= min(MOST, len(cells) // 2) or any(number(name) is not None for name in names):
        return {}
    return {name: fold for fold, name in enumerate(sorted(names, key=_in_order), start=1)}


def in_words(folds: Mapping[str, int]) -> str:
    """Return which fold each name is, where the name does not say so itself."""
    return ", ".join(name if number(name) == fold else f"{name} is {fold}" for name, fold in folds.items())


def _in_order(name: str) -> list[tuple[int, str]]:
    """Return what names are sorted by, in which `week 10` comes after `week 9`."""
    return [
        (int(part[:18]), "") if part.isdecimal() else (0, part.casefold())
        for part in re.split(r"(\d+)", name)
    ]
