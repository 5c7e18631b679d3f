"""Gains of committed runs whose folds shared seeds and draws: how alike the folds are, and wider intervals.

python benchmarks/shared_seeds.py [RESULTS ...] [--out FILE.csv]

Before folds had seeds and draws of their own, trainings of one seed began with the same weights in every fold
and had much the same real clips. `over_seeds` counts them as independent: V = V_clips + s²/(F S). By rows.csv
and earlier.csv alone, this finds for every gain over F folds and S seeds (of runs with both):

- `ratio`: mean square of seeds / residual mean square of the gains, folds × seeds; about 1 for independent
  trainings, more if a seed does alike in all folds;
- `shared_low`, `shared_high`: the interval with seeds as units, V = V_clips + F var(seed means)/(F S) with
  S − 1 degrees of freedom for the second term, by Satterthwaite; never narrower than the committed one.
  V_clips is what the committed interval has besides s²/(F S).

Folds of runs since `SINCE` are independent, and their committed intervals hold: they are left out.
"""

import argparse
import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
from recorded import record
from scipy.optimize import brentq
from scipy.stats import t as student

from ajbench.core.rows import without_generated
from ajbench.metrics.intervals import t_interval

SINCE = "2026-12-01"  # rows of this day and later
ROOT = Path(__file__).resolve().parents[1]
CLIPS = 10_000  # degrees of freedom of V_clips: there are many recordings


def clip_variance(half: float, seeds: float, freedom: int) -> float:
    """Return V_clips of an interval of this half width, given s²/(F S) and its degrees of freedom."""

    def excess(clips: float) -> float:
        total = clips + seeds
        nu = total**2 / (clips**2 / CLIPS + seeds**2 / freedom) if total else CLIPS
        return float(student.ppf(0.975, nu)) * total**0.5 - half

    return brentq(excess, 0, half**2) if excess(0) < 0 else 0.0


def gains(rows: list[dict[str, str]], recipe: str) -> list[dict[str, object]]:
    """Return a line for every gain over several folds and seeds of the rows of a recipe."""
    cells: dict[tuple[str, str], dict[str, dict[tuple[str, str], float]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for row in rows:
        if (row["table"], row["metric"]) == ("A11", "map"):
            one = cells[row["run"], row["row"]]
            one[row["column"]][row["dataset"], row["seed"]] = float(row["value"])
    found: list[dict[str, object]] = []
    for row in rows:
        if row["table"] != "A11" or row["metric"] not in ("map_delta", "map_delta_a") or not row["ci_low"]:
            continue
        columns = cells[row["run"], row["row"]]
        base = without_generated(row["column"]) if row["metric"] == "map_delta_a" else recipe
        mix, real = columns[row["column"]], columns[base]
        seeds = row["seed"].split(";")
        folds = sorted({dataset for dataset, seed in mix if seed in seeds})
        if len(folds) < 2 or len(seeds) < 2 or row["time"] >= SINCE:
            continue
        gain = np.array([[mix[fold, seed] - real[fold, seed] for seed in seeds] for fold in folds])
        f, s = gain.shape
        within = float(((gain - gain.mean(1, keepdims=True)) ** 2).sum()) / (f * (s - 1))
        between = f * float(gain.mean(0).var(ddof=1))
        residual = gain - gain.mean(1, keepdims=True) - gain.mean(0) + gain.mean()
        ratio = between / (float((residual**2).sum()) / ((f - 1) * (s - 1)))
        value, low, high = (float(row[key]) for key in ("value", "ci_low", "ci_high"))
        clips = clip_variance((high - low) / 2, within / (f * s), f * (s - 1))
        _, wide_low, wide_high = t_interval(value, [(clips, CLIPS), (between / (f * s), s - 1)], 0.95)
        points = [100 * x for x in (value, low, high, min(low, wide_low), max(high, wide_high))]
        about: dict[str, object] = dict(
            recipe=recipe, pool=row["pool"], real=row["real"], codec=row["codec"], mix=row["column"]
        )
        numbers = zip(("gain", "low", "high", "shared_low", "shared_high"), points, strict=True)
        about |= {"minus": base, "folds": f, "seeds": s, "ratio": f"{ratio:.3g}"}
        found.append(about | {name: f"{value:.2f}" for name, value in numbers} | {"run": row["run"]})
    return found


def main() -> None:
    """Print the table, and write it with --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    named = ("esc10-shots", "kitchen20-shots", "fsdd-shots")
    parser.add_argument("results", nargs="*", type=Path, default=[ROOT / "results" / name for name in named])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lines = []
    for folder in args.results:
        rows = []
        for path in filter(Path.exists, (folder / "rows.csv", folder / "earlier.csv")):
            with path.open(newline="") as file:
                rows += csv.DictReader(file)
        lines += gains(rows, folder.name)
    record(list(lines[0]), [list(line.values()) for line in lines], 13, args.out)


if __name__ == "__main__":
    main()
