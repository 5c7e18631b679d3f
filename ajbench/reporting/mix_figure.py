"""The first figure of the report: mAP of each mix and its difference from real clips only."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ajbench.core.recipe import Recipe
from ajbench.core.rows import is_rival, source_of
from ajbench.reporting import figures, tables
from ajbench.reporting.verdict import Answer, classifier_name

SOURCES = {"G": "generated", "X": "from elsewhere", "A": "augmented", "R": "repeated"}
_COLOURS = {"A": figures.SERIES[1], "R": figures.MUTED, "X": figures.SERIES[3]}
_ENDS = ["value", "ci_low", "ci_high"]


def draw(rows: pd.DataFrame, recipe: Recipe, found: Sequence[Answer]) -> str:
    """Return the figure as SVG; "" if no classifier has an answer.

    With several doses there is a curve for each classifier and source; with one, a row for each mix.

    Args:
        rows: of the recipe, as selected by `current_rows.select`.
        recipe: the merged recipe.
        found: the verdicts.
    """
    each, several = _each(found), len({answer.source for answer in found}) > 1
    curves = [curve for curve in (_curve(rows, recipe, answer, several) for answer in each) if curve]
    if any(len(curve.doses) > 2 for curve in curves):
        return figures.dose_curve(curves)
    lines = list(dict.fromkeys(answer.line for answer in found))
    panels = [(classifier_name(line), _mixes(rows, recipe, line)) for line in lines]
    panels = [(name, mixes) for name, mixes in panels if len(mixes) > 1]
    return figures.mix_rows(panels) if panels else ""


def in_words(column: str, recipe: Recipe) -> str:
    """Return a column of Table A11 in words: `+640 augmented, +640 generated` for `+640A+640G`."""
    known = {recipe.name: "real clips only", f"{recipe.name}G": "generated clips only"}
    if _is_control(column, recipe):
        control = column.removeprefix(f"{recipe.name} (").removesuffix(")")
        return {"all real": "all real clips"}.get(control, f"real clips only, {control}")
    parts = re.findall(r"\+(\d+k?)([AGRX])", column)
    mix = ", ".join(f"+{dose} {SOURCES[source]}" for dose, source in parts)
    rest = re.sub(r"\+\d+k?[AGRX]", "", column)  # such as ` (leaks)`
    return known.get(column, f"{mix}{rest}" if parts else column)


def comparison(answer: Answer, recipe: Recipe) -> str:
    """Return what an answer compares, in words: `+640 generated on top of +640 augmented`."""
    if is_rival(answer.column):
        added = answer.column.removeprefix(answer.baseline)
        return f"{in_words(added, recipe)} on top of {in_words(answer.baseline, recipe)}"
    return f"{in_words(answer.column, recipe)} against {answer.baseline}"


def _is_control(column: str, recipe: Recipe) -> bool:
    return column.startswith(f"{recipe.name} (")


def _each(found: Sequence[Answer]) -> list[Answer]:
    """Return an answer for each classifier and source: the last one, if there are two."""
    return list({(answer.line, answer.source): answer for answer in found}.values())


def _table(rows: pd.DataFrame, line: str, metric: str) -> pd.DataFrame:
    mine = rows[(rows["table"] == "A11") & (rows["row"] == line) & (rows["metric"] == metric)]
    return 100 * mine.set_index("column")[_ENDS]


def _curve(rows: pd.DataFrame, recipe: Recipe, answer: Answer, several: bool) -> figures.Curve | None:
    mine = rows[(rows["table"] == "A11") & (rows["row"] == answer.line)]
    means, deltas = (_table(rows, answer.line, metric) for metric in ("map_mean", "map_delta"))
    doses = [
        c
        for c in tables.columns_of(mine, recipe)
        if tables.dose_of(c) and c in deltas.index and source_of(c) == answer.source
    ]
    columns = [recipe.name, *doses]
    if not doses or not set(columns) <= set(means.index):
        return None
    singles = mine[mine["metric"] == "map"].groupby(["column", "seed"])["value"].mean()  # over folds
    return figures.Curve(
        name=f"{answer.name}, {SOURCES[answer.source]}" if several else answer.name,
        doses=[tables.dose_of(c) or 0 for c in columns],
        mean=means.loc[columns].to_numpy(),
        seeds=[(100 * singles.loc[c]).tolist() for c in columns],
        delta=deltas.loc[doses].to_numpy(),
        synthetic_only=next(iter(means.loc[means.index == f"{recipe.name}G", "value"]), None),
    )


def _mixes(rows: pd.DataFrame, recipe: Recipe, line: str) -> list[figures.Mix]:
    """Return the mixes of a classifier: real clips only, then the others by their mAP."""
    means, deltas = (_table(rows, line, metric) for metric in ("map_mean", "map_delta"))
    others = sorted((c for c in means.index if c != recipe.name), key=lambda c: means.loc[c, "value"])
    return [
        figures.Mix(
            in_words(column, recipe),
            means.loc[column].to_numpy(dtype=np.float64),
            deltas.loc[column].to_numpy(dtype=np.float64) if column in deltas.index else None,
            colour(column, recipe),
        )
        for column in ([recipe.name] if recipe.name in means.index else []) + others
    ]


def colour(column: str, recipe: Recipe) -> str:
    """Return the colour of a column of Table A11: that of its source, or of real clips."""
    if column == recipe.name or _is_control(column, recipe):
        return figures.REAL
    sources = re.findall(r"\+\d+k?([AGRX])", column)
    return figures.SERIES[2] if len(sources) > 1 else _COLOURS.get("".join(sources), figures.SERIES[0])
