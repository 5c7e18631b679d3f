"""Which rows of rows.csv count for tables and report: of several measurements the last, of one codec."""

from collections.abc import Collection

import pandas as pd

from ajbench.core.recipe import Recipe
from ajbench.core.rows import folds_in

CLIPS = ("1", "generation")  # tables about generated clips; the others are about classifiers


def select(
    rows: pd.DataFrame,
    recipe: Recipe,
    fingerprints: Collection[str] | None = None,
    codec: str | None = None,
) -> pd.DataFrame:
    """Return the rows of a recipe that count: of the given fingerprints, and the last of each measurement.

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
    # A value over seeds replaces an earlier one over fewer seeds, and one over folds those of single folds.
    over_seeds = rows["metric"].str.endswith(("_mean", "_delta", "_delta_family", "_delta_a"))
    over_folds = rows["dataset"].map(folds_in) > 1
    if over_folds.any():
        rows, over_seeds = rows[~over_seeds | over_folds], over_seeds[~over_seeds | over_folds]
    seed = rows["seed"].where(~over_seeds, "all")
    # The last folds count, whichever they are.
    dataset = rows["dataset"].where(~(over_seeds & over_folds), "folds")
    key = ["table", "row", "column", "_dataset", "split", "metric", "features", "_seed"]
    every = rows.assign(_seed=seed, _dataset=dataset).drop_duplicates(key, keep="last")
    return every.drop(columns=["_seed", "_dataset"])


def former_codecs(
    rows: pd.DataFrame, recipe: Recipe, fingerprints: Collection[str] | None = None
) -> list[str]:
    """Return the codecs of a recipe's classifiers but for the last one, newest first."""
    rows = _of(rows, recipe, fingerprints)
    named = rows.loc[~rows["table"].isin(CLIPS) & (rows["codec"] != ""), "codec"]
    return named[::-1].drop_duplicates().tolist()[1:]


def _of(rows: pd.DataFrame, recipe: Recipe, fingerprints: Collection[str] | None) -> pd.DataFrame:
    rows = rows[rows["recipe"] == recipe.name]
    return rows if fingerprints is None else rows[rows["fingerprint"].isin(set(fingerprints))]
