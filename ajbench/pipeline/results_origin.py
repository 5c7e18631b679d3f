"""Whose results a folder holds: two recipes of one file name, corpora or sets of clips never share one."""

import json
from pathlib import Path

from ajbench.core.errors import UsageError
from ajbench.core.files import atomic_write

ORIGIN = "origin.json"


def claim(
    out: Path, recipe: Path | None, data: Path | None, synthetic: Path | None = None, keep: bool = True
) -> None:
    """Note in a results folder which recipe and data its results are of, unless it has those of others.

    Others whose files are gone have been moved, and their folder is taken over.

    Args:
        out: results folder of the run.
        recipe: its YAML file; None if it comes with ajbench or is made for the data.
        data: the corpus; None if it is rendered.
        synthetic: clips made elsewhere, if there are any.
        keep: whether to write the note.

    Raises:
        UsageError: the folder has results of another recipe or corpus, or of other synthetic clips.
    """
    given = {"recipe": recipe, "data": data, "synthetic": synthetic}
    mine = {key: path and str(path.resolve()) for key, path in given.items()}
    try:
        known = json.loads((out / ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    for key, path in mine.items():
        other = known.get(key)
        if path and other and other != path and Path(other).exists():
            raise UsageError(
                f"{out}: holds results of {key} {other}, not of {path}; choose another folder with --results "
                "DIR, or another name with name=NAME"
            )
    if keep and mine != known:
        out.mkdir(parents=True, exist_ok=True)
        atomic_write(out / ORIGIN, json.dumps(mine, indent=2, ensure_ascii=False) + "\n")
