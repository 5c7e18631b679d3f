"""Commands that measure: eval-cls, eval-gen, sweep."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ajbench.commands import do_evaluation, do_sweep, pipeline_of
from ajbench.comparing import do_comparison
from ajbench.errors import UsageError
from ajbench.options import Settings, command

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
    pipeline = pipeline_of(settings, settings.load())
    stage = pipeline.eval_cls(pipeline.grid() if settings.dry_run else pipeline.trained())
    do_evaluation(
        settings, pipeline, stage, ["row", "column", "seed", "metric", "value", "ci_low", "ci_high"]
    )


def _of_sets(help: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="Two sets of clips, without a recipe", **more)


@app.command()
@command()
def eval_gen(
    settings: Settings,
    gen: Annotated[
        Path | None, _of_sets("Generated clips: a clip store or a folder of sound files.", "--gen")
    ] = None,
    ref: Annotated[Path | None, _of_sets("Real clips, likewise.", "--ref")] = None,
    ref_split: Annotated[
        Literal["train", "val", "eval"] | None,
        _of_sets("Of a store of real clips: this split.", "--ref-split"),
    ] = None,
    protocol: Annotated[
        str,
        _of_sets(
            "Hear files and take KL as: ajbench, audioldm_eval, av-benchmark, stable-audio-metrics.",
            "--protocol",
        ),
    ] = "ajbench",
    features: Annotated[
        str,
        _of_sets(
            "Networks, separated by commas; their weights from AJBENCH_WEIGHTS, or NAME=PATH.", "--features"
        ),
    ] = "mn04",
    metrics: Annotated[
        str | None,
        _of_sets(
            "Of those that `ajbench ls metrics` tells, or all that can be taken (default: fd, is, kl, "
            "kl_sigmoid, agreement, as far as the sets allow).",
            "--metrics",
        ),
    ] = None,
    pairs: Annotated[
        Path | None, _of_sets("CSV with columns gen and ref, where names differ.", "--pairs")
    ] = None,
    labels: Annotated[
        str | None,
        _of_sets(
            "Labels that were asked for, if not a store's: CSV with columns clip and labels (separated "
            "by ;), or parent: the folder that a file lies in.",
            "--labels",
            metavar="FILE.csv|parent",
        ),
    ] = None,
    captions: Annotated[
        Path | None,
        _of_sets("Captions, if not a store's: CSV with columns clip and caption.", "--captions"),
    ] = None,
    allow_partial: Annotated[
        bool, _of_sets("Measure what is left where clips are unusable or unpaired.", "--allow-partial")
    ] = False,
    bootstrap: Annotated[int, _of_sets("Resamples for intervals; 0: none.", "--bootstrap", min=0)] = 200,
    out: Annotated[Path | None, _of_sets("Also write the table here.", "--out", metavar="FILE.csv")] = None,
    clips: Annotated[
        Path | None, _of_sets("Write scores of single clips here.", "--clips", metavar="FILE.csv")
    ] = None,
    worst: Annotated[int, _of_sets("Name this many of the worst clips, by score.", "--worst", min=0)] = 0,
    curve: Annotated[
        Path | None,
        _of_sets(
            "Write FD against the number of clips here; as .svg or .png drawn.", "--curve", metavar="FILE.csv"
        ),
    ] = None,
    ladder: Annotated[
        bool, _of_sets("Beside them real halves, the codec, shuffled labels, noise, silence.", "--ladder")
    ] = False,
    codec: Annotated[str, _of_sets("Of the ladder's round trip.", "--codec")] = "tiny",
    ladder_figure: Annotated[
        Path | None, _of_sets("Draw the ladder's FD here.", "--ladder-figure", metavar="FILE.svg")
    ] = None,
) -> None:
    """Measure generated clips.

    Those of a recipe: FD, IS, KL and label agreement with intervals, beside yardsticks: white noise, shuffled
    codes, other classes. Or, with --gen and --ref, any two sets, as a published tool would measure them.

    \b
    Examples:
      ajbench eval-gen --recipe esc10 --data DIR evaluate.features=mn04
      ajbench eval-gen --gen GENERATED --ref REAL --protocol audioldm_eval --features panns16k --ladder
    """
    if ladder_figure and not ladder:
        raise UsageError(f"--ladder-figure {ladder_figure}: there is no ladder to draw; add --ladder")
    if ladder and not (gen or ref):
        raise UsageError("--ladder: it stands beside --gen and --ref; a recipe has yardsticks of its own")
    if gen or ref:
        if not (gen and ref):
            raise UsageError(f"eval-gen: {'--ref' if gen else '--gen'} is missing; two sets are compared")
        do_comparison(
            settings,
            gen,
            ref,
            ref_split=ref_split,
            protocol=protocol,
            features=features.split(","),
            metrics=metrics and metrics.split(","),
            pairs=pairs,
            labels=labels,
            captions=captions,
            allow_partial=allow_partial,
            resamples=bootstrap,
            out=out,
            ladder=codec if ladder else None,
            figure=ladder_figure,
            clips=clips,
            worst=worst,
            curve=curve,
        )
        return
    pipeline = pipeline_of(settings, settings.load())
    stage = pipeline.eval_gen(["", *pipeline.probes] if settings.dry_run else pipeline.generated())
    do_evaluation(
        settings, pipeline, stage, ["row", "column", "metric", "split", "value", "ci_low", "ci_high"]
    )


@app.command()
@command()
def sweep(
    settings: Settings,
    key: Annotated[str, typer.Argument(metavar="KEY", help="Of the synth section, such as guidance.")],
    values: Annotated[str, typer.Argument(metavar="V1,V2,…", help="Its values, separated by commas.")],
    n: Annotated[int | None, typer.Option("--n", min=2, help="Clips of each set (default: synth.n).")] = None,
) -> None:
    """Try several values of one synthesis setting.

    A set of clips for each: FD, KL, inception score and label agreement with intervals, on screen and in
    `<results>/<recipe>/sweep_<key>.csv`. The generator is the recipe's; what is made is kept.

    \b
    Examples:
      ajbench sweep guidance 1,2,3,5,7,9 --n 160
      ajbench sweep strength 0.2,0.4,0.6,0.8 --recipe esc10 --data DIR
    """
    do_sweep(settings, key, values, n)
