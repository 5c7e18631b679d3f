"""Options for synthetic clips made elsewhere, source X of a mix."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ajbench.cli.options import Settings
from ajbench.core.errors import UsageError


def _option(help: str, name: str, **more: Any) -> Any:
    return typer.Option(name, help=help, rich_help_panel="Synthetic clips from elsewhere", **more)


FOLDER = (
    "Mix these clips (source X) with the real ones, instead of generating any: a folder of sound files or a "
    "store."
)
LABELS = (
    "Their files and labels (default: metadata.csv in the folder, class folders, or a class in each file's "
    "name)."
)
LEAKS = "Go on although some of them repeat evaluation clips; the tables mark the results."
Synthetic = Annotated[Path | None, _option(FOLDER, "--synthetic", metavar="DIR")]
SyntheticLabels = Annotated[Path | None, _option(LABELS, "--synthetic-labels", metavar="TABLE")]
AllowLeaks = Annotated[bool, _option(LEAKS, "--allow-leaks")]


def with_external(
    settings: Settings, synthetic: Path | None, labels: Path | None, allow_leaks: bool
) -> Settings:
    """Return the settings with the values of these options.

    Raises:
        UsageError: an option without --synthetic.
    """
    from ajbench.data.external_clips import ExternalSource

    if synthetic is None:
        if labels or allow_leaks:
            option = "--synthetic-labels" if labels else "--allow-leaks"
            raise UsageError(f"{option}: name the clips with --synthetic DIR, or leave it out")
        return settings
    return replace(settings, synthetic=ExternalSource(synthetic, labels, allow_leaks))
