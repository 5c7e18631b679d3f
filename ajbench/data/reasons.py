"""Why clips are left out, in words: one entry for all clips of a reason, with an example."""

import re
from collections.abc import Iterable
from pathlib import PurePath

from ajbench.data.manifest import Problem

SHOWN = 8  # reasons that are named
NO_FILE = "no such file"  # of a line in a table; the path follows in parentheses
NOT_SOUND = "not a sound file"  # of a file that is no expected clip; its suffix follows in parentheses
RELATIVE = "; paths are relative to the table's folder"


def short(problem: Problem) -> str:
    """Return the reason for a problem without what follows in parentheses, which is about that clip only."""
    return problem.reason.partition(" (")[0]


def by_reason(problems: Iterable[Problem]) -> dict[str, list[Problem]]:
    """Return the problems of each reason, the most frequent reason first."""
    found: dict[str, list[Problem]] = {}
    for problem in problems:
        found.setdefault(short(problem), []).append(problem)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def counts(problems: Iterable[Problem]) -> dict[str, int]:
    """Return the number of problems of each reason, the most frequent reason first."""
    return {reason: len(mine) for reason, mine in by_reason(problems).items()}


def in_words(problems: Iterable[Problem], shown: int = SHOWN) -> str:
    """Return the reasons, each with the number of its problems and an example, the most frequent first."""
    found = by_reason(problems)
    parts = [f"{reason.removeprefix('left out: ')} ({_some(mine)})" for reason, mine in found.items()]
    text = ", ".join(parts[:shown]) + (", …" if len(parts) > shown else "")
    return text + RELATIVE * (NO_FILE in found)


def _some(problems: list[Problem]) -> str:
    example = _name(problems[0])
    return f"{len(problems)}, such as {example}" if len(problems) > 1 else f"1: {example}"


def _name(problem: Problem) -> str:
    """Return what a clip is called: its file, its line in a table, or its id in a store."""
    if problem.reason.startswith(f"{NO_FILE} (") and (written := re.search(r"\((.+)\)$", problem.reason)):
        return written[1]
    if problem.line is not None:
        return f"line {problem.line}"
    path = PurePath(problem.path)
    return path.name if path.suffix or not problem.clip_id else problem.clip_id
