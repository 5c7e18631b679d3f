"""Measurements of classifiers: predictions on disk, their rows, and paired differences to real clips only.

A grid cell is one training: a line of Table A11 (model, pretraining, augmentation), a column (which clips)
and a seed. Its folder keeps `scores.npz`, from which every number here can be made again.
"""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ajbench.core.device import to_numpy
from ajbench.core.errors import IntegrityError, MissingError, UsageError
from ajbench.core.files import atomic_write
from ajbench.core.recipe import Mix
from ajbench.core.rows import ROW_COLUMNS, Context, Row, append_rows, is_control, make_row, read_rows
from ajbench.metrics import bootstrap, ranking

__all__ = [
    "ROW_COLUMNS",
    "Cell",
    "Context",
    "Scores",
    "append_rows",
    "cell_rows",
    "column_name",
    "compare_to_real",
    "load_scores",
    "read_rows",
    "save_scores",
]
TABLE = "A11"
LEVEL = 0.95


class Cell(NamedTuple):
    """One training of the grid; `pretraining` is `-` without, `IM` for ImageNet weights, as in Table A11."""

    model: str
    pretraining: str
    augmentation: str
    column: str
    seed: int

    @property
    def line(self) -> str:
        """The line of Table A11, as in rows.csv: model/pretraining/augmentation."""
        return f"{self.model}/{self.pretraining}/{self.augmentation}"


@dataclass(frozen=True)
class Scores:
    """Predictions on evaluation clips: logits float32 [n, C], targets [n, C] of 0/1, ids [n], names [C]."""

    scores: np.ndarray
    targets: np.ndarray
    clip_ids: tuple[str, ...]
    labels: tuple[str, ...]


def column_name(base: str, mix: Mix, through_codec: bool = False) -> str:
    """Return the column of Table A11 for a mix of the recipe `base`.

    `esc10` real only, `+160G` real and the first 160 synthetic clips (`+40kG` for 40,000), `esc10G` synthetic
    only, `α=0.5` for Eq. 1. Controls have what they control for in brackets: `esc10 (decoded)` heard real
    clips through the codec, `as20k (steps of +80kG)` was trained as long as with that dose.
    """
    if mix.mode == "alpha":
        name = f"α={mix.alpha:g}"
    elif not mix.real:
        name = f"{base}G"
    else:
        name = _dose(mix.dose) if mix.dose else base
    if mix.match_steps:
        name += f" (steps of {_dose(mix.match_steps)})"
    return f"{name} (decoded)" if through_codec else name


def _dose(clips: int) -> str:
    return f"+{clips // 1000}kG" if clips % 1000 == 0 else f"+{clips}G"


def save_scores(path: Path, scores: Any, targets: Any, clip_ids: Any, labels: Any) -> Path:
    """Write the predictions of a cell, atomically, as an npz of plain arrays (`scores.npz`; nothing pickled).

    Args:
        path: the file.
        scores: [n, C], logits as the classifier gives them.
        targets: [n, C] of 0 and 1.
        clip_ids: n ids, in the order of the rows.
        labels: C class names.

    Raises:
        UsageError: the shapes do not fit together.
    """
    arrays: dict[str, Any] = {
        "scores": to_numpy(scores).astype(np.float32),
        "targets": to_numpy(targets).astype(np.uint8),
        "clip_ids": np.asarray(list(clip_ids), dtype=np.str_),
        "labels": np.asarray(list(labels), dtype=np.str_),
    }
    if problem := _mismatch(arrays):
        raise UsageError(f"{path}: {problem}")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    atomic_write(path, buffer.getvalue())
    return path


