"""Draw what synthetic clips gain in the committed results of few real clips (`results/*-shots`).

Run from the repository root: `python benchmarks/draw_gains.py [docs/gains.svg]`. Of each recipe, pool and mix
the evaluation over most folds is shown: the paired difference of mAP to the real clips alone, with its
interval.
"""

import sys
from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from ajbench.core.rows import folds_in, read_rows

CORPORA = {"esc10-shots": "ESC-10", "kitchen20-shots": "kitchen20", "fsdd-shots": "spoken digits"}
COLOURS = {"G": "#cf222e", "A": "#0969da", "A+G": "#8250df", "real": "#57606a"}


def measured(recipe: str) -> pd.DataFrame:
    """Return a line for each mix and pool of a recipe: name, kind, clips, value and interval in points."""
    rows = read_rows(Path("results") / recipe / "rows.csv")
    rows = rows[(rows["table"] == "A11") & (rows["metric"] == "map_delta")]
    rows = rows.assign(folds=[folds_in(name) for name in rows["dataset"]])
    # Rows without synthetic clips have no pool.
    sizes = {name: [int(value or 0) for value in rows[name]] for name in ("pool", "real")}
    rows = rows.assign(**sizes)
    rows = rows.sort_values("folds").drop_duplicates(["column", "pool", "real"], keep="last")
    lines = []
    for row in rows.to_dict("records"):
        base = min(rows["real"])
        column = row["column"]
        if "all real" in column:
            kind, name = "real", f"all {row['real']:,} real clips"
        elif column.endswith("A"):
            kind, name = "A", "augmented clips"
        elif "A" in column:
            kind, name = "A+G", f"augmented and synthetic, generator of {row['pool']:,} clips"
        else:
            same = "the same " if row["pool"] == base else ""
            kind, name = "G", f"synthetic, generator of {same}{row['pool']:,} clips"
        values = {key: 100 * row[key] for key in ("value", "ci_low", "ci_high")}
        about = {"base": base, "folds": row["folds"], "n": int(row["n"])}
        lines.append({"name": name, "kind": kind, "pool": row["pool"], **values, **about})
    order = {"G": 0, "A": 1, "A+G": 2, "real": 3}
    return pd.DataFrame(lines).sort_values(
        by=["kind", "pool"], key=lambda c: c.map(order) if c.name == "kind" else c
    )


def main() -> None:
    """Write the SVG."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/gains.svg")
    found = {
        recipe: measured(recipe) for recipe in CORPORA if (Path("results") / recipe / "rows.csv").exists()
    }
    heights = [len(lines) + 1.6 for lines in found.values()]
    figure = Figure(figsize=(8.4, 0.29 * sum(heights) + 0.6), layout="constrained")
    panels = figure.subplots(len(found), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (recipe, lines) in zip(panels, found.items(), strict=True):
        for y, line in enumerate(lines.to_dict("records")):
            colour = COLOURS[line["kind"]]
            axes.hlines(y, line["ci_low"], line["ci_high"], color=colour, linewidth=2)
            axes.plot(line["value"], y, "o", color=colour, markersize=6)
        axes.set_yticks(range(len(lines)), [f"+ {name}" for name in lines["name"]], fontsize=9)
        axes.set_ylim(len(lines) - 0.4, -0.6)
        axes.axvline(0, color="#57606a", linewidth=0.8)
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        first = lines.iloc[0]
        axes.set_title(f"{CORPORA[recipe]}: {first['base']:,} real clips, and …", fontsize=10, loc="left")
    panels[-1].set_xlabel("points of mAP gained over the real clips alone, 95 % interval", fontsize=9)
    with rc_context({"svg.hashsalt": "ajbench"}):
        figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main()
