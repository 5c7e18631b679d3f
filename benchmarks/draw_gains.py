"""Draw what synthetic clips gain in the committed results of few real clips (`results/*-shots`).

Run from the repository root: `python benchmarks/draw_gains.py [docs/gains.svg]`. There is a panel for each
recipe and number of real clips. Of each pool and mix the evaluation over most folds is shown, of as many the
last one, which may have a newer codec: the paired difference of mAP from the real clips alone, with its
interval.
"""

import sys
from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from ajbench.core.rows import folds_in, read_rows

CORPORA = {"esc10-shots": "ESC-10", "kitchen20-shots": "kitchen20", "fsdd-shots": "spoken digits"}
FIRST = "tiny@ff1b92258faaad59"  # the first version of the codec
COLOURS = {"G": "#cf222e", "A": "#0969da", "A+G": "#8250df", "real": "#57606a"}


def measured(recipe: str) -> dict[int, pd.DataFrame]:
    """Return a line for each mix and pool by the number of real clips: name, value and interval in points."""
    rows = read_rows(Path("results") / recipe / "rows.csv")
    rows = rows[(rows["table"] == "A11") & rows["metric"].isin(("map_mean", "map_delta"))]
    base = rows[(rows["column"] == recipe) & (rows["metric"] == "map_mean")]
    clips = base.drop_duplicates("fingerprint", keep="last").set_index("fingerprint")["real"].astype(int)
    rows = rows[rows["metric"] == "map_delta"]
    folds = [folds_in(name) for name in rows["dataset"]]
    rows = rows.assign(folds=folds, base=rows["fingerprint"].map(clips))
    pools = rows.groupby("fingerprint")["pool"].transform(lambda known: max(int(one or 0) for one in known))
    rows = rows.assign(pool=[int(own or 0) for own in rows["pool"]], trained_on=pools)
    same = ["column", "pool", "base"]
    rows = rows.sort_values("folds", kind="stable").drop_duplicates(same, keep="last")
    found: dict[int, list[dict[str, object]]] = {}
    for row in rows.to_dict("records"):
        column, pool, real = row["column"], row["pool"], row["base"]
        if "all real" in column:
            if row["trained_on"] == real:
                continue  # of the run with the pool of the same clips, which has fewer folds
            kind, name = "real", f"all {int(row['real']):,} real clips"
        elif column.endswith("A"):
            kind, name = "A", "augmented clips"
        elif "A" in column:
            kind, name = "A+G", f"augmented and synthetic, generator of {pool:,} clips"
        else:
            kind, name = "G", f"synthetic, generator of {'the same ' if pool == real else ''}{pool:,} clips"
        if row["folds"] < rows["folds"].max():
            name += f", {row['dataset'].partition(' ')[2]}"
        values = {key: 100 * row[key] for key in ("value", "ci_low", "ci_high")}
        about = {"name": name, "kind": kind, "pool": pool, "codec": row["codec"]}
        found.setdefault(real, []).append(about | values)
    order = {"G": 0, "A": 1, "A+G": 2, "real": 3}
    return {
        real: pd.DataFrame(found[real]).sort_values(
            by=["kind", "pool"], key=lambda c: c.map(order) if c.name == "kind" else c
        )
        for real in sorted(found)
    }


def main() -> None:
    """Write the SVG."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/gains.svg")
    recipes = [recipe for recipe in CORPORA if (Path("results") / recipe / "rows.csv").exists()]
    found = {(recipe, real): lines for recipe in recipes for real, lines in measured(recipe).items()}
    heights = [len(lines) + 1.6 for lines in found.values()]
    figure = Figure(figsize=(8.4, 0.29 * sum(heights) + 0.6), layout="constrained")
    panels = figure.subplots(len(found), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, ((recipe, real), lines) in zip(panels, found.items(), strict=True):
        for y, line in enumerate(lines.to_dict("records")):
            colour = COLOURS[line["kind"]]
            axes.hlines(y, line["ci_low"], line["ci_high"], color=colour, linewidth=2)
            axes.plot(line["value"], y, "o", color=colour, markersize=6)
        first = lines["codec"] == FIRST
        names = lines["name"] + (first & (not first.all())).map({True: ", first codec", False: ""})
        axes.set_yticks(range(len(lines)), [f"+ {name}" for name in names], fontsize=9)
        axes.set_ylim(len(lines) - 0.4, -0.6)
        axes.axvline(0, color="#57606a", linewidth=0.8)
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        codec = " (first codec)" if first.all() else ""
        axes.set_title(f"{CORPORA[recipe]}: {real:,} real clips, and …{codec}", fontsize=10, loc="left")
    panels[-1].set_xlabel("points of mAP gained over the real clips alone, 95 % interval", fontsize=9)
    with rc_context({"svg.hashsalt": "ajbench"}):
        figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main()
