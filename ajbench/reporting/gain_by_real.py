"""What added clips gain against the number of real clips: runs of one recipe with several `mix.real`."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ajbench.core.recipe import Recipe
from ajbench.reporting import figures
from ajbench.reporting.formats import Line

COLUMNS = (
    "model",
    "column",
    "pool",
    "real",
    "map",
    "delta",
    "delta_low",
    "delta_high",
    "n",
    "seeds",
    "dataset",
)
DIGITS = 2


def lines(rows: pd.DataFrame, recipe: Recipe) -> list[Line]:
    """Return a line for each classifier, mix, pool and number of real clips.

    Runs of a recipe that differ in `mix.real` or `generator.pool` share a results folder. A run is an
    evaluation: its rows have one fingerprint. If the same numbers were measured again, the last run counts.

    Args:
        rows: of rows.csv, of any recipes and runs.
        recipe: whose runs are meant.

    Returns:
        Lines with the columns `COLUMNS`: mAP and its paired difference to the real clips of that run, in
        percent with its 95 % interval. None if all runs have the same number of real clips and one pool.
    """
    rows = rows[(rows["recipe"] == recipe.name) & (rows["table"] == "A11")]
    found: dict[tuple[str, str, int, int], Line] = {}
    for _, run in rows.groupby("fingerprint", sort=False):
        deltas = run[run["metric"] == "map_delta"].drop_duplicates(["row", "column", "dataset"], keep="last")
        means = run[run["metric"] == "map_mean"].set_index(["row", "column"])["value"]
        base = run[(run["column"] == recipe.name) & (run["metric"] == "map_mean")]
        real, pool = _largest(base["real"]), _largest(run["pool"])
        if not (real and pool):  # rows of an older version do not have them
            continue
        for row in deltas.to_dict("records"):
            key = row["row"], row["column"]
            line = dict(zip(COLUMNS, (*key, pool, real), strict=False))
            line |= {"map": _percent(means.get(key, float("nan"))), "delta": _percent(row["value"])}
            line |= {"delta_low": _percent(row["ci_low"]), "delta_high": _percent(row["ci_high"])}
            line |= {"n": int(row["n"]), "seeds": row["seed"].count(";") + 1, "dataset": row["dataset"]}
            found.pop((*key, pool, real), None)
            found[*key, pool, real] = line
    several = len({(line["pool"], line["real"]) for line in found.values()}) > 1
    return sorted(found.values(), key=lambda n: tuple(n[c] for c in COLUMNS[:4])) if several else []


def figure(found: Sequence[Line]) -> str:
    """Return the gain against the number of real clips as SVG, one panel for each classifier; "" for no line.

    A curve is a mix from one pool.
    """
    panels: dict[str, list[figures.Gains]] = {}
    for line in found:
        name = f"{line['column']}, pool {line['pool']:,}"
        curves = panels.setdefault(line["model"], [])
        if not curves or curves[-1].name != name:
            curves.append(figures.Gains(name, [], []))
        curves[-1].real.append(line["real"])
        curves[-1].delta.append((line["delta"], line["delta_low"], line["delta_high"]))
    return figures.gain_curves(list(panels.items())) if panels else ""


def _largest(values: pd.Series) -> int:
    known = [int(value) for value in values if value]
    return max(known, default=0)


def _percent(value: float) -> float | None:
    return round(100 * float(value), DIGITS) if np.isfinite(value) else None
