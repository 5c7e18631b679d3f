"""What `eval-gen` does with two sets of clips: read, measure, write, print."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ajbench import console
from ajbench.errors import UsageError
from ajbench.options import Settings


def do_comparison(
    settings: Settings,
    gen: Path,
    ref: Path,
    *,
    ref_split: str | None,
    protocol: str,
    features: Sequence[str],
    metrics: Sequence[str] | None,
    pairs: Path | None,
    labels: str | None,
    captions: Path | None,
    allow_partial: bool,
    resamples: int,
    out: Path | None,
    clips: Path | None,
    worst: int,
    curve: Path | None,
    ladder: str | None,
    figure: Path | None,
) -> None:
    """Measure generated clips against real ones, both anywhere, and print a row a metric.

    `ladder` is the codec of a ladder of references beside them; `figure` is where that is drawn.
    """
    from ajbench import clipwise, codec, growth, protocols
    from ajbench.annotations import asked_of, captions_of
    from ajbench.clipsets import open_set
    from ajbench.compare import compare, listed, pairs_of
    from ajbench.device import device_of
    from ajbench.ladder import RUNGS, beside, drawing
    from ajbench.metrics.features import Late
    from ajbench.run import atomic_write
    from ajbench.scores import check
    from ajbench.tables import to_csv

    heard = protocols.find(protocol)
    check(metrics or ())
    if curve:
        growth.check(curve)
    if figure and (figure.suffix != ".svg" or (metrics and "fd" not in metrics)):
        raise UsageError(
            f"--ladder-figure {figure}: it is an .svg, of FD (among --metrics if those are given)"
        )
    if not settings.force:
        _refuse_existing({"--out": out, "--clips": clips, "--curve": curve, "--ladder-figure": figure})
    mine, theirs = open_set(gen), open_set(ref, ref_split)
    paired = pairs_of(mine, theirs, pairs)
    asked, texts = asked_of(mine, labels), captions_of(mine, captions)
    if settings.dry_run:
        plan: dict[str, Any] = {"gen": len(mine), "ref": len(theirs), "pairs": len(paired)}
        console.emit(plan | {"features": features} | ({"ladder": RUNGS} if ladder else {}))
        return
    trip = codec.load(ladder, device_of()) if ladder else None
    rows, troubles, scored, grown = [], [], list[dict[str, Any]](), list[dict[str, Any]]()
    notes, worse = [], dict[str, Any]()
    for named in features:
        name, _, weights = named.partition("=")
        how = mine, theirs, Late(name, weights or None), heard, settings.work / "features"
        draws: Any = {"pairs": paired, "resamples": resamples, "seed": settings.seed or 0}
        found = compare(
            *how,
            metrics=metrics,
            allow_partial=allow_partial,
            asked=asked,
            captions=texts,
            clips=bool(clips or worst),
            curve=curve is not None,
            **draws,
        )
        if trip:
            found = beside(found, *how, trip, **draws)
        rows += found.rows
        scored += found.clips
        grown += found.curve
        troubles += [trouble for trouble in found.troubles if trouble not in troubles]
        notes += [f"{name}: {note}" for note in found.notes]
        if worst:
            worse[name] = clipwise.worst(found.clips, worst)
            notes += [f"{name}: {line}" for line in clipwise.told(worse[name])]
    drawn = curve is not None and curve.suffix in growth.PICTURES
    contents: list[tuple[Path | None, str | bytes]] = [
        (out, to_csv(rows)),
        (clips, to_csv(scored)),
        (curve, growth.picture(grown, curve.suffix[1:]) if curve and drawn else to_csv(grown)),
        (figure, drawing(rows) if figure else ""),
    ]
    for path, content in contents:
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, content)
    columns = ["metric", "value", "ci_low", "ci_high", "n", "n_reference", "features", "protocol"]
    columns = (["row"] if ladder else []) + [*columns, "definition"]
    for_all = [row for row in rows if not row["of"]]
    if by_class := len(rows) - len(for_all):
        notes.append(f"{by_class} rows by class: see --out or --json")
    for note in notes:
        console.say(note)
    counts = listed(mine, theirs, troubles)
    document = {"rows": rows, "troubles": troubles, "counts": counts, "notes": notes}
    document |= {"worst": worse} if worst else {}
    document |= {"curve": grown} if curve else {}
    console.emit(document, table=(columns, [[row[name] for name in columns] for row in for_all]))


def _refuse_existing(files: Mapping[str, Path | None]) -> None:
    for option, path in files.items():
        if path and path.exists():
            raise UsageError(f"{option} {path}: is there already; name another, or overwrite it with --force")
