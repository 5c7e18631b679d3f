"""What added clips gain against the number of real clips: runs of one recipe with several `mix.real`.

Runs with several versions of a codec stand side by side.
"""

import re
from collections.abc import Collection, Iterable, Sequence

import pandas as pd

from ajbench.core.recipe import Recipe
from ajbench.core.rows import folds_in
from ajbench.evaluation.classification import MIN_CLIPS, enough
from ajbench.reporting import figures
from ajbench.reporting.current_rows import alike
from ajbench.reporting.formats import Line, percent, signed
from ajbench.reporting.mix_figure import colour, in_words
from ajbench.reporting.verdict import classifier_name

COLUMNS = (
    "model",
    "column",
    "pool",
    "real",
    "codec",
    "map",
    "delta",
    "delta_low",
    "delta_high",
    "n",
    "seeds",
    "dataset",
)


def lines(rows: pd.DataFrame, recipe: Recipe, current: Collection[str] = ()) -> list[Line]:
    """Return a line for each classifier, mix, pool, number of real clips and codec.

    Runs of a recipe that differ in `mix.real`, `generator.pool` or `codec.name` share a results folder; those
    with other settings are left out (`settings_of_lines`; rows of older versions do not say). A run
    is an evaluation: its rows have one fingerprint. If the same numbers were measured again, the current run
    counts, as in Table A11; of others that of most folds, then of most seeds, then the last one.

    Args:
        rows: of rows.csv, of any recipes and runs.
        recipe: whose runs are meant.
        current: fingerprints of the current run.

    Returns:
        Lines with the columns `COLUMNS`: mAP and its paired difference from the real clips of that run, in
        percent with its 95 % interval; `pool` is None without a generator. No line if all runs have the same
        number of real clips, pool and codec.
    """
    rows = alike(rows[(rows["recipe"] == recipe.name) & (rows["table"] == "A11")], recipe)
    found: dict[tuple[str, str, int, int, str], Line] = {}
    runs = [run for _, run in rows.groupby("fingerprint", sort=False)]
    for run in sorted(runs, key=lambda run: run["fingerprint"].iloc[0] in current):
        last = run.drop_duplicates(["row", "column", "dataset", "metric", "seed"], keep="last")
        deltas = last[last["metric"] == "map_delta"]
        means = last[last["metric"] == "map_mean"].set_index(["row", "column", "dataset"])["value"]
        base = run[(run["column"] == recipe.name) & (run["metric"] == "map_mean")]
        real, pool = _largest(base["real"]), _largest(run["pool"])
        if not real:  # rows of an older version do not say
            continue
        for row in deltas.to_dict("records"):
            key = row["row"], row["column"], row["dataset"]
            about = (*key[:2], pool, real, row["codec"])
            line = dict(zip(COLUMNS, about, strict=False)) | {"pool": pool or None}
            line |= {"map": percent(means.get(key, float("nan"))), "delta": percent(row["value"])}
            line |= {"delta_low": percent(row["ci_low"]), "delta_high": percent(row["ci_high"])}
            line |= {"n": int(row["n"]), "seeds": row["seed"].count(";") + 1, "dataset": row["dataset"]}
            before = found.get(about)
            fewer = before and _amount(before) > _amount(line)
            if fewer and run["fingerprint"].iloc[0] not in current:
                continue  # a value over folds and seeds counts more than that of a part of them
            found[about] = line
    several = len({about[2:4] for about in found}) > 1 or len(_codecs(found.values())) > 1
    return [found[about] for about in sorted(found)] if several else []


def _amount(line: Line) -> tuple[int, int]:
    return folds_in(line["dataset"]), line["seeds"]


