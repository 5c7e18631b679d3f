"""Scenarios of `coverage.py`: verdicts where the gain is known, and how often the announced gain is seen.

Scores are drawn as in coverage_classifiers.py, with 3 seeds and a small variance between them; announced
gains are those of 5 folds of this size with 2 seeds each. The skill of
a mix is set so that its expected mAP is that of real clips only plus the gain. A verdict is wrong if it says
"helps" or "hurts" against the truth, or excludes the true gain.
"""

from functools import cache, partial

import numpy as np
import pandas as pd
from coverage_classifiers import RECORDING, SEED_SPREAD, TARGETS, mean_ap, seeded, trained

from ajbench.core.recipe import Recipe, load
from ajbench.core.rows import Context
from ajbench.data.labels import Scores
from ajbench.evaluation.classification import (
    FAMILY_ERROR,
    Measured,
    TableCell,
    compare_to_real,
    measure,
    primary_comparison,
)
from ajbench.metrics import bootstrap
from ajbench.metrics.power import POWER, Design, smallest_gain
from ajbench.reporting.verdict import Answer, answers

SPREAD, REAL = SEED_SPREAD["small"], 1.6  # skill of real clips only
SEEDS, FOLDS = 2, 5  # of announced gains
SKILLS = np.linspace(REAL, REAL + 1.6, 9)
CONTEXT = Context("run", "esc10", "", "", "")
LABELS = tuple(map(str, range(TARGETS.shape[1])))
CLIPS, RECORDINGS = (tuple(map(str, names)) for names in (range(len(TARGETS)), RECORDING))


@cache
def expected() -> np.ndarray:
    """Return the expected mAP at each of SKILLS."""
    rng = seeded("power", "expected")
    fresh = (trained(rng, list(SKILLS), 1, SPREAD) for _ in range(300))
    return np.mean([[mean_ap(runs[0]) for runs in scores] for scores in fresh], axis=0)


def plan(primary: bool) -> Recipe:
    """Return a recipe with the primary comparison alone, or with three doses whose best is picked."""
    doses = [160] if primary else [160, 320, 640]
    keys = [f"evaluate.doses={doses}", "evaluate.models=[{name: taltrans-small, aug: none}]"]
    return load("esc10", [*keys, *(["evaluate.primary={dose: 160}"] if primary else [])])


def draw(
    rng: np.random.Generator, recipe: Recipe, gain: float, seeds: int = 3, folds: int = 1
) -> dict[TableCell, Measured]:
    """Return a run, measured: all mixes gain the same."""
    skill = float(np.interp(expected()[0] + gain, expected(), SKILLS))
    columns = ["esc10", *(f"+{dose}G" for dose in recipe.evaluate.doses)]
    found = {}
    for fold in range(folds):
        scores = trained(rng, [REAL, *[skill] * (len(columns) - 1)], seeds, SPREAD)
        resamples = int(rng.integers(2**31))
        for column, runs in zip(columns, scores, strict=True):
            for k, run in enumerate(runs):
                made = Scores(run, TARGETS, CLIPS, LABELS, RECORDINGS)
                cell = TableCell("taltrans-small", "-", "none", column, k, fold if folds > 1 else None)
                found[cell] = measure(made, resamples=200, seed=resamples)
    return found


def rows_of(cells: dict, recipe: Recipe) -> pd.DataFrame:
    """Return the rows of a run."""
    return pd.DataFrame(compare_to_real(cells, "esc10", CONTEXT, primary_comparison(recipe)))


def right(answer: Answer, points: float) -> bool:
    """Return whether a verdict agrees with the true gain."""
    if answer.effect:
        return answer.effect == np.sign(points)
    return answer.least <= points <= answer.most


def known(gain: float, primary: bool, repetitions: int) -> list[tuple]:
    """Return how often the interval contains the gain, and how often the verdict is right."""
    rng, recipe = seeded("power", gain, primary), plan(primary)
    covered = correct = 0
    for _ in range(repetitions):
        rows = rows_of(draw(rng, recipe, gain), recipe)
        (answer,) = answers(rows, recipe)
        first = rows[(rows["metric"] == "map_delta") & (rows["column"] == "+160G")].iloc[0]
        covered += first["ci_low"] <= gain <= first["ci_high"]
        correct += right(answer, 100 * gain)
    setting = f"gain of {100 * gain:g} points, {'primary' if primary else 'best of 3'}, 3 seeds"
    return [
        ("power", f"{setting}: interval", 0.95, covered / repetitions, repetitions, ""),
        ("power", f"{setting}: verdict right", 0.95, correct / repetitions, repetitions, ""),
    ]


def variances(rng: np.random.Generator, recipe: Recipe, gain: float, runs: int) -> tuple[float, float]:
    """Return the variances that runs with this gain have on average, as `smallest_gain` takes them."""
    parts = []
    for _ in range(runs):
        columns: dict[str, list[bootstrap.Resampled]] = {}
        for cell, measured in draw(rng, recipe, gain, SEEDS, FOLDS).items():
            columns.setdefault(cell.column, []).append(measured.resampled["map"]._replace(fold=cell.fold))
        pair = columns["+160G"], columns["esc10"]
        clips = bootstrap.per_recording(bootstrap.difference(*pair))
        parts.append((clips, bootstrap.between_seeds([pair[0]], pair[1])[0]))
    clips, between = np.mean(parts, axis=0)
    return float(clips), float(between)


def seen(primary: bool, repetitions: int) -> list[tuple]:
    """Return how often the gain is seen that is announced from earlier runs with about that gain."""
    rng, recipe, gain = seeded("seen", primary), plan(primary), 0.05
    level, mixes = (0.95, 0) if primary else (1 - FAMILY_ERROR / 3, 3)
    for _ in range(2):  # variances fall as mAP nears 1
        design = Design(FOLDS * len(set(RECORDINGS)), SEEDS, level, mixes, FOLDS)
        gain = smallest_gain(*variances(rng, plan(True), gain, 30), design)
    metric = "map_delta" if primary else "map_delta_family"
    hits = 0
    for _ in range(repetitions):
        rows = rows_of(draw(rng, recipe, gain, SEEDS, FOLDS), recipe)
        hits += int((rows[(rows["metric"] == metric) & (rows["column"] == "+160G")]["ci_low"] > 0).sum())
    setting = f"smallest gain, {100 * gain:.1f} points, {'primary' if primary else 'one of 3'}"
    setting += f", {FOLDS} folds of {SEEDS} seeds: seen"
    return [("power", setting, POWER, hits / repetitions, repetitions, "")]


SCENARIOS = {
    "power": [
        *(partial(known, gain, True, 300) for gain in (0.0, 0.02, 0.05)),
        *(partial(known, gain, False, 150) for gain in (0.0, 0.02, 0.05)),
        *(partial(seen, primary, 200) for primary in (True, False)),
    ],
}
