"""Classifier measurements: rows of metrics, gains over real clips only, AP per class.

Each training is one cell of Table A11: a line (model, initialisation, augmentation), a column (the training
clips) and a seed. Its `scores.npz` holds the predictions, from which all numbers here can be recomputed.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ajbench.core.errors import IntegrityError, UsageError
from ajbench.core.recipe import Mix, Recipe
from ajbench.core.rows import Context, Row, is_control, is_rival, make_row, without_generated
from ajbench.data.labels import Scores, load_scores
from ajbench.metrics import bootstrap, ranking
from ajbench.metrics.intervals import Interval, wilson

_Runs = dict[int, list["Measured"]]  # seed → a training in each fold
TABLE = "A11"
TAIL = "tail"  # table of rows.csv: the classes of `mix.tail`
PRIMARY = "primary"  # likewise: how many classifiers were trained before that comparison was declared
COMPARED = ("map", "macro_f1", "tail_recall")  # metrics with rows over seeds and of gains
FAMILY_ERROR = 0.05  # shared by all comparisons that a verdict speaks of (Bonferroni)
LEAKS = " (leaks)"  # ends the column of a mix that adds copies of evaluation clips
MIN_SEEDS = 3  # of a verdict on one fold: the variance between fewer is all but unknown
MIN_CLIPS = 20  # of a verdict: fewer are a handful, of which each decides


class TableCell(NamedTuple):
    """A cell of Table A11.

    `pretraining` is `-` for none and `IM` for ImageNet weights, as in the paper; of a head, its features.
    """

    model: str
    pretraining: str
    augmentation: str
    column: str
    seed: int
    fold: int | None = None  # that is evaluated; None: there is only one

    @property
    def line(self) -> str:
        """The line of the table as written in rows.csv: model/pretraining/augmentation."""
        return f"{self.model}/{self.pretraining}/{self.augmentation}"


def column_name(
    base: str,
    mix: Mix,
    through_codec: bool = False,
    amplified: bool = False,
    all_real: bool = False,
    leaks: bool = False,
    steps_of: Mix | None = None,
) -> str:
    """Return the column of Table A11 for a mix of the recipe `base`.

    `esc10` is real clips only, `+160G` adds the first 160 synthetic clips (`+40kG`: 40,000), `+160A` as many
    augmented ones, `+160R` as many real ones once more, `+160A+160G` both, `+160X` as many synthetic ones
    from elsewhere, `esc10G` is synthetic clips only,
    `α=0.5` is Eq. 1. Controls carry what they control for in brackets: in `esc10
    (decoded)` the real clips have passed through the codec, `as20k (steps of +80kG)` has trained for as many
    steps as that mix (`steps_of`; None: as that dose of generated clips), in `as20k (amplified)` the classes
    of lowest AP are drawn more often, and `as20k (all real)` has all train clips instead of those that
    `mix.real` chooses. `+160X (leaks)` adds copies of evaluation clips (`--allow-leaks`).
    """
    if mix.mode == "alpha":
        name = f"α={mix.alpha:g}"
    elif not mix.has_real:
        name = f"{base}G"
    else:
        name = _doses(mix) if mix.dose else base
    if mix.match_steps:
        name += f" (steps of {_doses(steps_of or Mix(dose=mix.match_steps))})"
    if amplified:
        name += " (amplified)"
    if all_real:
        name += " (all real)"
    if through_codec:
        name += " (decoded)"
    return f"{name}{LEAKS}" if leaks else name


def _doses(mix: Mix) -> str:
    """Return the clips that a mix adds: `+160A+160G`."""
    clips = f"{mix.dose // 1000}k" if mix.dose % 1000 == 0 else f"{mix.dose}"
    return "".join(f"+{clips}{source}" for source in mix.source.split("+"))


class Primary(NamedTuple):
    """A comparison of Table A11, as rows.csv names it."""

    line: str
    column: str
    metric: str = "map_delta"  # of its row; `map_delta_a` of A+G

    def pair(self, real_column: str) -> tuple[str, str]:
        """Return the two columns that are compared: its own, and real clips only or, of A+G, those and A."""
        other = without_generated(self.column) if self.metric == "map_delta_a" else real_column
        return self.column, other


def primary_comparison(recipe: Recipe) -> Primary | None:
    """Return the comparison that the recipe declares as its primary one."""
    section = recipe.evaluate
    if section.primary is None or section.primary_model is None:
        return None
    arm = section.primary.arm
    mix = Mix(real=recipe.mix.baseline, dose=section.primary.dose, source=arm)
    line = recipe.classifier_of(section.primary_model.model_dump()).line
    return Primary(line, column_name(recipe.name, mix), "map_delta_a" if arm == "A+G" else "map_delta")


class Measured(NamedTuple):
    """A training, measured on the evaluation clips."""

    clips: tuple[tuple[str, ...], ...]  # ids, recordings and class names: the same for all that are compared
    values: dict[str, float | int]  # of `ranking.summary`
    resampled: dict[str, bootstrap.Resampled]  # map, macro_f1, tail_recall: what is compared
    intervals: dict[str, Interval]  # of one training, 95 %
    fold: int | None = None

    def of(self, metric: str) -> bootstrap.Resampled:
        """Return a metric on all clips and on each resample."""
        return self.resampled[metric]._replace(fold=self.fold)


def measure(scores: Scores, *, tail: Sequence[int] = (), resamples: int = 1000, seed: int = 0) -> Measured:
    """Return the metrics of one training.

    The intervals of map, auc, dprime, macro_f1 and tail_recall come from resamples of the recordings, that of
    accuracy is Wilson's.

    Args:
        scores: its predictions.
        tail: indices of the classes of `mix.tail`; without any, there is no tail_recall.
        resamples: of recordings; trainings can be compared if this and `seed` are equal.
        seed: of the resampling.
    """
    s, t = ranking.check(scores.scores, scores.targets)
    value = ranking.summary(s, t)
    draws: dict[str, Any] = {"resamples": resamples, "seed": seed}
    mean_ap, auc = bootstrap.map_and_auc(s, t, scores.recordings, **draws)
    of_auc = bootstrap.auc_interval(auc)
    # d′ is a monotonic function of AUC, and so are its bounds.
    d_prime = Interval(*(ranking.d_prime(end, ranking.pairs_of(t)) for end in of_auc))
    found = {"map": bootstrap.share_interval([mean_ap]), "auc": of_auc, "dprime": d_prime}
    if np.isfinite(value["accuracy"]):
        hits = t[np.arange(len(s)), s.argmax(axis=1)]
        found["accuracy"] = wilson(hits, scores.recordings)
    f1, recall = bootstrap.f1_and_recall(s, t, tail, scores.recordings, **draws)
    more = {"macro_f1": f1, "tail_recall": recall}
    more = {name: one for name, one in more.items() if np.isfinite(one.value)}
    found |= {name: bootstrap.share_interval([one]) for name, one in more.items()}
    compared = {"map": mean_ap} | more
    return Measured((scores.clip_ids, scores.recordings, scores.labels), value, compared, found)


def cell_rows(cell: TableCell, measured: Measured, context: Context) -> list[Row]:
    """Return map, auc, dprime and macro_f1 of one cell with 95 % intervals.

    For single-label clips there is also accuracy, with a tail tail_recall. Values are fractions (a map of
    0.784), `n` is the number of evaluation clips. The last row, `classes`, counts the classes with a positive
    evaluation clip; macro averages are over these.

    Args:
        cell: which training.
        measured: its metrics.
        context: the run; `fingerprint` is the cell's.
    """
    n = int(measured.values["n"])
    row = partial(make_row, context, TABLE, cell.line, cell.column, n=n, seed=cell.seed)
    rows = [row(name, found.value, found[1:]) for name, found in measured.intervals.items()]
    return [*rows, row("classes", measured.values["classes_used"])]


def enough(seeds: int, folds: int = 1) -> bool:
    """Return whether the seeds of so many folds have as many degrees of freedom as a verdict takes."""
    return folds * (seeds - 1) >= MIN_SEEDS - 1


def compare_to_real(
    cells: Mapping[TableCell, Measured], real_column: str, context: Context, primary: Primary | None = None
) -> list[Row]:
    """Return the mAP of every column over its seeds and its paired difference from real clips only.

    `map_mean` is the mean over seeds and folds; a seed counts if every fold has it. `map_delta` is the
    difference from `real_column`, with a 95 % interval over recordings and seeds
    (`bootstrap.gain_interval`): both columns are scored on the same resamples, and only shared seeds
    count. `map_delta_family` has intervals that hold together (`bootstrap.family`) for the k comparisons
    of a column that adds synthetic clips alone, in all lines: each at 1 − 0.05/k (Bonferroni), as needed
    when the best of them are picked; a verdict on one alone (k = 1) uses `map_delta`. There, only seeds
    that all these columns of a line share count, and a line without `enough` has no such rows.
    `map_delta_a` is the difference of `+160A+160G` to `+160A`: what generated clips add to augmented ones.
    Macro-F1 and tail recall have such rows too, without a family: `macro_f1_mean`, `tail_recall_delta`, ….
    Tail recall is over the folds that have an evaluation clip of the tail.
    The column `seed` lists the seeds (`0;1;2`).

    Args:
        cells: metrics of all lines, columns, seeds and folds that a verdict speaks of; on the same clips in
            each fold.
        real_column: the column of real clips only, for example `esc10`.
        context: the run; `fingerprint` should change with that of any cell.
        primary: the comparison that is judged by itself and is not one of the k.

    Raises:
        UsageError: a line lacks the real column, a column shares no seed with it, or its folds share none.
        IntegrityError: two cells of a fold were scored on different clips, recordings or classes.
    """
    first: dict[int | None, Measured] = {}
    lines: dict[str, dict[str, _Runs]] = {}
    for cell, measured in sorted(cells.items(), key=lambda item: item[0].fold or 0):
        if measured.clips != first.setdefault(cell.fold, measured).clips:
            what = "other clips, recordings or classes"
            raise IntegrityError(f"{cell}: scored on {what} than the rest; train it again")
        runs = lines.setdefault(cell.line, {}).setdefault(cell.column, {})
        runs.setdefault(cell.seed, []).append(measured._replace(fold=cell.fold))
    for line, columns in lines.items():
        for column, runs in columns.items():
            columns[column] = {seed: runs[seed] for seed in runs if len(runs[seed]) == len(first)}
            if not columns[column]:
                raise UsageError(f"{line}: column {column} has no seed in all {len(first)} folds; train one")
    if lacking := next((line for line, columns in lines.items() if real_column not in columns), None):
        raise UsageError(f"{lacking}: column {real_column!r} is missing, so there is no baseline; train it")
    mixes = {line: judged_together(line, columns, real_column, primary) for line, columns in lines.items()}
    common = {
        line: sorted(set.intersection(*(set(lines[line][c]) for c in (real_column, *mixes[line]))))
        for line in lines
    }
    judged = {line for line in lines if mixes[line] and enough(len(common[line]), len(first))}
    comparisons = sum(len(mixes[line]) for line in judged)
    n = sum(int(measured.values["n"]) for measured in first.values())
    metrics = [name for name in COMPARED if any(name in one.resampled for one in first.values())]
    rows = []
    for line, columns in lines.items():
        real = columns[real_column]
        for column, runs in columns.items():
            row = partial(make_row, context, TABLE, line, column, n=n)
            for metric in metrics:
                mean = bootstrap.share_interval(_of(metric, runs, sorted(runs)))
                rows.append(row(f"{metric}_mean", mean.value, mean[1:], seed=_joined(runs)))
            if column == real_column:
                continue
            for end, other in {"delta": real_column, "delta_a": without_generated(column)}.items():
                if other not in columns:
                    continue
                shared = sorted(set(runs) & set(columns[other]))
                if not shared:
                    raise UsageError(f"{line}: columns {column} and {other} share no seed; train one of each")
                for metric in metrics:
                    pair = (_of(metric, some, shared) for some in (runs, columns[other]))
                    delta = bootstrap.gain_interval(*pair)
                    rows.append(row(f"{metric}_{end}", delta.value, delta[1:], seed=_joined(shared)))
        if line in judged:
            of_mixes = [_of("map", columns[mix], common[line]) for mix in mixes[line]]
            level = 1 - FAMILY_ERROR / comparisons
            found = bootstrap.family(of_mixes, _of("map", real, common[line]), level)
            for mix, gain in zip(mixes[line], found, strict=True):
                row = partial(make_row, context, TABLE, line, mix, n=n, seed=_joined(common[line]))
                rows.append(row("map_delta_family", gain.value, gain[1:]))
    return rows


def _of(metric: str, runs: _Runs, seeds: Iterable[int]) -> list[bootstrap.Resampled]:
    """Return a metric of the trainings with these seeds, of all folds that have it."""
    return [run.of(metric) for seed in seeds for run in runs[seed] if metric in run.resampled]


def judged_together(
    line: str, columns: Iterable[str], real_column: str, primary: Primary | None
) -> list[str]:
    """Return the columns of a line that verdicts correct for: mixes of G with real clips, but the primary."""
    apart = {real_column, f"{real_column}G", *([primary.column] if primary and primary.line == line else [])}
    return [c for c in columns if c not in apart and not is_control(c) and not is_rival(c)]


def _joined(seeds: Iterable[int]) -> str:
    return ";".join(map(str, sorted(seeds)))


def per_class(scores: Mapping[TableCell, Path], real_column: str) -> list[dict[str, Any]]:
    """Return AP per class in percent, averaged over seeds and folds: one mapping per line and class.

    Keys: model, pretraining, augmentation, class, eval_clips (the positives), one for each column and, for
    each but `real_column`, `<column>_gain` over it. A class without positives has None for values; a fold
    without any does not count.

    Args:
        scores: the `scores.npz` of each cell, in each fold on the same clips.
        real_column: the column of real clips only.
    """
    by_line: dict[str, dict[str, list[np.ndarray]]] = {}
    names: tuple[str, ...] = ()
    positives: dict[int | None, np.ndarray] = {}
    for cell, path in scores.items():
        loaded = load_scores(path)
        names, positives[cell.fold] = loaded.labels, loaded.targets.sum(axis=0)
        values = by_line.setdefault(cell.line, {}).setdefault(cell.column, [])
        values.append(ranking.average_precision(loaded.scores, loaded.targets))
    lines = []
    for line, columns in by_line.items():
        mean = {column: 100 * _mean(np.array(values)) for column, values in columns.items()}
        if real_column in mean:
            mean |= {f"{c}_gain": v - mean[real_column] for c, v in mean.items() if c != real_column}
        key = dict(zip(("model", "pretraining", "augmentation"), line.split("/"), strict=True))
        for c, name in enumerate(names):
            found = {k: round(float(v[c]), 2) if np.isfinite(v[c]) else None for k, v in mean.items()}
            clips = int(sum(of_fold[c] for of_fold in positives.values()))
            lines.append({**key, "class": name, "eval_clips": clips, **found})
    return lines


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over the first axis of what is not NaN; NaN where all are."""
    known = np.isfinite(values)
    total, count = np.where(known, values, 0).sum(axis=0), known.sum(axis=0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
