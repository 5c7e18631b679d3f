"""The command line: a table of commands, each of which parses, calls and prints."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ajbench import __version__, console, look
from ajbench.errors import UsageError
from ajbench.options import Settings, command

if TYPE_CHECKING:
    from ajbench.recipe import Recipe
    from ajbench.stages import Pipeline
    from ajbench.work import Stage

app = typer.Typer(
    name="ajbench",
    help="Does synthetic audio help my classifier, how much of it, and can I trust the answer?",
    epilog=(
        "Exit codes: 0 done · 1 a bug (traceback) · 2 wrong usage or recipe · 3 data, weights, an earlier "
        "stage, disk or memory missing · 4 numeric failure · 5 integrity · 130 interrupted (the same command "
        "goes on)"
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
)
app.add_typer(look.app)
SEEDS = ("generator.seed", "invert.seed", "synth.seed")
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
def demo(settings: Settings, jobs: Jobs = None) -> None:
    """Run the whole loop on the embedded corpus `mini`.

    No data, no download, minutes on a CPU: generate, mix, train, evaluate, tabulate. Ends with the table on
    screen and a report in `<results>/mini/report/index.html`.

    \b
    Examples:
      ajbench demo
      ajbench demo 'evaluate.seeds=[0]' --results DIR
    """
    _run(settings, jobs)


@app.command()
@command(hide=("recipe",))
def run(
    settings: Settings,
    name: Annotated[str, typer.Argument(metavar="RECIPE", help="Name, YAML file or mix expression.")],
    jobs: Jobs = None,
) -> None:
    """Run every stage of a recipe, from clips to report.

    What is done is skipped; after a change only what depends on it is done again. A mix expression
    (`esc10+320G`) runs that mix and real clips alone, instead of the recipe's grid.

    \b
    Examples:
      ajbench run esc10 --data DIR
      ajbench run mini mix.balanced=true --dry-run
    """
    _run(replace(settings, recipe=name), jobs)


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
    pipeline = _pipeline(settings, settings.load())
    _stage(settings, pipeline, pipeline.prepare)


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
) -> None:
    """Train the codec `tiny` on sounds of yours.

    On folders of sounds, and on rendered clips beside them. A recipe uses the result with
    `codec.name=<path of tiny.safetensors>`.

    \b
    Examples:
      ajbench train-codec --sounds DIR
      ajbench train-codec --steps 200 --mini-clips 64
    """
    from ajbench import flow

    stage = flow.codec_training(
        settings.work, sounds or [], steps, batch_size, mini_clips, settings.seed or 0
    )
    _stage(settings, None, stage)


@app.command()
@command(hide=("generator",))
def train_gen(settings: Settings) -> None:
    """Train the generator on the train split.

    A latent diffusion U-Net on whitened codec latents, conditioned on text.

    \b
    Examples:
      ajbench train-gen
      ajbench train-gen --recipe esc10 --data DIR generator.train_steps=8000
    """
    pipeline = _pipeline(settings, settings.load("generator.seed"))
    _stage(settings, pipeline, pipeline.train_gen)


@app.command()
@command()
def invert(settings: Settings) -> None:
    """Learn one token per class by textual inversion.

    Generator and text encoder stay as they are; only the tokens' vectors are learned.

    \b
    Examples:
      ajbench invert
      ajbench invert --recipe esc10 --data DIR invert.train_steps=1000
    """
    pipeline = _pipeline(settings, settings.load("invert.seed"))
    _stage(settings, pipeline, pipeline.invert)


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
) -> None:
    """Generate synthetic clips into a clip store.

    Killed at any instant, the same command goes on and ends with the same bytes.

    \b
    Examples:
      ajbench synth --classes 16 --n 200
      ajbench synth --recipe as20k --data DIR --classes 527 --n 80000
    """
    own = {"synth.classes": classes, "synth.n": n}
    more = tuple(f"{key}={value}" for key, value in own.items() if value is not None)
    pipeline = _pipeline(settings, settings.load("synth.seed", more=more))
    if probe and probe not in pipeline.probes:
        raise UsageError(f"--probe {probe}: evaluate.probes has {', '.join(pipeline.probes) or 'none'}")
    _stage(settings, pipeline, pipeline.synth(probe or "", processes, allow_inexact))


@app.command()
@command()
def train_cls(settings: Settings) -> None:
    """Train one classifier on one mix of clips.

    The recipe's `classifier` on its `mix`; then the evaluation clips are scored.

    \b
    Examples:
      ajbench train-cls --recipe mini+60G
      ajbench train-cls --recipe as20k+40kG --data DIR classifier.lr=1e-4
    """
    pipeline = _pipeline(settings, settings.load())
    _stage(settings, pipeline, pipeline.train_cls(settings.seed or 0))


@app.command()
@command(hide=("seed",))
def eval_cls(settings: Settings) -> None:
    """Measure the classifiers that are trained.

    mAP, AUC, d′ and accuracy with intervals, and each mix's paired difference to real clips alone.

    \b
    Examples:
      ajbench eval-cls
      ajbench eval-cls --recipe esc10+320G --data DIR --json
    """
    pipeline = _pipeline(settings, settings.load())
    stage = pipeline.eval_cls(pipeline.grid() if settings.dry_run else pipeline.trained())
    _evaluation(settings, pipeline, stage, ["row", "column", "seed", "metric", "value", "ci_low", "ci_high"])


@app.command()
@command(hide=("seed",))
def eval_gen(settings: Settings) -> None:
    """Measure the synthetic clips that are made.

    FD, IS, KL and label agreement with intervals, beside yardsticks: white noise, shuffled codes, other
    classes.

    \b
    Examples:
      ajbench eval-gen
      ajbench eval-gen --recipe esc10 --data DIR evaluate.features=mn04
    """
    pipeline = _pipeline(settings, settings.load())
    stage = pipeline.eval_gen(["", *pipeline.probes] if settings.dry_run else pipeline.generated())
    _evaluation(settings, pipeline, stage, ["row", "column", "metric", "split", "value", "ci_low", "ci_high"])


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
    from ajbench import flow

    loaded = settings.load()
    if settings.dry_run:
        console.emit(flow.written_from(loaded, settings.results))
        return
    written = flow.tables_again(loaded, settings.results)
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
    from ajbench import flow

    pipeline = _pipeline(settings, settings.load(*SEEDS))
    if settings.dry_run:
        _plan(flow.describe(settings.work, pipeline.stages()))
        return
    page = flow.render_report(pipeline, pipeline.stages())
    console.emit({"report": page}, text=str(page))


def _pipeline(settings: Settings, loaded: "Recipe") -> "Pipeline":
    from ajbench.stages import Pipeline, Places

    places = Places(settings.data, settings.work, settings.results, settings.generator)
    return Pipeline(loaded, places)


def _run(settings: Settings, jobs: int | None) -> None:
    from ajbench import flow

    pipeline = _pipeline(settings, settings.load(*SEEDS))
    pipeline.check(pipeline.recipe.evaluate.doses)
    if settings.dry_run:
        _plan(flow.describe(pipeline.places.work, pipeline.stages()))
        return
    done = flow.run(pipeline, settings.device, jobs, settings.force)
    if not done["ran"]:
        console.say(f"nothing to do: every stage of {pipeline.recipe.name} is done")
    for line in (*done["table"]["notes"], f"results: {done['results']}"):
        console.say(line)
    console.emit(done, table=(done["table"]["header"], done["table"]["lines"]))


def _stage(settings: Settings, pipeline: "Pipeline | None", stage: "Stage") -> None:
    from ajbench import flow

    if pipeline:
        pipeline.check()
    if settings.dry_run:
        _plan(flow.describe(settings.work, [*stage.needs, stage]) | flow.estimate(stage))
        return
    ran = flow.run_one(stage, settings.device, settings.force)
    if not ran:
        console.say(f"nothing to do: {stage.name} is done")
    info = stage.folder.info()
    document = {"stage": stage.name, "path": stage.path, "fingerprint": stage.fingerprint, "ran": ran}
    console.emit(document | {"seconds": info["seconds"]}, text=str(stage.path))


def _evaluation(settings: Settings, pipeline: "Pipeline", stage: "Stage", columns: list[str]) -> None:
    from ajbench import flow

    if settings.dry_run:
        _plan(flow.describe(settings.work, [*stage.needs, stage]))
        return
    flow.run_one(stage, settings.device, settings.force)
    rows, notes = flow.share(pipeline, stage)
    for note in notes:
        console.say(note)
    console.emit(rows, table=(columns, [[row[name] for name in columns] for row in rows]))


def _plan(plan: dict[str, Any]) -> None:
    columns = ["stage", "what", "state", "amount", "disk_mb"]
    console.emit(plan, table=(columns, [[line[name] for name in columns] for line in plan["stages"]]))
    console.say(
        f"{plan['todo']} of {len(plan['stages'])} stages to do; {plan['disk_mb']} MB needed, "
        f"{plan['disk_free_mb']} MB free"
    )
    if seconds := plan.get("seconds"):
        console.say(f"about {seconds:.0f} s, as a first batch goes")
