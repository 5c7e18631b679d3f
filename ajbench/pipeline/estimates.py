"""What the cells of a grid will take: steps, disk and time, before any is trained."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from ajbench.core import console
from ajbench.core.schema import Classifier
from ajbench.pipeline.catalogue import parameters
from ajbench.pipeline.workers import Cell


def estimates(cells: Sequence[Cell], classes: int, clip_samples: int) -> list[dict[str, Any]]:
    """Return for each cell its number (from 1, as `--cell` takes it), steps, disk in MB and seconds.

    Seconds come from finished cells of the same classifier and batch, or else from a few steps on noise.
    Disk is what stays; while it trains, a cell takes about nine times as much for its two checkpoints.

    Args:
        cells: of a grid, in its order.
        classes: of the label set.
        clip_samples: of a clip.
    """
    known: dict[Any, list[float]] = {}
    for cell in cells:
        if cell.stage().done():
            settings = cell.recipe.classifier
            known.setdefault(_kind(settings), []).append(cell.stage().folder.info()["seconds"] / cell.steps)
    megabytes = {
        name: round(4e-6 * parameters(name, classes), 1)
        for name in {cell.recipe.classifier.name for cell in cells}
    }
    fresh = {_kind(cell.recipe.classifier): cell.recipe.classifier for cell in cells}
    fresh = {kind: settings for kind, settings in fresh.items() if kind not in known}
    if fresh:
        from ajbench.pipeline.classifier_speed import step_seconds

        with console.progress(len(fresh), "time", "classifiers") as advance:
            for kind, settings in fresh.items():
                known[kind] = [step_seconds(settings, classes, clip_samples)]
                advance(1)
    return [
        {
            "cell": number,
            "what": cell.label,
            "state": "done" if cell.stage().done() else "todo",
            "steps": cell.steps,
            "disk_mb": megabytes[cell.recipe.classifier.name],
            "seconds": round(median(known[_kind(cell.recipe.classifier)]) * cell.steps, 1),
        }
        for number, cell in enumerate(cells, start=1)
    ]


def _kind(settings: Classifier) -> tuple[Any, ...]:
    return settings.name, settings.batch_size, repr(sorted(settings.options.items())), settings.aug
