"""Sheets of the blind listening test (`listen.html` of a report): reading and counting the answers."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ajbench.core.documents import parse_json
from ajbench.core.errors import MissingError, UsageError
from ajbench.metrics.intervals import wilson

FORMAT = "ajbench listening sheet 1"
TASKS = ("pair", "single", "class")
REAL = "real"  # the set of real clips; every other set is of generated ones


@dataclass(frozen=True)
class Trial:
    """One answered trial.

    Attributes:
        origin: `real`, `generated`, or `pair` if one of each was played.
        options: what the listener could answer.
        right: the option that is right.
        answer: the option that was chosen.
    """

    origin: str
    options: tuple[str, ...]
    right: str
    answer: str


@dataclass(frozen=True)
class Sheet:
    """The answers of one listener to one test; attributes as in the saved file."""

    recipe: str
    task: str
    set: str  # of the generated clips; empty: several
    seed: int
    listener: str
    started: str
    trials: tuple[Trial, ...]


def read(path: Path) -> Sheet:
    """Read a sheet that the page has saved as JSON or CSV.

    Raises:
        MissingError: there is no such file.
        UsageError: it is not such a sheet, or has no answers.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise _other(path, "not text in UTF-8") from None
    except OSError as error:
        raise MissingError(f"{path}: cannot be read ({error.strerror or error})") from None
    try:
        found = parse_json(text) if text.lstrip().startswith("{") else _of_csv(text)
        if found["format"] != FORMAT:
            raise _other(path, f"its format is {found['format']!r}")
        about = {name: str(found[name]) for name in ("recipe", "task", "set", "listener", "started")}
        trials = tuple(_trial(one) for one in found["trials"])
        sheet = Sheet(**about, seed=int(found["seed"]), trials=trials)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, csv.Error) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise _other(path, reason) from None
    if sheet.task not in TASKS:
        raise _other(path, f"task {sheet.task!r}; allowed: {', '.join(TASKS)}")
    if not trials:
        raise UsageError(f"{path}: no answers; leave it out")
    return sheet


def count(sheets: Sequence[Sheet]) -> list[dict[str, Any]]:
    """Count the right answers of several listeners.

    The interval is Wilson's of 95 %. With one listener it is over trials; with several it is over listeners,
    whose answers are correlated. It does not cover other clips than those played.

    Args:
        sheets: of any recipes and tasks, which are counted apart.

    Returns:
        A mapping per recipe, task, set and origin (`all`; of tasks with one sound also `real`, `generated`):
        listeners, n, right, accuracy, ci_low, ci_high, chance, verdict.

    Raises:
        UsageError: a sheet is given twice.
    """
    seen: set[Sheet] = set()
    for sheet in sheets:
        if sheet in seen:
            of = f"of {sheet.listener or 'an unnamed listener'}, started {sheet.started}"
            raise UsageError(f"the sheet {of} is given twice; leave one out")
        seen.add(sheet)
    lines = []
    for key in dict.fromkeys((sheet.recipe, sheet.task, sheet.set) for sheet in sheets):
        mine = [sheet for sheet in sheets if (sheet.recipe, sheet.task, sheet.set) == key]
        # A sheet without a name counts as a listener of its own.
        answers = [
            (sheet.listener or number, trial) for number, sheet in enumerate(mine) for trial in sheet.trials
        ]
        for origin in ("all", REAL, "generated"):
            part = [one for one in answers if origin in ("all", one[1].origin)]
            if part:
                about = dict(zip(("recipe", "task", "set"), key, strict=True))
                lines.append({**about, "clips": origin, **_line(part)})
    return lines


def _line(answers: Sequence[tuple[str | int, Trial]]) -> dict[str, Any]:
    listeners = [listener for listener, _ in answers]
    hits = np.array([trial.answer == trial.right for _, trial in answers])
    several = len(set(listeners)) > 1
    share = wilson(hits, listeners if several else range(len(hits)))
    chance = float(np.mean([1 / len(trial.options) for _, trial in answers]))
    verdict = "better than chance" if share.low > chance else "worse than chance"
    return {
        "listeners": len(set(listeners)),
        "n": len(hits),
        "right": int(hits.sum()),
        "accuracy": share.value,
        "ci_low": share.low,
        "ci_high": share.high,
        "chance": chance,
        "verdict": "no difference from chance is seen" if share.low <= chance <= share.high else verdict,
    }


def _trial(found: dict[str, Any]) -> Trial:
    sets = [sound["set"] for sound in found["sounds"]]
    options = tuple(map(str, found["options"]))
    right, answer = str(found["right"]), str(found["answer"])
    if len(set(options)) != len(options) or len(options) < 2:
        raise ValueError(f"options {', '.join(options)}: at least two different ones are needed")
    for name, given in (("right", right), ("answer", answer)):
        if given not in options:
            raise ValueError(f"{name} {given!r} is not among the options {', '.join(options)}")
    origin = "pair" if len(sets) > 1 else REAL if sets[0] == REAL else "generated"
    return Trial(origin, options, right, answer)


def _of_csv(text: str) -> dict[str, Any]:
    """Return a CSV sheet in the form of a JSON one."""
    rows: Iterable[dict[str, str]] = csv.DictReader(io.StringIO(text))
    lines = list(rows)
    if not lines:
        raise ValueError("no rows")
    trials = [
        {**row, "options": parse_json(row["options"]), "sounds": [{"set": row[n]} for n in _sets(row)]}
        for row in lines
    ]
    return {**lines[0], "trials": trials}


def _sets(row: dict[str, str]) -> list[str]:
    return [name for name in ("set_a", "set_b") if row[name]]


def _other(path: Path, reason: str) -> UsageError:
    return UsageError(f"{path}: not a sheet of listen.html ({reason}); save it there as JSON or CSV")
