"""The recipes made for someone's clips, as they are kept in `<work>/<name>/` between commands.

A plan has the sizes that were chosen, without what KEY=VALUE changes; a run's recipe is kept with it. A file
begins with comments: the clips that it is of, what its sizes were chosen by, and of a run the KEY=VALUE.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ajbench.core import documents
from ajbench.core.errors import IntegrityError
from ajbench.core.files import atomic_write

PLANS = ("plan.yaml", "plan_synthetic.yaml")  # with and without a generator
LAST = ("last_run.yaml", "last_run_synthetic.yaml")  # recipe of the last run, without and with --synthetic
_HEAD = re.compile(
    r"^# data: (?P<data>.*)\n# plan: (?P<key>\w+), budget (?P<budget>\d+), speed (?P<speed>[\d.]+)\n"
    r"(?:# keys: (?P<keys>.*)\n)?"
)


def heading(root: Path, key: str, known: dict[str, Any]) -> str:
    """Return the comments that a file begins with.

    Args:
        root: of the clips.
        key: hash of the clips and how they are read.
        known: `budget` in seconds and `speed` of the machine.
    """
    return f"# data: {root}\n# plan: {key}, budget {known['budget']}, speed {known['speed']}\n"


def head_of(file: Path) -> dict[str, str] | None:
    """Return `data`, `key`, `budget`, `speed`, `keys` from the comments of a file; None if it has none."""
    try:
        match = _HEAD.match(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    return match.groupdict() if match else None


def last_data(*plans: Path) -> dict[str, Any]:
    """Return the data section of the first of these recipes that was made; empty if none was."""
    for plan in plans:
        data = _read(plan).get("data") if head_of(plan) else None
        if isinstance(data, dict):
            return data
    return {}


def planned(plan: Path, key: str, wanted: int | None) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Return the recipe of the last time and its budget, if it was made for the same clips and budget."""
    head = head_of(plan)
    if head is None:
        return None, {}
    known = {"budget": int(head["budget"]), "speed": float(head["speed"])}
    if head["key"] != key or wanted not in (None, known["budget"]):
        return None, known
    return _read(plan), known


def last_run(file: Path, key: str) -> dict[str, Any] | None:
    """Return the recipe of the last run, if it was of the same clips."""
    head = head_of(file)
    return _read(file) if head and head["key"] == key else None


def keys_of(file: Path) -> list[str]:
    """Return the KEY=VALUE of the last run; empty without any."""
    head = head_of(file)
    try:
        return list(map(str, documents.parse_json((head and head["keys"]) or "[]")))
    except ValueError:
        return []


def keep_run(file: Path, head: str, tree: dict[str, Any], keys: Sequence[str]) -> None:
    """Keep the recipe of a run, and its KEY=VALUE."""
    write(file, f"{head}# keys: {json.dumps(list(keys))}\n", tree)


def write(file: Path, head: str, tree: dict[str, Any]) -> None:
    """Write a recipe below the comments `head`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, head + as_yaml(tree))


def as_yaml(tree: dict[str, Any]) -> str:
    """Return a recipe as YAML."""
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)


def _read(file: Path) -> dict[str, Any]:
    try:
        tree = documents.read_yaml(file)
    except ValueError as error:
        raise IntegrityError(f"{file}: damaged ({error}); remove it") from None
    if not isinstance(tree, dict):
        raise IntegrityError(f"{file}: damaged (not keys and values); remove it")
    return tree
