"""Commands that evaluate: eval-cls, eval-gen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ajbench.cli import one_fold
from ajbench.cli.external_options import AllowLeaks, Synthetic, SyntheticLabels, with_external
from ajbench.cli.options import SEEDS, Settings, command, show_plan
from ajbench.core import console
from ajbench.core.errors import UsageError
from ajbench.core.files import need_new, need_writable

if TYPE_CHECKING:
    from ajbench.evaluation.compare import Comparison
    from ajbench.features.extractor import LazyExtractor
    from ajbench.pipeline.recipe_stages import Pipeline
    from ajbench.pipeline.stage import Stage

app = typer.Typer()


@app.command()
@command(hide=("seed",))
def eval_cls(
    settings: Settings,
    synthetic: Synthetic = None,
    synthetic_labels: SyntheticLabels = None,
    allow_leaks: AllowLeaks = False,
) -> None:
    """Evaluate the trained classifiers.

    mAP, AUC, d′ and accuracy with intervals, and the paired difference of each mix from real clips only.

    \b
    Examples:
      ajbench eval-cls
      ajbench eval-cls --recipe esc10+320G --data DIR --json
    """
    from ajbench.pipeline.classifier_stages import grid_stages, trained_stages
    from ajbench.pipeline.evaluation_stages import eval_cls_stage

    settings = with_external(settings, synthetic, synthetic_labels, allow_leaks)
    pipeline = settings.pipeline(one_fold.not_idle(settings, settings.load()))
    stage = eval_cls_stage(pipeline, (grid_stages if settings.dry_run else trained_stages)(pipeline))
    _run_evaluation(settings, pipeline, stage, ["row", "column", "seed", *COLUMNS[:4]])


PANEL = "Two sets of clips, without a recipe"
OF_RECIPES = ("recipe", "data", "results", "generator", "overrides")
FIGURES = (".svg", ".png")
COLUMNS = ["metric", "value", "ci_low", "ci_high", "n", "n_reference", "features", "protocol", "definition"]


def _of_sets(help: str, name: str, **more: Any) -> Any:
    return typer.Option(name, help=help, rich_help_panel=PANEL, **more)


CSV = "FILE.csv"
PROTOCOLS = "Preprocessing and KL convention of: ajbench, audioldm_eval, av-benchmark, stable-audio-metrics."
FEATURES = "Extractors, separated by commas; weights from AJBENCH_WEIGHTS, or as NAME=PATH."
METRICS = (
    "Metrics, separated by commas (`ajbench ls metrics`), or all. Default: with tiny fad, fd_inf, kad, "
    "precision, recall, density, coverage, lsd; with others fd, is, kl, kl_sigmoid, label_agreement; each "
    "where its inputs are given."
)
LABELS = (
    "Requested labels of a folder's clips: CSV with columns clip and labels (separated by ;), or parent: the "
    "name of the folder that a file lies in."
)
CAPTIONS = "Captions of a folder's clips: CSV with columns clip and caption."
PARTIAL = "Leave out clips that are unusable or unpaired, instead of stopping."
CURVE = "Write FD against the number of clips here, as .csv, .svg or .png."
LADDER = "Also score baselines: real halves, codec round trip, shuffled labels, noise, silence."
Gen = Annotated[Path | None, _of_sets("Generated clips: a clip store or a folder of sound files.", "--gen")]
Ref = Annotated[Path | None, _of_sets("Real clips: a clip store or a folder of sound files.", "--ref")]
Split = Literal["train", "val", "eval"]
RefSplit = Annotated[Split | None, _of_sets("Use only this split of a store.", "--ref-split")]
ProtocolName = Annotated[str, _of_sets(PROTOCOLS, "--protocol")]
Features = Annotated[str, _of_sets(FEATURES, "--features")]
Metrics = Annotated[str | None, _of_sets(METRICS, "--metrics")]
PairsFile = Annotated[
    Path | None, _of_sets("CSV with columns gen and ref, if names differ.", "--pairs", metavar=CSV)
]
Labels = Annotated[str | None, _of_sets(LABELS, "--labels", metavar=f"{CSV}|parent")]
CaptionsFile = Annotated[Path | None, _of_sets(CAPTIONS, "--captions", metavar=CSV)]
Partial = Annotated[bool, _of_sets(PARTIAL, "--allow-partial")]
Bootstrap = Annotated[
    int, _of_sets("Resamples for the interval of KAD; 0: no intervals at all.", "--bootstrap", min=0)
]
Out = Annotated[Path | None, _of_sets("Also write the table here.", "--out", metavar=CSV)]
Clips = Annotated[Path | None, _of_sets("Write scores of single clips here.", "--clips", metavar=CSV)]
Worst = Annotated[int, _of_sets("Name this many of the worst clips by each score.", "--worst", min=0)]
Curve = Annotated[Path | None, _of_sets(CURVE, "--curve", metavar=CSV)]
Ladder = Annotated[bool, _of_sets(LADDER, "--ladder")]
CodecName = Annotated[str, _of_sets("Codec of the round-trip baseline.", "--codec")]
LadderFigure = Annotated[
    Path | None, _of_sets("Draw the FD of the baselines here.", "--ladder-figure", metavar="FILE.svg")
]


@dataclass(frozen=True)
class SetOptions:
    """Options of a comparison of two sets; `metrics` None: the usual ones, `ladder` None: no baselines."""

    gen: Path
    ref: Path
    ref_split: str | None
    protocol: str
    features: Sequence[str]
    metrics: Sequence[str] | None
    pairs: Path | None
    labels: str | None
    captions: Path | None
    allow_partial: bool
    bootstrap: int
    worst: int
    ladder: str | None
    files: Mapping[str, Path | None]


@app.command()
@command()
def eval_gen(
    settings: Settings,
    context: typer.Context,
    gen: Gen = None,
    ref: Ref = None,
    ref_split: RefSplit = None,
    protocol: ProtocolName = "ajbench",
    features: Features = "tiny",
    metrics: Metrics = None,
    pairs: PairsFile = None,
    labels: Labels = None,
    captions: CaptionsFile = None,
    allow_partial: Partial = False,
    bootstrap: Bootstrap = 5000,
    out: Out = None,
    clips: Clips = None,
    worst: Worst = 0,
    curve: Curve = None,
    ladder: Ladder = False,
    codec: CodecName = "tiny",
    ladder_figure: LadderFigure = None,
) -> None:
    """Evaluate generated clips.

    For a recipe: FD, IS, KL and label agreement with intervals, and baselines: real clips, the codec,
    shuffled codes, noise, other classes. Or, with --gen and --ref, any two sets of clips, by the protocol of
    a published tool.

    \b
    Examples:
      ajbench eval-gen --recipe esc10 --data DIR evaluate.features=mn04
      ajbench eval-gen --gen GENERATED --ref REAL --protocol audioldm_eval --features panns16k --ladder
    """
    _refuse_unused(context, two_sets=bool(gen or ref), ladder=ladder)
    if gen and ref:
        names = [name.strip() for name in metrics.split(",")] if metrics is not None else None
        files = {"--out": out, "--clips": clips, "--curve": curve, "--ladder-figure": ladder_figure}
        how = protocol, features.split(","), names, pairs, labels, captions, allow_partial, bootstrap, worst
        _compare(settings, SetOptions(gen, ref, ref_split, *how, codec if ladder else None, files))
        return
    if gen or ref:
        raise UsageError(f"eval-gen: {'--ref' if gen else '--gen'} is missing; two sets are compared")
    from ajbench.pipeline.evaluation_stages import eval_gen_stage, generated_sets

    pipeline = one_fold.own_clips(settings.pipeline(settings.load(*SEEDS)))
    chosen = ["", *pipeline.probes] if settings.dry_run else generated_sets(pipeline)
    stage = eval_gen_stage(pipeline, chosen)
    _run_evaluation(
        settings, pipeline, stage, ["row", "column", "metric", "split", "value", "ci_low", "ci_high"]
    )


def _refuse_unused(context: typer.Context, *, two_sets: bool, ladder: bool) -> None:
    """Refuse options on the command line that would be ignored."""
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
            f"{', '.join(of_sets)}: only for two sets of clips; give --gen and --ref, or set evaluate.* keys "
            "of the recipe instead"
        )
    if of_recipes and two_sets:
        raise UsageError(f"{', '.join(of_recipes)}: only for a recipe; omit it with --gen and --ref")
    if unused := [option for option in ("--codec", "--ladder-figure") if option in of_sets and not ladder]:
        raise UsageError(f"{', '.join(unused)}: only for baselines; add --ladder")


def _compare(settings: Settings, options: SetOptions) -> None:
    """Compare generated clips with real ones, both anywhere, and print a row per metric.

    Wrong options are refused before any clip is read, and in a dry run too.
    """
    from ajbench.codec import load
    from ajbench.core.device import device_of
    from ajbench.data import annotations
    from ajbench.data.clip_set import open_set
    from ajbench.evaluation import baselines, compare, per_clip, protocols
    from ajbench.evaluation.set_pair import SetPair

    protocol = protocols.find(options.protocol)
    _check_metrics(options)
    _check_files(options.files, settings.force)
    extractors = _extractors(options.features)
    codec = load(options.ladder, device_of()) if options.ladder else None
    gen, ref = open_set(options.gen), open_set(options.ref, options.ref_split)
    given = {
        "pairs": annotations.read_pairs(gen, ref, options.pairs) if options.pairs else None,
        "requests": annotations.read_requests(gen, options.labels) if options.labels else None,
        "captions": annotations.read_captions(gen, options.captions) if options.captions else None,
    }
    how: Any = given | {"resamples": options.bootstrap, "seed": settings.seed or 0}
    sets = [SetPair(gen, ref, one, protocol, settings.work / "features", **how) for one in extractors]
    choices = [compare.choose(pair, options.metrics) for pair in sets]
    if settings.dry_run:
        plan: dict[str, Any] = {"gen": len(gen), "ref": len(ref), "pairs": len(sets[0].pairs or ())}
        plan["features"] = [one.name for one in extractors]
        console.emit(plan | ({"ladder": baselines.BASELINES} if codec else {}))
        return
    whole, worst, curve = compare.Comparison(), dict[str, Any](), options.files["--curve"] is not None
    for pair, choice in zip(sets, choices, strict=True):
        clips = bool(options.files["--clips"] or options.worst)
        partial = options.allow_partial
        found = compare.measure(pair, choice, allow_partial=partial, clips=clips, curve=curve)
        if codec:
            found = baselines.add_baselines(found, pair, codec)
        name, notes = pair.extractor.name, list(found.notes)
        if options.worst:
            worst[name] = per_clip.worst(found.clips, options.worst)
            notes += per_clip.describe(worst[name])
        whole.rows.extend(found.rows)
        whole.clips.extend(found.clips)
        whole.curve.extend(found.curve)
        whole.skipped.extend(one for one in found.skipped if one not in whole.skipped)
        whole.notes.extend(f"{name}: {note}" for note in notes)
    _write(options.files, whole)
    more: dict[str, Any] = {"counts": compare.counts(gen, ref, whole.skipped)}
    more |= {"worst": worst} if options.worst else {}
    _show(whole, more | ({"curve": whole.curve} if curve else {}), bool(codec))


def _check_metrics(options: SetOptions) -> None:
    """Refuse unknown metrics, and baselines or their figure without a metric that has them."""
    from ajbench.evaluation import baselines, compare

    if options.metrics is None:
        return
    compare.check(options.metrics)
    figure = options.files["--ladder-figure"]
    for wanted, option, able in (
        (options.ladder, "--ladder", baselines.HIGHER_IS_BETTER),
        (figure, f"--ladder-figure {figure}", baselines.DRAWN),
    ):
        if wanted and not {*options.metrics} & {*able, compare.ALL}:
            raise UsageError(f"{option}: --metrics must include one of {', '.join(able)}, {compare.ALL}")


def _check_files(files: Mapping[str, Path | None], force: bool) -> None:
    """Refuse files that have the wrong type, are named twice, or exist already."""
    types = {"--curve": (".csv", *FIGURES), "--ladder-figure": (".svg",)}
    taken = dict[Path, str]()
    for option, path in ((option, path) for option, path in files.items() if path):
        if path.suffix not in (allowed := types.get(option, (path.suffix,))):
            raise UsageError(f"{option} {path}: unknown file type; allowed: {', '.join(allowed)}")
        if other := taken.get(path.resolve()):
            raise UsageError(f"{option} {path}: is also the file of {other}; each needs its own")
        taken[path.resolve()] = option
        need_writable(path, option)
        need_new(path, option, force)


def _extractors(features: Sequence[str]) -> list["LazyExtractor"]:
    """Return the extractors, not yet loaded.

    Raises:
        UsageError: a name is unknown or listed twice.
        MissingError: weights are missing.
    """
    from ajbench.features.extractor import LazyExtractor

    named = [one.partition("=") for one in features]
    names = [name.strip() for name, *_ in named]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise UsageError(f"--features {','.join(features)}: {name} is listed twice")
    return [LazyExtractor(name, path.strip() or None) for name, (*_, path) in zip(names, named, strict=True)]


def _write(files: Mapping[str, Path | None], found: "Comparison") -> None:
    """Write the tables, then the figures, so that a figure that fails costs no table."""
    from ajbench.core.files import atomic_write

    for option, path in sorted(
        files.items(), key=lambda file: file[1] is not None and file[1].suffix in FIGURES
    ):
        if path:
            from ajbench.reporting import comparison_figures
            from ajbench.reporting.tables import to_csv

            tables = {"--out": found.rows, "--clips": found.clips, "--curve": found.curve}
            content: str | bytes
            if option == "--ladder-figure":
                content = comparison_figures.baseline_figure(found.rows)
            elif path.suffix in FIGURES and option == "--curve":
                content = comparison_figures.curve_figure(found.curve, path.suffix[1:])
            else:
                content = to_csv(tables[option])
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, content)


def _show(found: "Comparison", more: dict[str, Any], baselines: bool) -> None:
    """Print notes and rows; rows of single classes only with --json."""
    columns = (["row"] if baselines else []) + COLUMNS
    of_all = [row for row in found.rows if not row["of"]]
    if by_class := len(found.rows) - len(of_all):
        found.notes.append(f"{by_class} {'row' if by_class == 1 else 'rows'} by class: see --out or --json")
    for note in found.notes:
        console.say(note)
    document = {"rows": found.rows, "skipped": found.skipped, "notes": found.notes} | more
    console.emit(document, table=(columns, [[row[name] for name in columns] for row in of_all]))


def _run_evaluation(settings: Settings, pipeline: "Pipeline", stage: "Stage", columns: list[str]) -> None:
    """Run an evaluation unless it is finished and print its rows, or show what would be done."""
    from ajbench.pipeline import results_folder
    from ajbench.pipeline.stage import run_stages

    if settings.dry_run:
        show_plan(settings, [*stage.needs, stage])
        return
    settings.claim_results(pipeline.results)
    run_stages([stage], settings.device, settings.force)
    rows = results_folder.add_rows(pipeline, stage)
    for note in results_folder.notes_of(stage):
        console.say(note)
    console.emit(rows, table=(columns, [[row[name] for name in columns] for row in rows]))
