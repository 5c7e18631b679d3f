"""Which rows of rows.csv count for tables and report: of several measurements the last, of one codec."""

from collections.abc import Collection

import pandas as pd

from ajbench.core.recipe import Recipe, settings_of_lines
from ajbench.core.rows import folds_in

OVER_SEEDS = ("_mean", "_delta", "_delta_family", "_delta_a")  # ends of metrics
CLIPS = ("1", "generation")  # tables about generated clips; the others are about classifiers


def select(
    rows: pd.DataFrame,
    recipe: Recipe,
    fingerprints: Collection[str] | None = None,
    codec: str | None = None,
) -> pd.DataFrame:
    """Return the rows of a recipe that count: of the given fingerprints, and the last of each measurement.

    Without fingerprints the last evaluation of each classifier counts: others may have other real clips.

    Rows of different codecs are not mixed: those of `codec` count; if it is None, those of the last one, for
    classifiers and for generated clips each, and rows that do not name their codec.
    """
    rows = _of(rows, recipe, fingerprints)
    if codec is not None:
        rows = rows[rows["codec"] == codec]
    elif len(rows):
        named = rows["codec"].where(rows["codec"] != "")
        last = named.groupby(rows["table"].isin(CLIPS)).transform("last")
        rows = rows[named.isna() | (named == last)]
    if fingerprints is None:
        evaluation = rows["run"].where(rows["run"].str.startswith("eval-cls-"))
        last = evaluation.groupby([rows["table"], rows["row"]]).transform("last")
        rows = rows[evaluation.isna() | (evaluation == last)]
    # A value over seeds replaces an earlier one over fewer seeds, and one over folds those of single folds.
    over_seeds = rows["metric"].str.endswith(OVER_SEEDS)
    over_folds = rows["dataset"].map(folds_in) > 1
    if over_folds.any():
        rows, over_seeds = rows[~over_seeds | over_folds], over_seeds[~over_seeds | over_folds]
    elif len(rows):  # of evaluations of single folds the last one of each classifier counts
        latest = rows.groupby(["table", "row"])[["dataset", "run"]].transform("last")
        count = rows["table"].isin(CLIPS) | (rows[["dataset", "run"]] == latest).any(axis=1)
        rows, over_seeds = rows[count], over_seeds[count]
    seed = rows["seed"].where(~over_seeds, "all")
    # The last folds count, whichever they are.
    dataset = rows["dataset"].where(~(over_seeds & over_folds), "folds")
    key = ["table", "row", "column", "_dataset", "split", "metric", "features", "_seed"]
    every = rows.assign(_seed=seed, _dataset=dataset).drop_duplicates(key, keep="last")
    return every.drop(columns=["_seed", "_dataset"])


def other_codecs(rows: pd.DataFrame, recipe: Recipe, current: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the rows that count of a recipe's classifiers with each other codec, newest first.

    Of each, the last evaluation counts that has the same settings, as many real clips and, where clips are
    generated, as large a pool.

    Args:
        rows: of rows.csv.
        recipe: whose classifiers are meant.
        current: its rows that count, as `select` returns them.
    """
    every, last = (_classifiers(some) for some in (_of(rows, recipe, None), current))
    every = alike(every, recipe)
    strange = every.loc[~every["pool"].isin({"", *last["pool"]}), "run"]
    every = every[~every["run"].isin(strange)]
    sizes = {*last.loc[last["column"] == recipe.name, "real"]}
    # A run without real clips alone has nothing to compare.
    real_only = every[(every["column"] == recipe.name) & every["real"].isin(sizes)]
    runs = real_only[(real_only["codec"] != "") & ~real_only["codec"].isin(last["codec"])]
    runs = runs.drop_duplicates("codec", keep="last")[::-1]
    return [select(every[every["run"] == run], recipe) for run in runs["run"]]


def alike(rows: pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    """Return the rows of lines of Table A11 with the recipe's settings; rows of older versions do not say."""
    wanted = rows["row"].map(settings_of_lines(recipe)).fillna("")
    return rows[(rows["settings"] == "") | (rows["settings"] == wanted)]


def _classifiers(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[~rows["table"].isin(CLIPS)]


def _of(rows: pd.DataFrame, recipe: Recipe, fingerprints: Collection[str] | None) -> pd.DataFrame:
    rows = rows[rows["recipe"] == recipe.name]
    if fingerprints is None:
        return rows
    wanted = set(fingerprints)
    rows = rows[rows["fingerprint"].isin(wanted)]
    # A classifier may be in several evaluations, as the baseline of one and the upper bound of another.
    evaluation = rows["run"].str.extract(r"^eval-cls-(.+)$")[0]
    return rows[evaluation.isna() | evaluation.isin(wanted)]
