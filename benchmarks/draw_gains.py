"""Draw what synthetic clips gain in the committed results of few real clips (`results/*-shots`).

Run from the repository root: `python benchmarks/draw_gains.py [docs/gains.svg]`. There is a panel for each
corpus: the paired difference of mAP from the real clips alone, with its interval, against the number of real
clips per class. Of each pool and mix the evaluation over most folds is shown, of as many the last one, which
may have a newer codec; points of the first version of the codec are pale. Runs whose folds shared seeds have
the wider intervals of `benchmarks/shared_seeds.csv`.
"""

import csv
import sys
from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ajbench.core.rows import folds_in, read_rows

CORPORA = {"fsdd-shots": "spoken digits", "esc10-shots": "ESC-10", "kitchen20-shots": "kitchen20"}
SHARED = Path("benchmarks/shared_seeds.csv")
FIRST = "tiny@ff1b92258faaad59"  # the first version of the codec
SERIES = {  # kind of mix: name, colour, face
    "real": ("all real clips of the corpus (upper bound)", "#57606a", "#57606a"),
    "G": ("+ synthetic, generator of all real clips", "#cf222e", "#cf222e"),
    "A+G": ("+ augmented and synthetic, the same generator", "#8250df", "#8250df"),
    "A": ("+ augmented", "#0969da", "#0969da"),
    "G same": ("+ synthetic, generator of the same few clips", "#cf222e", "white"),
}


def kind_of(column: str, pool: int, every: int) -> str:
    """Return the series that a mix belongs to, by name and generator's pool (`every`: all clips)."""
    if "all real" in column:
        return "real"
    if column.endswith("A"):
        return "A"
    if "A" in column:
        return "A+G"
    return "G" if pool == every else "G same"


def measured(recipe: str) -> pd.DataFrame:
    """Return gains in points: kind, shots (`every`: all clips), value, interval, codec and folds."""
    folder = Path("results") / recipe
    paths = filter(Path.exists, (folder / "earlier.csv", folder / "rows.csv"))
    rows = pd.concat(map(read_rows, paths), ignore_index=True)
    rows = rows[rows["table"] == "A11"]
    classes = int(rows.loc[rows["metric"] == "classes", "value"].max())
    base = rows[(rows["column"] == recipe) & (rows["metric"] == "map_mean")]
    clips = base.drop_duplicates("fingerprint", keep="last").set_index("fingerprint")["real"].astype(int)
    rows = rows[rows["metric"] == "map_delta"]
    real = rows["fingerprint"].map(clips)
    pool = [int(own or 0) for own in rows["pool"]]
    rows = rows.assign(
        kind=[kind_of(column, own, max(pool)) for column, own in zip(rows["column"], pool, strict=True)],
        shots=real // classes,
        every=real == max(pool),
        folds=[folds_in(name) for name in rows["dataset"]],
        first=rows["codec"] == FIRST,
    )
    rows = rows.sort_values("folds", kind="stable").drop_duplicates(["kind", "shots"], keep="last")
    for name in ("value", "ci_low", "ci_high"):
        rows[name] *= 100
    with SHARED.open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["recipe"] == line["minus"] == recipe]
    wider = {(line["run"], line["mix"]): line for line in lines}
    found = [wider.get((run, mix)) for run, mix in zip(rows["run"], rows["column"], strict=True)]
    for name, end in (("ci_low", "shared_low"), ("ci_high", "shared_high")):
        rows[name] = [float(line[end]) if line else own for line, own in zip(found, rows[name], strict=True)]
    return rows[["kind", "shots", "every", "value", "ci_low", "ci_high", "first", "folds"]]


def draw(axes: Axes, gains: pd.DataFrame) -> None:
    """Draw the gains of one corpus."""
    shots = sorted(gains["shots"].unique())
    for number, (kind, (_, colour, face)) in enumerate(SERIES.items()):
        shift = 0.13 * (number - (len(SERIES) - 1) / 2)
        for line in gains[gains["kind"] == kind].to_dict("records"):
            x, alpha = shots.index(line["shots"]) + shift, 0.45 if line["first"] else 1.0
            axes.vlines(x, line["ci_low"], line["ci_high"], color=colour, linewidth=2, alpha=alpha)
            axes.plot(x, line["value"], "o", color=colour, markerfacecolor=face, markersize=6, alpha=alpha)
            if line["folds"] < gains["folds"].max():
                below = (x, line["ci_low"])
                how = {"xytext": (0, -4), "textcoords": "offset points", "ha": "center", "va": "top"}
                axes.annotate("1 fold", below, fontsize=7, color=colour, **how)
    axes.axhline(0, color="#57606a", linewidth=0.8)
    whole = set(gains.loc[gains["every"], "shots"])
    axes.set_xticks(range(len(shots)), [f"all ({one})" if one in whole else str(one) for one in shots])
    axes.set_xlim(-0.5, len(shots) - 0.5)
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="x", length=0)


def main() -> None:
    """Write the SVG."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/gains.svg")
    found = {
        recipe: measured(recipe) for recipe in CORPORA if (Path("results") / recipe / "rows.csv").exists()
    }
    widths = [gains["shots"].nunique() + 0.4 for gains in found.values()]
    figure = Figure(figsize=(9.2, 4.6), layout="constrained")
    panels = figure.subplots(1, len(found), sharey=True, squeeze=False, width_ratios=widths)[0]
    for axes, (recipe, gains) in zip(panels, found.items(), strict=True):
        draw(axes, gains)
        axes.set_title(CORPORA[recipe], fontsize=10, loc="left")
        axes.set_xlabel("real clips per class", fontsize=9)
    panels[0].set_ylabel("points of mAP gained over these real clips alone", fontsize=9)
    handles = [
        Line2D([], [], color=colour, marker="o", markerfacecolor=face, linewidth=2, label=name)
        for name, colour, face in SERIES.values()
    ]
    if any(gains["first"].any() for gains in found.values()):
        handles.append(Line2D([], [], linestyle="", label="pale: first version of the codec"))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8.5, frameon=False)
    with rc_context({"svg.hashsalt": "ajbench"}):
        figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main()
