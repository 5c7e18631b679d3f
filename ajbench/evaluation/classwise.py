"""Average precision class by class: where a mix gains, and where it loses."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ajbench.evaluation.classification import Cell, load_scores
from ajbench.metrics.ranking import average_precision


def per_class(scores: Mapping[Cell, Path], real_column: str) -> list[dict[str, Any]]:
    """Return AP by class in percent, mean over seeds: one mapping per line of Table A11 and class.

    Keys: model, pretraining, augmentation, class, eval_clips (those that have the class), one per column, and
    `<column>_gain` for the difference to real clips alone. A class without evaluation clips has no values.

    Args:
        scores: predictions of each cell, all on the same clips.
        real_column: the column of real clips alone.
    """
    by_line: dict[str, dict[str, list[np.ndarray]]] = {}
    names: tuple[str, ...] = ()
    positives = np.zeros(0)
    for cell, path in scores.items():
        loaded = load_scores(path)
        names, positives = loaded.labels, loaded.targets.sum(axis=0)
        columns = by_line.setdefault(cell.line, {})
        columns.setdefault(cell.column, []).append(average_precision(loaded.scores, loaded.targets))
    lines = []
    for line, columns in by_line.items():
        mean = {column: 100 * np.mean(values, axis=0) for column, values in columns.items()}
        if real_column in mean:
            mean |= {f"{c}_gain": v - mean[real_column] for c, v in mean.items() if c != real_column}
        model, pretraining, augmentation = line.split("/")
        for c, name in enumerate(names):
            head: dict[str, Any] = {"model": model, "pretraining": pretraining, "augmentation": augmentation}
            head |= {"class": name, "eval_clips": int(positives[c])}
            values = {
                column: round(float(v[c]), 2) if np.isfinite(v[c]) else None for column, v in mean.items()
            }
            lines.append(head | values)
    return lines
