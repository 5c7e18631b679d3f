"""What `eval-gen` does with two sets of clips: check, read, measure, write, print."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ajbench.cli.options import Settings
from ajbench.core import console
from ajbench.core.errors import UsageError

if TYPE_CHECKING:
    from ajbench.codec import Codec
    from ajbench.evaluation.compare import Comparison
    from ajbench.features.extractor import LazyExtractor

Lines = list[dict[str, Any]]


@dataclass(frozen=True)
class Sets:
    """Which clips, and what is told of them, as options name it."""

    gen: Path
    ref: Path
    ref_split: str | None
    pairs: Path | None
    labels: str | None
    captions: Path | None
    allow_partial: bool


@dataclass(frozen=True)
class Measuring:
    """How they are measured: protocol, networks, metrics (None: the usual), and a ladder's codec, if any."""

    protocol: str
    features: Sequence[str]
    metrics: Sequence[str] | None
    resamples: int
    worst: int
    ladder: str | None


CURVE_FIGURES = (".svg", ".png")


@dataclass(frozen=True)
class Outputs:
    """Where what is found goes besides the screen; None is nowhere."""

    out: Path | None
    clips: Path | None
    curve: Path | None
    ladder_figure: Path | None

    def check(self, force: bool) -> None:
        """Refuse what cannot be written.

        Raises:
            UsageError: two are one file, one is there already, or is of no kind that is written.
        """
        if self.curve and self.curve.suffix not in (".csv", *CURVE_FIGURES):
            raise UsageError(f"--curve {self.curve}: a .csv, .svg or .png can be written")
        if self.ladder_figure and self.ladder_figure.suffix != ".svg":
            raise UsageError(f"--ladder-figure {self.ladder_figure}: an .svg can be written")
        taken = dict[Path, str]()
        for name, path in asdict(self).items():
            if path is None:
                continue
            option = f"--{name.replace('_', '-')}"
            if other := taken.get(path.resolve()):
                raise UsageError(f"{option} {path}: is what {other} names; each needs a file of its own")
            taken[path.resolve()] = option
            if path.exists() and not force:
                raise UsageError(
                    f"{option} {path}: is there already; name another, or overwrite it with --force"
                )

    def write(self, rows: Lines, clips: Lines, curve: Lines) -> None:
        """Write tables, then what is drawn: a drawing that fails takes no table with it."""
        from ajbench.core.files import atomic_write
        from ajbench.reporting import comparison_figures
        from ajbench.reporting.formats import to_csv

        def grown() -> str | bytes:
            kind = self.curve.suffix if self.curve else ""
            return (
                comparison_figures.curve_figure(curve, kind[1:]) if kind in CURVE_FIGURES else to_csv(curve)
            )

        contents: list[tuple[Path | None, Callable[[], str | bytes]]] = [
            (self.out, lambda: to_csv(rows)),
            (self.clips, lambda: to_csv(clips)),
            (self.curve, grown),
            (self.ladder_figure, lambda: comparison_figures.baseline_figure(rows)),
        ]
        for path, content in contents:
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(path, content())


def do_comparison(settings: Settings, sets: Sets, how: Measuring, outputs: Outputs) -> None:
    """Measure generated clips against real ones, both anywhere, and print a row a metric.

    Whatever the options alone tell to be wrong is refused before a clip is heard, and in a dry run too. What
    only clips can tell is found with the first network, or ends a run whose features are kept: it goes on
    from them.
    """
    from ajbench.data.annotations import asked_of, captions_of
    from ajbench.data.clip_set import open_set
    from ajbench.evaluation import baselines, per_clip, protocols
    from ajbench.evaluation.compare import Comparison, compare, listed, pairs_of

    heard = protocols.find(how.protocol)
    _check_metrics(how, outputs)
    outputs.check(settings.force)
    networks = _networks(how)
    trip = _codec(how.ladder) if how.ladder else None
    mine, theirs = open_set(sets.gen), open_set(sets.ref, sets.ref_split)
    pairs = pairs_of(mine, theirs, sets.pairs)
    asked, texts = asked_of(mine, sets.labels), captions_of(mine, sets.captions)
    if settings.dry_run:
        plan: dict[str, Any] = {"gen": len(mine), "ref": len(theirs), "pairs": len(pairs)}
        plan["features"] = [network.name for network in networks]
        console.emit(plan | ({"ladder": baselines.RUNGS} if trip else {}))
        return
    whole, worse = Comparison([], [], []), dict[str, Any]()
    for network in networks:
        them = mine, theirs, network, heard, settings.work / "features"
        draws: Any = {"pairs": pairs, "resamples": how.resamples, "seed": settings.seed or 0}
        found = compare(
            *them,
            metrics=how.metrics,
            allow_partial=sets.allow_partial,
            asked=asked,
            captions=texts,
            clips=bool(outputs.clips or how.worst),
            curve=outputs.curve is not None,
            **draws,
        )
        if trip:
            found = baselines.beside(found, *them, trip, **draws)
        _gather(whole, found, network.name)
        if how.worst:
            worse[network.name] = per_clip.worst(found.clips, how.worst)
            whole.notes.extend(f"{network.name}: {line}" for line in per_clip.told(worse[network.name]))
    outputs.write(whole.rows, whole.clips, whole.curve)
    more: dict[str, Any] = {"counts": listed(mine, theirs, whole.troubles)}
    more |= {"worst": worse} if how.worst else {}
    _show(whole, more | ({"curve": whole.curve} if outputs.curve else {}), bool(trip))


