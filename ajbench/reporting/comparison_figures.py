"""Figures of a comparison of two sets: FD among its baselines, and FD against the number of clips."""

import io
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from ajbench.core.errors import UsageError
from ajbench.evaluation import baselines
from ajbench.reporting import figures

Line = dict[str, Any]


def baseline_figure(rows: Sequence[Line]) -> str:
    """Return an SVG with FD or FAD of the baselines and of as many generated clips, a panel per extractor.

    Raises:
        UsageError: the rows have neither FD nor FAD.
    """
    of_extractor: dict[tuple[str, str], list[Line]] = {}
    for line in rows:
        if line["metric"] in baselines.DRAWN:
            of_extractor.setdefault((line["features"], line["metric"]), []).append(line)
    if not of_extractor:
        raise UsageError("--ladder-figure: the rows have neither FD nor FAD")
    panels = []
    for (features, metric), lines in of_extractor.items():
        shown = lines[1:]  # the first is of the whole set, which has another n
        floor = max(line["value"] for line in shown) / 1e3  # copies have FD 0, and the axis is logarithmic
        marks = []
        for line in shown:
            known = (line["row"] in baselines.GOOD) + 2 * (line["row"] in baselines.BAD)
            value, low, high = (max(line[key], floor) for key in ("value", "ci_low", "ci_high"))
            colour = (figures.SERIES[0], figures.REAL, figures.MUTED)[known]
            marks.append(figures.Mark(line["row"], value, low, high, colour))
        n, m = shown[0]["n"], shown[0]["n_reference"]
        panels.append((f"{metric.upper()} ({features}) of {n} clips to {m} real ones", marks))
    return figures.alone(figures.baselines(panels))


def curve_figure(found: Sequence[Line], kind: str) -> bytes:
    """Return the curves as `svg` or `png`: FD over 1/n and the line of FD∞, a panel per extractor."""
    names = list(dict.fromkeys(line["features"] for line in found))
    figure = Figure((4.2 * len(names), 3.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        *own, limit = (line for line in found if line["features"] == name)
        x = [1 / line["n"] for line in own]
        ranged = [(at, line) for at, line in zip(x, own, strict=True) if line["low"] is not None]
        low, high = ([line[end] for _, line in ranged] for end in ("low", "high"))
        axes.vlines([at for at, _ in ranged], low, high)
        axes.plot(x, [line["fd"] for line in own], "o", label="FD, subsets of n clips")
        axes.plot([0, *x], [limit["fd"], *(line["fit"] for line in own)], "--", color="0.5", linewidth=1)
        axes.plot(0, limit["fd"], "D", color="0.3", clip_on=False, label=f"FD∞ = {limit['fd']:.4g}")
        axes.set_xticks([0, *x], ["∞", *(str(line["n"]) for line in own)], fontsize=7)
        axes.set_xlabel("generated clips n (axis: 1/n)")
        axes.set_title(f"FD, {name}", fontsize=10)
        axes.legend(frameon=False, fontsize=8)
    buffer = io.BytesIO()
    salted = matplotlib.rc_context(figures.TEXT | {"svg.fonttype": "none", "svg.hashsalt": "fd"})
    with salted, warnings.catch_warnings(action="ignore"):
        about = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(buffer, format=kind, dpi=150, metadata=about)
    return buffer.getvalue()
