"""Four arms on frozen features: ESC-10, five folds, 20 draws of eight real clips a class.

python benchmarks/heads_esc10.py ESC10 --work WORK [--features mn04] [--draws 20] [--out FILE.csv] [KEY=VALUE]

WORK has the generators of the recipe esc10-shots (`ajbench run esc10-shots --work WORK`); whatever is missing
there is made first, outside the timed part: clips of both kinds and their features. A linear head has no
random part, so a draw of the real clips takes the place of a seed. In each fold and draw the heads are fitted
to the real clips alone, with 80 augmented clips (A), 80 generated (G), and both; gains are paired, with
intervals over recordings and draws. scikit-learn's logistic regression (one-vs-rest) is fitted to the same
features of the real clips; its accuracy should be equal. The generators were trained on all train clips of a
fold.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from recorded import record
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

from ajbench.core import console, recipe
from ajbench.core.rows import Context
from ajbench.data import real_clips
from ajbench.data.clip_set import open_set
from ajbench.data.labels import load_scores
from ajbench.data.store import ClipStore
from ajbench.evaluation.classification import TableCell, compare_to_real, measure
from ajbench.evaluation.feature_cache import embed
from ajbench.evaluation.protocols import find
from ajbench.features.head import ClipFeatures
from ajbench.pipeline.cell_training import SCORES
from ajbench.pipeline.classifier_stages import cell_key, grid_stages
from ajbench.pipeline.places import Places
from ajbench.pipeline.recipe_stages import Pipeline
from ajbench.pipeline.stage import in_order, run_stages

NAME, CACHE = "esc10-shots", "features"
HEADER = (
    "features",
    "column",
    "accuracy",
    "map",
    "gain",
    "low",
    "high",
    "draws",
    "folds",
    "sklearn_accuracy",
    "cells",
    "seconds",
)


def draw_pipeline(features: str, draw: int, options: argparse.Namespace) -> Pipeline:
    """Return the stages with the real clips of a draw, and a linear head as the only classifier."""
    head: dict[str, Any] = {"name": "head", "aug": "none", "options": {"features": features}}
    changed = [
        *options.changes,
        "mix.real=shots=8",
        "synth.n=80",
        "evaluate.doses=[80]",
        f"mix.draw={draw}",
        "evaluate.seeds=[0]",
        "evaluate.controls=[]",
        "evaluate.primary=null",
    ]
    plan = recipe.load(NAME, changed)
    models = type(plan.evaluate).model_validate(plan.evaluate.model_dump() | {"models": [head]}).models
    grid = plan.evaluate.model_copy(update={"models": models})
    return Pipeline(plan.model_copy(update={"evaluate": grid}), Places(options.data, options.work))


def sklearn_accuracy(pipeline: Pipeline, extractor: ClipFeatures) -> list[float]:
    """Return the accuracy on each fold of scikit-learn's logistic regression on the real clips."""
    found = []
    for fold in pipeline.folds:
        store = ClipStore.open(fold.prepare.path)
        chosen = real_clips.chosen(fold.drawn(0).recipe.mix, store)
        held_out = store.split_indices("eval")
        clips = open_set(store.path).take(np.concatenate([chosen, held_out]))
        vectors = np.concatenate(embed(clips, extractor, find("ajbench"), pipeline.places.work / CACHE).rows)
        classes = store.targets().argmax(axis=1)
        scaler = StandardScaler().fit(vectors[: len(chosen)])
        model = OneVsRestClassifier(LogisticRegression(C=1.0, max_iter=1000))
        model.fit(scaler.transform(vectors[: len(chosen)]), classes[chosen])
        found.append(float(model.score(scaler.transform(vectors[len(chosen) :]), classes[held_out])))
    return found


def main() -> None:
    """Fit all heads and print a line for each arm."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--features", default="mn04")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--out", type=Path)
    parser.add_argument("changes", nargs="*", help="recipe keys, such as generator.precision=bf16")
    options = parser.parse_intermixed_args()  # CHANGES may follow options
    pipelines = [draw_pipeline(options.features, draw, options) for draw in range(options.draws)]
    stages = [(draw, one, stage) for draw, one in enumerate(pipelines) for stage in grid_stages(one)]
    heads = [stage for _, _, stage in stages]
    needs = in_order(need for stage in heads for need in stage.needs)
    run_stages(needs, "cpu")
    run_stages(heads, "cpu")  # computes the features
    start = time.perf_counter()
    run_stages(heads, "cpu", force=True)
    seconds = time.perf_counter() - start
    cells: dict[TableCell, Any] = {}
    for draw, one, stage in stages:
        key = cell_key(stage, one.recipe)._replace(seed=draw)
        cells[key] = measure(load_scores(stage.path / SCORES), resamples=200)
    context = Context(run="", recipe=NAME, fingerprint="", git="", dataset="esc10 folds 1-5", split="eval")
    rows = compare_to_real(cells, NAME, context)
    extractor = ClipFeatures(options.features)
    theirs = float(np.mean([sklearn_accuracy(one, extractor) for one in pipelines]))
    lines = []
    for column in dict.fromkeys(key.column for key in cells):
        mine = [cells[key].values["accuracy"] for key in cells if key.column == column]
        found = {row["metric"]: row for row in rows if row["column"] == column}
        delta = found.get("map_delta")
        gain = (
            [f"{100 * float(delta[name]):.2f}" for name in ("value", "ci_low", "ci_high")]
            if delta
            else [""] * 3
        )
        values = f"{100 * np.mean(mine):.2f}", f"{100 * float(found['map_mean']['value']):.2f}"
        other = f"{100 * theirs:.2f}" if column == NAME else ""
        line = options.features, column, *values, *gain, options.draws, len(pipelines[0].folds), other
        lines.append((*line, len(heads), round(seconds)))
    record(HEADER, lines, 7, options.out)
    console.say(f"{len(heads)} heads in {seconds:.0f} s")


if __name__ == "__main__":
    main()
