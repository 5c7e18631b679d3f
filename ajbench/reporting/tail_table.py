"""The table of the tail: macro-F1 and the recall of the classes with few real clips, for every mix."""

from collections.abc import Sequence

import pandas as pd

from ajbench.core.recipe import Recipe
from ajbench.core.rows import folds_in
from ajbench.evaluation.classification import TAIL
from ajbench.reporting.formats import (
    Block,
    Line,
    covered,
    fills,
    over_seeds,
    percent,
    shared_seeds,
    signed,
)

METRICS = {"tail_recall": "Tail recall", "macro_f1": "Macro-F1", "map": "mAP"}
ENDS = {"": "value", "_low": "ci_low", "_high": "ci_high"}


def classes(rows: pd.DataFrame, number: str = "value") -> str:
    """Return the classes of the tail with their real clips, `dog 4, rain 4`; "" without a tail.

    `number`: `value` for real clips, `n` for evaluation clips.
    """
    mine = rows[rows["table"] == TAIL]
    return ", ".join(f"{name} {value:g}" for name, value in zip(mine["row"], mine[number], strict=True))


def lines(rows: pd.DataFrame, recipe: Recipe, columns: Sequence[str]) -> list[Line]:
    """Return a line for each classifier and mix, all values in percent; none without a tail.

    Keys: model, pretraining, augmentation, mix; for `tail_recall`, `macro_f1` and `map` the mean over seeds
    and folds, `_std` over seeds, and `_delta`, `_delta_low`, `_delta_high` from real clips only; real, seeds,
    eval_clips; tail and tail_eval_clips (`classes`), dataset.

    Args:
        rows: of the recipe, as selected by `current_rows.select`.
        recipe: the merged recipe.
        columns: the mixes, in order.
    """
    tail = classes(rows)
    if not tail:
        return []
    held_out, rows = classes(rows, "n"), rows[rows["table"] == "A11"]
    found = []
    for name, of_line in rows.groupby("row", sort=False):
        key = dict(zip(("model", "pretraining", "augmentation"), str(name).split("/"), strict=True))
        for column in columns:
            mine = of_line[of_line["column"] == column]
            if mine.empty:
                continue
            line: Line = {**key, "mix": column}
            for metric in METRICS:
                seeds = mine[mine["metric"] == metric].groupby("seed")["value"].mean()  # over folds
                mean, delta = (mine[mine["metric"] == f"{metric}_{end}"] for end in ("mean", "delta"))
                if len(mean):
                    seeds = seeds[seeds.index.isin(mean["seed"].iloc[0].split(";"))]
                line[metric] = percent(mean["value"].iloc[0] if len(mean) else seeds.mean())
                line[f"{metric}_std"] = percent(seeds.std(ddof=1))
                for end, field in ENDS.items():
                    line[f"{metric}_delta{end}"] = percent(delta[field].iloc[0]) if len(delta) else None
            real = [int(value) for value in mine["real"] if value]
            line |= {"real": real[-1] if real else None, "seeds": len(seeds)}
            line |= {"eval_clips": int(mine["n"].max()), "tail": tail, "tail_eval_clips": held_out}
            found.append({**line, "dataset": mine["dataset"].iloc[-1]})
    return found


def block(found: Sequence[Line], recipe: Recipe) -> Block:
    """Return the lines as a table for reading."""
    header = ["Model", "Aug", "Mix", "Real", *METRICS.values()]
    cells = []
    for line in found:
        head = line["model"], line["augmentation"], line["mix"], f"{line['real'] or 0:,}"
        cells.append([*((text, "") for text in head), *((_value(line, m), _gain(line, m)) for m in METRICS)])
    first = found[0]
    seeds, most = {line["seeds"] for line in found}, _most_seeds(found)
    over_folds = ", the mean over folds" if folds_in(first["dataset"]) > 1 else ""
    notes = [
        f"{first['dataset']}; real clips of the tail: {first['tail']}; its evaluation clips: "
        f"{first['tail_eval_clips']}",
        "Tail recall is the mean over the classes of the tail, macro-F1 and mAP over all classes. Predicted "
        "is the class of the highest logit or, of a clip with several labels or none, each class with a "
        "probability above 0.5",
        f"In percent, {over_seeds(seeds)}{over_folds}; below it the paired difference from {recipe.name}"
        f"{shared_seeds(seeds)} with its 95 % interval over {covered(seeds)}, each for one comparison by "
        "itself",
        *(
            f"{line['model']}, {line['augmentation']}: {line['mix']}: {line['seeds']} of {number} seeds"
            for line in found
            if line["seeds"] < (number := most[_classifier(line)])
        ),
    ]
    if fills(recipe):
        notes.append("Added clips all have a label of the tail")
    return Block(f"Tail, {recipe.name} (measured)", header, cells, notes, 3)


def _classifier(line: Line) -> tuple[str, ...]:
    return line["model"], line["pretraining"], line["augmentation"]


def _most_seeds(found: Sequence[Line]) -> dict[tuple[str, ...], int]:
    """Return, of each classifier, the number of seeds of the mix that has most."""
    lines = sorted(found, key=lambda line: line["seeds"])
    return {_classifier(line): line["seeds"] for line in lines}


def _value(line: Line, metric: str) -> str:
    mean, std = line[metric], line[f"{metric}_std"]
    return "–" if mean is None else f"{mean:.1f}" if std is None else f"{mean:.1f} ± {std:.1f}"


def _gain(line: Line, metric: str) -> str:
    gain, low, high = (line[f"{metric}_delta{end}"] for end in ENDS)
    if gain is None:
        return ""
    return signed(gain) if low is None else f"{signed(gain)} [{signed(low)}, {signed(high)}]"
