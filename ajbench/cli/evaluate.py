"""Commands that measure: eval-cls, eval-gen."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ajbench.cli.compare_sets import Measuring, Outputs, Sets, do_comparison
from ajbench.cli.options import Settings, command, show_plan
from ajbench.core import console
from ajbench.core.errors import UsageError

if TYPE_CHECKING:
    from ajbench.pipeline.recipe_stages import Pipeline
    from ajbench.pipeline.stage import Stage

app = typer.Typer()


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
    from ajbench.pipeline.classifier_stages import grid_stages, trained_stages
    from ajbench.pipeline.evaluation_stages import eval_cls_stage

    pipeline = settings.pipeline(settings.load())
    stage = eval_cls_stage(pipeline, (grid_stages if settings.dry_run else trained_stages)(pipeline))
    _run_evaluation(
        settings, pipeline, stage, ["row", "column", "seed", "metric", "value", "ci_low", "ci_high"]
    )


PANEL = "Two sets of clips, without a recipe"
OF_RECIPES = ("recipe", "data", "results", "generator", "overrides")  # and of no use to two sets


def _of_sets(help: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=PANEL, **more)


Gen = Annotated[Path | None, _of_sets("Generated clips: a clip store or a folder of sound files.", "--gen")]
Ref = Annotated[Path | None, _of_sets("Real clips, likewise.", "--ref")]
RefSplit = Annotated[
    Literal["train", "val", "eval"] | None, _of_sets("Of a store of real clips: this split.", "--ref-split")
]
HeardAs = Annotated[
    str,
    _of_sets(
        "Hear files and take KL as: ajbench, audioldm_eval, av-benchmark, stable-audio-metrics.", "--protocol"
    ),
]
Features = Annotated[
    str,
    _of_sets(
        "Networks, separated by commas; their weights from AJBENCH_WEIGHTS, or NAME=PATH.", "--features"
    ),
]
Metrics = Annotated[
    str | None,
    _of_sets(
        "Of those that `ajbench ls metrics` tells, or all that can be taken (default: fd, is, kl, "
        "kl_sigmoid, agreement, as far as the sets allow).",
        "--metrics",
    ),
]
Paired = Annotated[Path | None, _of_sets("CSV with columns gen and ref, where names differ.", "--pairs")]
Labels = Annotated[
    str | None,
    _of_sets(
        "Labels that were asked for, if not a store's: CSV with columns clip and labels (separated by ;), or "
        "parent: the folder that a file lies in.",
        "--labels",
        metavar="FILE.csv|parent",
    ),
]
Captions = Annotated[
    Path | None, _of_sets("Captions, if not a store's: CSV with columns clip and caption.", "--captions")
]
Partial = Annotated[
    bool, _of_sets("Measure what is left where clips are unusable or unpaired.", "--allow-partial")
]
Bootstrap = Annotated[int, _of_sets("Resamples for intervals; 0: none.", "--bootstrap", min=0)]
Table = Annotated[Path | None, _of_sets("Also write the table here.", "--out", metavar="FILE.csv")]
Clips = Annotated[Path | None, _of_sets("Write scores of single clips here.", "--clips", metavar="FILE.csv")]
Worst = Annotated[int, _of_sets("Name this many of the worst clips, by score.", "--worst", min=0)]
Curve = Annotated[
    Path | None,
    _of_sets(
        "Write FD against the number of clips here; as .svg or .png drawn.", "--curve", metavar="FILE.csv"
    ),
]
Ladder = Annotated[
    bool, _of_sets("Beside them real halves, the codec, shuffled labels, noise, silence.", "--ladder")
]
RoundTrip = Annotated[str, _of_sets("Of the ladder's round trip.", "--codec")]
LadderFigure = Annotated[
    Path | None, _of_sets("Draw the ladder's FD here.", "--ladder-figure", metavar="FILE.svg")
]


@app.command()
@command()
def eval_gen(
    settings: Settings,
    context: typer.Context,
    gen: Gen = None,
    ref: Ref = None,
    ref_split: RefSplit = None,
    protocol: HeardAs = "ajbench",
    features: Features = "mn04",
    metrics: Metrics = None,
    pairs: Paired = None,
    labels: Labels = None,
    captions: Captions = None,
    allow_partial: Partial = False,
    bootstrap: Bootstrap = 200,
    out: Table = None,
    clips: Clips = None,
    worst: Worst = 0,
    curve: Curve = None,
    ladder: Ladder = False,
    codec: RoundTrip = "tiny",
    ladder_figure: LadderFigure = None,
) -> None:
    """Measure generated clips.

    Those of a recipe: FD, IS, KL and label agreement with intervals, beside yardsticks: white noise, shuffled
    codes, other classes. Or, with --gen and --ref, any two sets, as a published tool would measure them.

    \b
    Examples:
      ajbench eval-gen --recipe esc10 --data DIR evaluate.features=mn04
      ajbench eval-gen --gen GENERATED --ref REAL --protocol audioldm_eval --features panns16k --ladder
    """
    _refuse_unused(context, two_sets=bool(gen or ref), ladder=ladder)
    if gen or ref:
        if not (gen and ref):
            raise UsageError(f"eval-gen: {'--ref' if gen else '--gen'} is missing; two sets are compared")
        sets = Sets(gen, ref, ref_split, pairs, labels, captions, allow_partial)
        names = tuple(name.strip() for name in metrics.split(",")) if metrics is not None else None
        how = Measuring(
            protocol, tuple(features.split(",")), names, bootstrap, worst, codec if ladder else None
        )
        do_comparison(settings, sets, how, Outputs(out, clips, curve, ladder_figure))
        return
    from ajbench.pipeline.evaluation_stages import eval_gen_stage, generated_sets

    pipeline = settings.pipeline(settings.load())
    chosen = ["", *pipeline.probes] if settings.dry_run else generated_sets(pipeline)
    stage = eval_gen_stage(pipeline, chosen)
    _run_evaluation(
        settings, pipeline, stage, ["row", "column", "metric", "split", "value", "ci_low", "ci_high"]
    )


def _refuse_unused(context: typer.Context, *, two_sets: bool, ladder: bool) -> None:
    """Refuse what was given on the command line and would be ignored, whatever its value."""
    of_sets, of_recipes = list[str](), list[str]()
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if source is None or source.name != "COMMANDLINE":
            continue
        if getattr(parameter, "rich_help_panel", None) == PANEL:
            of_sets.append(parameter.opts[0])
        elif parameter.name in OF_RECIPES:
            of_recipes.append("KEY=VALUE" if parameter.name == "overrides" else parameter.opts[0])
    if of_sets and not two_sets:
        raise UsageError(
            f"{', '.join(of_sets)}: of two sets of clips alone; name them by --gen and --ref, or leave it "
            "out, as a recipe says itself what is measured"
        )
    if of_recipes and two_sets:
        raise UsageError(f"{', '.join(of_recipes)}: of a recipe, and --gen and --ref have none; leave it out")
    if needless := [option for option in ("--codec", "--ladder-figure") if option in of_sets and not ladder]:
        raise UsageError(f"{', '.join(needless)}: there is no ladder; add --ladder")


def _run_evaluation(settings: Settings, pipeline: "Pipeline", stage: "Stage", columns: list[str]) -> None:
    """Run an evaluation unless it is finished and print its rows, or show what would be done."""
    from ajbench.pipeline import results_folder
    from ajbench.pipeline.stage import run_stages

    if settings.dry_run:
        show_plan(settings, [*stage.needs, stage])
        return
    run_stages([stage], settings.device, settings.force)
    rows = results_folder.add_rows(pipeline, stage)
    for note in results_folder.notes_of(stage):
        console.say(note)
    console.emit(rows, table=(columns, [[row[name] for name in columns] for row in rows]))
