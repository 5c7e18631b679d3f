"""Commands that show something and change nothing: ls, show, verify, doctor."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ajbench.cli.options import STAGE_OPTIONS, RecipeName, Settings, command
from ajbench.core import console
from ajbench.core.errors import UsageError

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
    """List the names that a recipe can use.

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
def show(settings: Settings, name: RecipeName) -> None:
    """Print a recipe with everything it inherits.

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
    """Check a clip store.

    Checksums, number of clips, audio and codes of every shard.

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
        bool, typer.Option("--weights", help="List published weights: found, verified, missing.")
    ] = False,
    download: Annotated[
        str | None,
        typer.Option(
            "--download", metavar="NAME[,NAME]", help="Download these weights into AJBENCH_WEIGHTS."
        ),
    ] = None,
) -> None:
    """Show what ajbench finds on this machine.

    Versions, device, threads, memory, disk and weights. Only what --download names is downloaded: interrupted
    downloads are resumed, and files are checked by size and SHA-256 if those are published.

    \b
    Examples:
      ajbench doctor --weights
      ajbench doctor --weights --download mn04,panns16k
    """
    from ajbench.pipeline import catalogue

    got = _download([name.strip() for name in download.split(",")]) if download else []
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


def _download(names: list[str]) -> list[dict[str, Any]]:
    """Download published weights into `$AJBENCH_WEIGHTS`; return names, paths and if they are pinned."""
    from ajbench.core import weights
    from ajbench.core.download import fetch

    files = [file for name in names for file in weights.files_of(name)]
    home = weights.folder()
    if home is None:
        raise UsageError(
            f"--download {','.join(names)}: {weights.VARIABLE} is not set; set it to a folder for weights"
        )
    done = []
    for file in files:
        with console.progress(file.bytes or 0, f"{file.name} {file.file}", "bytes") as advance:
            path = fetch(file, home, advance)
        done.append({"name": file.name, "path": path, "pinned": bool(file.sha256)})
        if not file.sha256:
            console.say(f"{path}: no published hash to check it against")
    return done
