"""The command line: joins the commands."""

import typer

from ajbench.cli import (
    audio_visual,
    audit,
    caption,
    evaluate,
    export,
    forecast,
    generate,
    inspect,
    listening,
    run,
    sweep,
)
from ajbench.cli.options import show_version

app = typer.Typer(
    name="ajbench",
    help=(
        "Does synthetic audio help my classifier, how much of it, and can I trust the answer?\n\n"
        "Start with `ajbench demo`, or with your own clips: `ajbench run --data FOLDER --dry-run`."
    ),
    epilog=(
        "Exit codes: 0 done · 1 a bug (traceback) · 2 wrong usage or recipe · 3 data, weights, an earlier "
        "stage, disk or memory missing · 4 numeric failure, or leaks (audit --strict, run --synthetic) · "
        "5 integrity · 130 interrupted (run the same command again to resume)"
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
)
app.callback(invoke_without_command=True)(show_version)
for part in (
    run,
    forecast,
    sweep,
    generate,
    export,
    caption,
    audio_visual,
    evaluate,
    listening,
    audit,
    inspect,
):
    app.add_typer(part.app)