def load_scores(path: Path) -> Scores:
    """Read what `save_scores` wrote.

    Raises:
        MissingError: no such file.
        IntegrityError: damaged, or not made by `save_scores`.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("scores", "targets", "clip_ids", "labels")}
    except FileNotFoundError:
        raise MissingError(f"{path}: no predictions; run `ajbench train-cls` for this cell") from None
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise IntegrityError(
            f"{path}: not readable as predictions ({error}); train this cell again"
        ) from None
    if problem := _mismatch(arrays):
        raise IntegrityError(f"{path}: {problem}; train this cell again")
    return Scores(
        arrays["scores"],
        arrays["targets"],
        tuple(arrays["clip_ids"].tolist()),
        tuple(arrays["labels"].tolist()),
    )


def cell_rows(
    cell: Cell, scores: Scores, context: Context, *, resamples: int = 1000, seed: int = 0
) -> list[Row]:
    """Return map, auc, dprime and (single-label clips only) accuracy of one cell, with intervals over clips.

    And `classes`: how many have a positive among the evaluation clips; only these are averaged. Values are
    fractions (map 0.784), not percent. `n` is the number of evaluation clips.

    Args:
        cell: which training.
        scores: its predictions.
        context: where they come from; `fingerprint` is the cell's.
        resamples: bootstrap draws.
        seed: of the draws, not of the cell.
    """
    s, t = ranking.check(scores.scores, scores.targets)
    value = ranking.summary(s, t)
    mean_ap = bootstrap.seeds_and_clips(s, t, resamples=resamples, seed=seed, level=LEVEL)
    auc = bootstrap.interval(
        lambda i: float(ranking.summary(s[i], t[i])["auc"]),
        len(s),
        resamples=resamples,
        seed=seed,
        level=LEVEL,
    )
    # d′ rises with AUC, so its bounds are those of AUC.
    bounds = {
        "map": (mean_ap.low, mean_ap.high),
        "auc": (auc.low, auc.high),
        "dprime": (ranking.d_prime(auc.low), ranking.d_prime(auc.high)),
    }
    if np.isfinite(value["accuracy"]):
        right = bootstrap.interval(
            lambda i: ranking.accuracy(s[i], t[i]), len(s), resamples=resamples, seed=seed, level=LEVEL
        )
        bounds["accuracy"] = (right.low, right.high)
    about: dict[str, Any] = {"n": len(s), "seed": cell.seed}
    rows = [
        make_row(context, TABLE, cell.line, cell.column, metric, value[metric], b, **about)
        for metric, b in bounds.items()
    ]
    used = value["classes_used"]
    return [*rows, make_row(context, TABLE, cell.line, cell.column, "classes", used, **about)]


def compare_to_real(
    cells: Mapping[Cell, Scores],
    real_column: str,
    context: Context,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> list[Row]:
    """Return rows over seeds: `map_mean` of every column and its difference to real only, `map_delta`.

    A difference is paired: each bootstrap resample draws clips and seeds once and scores both columns on
    them; only seeds that both columns have count. `map_delta` has a 95 % interval; `map_delta_family` has
    the interval at 1 − 0.05/k, k the number of columns that add synthetic clips, so that picking the best
    of them is allowed for (Bonferroni). Column `seed` lists the seeds (`0;1;2`).

    Args:
        cells: predictions of any number of lines, columns and seeds, all on the same clips.
        real_column: the column of real clips only, for instance `esc10`.
        context: `fingerprint` should change with that of any cell.
        resamples: bootstrap draws.
        seed: of the draws.

    Raises:
        UsageError: a line has no cell of the real column or shares no seed with it.
        IntegrityError: two cells were scored on different clips or classes, so that nothing is paired.
    """
    first = next(iter(cells.values()), None)
    if first is None:
        return []
    for cell, scores in cells.items():
        if scores.clip_ids != first.clip_ids or scores.labels != first.labels:
            raise IntegrityError(
                f"cell {cell}: scored on other clips or classes than the rest; evaluate it again"
            )
    rows = []
    for line in dict.fromkeys(cell.line for cell in cells):
        by_column: dict[str, dict[int, np.ndarray]] = {}
        for cell, scores in cells.items():
            if cell.line == line:
                by_column.setdefault(cell.column, {})[cell.seed] = scores.scores
        if real_column not in by_column:
            raise UsageError(f"{line}: no cell of column {real_column!r} to compare with; train it first")
        added = [
            column
            for column in by_column
            if column not in (real_column, f"{real_column}G") and not is_control(column)
        ]
        for column, runs in by_column.items():
            mean = bootstrap.seeds_and_clips(
                np.stack([runs[k] for k in sorted(runs)]),
                first.targets,
                resamples=resamples,
                seed=seed,
                level=LEVEL,
            )
            n, seeds = len(first.clip_ids), ";".join(str(k) for k in sorted(runs))
            rows.append(
                make_row(context, TABLE, line, column, "map_mean", mean.value, mean[1:], n=n, seed=seeds)
            )
            if column == real_column:
                continue
            shared = sorted(set(runs) & set(by_column[real_column]))
            if not shared:
                raise UsageError(
                    f"{line}: columns {column} and {real_column} share no seed; train both with one"
                )
            levels = {"map_delta": LEVEL}
            if column in added:
                levels["map_delta_family"] = 1 - (1 - LEVEL) / len(added)
            for metric, level in levels.items():
                delta = bootstrap.paired_difference(
                    np.stack([runs[k] for k in shared]),
                    np.stack([by_column[real_column][k] for k in shared]),
                    first.targets,
                    resamples=resamples,
                    seed=seed,
                    level=level,
                )
                seeds = ";".join(map(str, shared))
                rows.append(
                    make_row(context, TABLE, line, column, metric, delta.value, delta[1:], n=n, seed=seeds)
                )
    return rows


def _mismatch(arrays: Mapping[str, np.ndarray]) -> str | None:
    shape = arrays["scores"].shape
    if len(shape) != 2 or arrays["targets"].shape != shape:
        return f"scores {shape} and targets {arrays['targets'].shape} must both be [clips, classes]"
    if arrays["clip_ids"].shape != shape[:1] or arrays["labels"].shape != shape[1:]:
        return f"scores {shape} with {arrays['clip_ids'].size} clip ids and {arrays['labels'].size} labels"
    return None