def _check_metrics(how: Measuring, outputs: Outputs) -> None:
    """Refuse metrics that are none, and a ladder, or a drawing of it, of metrics that it is not made of."""
    from ajbench.evaluation import baselines, generation_metrics

    if how.metrics is None:
        return
    generation_metrics.check(how.metrics)
    asked = {*how.metrics}
    if how.ladder and not asked & {*baselines.RISING, generation_metrics.ALL}:
        raise UsageError(
            f"--ladder: not of {', '.join(how.metrics)}; --metrics has to have one of "
            f"{', '.join(baselines.RISING)}, {generation_metrics.ALL}"
        )
    if outputs.ladder_figure and not asked & {*baselines.DRAWN, generation_metrics.ALL}:
        raise UsageError(
            f"--ladder-figure {outputs.ladder_figure}: is of FD; --metrics has to have one of "
            f"{', '.join(baselines.DRAWN)}, {generation_metrics.ALL}"
        )


def _networks(how: Measuring) -> list["LazyExtractor"]:
    """Return the networks, of which none is loaded and all can be.

    Raises:
        UsageError: a name is unknown, or there twice, or of a network that cannot give a metric.
        MissingError: there are no weights.
    """
    from ajbench.core import registry
    from ajbench.evaluation import generation_metrics
    from ajbench.features.extractor import LazyExtractor

    named = [named.partition("=") for named in how.features]
    names = [name.strip() for name, *_ in named]
    for place, name in enumerate(names):
        if name in names[:place]:
            raise UsageError(
                f"--features {','.join(how.features)}: {name} is there twice, and its rows would be alike"
            )
        registry.check("features", name)
        of = registry.FEATURES[name]
        kind = {"frames": of.frames, "classes": of.classes, "texts": of.texts}
        generation_metrics.choose(how.metrics, generation_metrics.lacking_of_kind(name, **kind))
    return [LazyExtractor(name, path.strip() or None) for name, (*_, path) in zip(names, named, strict=True)]


def _codec(name: str) -> "Codec":
    from ajbench import codec
    from ajbench.core.device import device_of

    return codec.load(name, device_of())


def _gather(whole: "Comparison", found: "Comparison", name: str) -> None:
    """Add what was found with one network to what was found before."""
    whole.rows.extend(found.rows)
    whole.clips.extend(found.clips)
    whole.curve.extend(found.curve)
    whole.troubles.extend(trouble for trouble in found.troubles if trouble not in whole.troubles)
    whole.notes.extend(f"{name}: {note}" for note in found.notes)


def _show(whole: "Comparison", more: dict[str, Any], ladder: bool) -> None:
    """Print notes and rows; those by class only in a document."""
    columns = ["metric", "value", "ci_low", "ci_high", "n", "n_reference", "features", "protocol"]
    columns = (["row"] if ladder else []) + [*columns, "definition"]
    for_all = [row for row in whole.rows if not row["of"]]
    if by_class := len(whole.rows) - len(for_all):
        whole.notes.append(f"{by_class} rows by class: see --out or --json")
    for note in whole.notes:
        console.say(note)
    document = {"rows": whole.rows, "troubles": whole.troubles, "notes": whole.notes} | more
    console.emit(document, table=(columns, [[row[name] for name in columns] for row in for_all]))
