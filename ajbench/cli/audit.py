"""The command that looks for leaks: audit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ajbench.cli.options import SEEDS, Settings, command
from ajbench.core import console
from ajbench.core.errors import NumericError, UsageError

if TYPE_CHECKING:
    from ajbench.data.clip_set import ClipSet

app = typer.Typer()
Split = Literal["train", "val", "eval"]


def _of_sets(help: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="Sets of clips, without a recipe", **more)


@app.command()
@command(hide=("seed",))
def audit(
    settings: Settings,
    synth: Annotated[
        Path | None, _of_sets("Synthetic clips: a clip store or a folder of sound files.", "--synth")
    ] = None,
    train: Annotated[Path | None, _of_sets("Real clips of the train split, likewise.", "--train")] = None,
    eval_: Annotated[Path | None, _of_sets("Real clips of the eval split, likewise.", "--eval")] = None,
    train_split: Annotated[
        Split | None, _of_sets("Of a store at --train: this split.", "--train-split")
    ] = None,
    eval_split: Annotated[Split | None, _of_sets("Of a store at --eval: this split.", "--eval-split")] = None,
    features: Annotated[
        str | None,
        typer.Option(
            "--features",
            help="Compare embeddings, too: mn04, panns16k, … (weights: AJBENCH_WEIGHTS, or NAME=PATH).",
        ),
    ] = None,
    probe: Annotated[
        str, typer.Option("--probe", help="Of a recipe: the set of this name in evaluate.probes.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.csv", help="List the pairs here.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FILE.html",
            help="A page to look at and listen to; of a recipe: beside its report, if not here.",
        ),
    ] = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Go on without clips that cannot be heard.")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Exit with 4 where a synthetic clip repeats an eval clip by samples, waveform, parent or "
            "id, or where more are near one by detail or embedding alone than chance explains (it brings up "
            "to 1 %; p < 0.05).",
        ),
    ] = False,
) -> None:
    """Look for synthetic clips that repeat real ones.

    By id (of stores), parent, samples, detail of the sound, and embeddings: of evaluation clips, which is a
    leak, and of train clips, which is memorisation. What counts as near is taken from train against eval
    clips. The sets are a recipe's own, or any three stores or folders.

    \b
    Examples:
      ajbench audit --recipe esc10 --data DIR --report audit.html --strict
      ajbench audit --synth MADE --train REAL --train-split train --eval REAL --eval-split eval
    """
    from ajbench.evaluation.audit import audit as look
    from ajbench.features.extractor import LazyExtractor

    for option, file in (("--out", out), ("--report", report)):
        if file and file.exists() and not settings.force:
            raise UsageError(f"{option} {file}: is there already; name another, or overwrite it with --force")
    own = not (synth or train or eval_)
    _refuse_idle(own, probe, train_split, eval_split)
    if own and report is None:
        home = settings.pipeline(settings.load(*SEEDS)).results
        report = home / "report" / (f"audit_{probe}.html" if probe else "audit.html")
    if out and report and out.resolve() == report.resolve():
        raise UsageError(f"--out and --report are both {out}; name two files")
    made, known, held_out = _sets(settings, synth, train, eval_, train_split, eval_split, probe)
    name, _, path = (features or "").partition("=")
    extractor = LazyExtractor(name, path or None) if name else None
    if settings.dry_run:
        console.emit({"synth": len(made), "train": len(known), "eval": len(held_out), "features": features})
        return
    found = look(
        made,
        known,
        held_out,
        extractor=extractor,
        cache=settings.work / "features",
        allow_partial=allow_partial,
    )
    counts = found.counts()
    if out:
        from ajbench.core.files import atomic_write
        from ajbench.reporting.tables import to_csv

        out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(out, to_csv([one.row() for one in found.findings]))
    if report:
        from ajbench.reporting import audit_page

        audit_page.render(found, (made, known, held_out), report)
        console.say(f"page: {report}")
    for text in found.told():
        console.say(text)
    rows = [one.row() for one in found.yardsticks]
    columns = [name for name in rows[0] if name != "honest_clips"]
    document = {
        "counts": counts,
        "yardsticks": rows,
        "findings": [one.row() for one in found.findings],
        "troubles": found.troubles,
    }
    console.emit(document, table=(columns, [[row[name] for name in columns] for row in rows]))
    if strict and found.tally("leak").holds:
        told, example = found.told(), found.of("leak")[0]
        raise NumericError(
            "; ".join(told[: 2 if counts["near_alone"] else 1])
            + f": such as {example.clip} of {example.match}; leave them out (--out FILE.csv lists them)"
        )


def _refuse_idle(own: bool, probe: str, train_split: Split | None, eval_split: Split | None) -> None:
    """Refuse options that would say nothing: of sets with a recipe's own, of a recipe with named sets."""
    if probe and not own:
        raise UsageError(f"--probe {probe}: is of a recipe's sets; leave it, or --synth, --train and --eval")
    splits = {"--train-split": train_split, "--eval-split": eval_split}
    if own and (idle := [f"{option} {split}" for option, split in splits.items() if split]):
        raise UsageError(
            f"{' and '.join(idle)}: a recipe's sets have their splits; leave it, or name --synth, --train "
            "and --eval"
        )


def _sets(
    settings: Settings,
    synth: Path | None,
    train: Path | None,
    eval_: Path | None,
    train_split: Split | None,
    eval_split: Split | None,
    probe: str,
) -> "tuple[ClipSet, ClipSet, ClipSet]":
    """Return the synthetic, train and eval clips: those named, or a recipe's."""
    from ajbench.data.clip_set import open_set

    given = {"--synth": synth, "--train": train, "--eval": eval_}
    if missing := [name for name, path in given.items() if path is None]:
        if len(missing) < len(given):
            raise UsageError(f"audit: {' and '.join(missing)} missing; all three sets are compared")
        pipeline = settings.pipeline(settings.load(*SEEDS))
        if probe and probe not in pipeline.probes:
            raise UsageError(f"--probe {probe}: evaluate.probes has {', '.join(pipeline.probes) or 'none'}")
        synth, real = pipeline.synth(probe).need(), pipeline.prepare.need()
        return open_set(synth), open_set(real, "train"), open_set(real, "eval")
    assert synth is not None
    assert train is not None
    assert eval_ is not None
    if train.resolve() == eval_.resolve() and not (train_split and eval_split):
        raise UsageError(
            f"--train and --eval are both {train}; name the splits of a store (--train-split train "
            "--eval-split eval), or different folders"
        )
    return (
        open_set(synth),
        open_set(train, train_split, "--train-split"),
        open_set(eval_, eval_split, "--eval-split"),
    )
