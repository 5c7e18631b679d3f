"""What added clips gain against the number of real clips: runs of one recipe with several `mix.real`.

Runs with several versions of a codec stand side by side.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from math import hypot
from typing import Any

import numpy as np
import pandas as pd

from ajbench.core.recipe import Recipe
from ajbench.core.rows import folds_in, without_generated
from ajbench.evaluation.classification import MIN_CLIPS, enough
from ajbench.reporting import figures
from ajbench.reporting.current_rows import alike
from ajbench.reporting.formats import Line, percent, signed
from ajbench.reporting.mix_figure import colour, in_words
from ajbench.reporting.verdict import classifier_name

COLUMNS = (
    "model",
    "column",
    "minus",
    "pool",
    "real",
    "codec",
    "draws",
    "map",
    "delta",
    "delta_low",
    "delta_high",
    "n",
    "seeds",
    "dataset",
)

DELTAS = ("map_delta", "map_delta_a")
DRAWS = {False: "one", True: "each seed"}


def lines(rows: pd.DataFrame, recipe: Recipe, current: Collection[str] = ()) -> list[Line]:
    """Return a line for each classifier, comparison, pool, number of real clips, codec and way of drawing.

    Runs of a recipe that differ in `mix.real`, `generator.pool`, `codec.name` or `evaluate.redraw` share a
    results folder; those with other settings are left out (`settings_of_lines`; rows of older versions do not
    say). A run is an evaluation: its rows have one fingerprint. If the same numbers were measured again, the
    current run counts, as in Table A11; of others that of most folds, then of most seeds, then the last one.

    Args:
        rows: of rows.csv, of any recipes and runs.
        recipe: whose runs are meant.
        current: fingerprints of the current run.

    Returns:
        Lines with the columns `COLUMNS`: mAP and its paired difference from `minus`, the real clips of that
        run or, of A+G, these and A, in percent with its 95 % interval; `pool` is None without a generator;
        `draws` is `one` if all seeds have the same real clips, and `each seed` with `evaluate.redraw`, empty
        in older rows. No line if all runs have the same number of real clips, pool and codec.
    """
    rows = rows[(rows["recipe"] == recipe.name) & (rows["table"] == "A11")]
    found: dict[tuple[Any, ...], Line] = {}
    runs = [run for _, run in _labelled(rows, recipe).groupby("fingerprint", sort=False)]
    # A repeated evaluation has lines at the end again.
    for run in sorted(runs, key=lambda run: (run["fingerprint"].iloc[0] in current, run.index[-1])):
        last = run.drop_duplicates(["row", "column", "dataset", "metric", "seed"], keep="last")
        deltas = last[last["metric"].isin(DELTAS)]
        means = last[last["metric"] == "map_mean"].set_index(["row", "column", "dataset"])["value"]
        base = run[(run["column"] == recipe.name) & (run["metric"] == "map_mean")]
        real, pool = _largest(base["real"]), _largest(run["pool"])
        if not real:  # rows of an older version do not say
            continue
        for row in deltas.to_dict("records"):
            key = row["row"], row["column"], row["dataset"]
            minus = without_generated(key[1]) if row["metric"] == "map_delta_a" else recipe.name
            about = (*key[:2], minus, pool, real, row["codec"], row["draws"])
            line = dict(zip(COLUMNS, about, strict=False)) | {"pool": pool or None}
            line |= {"map": percent(means.get(key, float("nan"))), "delta": percent(row["value"])}
            line |= {"delta_low": percent(row["ci_low"]), "delta_high": percent(row["ci_high"])}
            line |= {"n": int(row["n"]), "seeds": row["seed"].count(";") + 1, "dataset": row["dataset"]}
            before = found.get(about)
            fewer = before and _amount(before) > _amount(line)
            if fewer and run["fingerprint"].iloc[0] not in current:
                continue  # a value over folds and seeds counts more than that of a part of them
            found[about] = line
    several = len({about[3:5] for about in found}) > 1 or len(_codecs(found.values())) > 1
    return [found[about] for about in sorted(found)] if several else []


def _labelled(rows: pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    """Return the rows with the recipe's settings, drawn as it draws or in the other way, and which it is."""
    every = []
    for redraw, name in DRAWS.items():
        section = recipe.evaluate.model_copy(update={"redraw": redraw})
        mine = alike(rows, recipe.model_copy(update={"evaluate": section}))
        every.append(mine.assign(draws=np.where(mine["settings"] == "", "", name)))
    both = pd.concat(every).sort_index(kind="stable")
    return both[~both.index.duplicated()]


def _amount(line: Line) -> tuple[int, int]:
    return folds_in(line["dataset"]), line["seeds"]


def contrast(found: Sequence[Line], rows: pd.DataFrame, recipe: Recipe) -> list[str]:
    """Return a sentence for each classifier and mix with generated clips from several pools.

    Args:
        found: of `lines`.
        rows: of the last run; only lines with its evaluation clips, number of real clips and codec are
            compared, and with each other if their real clips were drawn in the same way.
        recipe: whose run it is.
    """
    base = rows[(rows["table"] == "A11") & (rows["column"] == recipe.name) & (rows["metric"] == "map_mean")]
    real, last = _largest(base["real"]), base.drop_duplicates("row", keep="last").set_index("row")
    groups: dict[tuple[str, str, str], list[Line]] = {}
    for line in reversed(found):  # the largest pool first
        plain = line["column"].startswith("+") and line["minus"] == recipe.name
        generated = plain and line["column"].endswith("G")
        known = line["model"] in last.index
        same = known and all(line[name] == last.loc[line["model"], name] for name in ("codec", "dataset"))
        if generated and same and line["real"] == real and line["delta_low"] is not None:
            groups.setdefault((line["model"], line["column"], line["draws"]), []).append(line)
    return [
        f"{classifier_name(model)}, {real:,} real clips: {column} changes mAP by "
        + "; ".join(f"{_gain(line)} with a generator of {_pool(line)}" for line in mine)
        + f"; {_apart(mine[0], mine[-1])}."
        for (model, column, _), mine in reversed(groups.items())
        if len(mine) > 1
    ]


