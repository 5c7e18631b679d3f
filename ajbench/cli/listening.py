"""The command `score-listening`: counts the sheets of blind listening tests."""

from pathlib import Path
from typing import Annotated

import typer

from ajbench.cli.options import Settings, command
from ajbench.core import console

app = typer.Typer()
COLUMNS = ["task", "clips", "listeners", "n", "right", "accuracy", "ci_low", "ci_high", "chance", "verdict"]
UNUSED = ("recipe", "data", "work", "results", "generator", "seed", "device", "dry_run", "force", "overrides")


@app.command()
@command(hide=UNUSED)
def score_listening(
    settings: Settings,
    sheets: Annotated[
        list[Path], typer.Argument(metavar="SHEET...", help="Sheets saved by the page, JSON or CSV.")
    ],
) -> None:
    """Count the answers of blind listening tests.

    The page `listen.html` of a report saves a sheet for each listener. Right answers are counted per question
    (which of two is generated, real or generated, which class), with an interval over listeners, or over the
    trials of a single one, and compared with chance.

    \b
    Examples:
      ajbench score-listening listening-mini-pair-1.json
      ajbench score-listening sheets/*.json --json
    """
    from ajbench.evaluation.listening_sheets import count, read

    lines = count([read(path) for path in sheets])
    about = [name for name in ("recipe", "set") if len({line[name] for line in lines}) > 1]
    columns = [*about, *COLUMNS]
    console.emit(lines, table=(columns, [[line[name] for name in columns] for line in lines]))
