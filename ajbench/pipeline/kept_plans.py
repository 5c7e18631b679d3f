"""The recipes made for someone's clips, as they are kept in `<work>/<name>/` between commands.

A file begins with comments: the clips that it is of, and what its sizes were chosen by.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from ajbench.core import documents
from ajbench.core.errors import IntegrityError
from ajbench.core.files import atomic_write

PLANS = ("plan.yaml", "plan_synthetic.yaml")  # with and without a generator
_HEAD = re.compile(
    r"^# data: (?P<data>.*)\n# plan: (?P<key>\w+), budget (?P<budget>\d+), speed (?P<speed>[\d.]+)\n"
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
    """Return `data`, `key`, `budget` and `speed` from the comments of a file; None if it has none."""
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
