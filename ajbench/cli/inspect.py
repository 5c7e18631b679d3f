"""Commands that look without doing: ls, show, verify, doctor."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from ajbench.cli.options import STAGE_OPTIONS, Settings, command
from ajbench.cli.run import do_download
from ajbench.core import console

app = typer.Typer()
NO_RECIPE = (*STAGE_OPTIONS, "overrides")


@app.command()
@command(hide=NO_RECIPE)
def ls(
    settings: Settings,
    kind: Annotated[
        Literal["recipes", "corpora", "models", "codecs", "encoders", "features", "metrics"], typer.Argument()
    ],
) -> None:
    """List what a recipe can name.

    \b
    Examples:
      ajbench ls models
      ajbench ls recipes --json
    """
    from ajbench.pipeline import catalogue

    entries = catalogue.listing(kind)
    console.emit(entries, table=(list(entries[0]), [list(entry.values()) for entry in entries]))


@app.command()
@command(hide=STAGE_OPTIONS)
def show(
    settings: Settings,
    name: Annotated[str, typer.Argument(metavar="RECIPE", help="Name, YAML file or mix expression.")],
) -> None:
    """Print a recipe with all that it inherits.

    \b
    Examples:
      ajbench show esc10+320G
      ajbench show mini synth.n=400 --json
    """
    from ajbench.core.recipe import dump

    loaded = replace(settings, recipe=name).load()
    console.emit(loaded, text=dump(loaded).rstrip())


@app.command()
@command(hide=NO_RECIPE)
def verify(
    settings: Settings,
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Folder of a clip store.")],
) -> None:
    """Check a clip store through and through.

    \b
    Examples:
      ajbench verify work/mini/prepare-0123456789ab
      ajbench verify STORE --json
    """
    from ajbench.data.verify import verify as check

    found = check(store) | {"state": "sound"}
    splits = " ".join(f"{split}={number}" for split, number in found["splits"].items())
    shown = found | {"splits": splits, "shards": len(found["shards"])}
    console.emit(found, table=(list(shown), [list(shown.values())]))


@app.command()
@command(hide=("recipe", "data", "results", "generator", "seed", "device", "dry_run", "force", "overrides"))
def doctor(
    settings: Settings,
    weights: Annotated[
        bool, typer.Option("--weights", help="Published weights: which are here, right, missing.")
    ] = False,
    download: Annotated[
        str | None,
        typer.Option(
            "--download", metavar="NAME[,NAME]", help="Get these published weights into AJBENCH_WEIGHTS."
        ),
    ] = None,
) -> None:
    """Tell what ajbench finds on this machine.

    Versions, device, threads, memory, disk, weights. Nothing is downloaded but what --download names; that is
    resumed where it was ended, and checked by size and SHA-256 where they are published.

    \b
    Examples:
      ajbench doctor --weights
      ajbench doctor --weights --download mn04,panns16k
    """
    from ajbench.pipeline import catalogue

    got = do_download([name.strip() for name in download.split(",")]) if download else []
    if weights:
        files = catalogue.weight_files()
        columns = ["name", "file", "mb", "state", "where"]
        console.emit(files, table=(columns, [[file[name] for name in columns] for file in files]))
        return
    if download:
        console.emit(got, table=(["name", "path"], [[one["name"], one["path"]] for one in got]))
        return
    found = catalogue.doctor(settings.work)
    console.emit(found, table=(["what", "found"], [[key, value] for key, value in catalogue.flat(found)]))