def contrast(found: Sequence[Line], rows: pd.DataFrame, recipe: Recipe) -> list[str]:
    """Return a sentence for each classifier and mix with generated clips from several pools.

    Args:
        found: of `lines`.
        rows: of the last run; only lines with its evaluation clips, number of real clips and codec are
            compared.
        recipe: whose run it is.
    """
    base = rows[(rows["table"] == "A11") & (rows["column"] == recipe.name) & (rows["metric"] == "map_mean")]
    real, last = _largest(base["real"]), base.drop_duplicates("row", keep="last").set_index("row")
    groups: dict[tuple[str, str], list[Line]] = {}
    for line in reversed(found):  # the largest pool first
        generated = line["column"].startswith("+") and line["column"].endswith("G")
        known = line["model"] in last.index
        same = known and all(line[name] == last.loc[line["model"], name] for name in ("codec", "dataset"))
        if generated and same and line["real"] == real and line["delta_low"] is not None:
            groups.setdefault((line["model"], line["column"]), []).append(line)
    return [
        f"{classifier_name(model)}, {real:,} real clips: "
        + "; ".join(f"{column} from a generator trained on {_pool(line)} {_effect(line)}" for line in mine)
        + " (95 % intervals)."
        for (model, column), mine in reversed(groups.items())
        if len(mine) > 1
    ]


def _pool(line: Line) -> str:
    same = "the same " if line["pool"] == line["real"] else ""
    return f"{same}{line['pool']:,} clips"


def _effect(line: Line) -> str:
    """Return what the interval of a gain allows one to say."""
    delta, low, high = (line[name] for name in ("delta", "delta_low", "delta_high"))
    interval = f"[{signed(low)}, {signed(high)}]"
    if line["n"] < MIN_CLIPS or not enough(line["seeds"], folds_in(line["dataset"])):
        return f"changes mAP by {signed(delta)} points {interval}, too few seeds or clips for a verdict"
    if low <= 0 <= high:
        return f"makes no clear difference: {signed(delta)} points of mAP {interval}"
    return f"{'raises' if low > 0 else 'lowers'} mAP by {signed(delta).lstrip('+−')} points {interval}"


def figure(found: Sequence[Line], recipe: Recipe) -> str:
    """Return the gain against the number of real clips as SVG, one panel for each classifier; "" for no line.

    A curve is a mix from one pool and codec. If all runs have the same number of real clips, each is a row.
    """
    if not found:
        return ""
    codecs = _codecs(found)
    if len({line["real"] for line in found}) == 1:
        return figures.gain_rows(_rows(found, recipe))
    panels: dict[str, dict[str, figures.Gains]] = {}
    most = max(folds_in(line["dataset"]) for line in found)
    for line in found:
        pool = f", pool {line['pool']:,}" if line["pool"] else ""
        name = line["column"] + pool + _codec(line, codecs) + _folds(line, most)
        curves = panels.setdefault(classifier_name(line["model"]), {})
        curve = curves.setdefault(name, figures.Gains(name, [], []))
        curve.real.append(line["real"])
        curve.delta.append((line["delta"], line["delta_low"], line["delta_high"]))
    return figures.gain_curves([(model, list(curves.values())) for model, curves in panels.items()])


def _rows(found: Sequence[Line], recipe: Recipe) -> list[tuple[str, list[figures.Mark]]]:
    """Return a panel for each classifier: the mixes, and those with generated clips once for each pool."""
    kept: dict[tuple[str, str, int, str], Line] = {}
    codecs = _codecs(found)
    for line in found:
        generated = re.search(r"\dk?G|α", line["column"])
        key = line["model"], line["column"], line["pool"] if generated else 0, line["codec"]
        before = kept.get(key)
        if before is None or folds_in(before["dataset"]) <= folds_in(line["dataset"]):
            kept[key] = line
    most = max(folds_in(line["dataset"]) for line in kept.values())
    panels: dict[str, list[figures.Mark]] = {}
    for (_, column, pool, _), line in sorted(kept.items(), key=lambda item: item[1]["delta"]):
        name = in_words(column, recipe)
        name += f", generator of {_pool(line)}" if pool else ""
        name += _codec(line, codecs)
        name += _folds(line, most)
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


def _folds(line: Line, most: int) -> str:
    """Return the folds of a line for a name in a figure, if others have more."""
    return f" ({line['dataset'].partition(' ')[2]})" if folds_in(line["dataset"]) < most else ""


def _largest(values: pd.Series) -> int:
    known = [int(value) for value in values if value]
    return max(known, default=0)
