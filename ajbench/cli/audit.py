"""The command `audit`: looks for synthetic clips that repeat real ones."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ajbench.cli.options import SEEDS, Settings, command
from ajbench.core import console
from ajbench.core.errors import NumericError, UsageError
from ajbench.core.files import need_new, need_writable

if TYPE_CHECKING:
    from ajbench.data.clip_set import ClipSet

app = typer.Typer()
Split = Literal["train", "val", "eval"]
SETS = "--synth, --train and --eval"


def _of_sets(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="Sets of clips, without a recipe")


@app.command()
@command(hide=("seed",))
def audit(
    settings: Settings,
    synth: Annotated[Path | None, _of_sets("Synthetic clips: a store or a folder.", "--synth")] = None,
    train: Annotated[Path | None, _of_sets("Real train clips: a store or a folder.", "--train")] = None,
    eval_: Annotated[Path | None, _of_sets("Real eval clips: a store or a folder.", "--eval")] = None,
    train_split: Annotated[
        Split | None, _of_sets("Use only this split of the store at --train.", "--train-split")
    ] = None,
    eval_split: Annotated[
        Split | None, _of_sets("Use only this split of the store at --eval.", "--eval-split")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            "--features",
            help="Also compare embeddings of this extractor: mn04, panns16k, … (weights: AJBENCH_WEIGHTS, or "
            "NAME=PATH).",
        ),
    ] = None,
    probe: Annotated[
        str, typer.Option("--probe", help="Audit this probe of the recipe (evaluate.probes).")
    ] = "",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.csv", help="Write the pairs to this CSV.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FILE.html",
            help="Write a page with spectrograms and players (default for a recipe: next to its report).",
        ),
    ] = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Skip clips that cannot be read.")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Exit with 4 if a synthetic or train clip repeats an eval clip by samples, waveform, "
            "parent, id or recording, or if more synthetic clips are close to one by detail or embedding "
            "only than chance explains (p < 0.05).",
        ),
    ] = False,
) -> None:
    """Find synthetic clips that repeat real ones.

    Copies of eval clips are leaks, copies of train clips memorisation. Clips are compared by id and recording
    (stores only), parent, samples, waveform, spectral detail and, on request, embedding. The threshold for
    similarity is calibrated on train against eval clips. Without the three sets, those of the recipe are
    audited.

    \b
    Examples:
      ajbench audit --recipe esc10 --data DIR --report audit.html --strict
      ajbench audit --synth MADE --train REAL --train-split train --eval REAL --eval-split eval
    """
    from ajbench.evaluation.audit import audit_sets
    from ajbench.evaluation.audit_findings import COLUMNS
    from ajbench.features.extractor import LazyExtractor

    for option, file in (("--out", out), ("--report", report)):
        if file:
            need_new(file, option, settings.force)
    given = {"--synth": synth, "--train": train, "--eval": eval_}
    splits = {"--train-split": train_split, "--eval-split": eval_split}
    of_recipe = not any(given.values())
    if of_recipe and report is None:
        home = settings.pipeline(settings.load(*SEEDS)).results
        report = home / "report" / (f"audit_{probe}.html" if probe else "audit.html")
    if out and report and out.resolve() == report.resolve():
        raise UsageError(f"--out and --report are both {out}; choose two files")
    for option, path in (("--out", out), ("--report", report)):
        if path:
            need_writable(path, option)
    sets = _sets_of_recipe(settings, probe, splits) if of_recipe else _named_sets(given, splits, probe)
    name, _, weights = (features or "").partition("=")
    extractor = LazyExtractor(name, weights or None) if name else None
    if settings.dry_run:
        sizes = dict(zip(("synth", "train", "eval"), map(len, sets), strict=True))
        console.emit(sizes | {"features": features})
        return
    found = audit_sets(
        *sets, extractor=extractor, cache=settings.work / "features", allow_partial=allow_partial
    )
    counts, pairs = found.counts(), [one.row() for one in found.findings]
    if out:
        from ajbench.core.files import atomic_write
        from ajbench.reporting.formats import to_csv

        out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(out, to_csv(pairs, columns=COLUMNS))
    if report:
        from ajbench.reporting import audit_page

        audit_page.render(found, sets, report)
        console.say(f"page: {report}")
    sentences = found.sentences()
    for sentence in sentences:
        console.say(sentence)
    rows = [one.row() for one in found.calibrations]
    columns = [name for name in rows[0] if name != "real_clips"]
    document = {"counts": counts, "calibration": rows, "findings": pairs, "skipped": found.skipped}
    console.emit(document, table=(columns, [[row[name] for name in columns] for row in rows]))
    failed = [relation for relation in ("leak", "split") if found.tally(relation).holds]
    if strict and failed:
        example = found.of(failed[0])[0]
        shown = sentences[: 2 if counts["near_alone"] else 1] if failed == ["leak"] else sentences
        raise NumericError(
            "; ".join(shown)
            + f"; for example, {example.clip} and {example.match}; remove the clips that --out FILE.csv lists"
        )


def _sets_of_recipe(
    settings: Settings, probe: str, splits: dict[str, Split | None]
) -> "tuple[ClipSet, ClipSet, ClipSet]":
    """Return the synthetic, train and eval clips of the recipe."""
    from ajbench.data.clip_set import open_set

    if idle := [f"{option} {split}" for option, split in splits.items() if split]:
        raise UsageError(f"{' and '.join(idle)}: a recipe has its own splits; remove it, or give {SETS}")
    pipeline = settings.pipeline(settings.load(*SEEDS))
    if probe and probe not in pipeline.probes:
        raise UsageError(f"--probe {probe}: evaluate.probes has {', '.join(pipeline.probes) or 'none'}")
    synth, real = pipeline.synth(probe).need(), pipeline.prepare.need()
    return open_set(synth), open_set(real, "train"), open_set(real, "eval")


def _named_sets(
    given: dict[str, Path | None], splits: dict[str, Split | None], probe: str
) -> "tuple[ClipSet, ClipSet, ClipSet]":
    """Return the synthetic, train and eval clips named on the command line."""
    from ajbench.data.clip_set import open_set

    if probe:
        raise UsageError(f"--probe {probe}: belongs to a recipe; remove it, or {SETS}")
    paths = [path for path in given.values() if path]
    if len(paths) < len(given):
        missing = " and ".join(name for name, path in given.items() if path is None)
        raise UsageError(f"audit: {missing} missing; give all of {SETS}, or none to audit a recipe")
    synth, train, eval_ = paths
    if train.resolve() == eval_.resolve() and not all(splits.values()):
        raise UsageError(
            f"--train and --eval are both {train}; name the splits of a store (--train-split train "
            "--eval-split eval), or different folders"
        )
    (train_option, train_split), (eval_option, eval_split) = splits.items()
    real = open_set(train, train_split, train_option), open_set(eval_, eval_split, eval_option)
    return open_set(synth), *real
