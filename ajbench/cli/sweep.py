"""The command `sweep`: compare values of a setting of the synthesis, by metrics or by a classifier's gain."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ajbench.cli import one_fold
from ajbench.cli.options import SEEDS, Jobs, Settings, Tracker, command, show_plan
from ajbench.cli.paper_tables import with_intervals
from ajbench.core import console
from ajbench.core.errors import UsageError

if TYPE_CHECKING:
    from ajbench.pipeline.gain_sweep import GainSweep

app = typer.Typer()


@app.command()
@command()
def sweep(
    settings: Settings,
    key: Annotated[str, typer.Argument(metavar="KEY", help="Key of the synth section, such as guidance.")],
    values: Annotated[str, typer.Argument(metavar="V1,V2,…", help="Values, separated by commas.")],
    n: Annotated[int | None, typer.Option("--n", min=2, help="Clips per set (default: synth.n).")] = None,
    by: Annotated[
        Literal["fd", "map"],
        typer.Option("--by", help="fd: metrics of the clips; map: also the gain of a classifier."),
    ] = "fd",
    model: Annotated[
        str | None,
        typer.Option("--model", help="map: name+aug or place in evaluate.models (default: the primary one)."),
    ] = None,
    dose: Annotated[
        int | None,
        typer.Option("--dose", min=1, help="map: generated clips to add (default: the primary dose)."),
    ] = None,
    jobs: Jobs = None,
    tracker: Tracker = "csv",
) -> None:
    """Compare several values of one synthesis setting.

    Generates one set of clips per value. FD, KL, inception score and label agreement with intervals are
    printed and written to `<results>/<recipe>/sweep_<key>.csv`. All sets are made by the recipe's generator
    and are kept. With `--by map`, a classifier is trained on real clips and each set, in all seeds and
    folds: its gain in mAP over real clips only, on the val split or on held-out train clips, shows which
    setting is best, and how well FD and label agreement predict it. KEY may then also be min_fidelity.

    \b
    Examples:
      ajbench sweep guidance 1,2,3,5,7,9 --n 160
      ajbench sweep strength 0.3,0.6,0.85,1 --by map --recipe esc10 --data DIR
    """
    from ajbench.pipeline import sweep as sweeps

    if by == "fd" and (model, dose, jobs) != (None, None, None):
        raise UsageError("--model, --dose and --jobs: have no effect without --by map")
    pipeline = settings.pipeline(sweeps.swept(settings.load(*SEEDS), key, values, n, by == "map"), tracker)
    if by == "map":
        from ajbench.pipeline import gain_sweep

        _sweep_by_gain(settings, gain_sweep.planned(pipeline, key, values, model, dose), jobs)
        return
    pipeline = one_fold.own_clips(pipeline)
    pipeline.check()
    if settings.dry_run:
        show_plan(settings, sweeps.stages(pipeline))
        return
    done = sweeps.run(pipeline, key, settings.device, settings.force)
    for note in (*done["notes"], f"results: {done['path']}"):
        console.say(note)
    console.emit(done, table=with_intervals(done["lines"], ["set", *sweeps.METRICS]))


def _sweep_by_gain(settings: Settings, planned: "GainSweep", jobs: int | None) -> None:
    from ajbench.pipeline import gain_sweep, sweep

    if settings.dry_run:
        known = gain_sweep.dry_run(planned)
        show_plan(settings, planned.stages(), power=known.pop("power"), more=known)
        if (synthesis := known["synth_seconds"]) is None:
            console.say("time of the sets: not known before the generator is trained")
        else:
            console.say(f"sets: about {synthesis:.0f} s")
        console.say(f"classifiers: about {known['train_cls_seconds']:.0f} s one after another")
        return
    done = gain_sweep.run(planned, settings.device, settings.force, jobs)
    found = (line["sentence"] for line in done["correlations"])
    for line in (*done["notes"], *found, done["verdict"], f"results: {done['path']}"):
        console.say(line)
    console.emit(done, table=with_intervals(done["lines"], ["set", *sweep.METRICS, "gain"]))
