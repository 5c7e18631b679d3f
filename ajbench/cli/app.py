"""The command line: a table of commands, each of which parses, calls and prints."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from ajbench import __version__
from ajbench.cli import audit, evaluate, inspect
from ajbench.cli.options import Settings, Tracker, command
from ajbench.cli.run import (
    SEEDS,
    do_export,
    do_run,
    do_stage,
    do_synth,
    pipeline_of,
    show_plan,
)
from ajbench.core import console
from ajbench.core.errors import UsageError

app = typer.Typer(
    name="ajbench",
    help="Does synthetic audio help my classifier, how much of it, and can I trust the answer?",
    epilog=(
        "Exit codes: 0 done · 1 a bug (traceback) · 2 wrong usage or recipe · 3 data, weights, an earlier "
        "stage, disk or memory missing · 4 numeric failure, or audit --strict found leaks · 5 integrity · "
        "130 interrupted (the same command goes on)"
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
)
app.add_typer(evaluate.app)
app.add_typer(audit.app)
app.add_typer(inspect.app)
Jobs = Annotated[int | None, typer.Option("--jobs", min=1, help="Processes at a time (default: one a core).")]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[
        bool, typer.Option("--version", help="Tell the version and exit.", is_eager=True)
    ] = False,
) -> None:
    if version:
        console.emit({"version": __version__}, text=__version__)
        raise typer.Exit


@app.command()
@command(hide=("recipe", "data"))
def demo(settings: Settings, jobs: Jobs = None, tracker: Tracker = "csv") -> None:
    """Run the whole loop on the embedded corpus `mini`.

    No data, no download, minutes on a CPU: generate, mix, train, evaluate, tabulate. Ends with the table on
    screen and a report in `<results>/mini/report/index.html`.

    \b
    Examples:
      ajbench demo
      ajbench demo 'evaluate.seeds=[0]' --results DIR
    """
    do_run(settings, jobs, tracker=tracker)


@app.command()
@command(hide=("recipe",))
def run(
    settings: Settings,
    name: Annotated[str, typer.Argument(metavar="RECIPE", help="Name, YAML file or mix expression.")],
    jobs: Jobs = None,
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="RECIPE", help="The recipe of a table: tables/a11, tables/t1."),
    ] = None,
    cell: Annotated[
        int | None,
        typer.Option("--cell", min=1, help="Train this classifier of the grid alone (for a job array)."),
    ] = None,
    tracker: Tracker = "csv",
) -> None:
    """Run every stage of a recipe, from clips to report.

    What is done is skipped; after a change only what depends on it is done again. A mix expression
    (`esc10+320G`) runs that mix and real clips alone, instead of the recipe's grid. `tables/a11 --base R`
    does what Table A11 of recipe R needs; with --dry-run it lists the cells with their steps, disk and time.
    `tables/t1 --base R` compares generators on the evaluation clips' captions.

    \b
    Examples:
      ajbench run esc10 --data DIR
      ajbench run tables/a11 --base as20k --data DIR --cell 7
    """
    do_run(replace(settings, recipe=name, base=base), jobs, cell, tracker)


@app.command()
@command(hide=("generator",))
def prepare(settings: Settings) -> None:
    """Read a corpus into a clip store.

    Audio, codec codes, labels and splits in Arrow shards. What cannot be used is listed with its reason in
    quarantine.csv.

    \b
    Examples:
      ajbench prepare --recipe esc10 --data DIR
      ajbench prepare data.n_clips=64
    """
    pipeline = pipeline_of(settings, settings.load())
    do_stage(settings, pipeline, pipeline.prepare)
    if pipeline.through_codec and not settings.dry_run:
        do_stage(settings, None, pipeline.decoded)


@app.command()
@command(hide=("recipe", "data", "results", "generator", "overrides"))
def train_codec(
    settings: Settings,
    sounds: Annotated[
        list[Path] | None,
        typer.Option("--sounds", metavar="DIR", help="A folder of sounds; may be repeated."),
    ] = None,
    steps: Annotated[int, typer.Option("--steps", min=1)] = 3500,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Segments of 1.28 s a step.")] = 16,
    mini_clips: Annotated[int, typer.Option("--mini-clips", min=0, help="Rendered clips beside them.")] = 600,
    tracker: Tracker = "csv",
) -> None:
    """Train the codec `tiny` on sounds of yours.

    On folders of sounds, and on rendered clips beside them. A recipe uses the result with
    `codec.name=<path of tiny.safetensors>`.

    \b
    Examples:
      ajbench train-codec --sounds DIR
      ajbench train-codec --steps 200 --mini-clips 64
    """
    from ajbench.pipeline import runner

    stage = runner.codec_training(
        settings.work, sounds or [], steps, batch_size, mini_clips, settings.seed or 0, tracker
    )
    do_stage(settings, None, stage)


@app.command()
@command(hide=("generator",))
def train_gen(
    settings: Settings,
    init: Annotated[
        str | None,
        typer.Option("--init", help="Start from sd14, a folder or a hub id: generator.init, for this stage."),
    ] = None,
    tracker: Tracker = "csv",
) -> None:
    """Train the generator on the train split.

    A latent diffusion U-Net on whitened codec latents, conditioned on text. On several GPUs: the same command
    under `torchrun --nproc-per-node N --no-python` or `accelerate launch`. Later stages find what --init
    made by the key `generator.init`, in the recipe or on their command line.

    \b
    Examples:
      ajbench train-gen
      ajbench train-gen --recipe as20k --data DIR --init sd14
    """
    more = () if init is None else (f"generator.init={init}",)
    pipeline = pipeline_of(settings, settings.load("generator.seed", more=more), tracker)
    do_stage(settings, pipeline, pipeline.train_gen)


@app.command()
@command()
def invert(settings: Settings, tracker: Tracker = "csv") -> None:
    """Learn class tokens by textual inversion, and LoRA if asked for.

    Generator and text encoder stay as they are; only the tokens' vectors, or LoRA's, are learned.

    \b
    Examples:
      ajbench invert
      ajbench invert --recipe esc10 --data DIR invert.lora_rank=8 invert.tokens=false
    """
    pipeline = pipeline_of(settings, settings.load("invert.seed"), tracker)
    do_stage(settings, pipeline, pipeline.invert)


@app.command()
@command()
def synth(
    settings: Settings,
    classes: Annotated[int | None, typer.Option("--classes", min=1, help="The first K classes only.")] = None,
    n: Annotated[int | None, typer.Option("--n", min=1, help="How many clips.")] = None,
    probe: Annotated[
        str | None, typer.Option("--probe", help="The set of this name in evaluate.probes, not the main one.")
    ] = None,
    processes: Annotated[int, typer.Option("--processes", min=1, help="Processes that share the work.")] = 1,
    allow_inexact: Annotated[
        bool,
        typer.Option("--allow-inexact", help="Go on with other threads, device or versions than before."),
    ] = False,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option("--engine", help="Who runs them; ray: also a cluster, by RAY_ADDRESS."),
    ] = "local",
) -> None:
    """Generate synthetic clips into a clip store.

    Killed at any instant, the same command goes on and ends with the same bytes. Any number of processes on
    the same --work share the shards. On several GPUs: the same command under
    `torchrun --nproc-per-node N --no-python`. With --dry-run AudioSet's label table is enough.

    \b
    Examples:
      ajbench synth --classes 16 --n 200
      ajbench synth --recipe as20k --data DIR --classes 527 --n 80000
    """
    own = {"synth.classes": classes, "synth.n": n}
    more = tuple(f"{key}={value}" for key, value in own.items() if value is not None)
    pipeline = pipeline_of(settings, settings.load("synth.seed", more=more))
    if probe and probe not in pipeline.probes:
        raise UsageError(f"--probe {probe}: evaluate.probes has {', '.join(pipeline.probes) or 'none'}")
    how = {"processes": processes, "allow_inexact": allow_inexact, "engine": engine}
    do_synth(settings, pipeline, probe or "", **how)


@app.command()
@command()
def train_cls(settings: Settings, tracker: Tracker = "csv") -> None:
    """Train one classifier on one mix of clips.

    The recipe's `classifier` on its `mix`; then the evaluation clips are scored. On several GPUs: the same
    command under `torchrun --nproc-per-node N --no-python` or `accelerate launch`.

    \b
    Examples:
      ajbench train-cls --recipe mini+60G
      ajbench train-cls --recipe as20k+40kG --data DIR classifier.lr=1e-4
    """
    pipeline = pipeline_of(settings, settings.load(), tracker)
    do_stage(settings, pipeline, pipeline.train_cls(settings.seed or 0))


@app.command()
@command(hide=("results", "device"))
def export(
    settings: Settings, out: Annotated[Path, typer.Argument(metavar="FOLDER", help="The new folder.")]
) -> None:
    """Put the trained generator into a folder for others.

    Generator, class tokens and a model card with what was measured; `ajbench.AudioJourneyPipeline` opens it.

    \b
    Examples:
      ajbench export my-generator
      ajbench export my-generator --recipe esc10 --data DIR
    """
    do_export(settings, out)


@app.command()
@command(hide=("data", "work", "generator", "seed", "device", "force"))
def tables(settings: Settings) -> None:
    """Pivot rows.csv into the paper's tables.

    Reads `<results>/<recipe>/rows.csv`; writes CSV, Markdown and LaTeX beside it.

    \b
    Examples:
      ajbench tables
      ajbench tables --recipe esc10 --json
    """
    from ajbench.pipeline import runner

    loaded = settings.load()
    if settings.dry_run:
        console.emit(runner.written_from(loaded, settings.results))
        return
    written = runner.tables_again(loaded, settings.results)
    console.emit(written, table=(written["table"]["header"], written["table"]["lines"]))


@app.command()
@command(hide=("seed", "force", "device"))
def report(settings: Settings) -> None:
    """Render the HTML report of a finished run.

    Dose curves, AP by class, real and synthetic clips to listen to.

    \b
    Examples:
      ajbench report
      ajbench report --recipe esc10 --data DIR
    """
    from ajbench.pipeline import runner

    pipeline = pipeline_of(settings, settings.load(*SEEDS))
    if settings.dry_run:
        show_plan(runner.describe(settings.work, pipeline.stages()))
        return
    page = runner.render_report(pipeline, pipeline.stages())
    console.emit({"report": page}, text=str(page))
