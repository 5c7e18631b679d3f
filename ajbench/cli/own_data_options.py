"""Options of `run` for clips without a recipe."""

from pathlib import Path
from typing import Annotated, Any

import typer


def _option(help: str, name: str, **more: Any) -> Any:
    return typer.Option(name, help=help, rich_help_panel="Without RECIPE", **more)


RECIPE = "Write the recipe that is made."
TIME = "Time to fit, such as 20m or 2h (default: 30m)."
RECORDINGS = (
    "Keep clips of one recording in one fold: a regular expression that finds it in each file's name, such "
    "as '^([^_]+)_' (default: as the last time; '': none)."
)
CLASSES = (
    "Find each clip's class in its file's name by a regular expression, such as '^([^_]+)_', instead of the "
    "class folders (default: as the last time; '': class folders)."
)
Budget = Annotated[str | None, _option(TIME, "--budget", metavar="TIME")]
Label = Annotated[str | None, _option(CLASSES, "--label", metavar="PATTERN")]
Group = Annotated[str | None, _option(RECORDINGS, "--group", metavar="PATTERN")]
WriteRecipe = Annotated[Path | None, _option(RECIPE, "--write-recipe", metavar="FILE")]