def _pool(line: Line) -> str:
    same = "the same " if line["pool"] == line["real"] else ""
    return f"{same}{line['pool']:,} clips"


def _gain(line: Line) -> str:
    delta, low, high = (line[name] for name in ("delta", "delta_low", "delta_high"))
    return f"{signed(delta)} points [{signed(low)}, {signed(high)}]"


def _apart(first: Line, second: Line) -> str:
    """Return how far two gains are apart: what their intervals allow one to say.

    The half width is the root of the sum of squares. Both gains are over the same real clips only and on the
    same evaluation clips, so that their difference varies less than if they were independent.
    """
    delta = first["delta"] - second["delta"]
    half = hypot(*((line["delta_high"] - line["delta_low"]) / 2 for line in (first, second)))
    words = f"{signed(delta)} points [{signed(delta - half)}, {signed(delta + half)}] apart"
    for line in (first, second):
        if line["n"] < MIN_CLIPS or not enough(line["seeds"], folds_in(line["dataset"])):
            return f"{words}, too few seeds or clips for a verdict (95 % intervals)"
    if abs(delta) <= half:
        return f"{words}, no clear difference between the generators (95 % intervals)"
    return f"{words}: the generator of {'more' if delta > 0 else 'fewer'} clips is better (95 % intervals)"


def figure(found: Sequence[Line], recipe: Recipe) -> str:
    """Return the gain against the number of real clips as SVG, one panel for each classifier; "" for no line.

    A curve is a mix from one pool and codec. If all runs have the same number of real clips, each is a row.
    """
    if not found:
        return ""
    codecs, drawn = _codecs(found), {line["draws"] for line in found}
    if len({line["real"] for line in found}) == 1:
        return figures.gain_rows(_rows(found, recipe))
    panels: dict[str, dict[str, figures.Gains]] = {}
    most = max(folds_in(line["dataset"]) for line in found)
    for line in found:
        pool = f", pool {line['pool']:,}" if line["pool"] else ""
        name = line["column"] + _minus(line, recipe) + pool + _codec(line, codecs) + _folds(line, most)
        name += _draws(line, drawn)
        curves = panels.setdefault(classifier_name(line["model"]), {})
        curve = curves.setdefault(name, figures.Gains(name, [], []))
        curve.real.append(line["real"])
        curve.delta.append((line["delta"], line["delta_low"], line["delta_high"]))
    return figures.gain_curves([(model, list(curves.values())) for model, curves in panels.items()])


def _rows(found: Sequence[Line], recipe: Recipe) -> list[tuple[str, list[figures.Mark]]]:
    """Return a panel for each classifier: the mixes, and those with generated clips once for each pool."""
    kept: dict[tuple[Any, ...], Line] = {}
    codecs, drawn = _codecs(found), {line["draws"] for line in found}
    for line in found:
        generated = re.search(r"\dk?G|α", line["column"])
        pool = line["pool"] if generated else 0
        key = line["model"], line["column"], line["minus"], pool, line["codec"], line["draws"]
        before = kept.get(key)
        if before is None or folds_in(before["dataset"]) <= folds_in(line["dataset"]):
            kept[key] = line
    most = max(folds_in(line["dataset"]) for line in kept.values())
    panels: dict[str, list[figures.Mark]] = {}
    for (_, column, _, pool, *_), line in sorted(kept.items(), key=lambda item: item[1]["delta"]):
        name = in_words(column, recipe) + _minus(line, recipe)
        name += f", generator of {_pool(line)}" if pool else ""
        name += _codec(line, codecs) + _folds(line, most) + _draws(line, drawn)
        mark = figures.Mark(
            name, line["delta"], line["delta_low"], line["delta_high"], colour(column, recipe)
        )
        panels.setdefault(f"{classifier_name(line['model'])}, {line['real']:,} real clips", []).append(mark)
    return list(panels.items())


def _codecs(found: Iterable[Line]) -> set[str]:
    """Return the codecs that lines name; those of an older version do not."""
    return {line["codec"] for line in found} - {""}


def _codec(line: Line, codecs: Collection[str]) -> str:
    """Return the line's codec for a name in a figure, if its lines have several."""
    return f", {line['codec'] or 'unnamed codec'}" if len(codecs) > 1 else ""


def _minus(line: Line, recipe: Recipe) -> str:
    """Return what the line is compared with for a name in a figure, if that is not real clips only."""
    return "" if line["minus"] == recipe.name else f" against {in_words(line['minus'], recipe)}"


def _draws(line: Line, drawn: Collection[str]) -> str:
    """Return how the line's real clips were drawn for a name in a figure, if its lines differ in that."""
    return f", {line['draws']} draw" if len(drawn) > 1 and line["draws"] == "one" else ""


def _folds(line: Line, most: int) -> str:
    """Return the folds of a line for a name in a figure, if others have more."""
    return f" ({line['dataset'].partition(' ')[2]})" if folds_in(line["dataset"]) < most else ""


def _largest(values: pd.Series) -> int:
    known = [int(value) for value in values if value]
    return max(known, default=0)
