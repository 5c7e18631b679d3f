"""The command `audit`: looks for synthetic clips that repeat real ones."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ajbench.cli import one_fold
from ajbench.cli.options import SEEDS, Settings, command
from ajbench.core import console
from ajbench.core.errors import MissingError, NumericError, UsageError
from ajbench.core.files import need_new, need_writable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ajbench.data.clip_set import ClipSet
    from ajbench.evaluation.audit_findings import Audit
    from ajbench.pipeline.recipe_stages import Pipeline

    Sets = tuple[ClipSet, ClipSet, ClipSet]

app = typer.Typer()
Split = Literal["train", "val", "eval"]
SIZES = ("synth", "train", "eval")
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
    audited, in each fold of evaluate.folds.

    \b
    Examples:
      ajbench audit --recipe esc10 --data DIR --report audit.html --strict
      ajbench audit --synth MADE --train REAL --train-split train --eval REAL --eval-split eval
    """
    from ajbench.features.extractor import LazyExtractor

    for option, file in (("--out", out), ("--report", report)):
        if file:
            need_new(file, option, settings.force)
    if out and report and out.resolve() == report.resolve():
        raise UsageError(f"--out and --report are both {out}; choose two files")
    given = {"--synth": synth, "--train": train, "--eval": eval_}
    splits = {"--train-split": train_split, "--eval-split": eval_split}
    pipeline = None if any(given.values()) else _of_recipe(settings, probe, splits)
    if pipeline and report is None:
        report = pipeline.results / "report" / (f"audit_{probe}.html" if probe else "audit.html")
    for option, path in (("--out", out), ("--report", report)):
        if path:
            need_writable(path, option)
    sets: dict[int | None, Sets] = (
        _sets_of_folds(pipeline, probe) if pipeline else {None: _named_sets(given, splits, probe)}
    )
    pages = {fold: _page(report, fold) for fold in sets if report}
    for page in pages.values():
        if page != report:
            need_writable(page, "--report")
    name, _, weights = (features or "").partition("=")
    extractor = LazyExtractor(name, weights or None) if name else None
    if settings.dry_run:
        sizes = {fold: dict(zip(SIZES, map(len, some), strict=True)) for fold, some in sets.items()}
        console.emit(_by_fold(sizes) | {"features": features})
        return
    how = {"extractor": extractor, "cache": settings.work / "features", "allow_partial": allow_partial}
    found = {fold: _audited(fold, some, how) for fold, some in sets.items()}
    if out:
        _write_pairs(found, out)
    for fold, path in pages.items():
        from ajbench.reporting import audit_page

        audit_page.render(found[fold], sets[fold], path)
        console.say(f"page: {path}")
    documents = {fold: _document(one) for fold, one in found.items()}
    rows = [_of_fold(fold) | row for fold, one in documents.items() for row in one["calibration"]]
    columns = [name for name in rows[0] if name != "real_clips"]
    table = columns, [[row[name] for name in columns] for row in rows]
    for fold, one in found.items():
        for sentence in one.sentences():
            console.say(_prefix(fold) + sentence)
    console.emit(_by_fold(documents), table=table)
    failures = [failure for fold, one in found.items() if strict and (failure := _failure(fold, one))]
    if failures:
        raise NumericError("; ".join(failures) + "; remove the clips that --out FILE.csv lists")


def _audited(fold: int | None, sets: "Sets", how: dict[str, Any]) -> "Audit":
    from ajbench.evaluation.audit import audit_sets

    try:
        return audit_sets(*sets, **how)
    except MissingError as error:
        raise MissingError(f"{_prefix(fold)}{error}") from None


def _by_fold(found: "Mapping[int | None, dict[str, Any]]") -> dict[str, Any]:
    """Return what was found without folds, or under `folds` what was found in each."""
    if None in found:
        return dict(found[None])
    return {"folds": [_of_fold(fold) | one for fold, one in found.items()]}


def _of_fold(fold: int | None) -> dict[str, Any]:
    return {} if fold is None else {"fold": fold}


def _prefix(fold: int | None) -> str:
    return "" if fold is None else f"fold {fold}: "


def _page(report: Path, fold: int | None) -> Path:
    """Return the page of a fold: `audit_fold4.html` beside `audit.html`."""
    return report if fold is None else report.with_stem(f"{report.stem}_fold{fold}")


def _document(found: "Audit") -> dict[str, Any]:
    pairs = [one.row() for one in found.findings]
    rows = [one.row() for one in found.calibrations]
    return {"counts": found.counts(), "calibration": rows, "findings": pairs, "skipped": found.skipped}


def _write_pairs(found: "Mapping[int | None, Audit]", out: Path) -> None:
    """Write the pairs of all folds as CSV; of several, the first column is the fold."""
    from ajbench.core.files import atomic_write
    from ajbench.evaluation.audit_findings import COLUMNS
    from ajbench.reporting.formats import to_csv

    pairs = [_of_fold(fold) | pair.row() for fold, one in found.items() for pair in one.findings]
    columns = COLUMNS if None in found else ("fold", *COLUMNS)
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out, to_csv(pairs, columns=columns))


def _failure(fold: int | None, found: "Audit") -> str:
    """Return why a strict audit fails, with an example; empty if it does not."""
    failed = [relation for relation in ("leak", "split") if found.tally(relation).holds]
    if not failed:
        return ""
    example, sentences = found.of(failed[0])[0], found.sentences()
    shown = sentences[: 2 if found.counts()["near_alone"] else 1] if failed == ["leak"] else sentences
    return f"{_prefix(fold)}{'; '.join(shown)}; for example, {example.clip} and {example.match}"


def _of_recipe(settings: Settings, probe: str, splits: dict[str, Split | None]) -> "Pipeline":
    """Return the stages of the recipe, which has the probe."""
    if idle := [f"{option} {split}" for option, split in splits.items() if split]:
        raise UsageError(f"{' and '.join(idle)}: a recipe has its own splits; remove it, or give {SETS}")
    pipeline = settings.pipeline(one_fold.not_idle(settings, settings.load(*SEEDS)))
    if probe and probe not in pipeline.probes:
        raise UsageError(f"--probe {probe}: evaluate.probes has {', '.join(pipeline.probes) or 'none'}")
    return pipeline


def _sets_of_folds(pipeline: "Pipeline", probe: str) -> "dict[int | None, Sets]":
    """Return the synthetic, train and eval clips of each fold; of a single one, its number is None."""
    from ajbench.data.clip_set import open_set
    from ajbench.pipeline import fold_stages

    fold_stages.check_names(pipeline)
    found: dict[int | None, Sets] = {}
    for one in (fold.draws[0] for fold in pipeline.folds):
        synth, real = one.synth(probe).need(), one.prepare.need()
        fold = one.recipe.data.eval_fold if len(pipeline.folds) > 1 else None
        found[fold] = open_set(synth), open_set(real, "train"), open_set(real, "eval")
    return found


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
