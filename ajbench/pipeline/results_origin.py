"""Whose results a folder holds: two recipes of one file name, corpora or sets of clips never share one."""

from pathlib import Path

from ajbench.core.errors import UsageError
from ajbench.core.sealed_json import read_sealed, write_sealed

ORIGIN = "origin.json"
SHIPPED = "the recipe that comes with ajbench"
MADE = "the recipe made for the data"  # which may be written to a file, and is the same recipe then


def claim(
    out: Path, recipe: Path | str, data: Path | None, synthetic: Path | None = None, keep: bool = True
) -> None:
    """Note in a results folder which recipe and data its results are of, unless it has those of others.

    Others whose files are gone have been moved, and their folder is taken over.

    Args:
        out: results folder of the run.
        recipe: its YAML file, `SHIPPED` or `MADE`.
        data: the corpus; None if it is rendered.
        synthetic: clips made elsewhere, if there are any.
        keep: whether to write the note.

    Raises:
        UsageError: the folder has results of another recipe or corpus, or of other synthetic clips.
        IntegrityError: the note is damaged.
    """
    given = {"recipe": recipe, "data": data, "synthetic": synthetic}
    mine = {key: str(path.resolve()) if isinstance(path, Path) else path for key, path in given.items()}
    try:
        known = read_sealed(out / ORIGIN, "delete it if the results are of this recipe and data")
    except FileNotFoundError:
        known = {}
    for key, own in mine.items():
        other = known.get(key)
        written = MADE in (own, other) and SHIPPED not in (own, other)
        there = other in (SHIPPED, MADE) or (other and Path(other).exists())
        if own and own != other and there and not written:
            names = [one if one in (SHIPPED, MADE) else f"{key} {one}" for one in (other, own)]
            raise UsageError(
                f"{out}: holds results of {names[0]}, not of {names[1]}; choose another folder with "
                "--results DIR, or another name with name=NAME"
            )
        if (own == MADE and written and there) or (own is None and there):  # rendered clips have no data
            mine[key] = other
    if keep and mine != known:
        out.mkdir(parents=True, exist_ok=True)
        write_sealed(out / ORIGIN, mine, indent=2)
