"""Figures of the report as SVG; colours follow the light or dark theme of the page."""

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

# Placeholders, replaced by the CSS variables of the page.
INK, MUTED, RULE, REAL = "#010101", "#020202", "#030303", "#040404"
SERIES = ("#050505", "#060606", "#070707", "#080808", "#090909", "#0a0a0a")
_CSS = {INK: "ink", MUTED: "muted", RULE: "rule", REAL: "real"} | {
    colour: f"c{i}" for i, colour in enumerate(SERIES, start=1)
}
TEXT: Any = {"text.parse_math": False}  # names of classes are text, no formulas
_STYLE: Any = TEXT | {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.edgecolor": MUTED, "axes.labelcolor": MUTED, "axes.linewidth": 0.6, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlelocation": "left", "axes.titlesize": 9.5, "axes.titlecolor": INK, "axes.titlepad": 10,
    "grid.color": RULE, "grid.linewidth": 0.6, "text.color": INK,
    "xtick.color": MUTED, "xtick.major.size": 3, "xtick.major.width": 0.6,
    "ytick.color": MUTED, "ytick.major.size": 3, "ytick.major.width": 0.6,
    "legend.frameon": False, "legend.fontsize": 9, "legend.borderpad": 0.4,
}  # fmt: skip
# The colours of templates/style.css.j2, for a drawing without a page.
_LIGHT = {"paper": "#fcfbf8", "ink": "#1d1c1a", "muted": "#6a665e", "rule": "#e3dfd6", "real": "#7d8894"}
_DARK = {"paper": "#171614", "ink": "#ece8e0", "muted": "#a09a8e", "rule": "#34312c", "real": "#8d99a6"}
_LIGHT |= {"c1": "#b5471d", "c2": "#1f6f78", "c3": "#7a5195"}
_DARK |= {"c1": "#ee8a5c", "c2": "#5fb7c0", "c3": "#bf9add"}
_BESIDE: Any = {"va": "center", "ha": "right", "color": MUTED, "fontsize": 8.5}  # numbers in a row
WIDTH = 9.6  # inches; the page scales the drawing to its column


@dataclass(frozen=True)
class Curve:
    """mAP of one classifier against the dose, in percent."""

    name: str
    doses: Sequence[float]  # synthetic clips added, [D], 0 first
    mean: np.ndarray  # over seeds, with its interval: value, low, high [D, 3]
    seeds: Sequence[Sequence[float]]  # values of single seeds, D lists
    delta: np.ndarray  # paired difference from dose 0, with its interval [D−1, 3]
    synthetic_only: float | None = None  # mAP without real clips


@dataclass(frozen=True)
class Mark:
    """A value with its interval on a row of a dot plot; `colour` is one of this module."""

    name: str
    value: float
    low: float = field(default=float("nan"))
    high: float = field(default=float("nan"))
    colour: str = MUTED


@dataclass(frozen=True)
class Mix:
    """mAP with a mix and its paired difference from real clips only, in percent: value, low, high [3]."""

    name: str
    mean: np.ndarray
    delta: np.ndarray | None  # None: real clips only
    colour: str = SERIES[0]


@dataclass(frozen=True)
class Gains:
    """Paired difference from real clips only against their number, of one mix."""

    name: str
    real: list[int]  # ascending [R]
    delta: list[tuple[float, float, float]]  # points of mAP with the interval: value, low, high [R]


def gain_curves(panels: Sequence[tuple[str, Sequence[Gains]]]) -> str:
    """Return the gain against the number of real clips, a panel for each classifier, as SVG."""
    names = list(dict.fromkeys(curve.name for _, curves in panels for curve in curves))
    with matplotlib.rc_context(_STYLE):
        figure = Figure((WIDTH, 3.7), layout="constrained")
        shown = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, curves) in zip(shown, panels, strict=True):
            ticks = sorted({clips for curve in curves for clips in curve.real})
            for curve in curves:
                place = names.index(curve.name)
                x = np.array([ticks.index(clips) for clips in curve.real])
                x = x + 0.08 * (place - (len(names) - 1) / 2)
                _intervals(axes, x, np.array(curve.delta), SERIES[place % len(SERIES)], label=curve.name)
            axes.axhline(0, color=INK, linewidth=0.7)
            axes.set_title(title)
            axes.set_xticks(range(len(ticks)), [f"{clips:,}" for clips in ticks])
            axes.set_xlabel("real clips of the classifier")
            axes.grid(axis="y")
            axes.margins(x=0.15)
        shown[0].set_ylabel("difference from real clips only, points of mAP")
        marks = {
            name: mark for axes in shown for mark, name in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend([marks[name] for name in names], names, loc="outside upper left", ncols=3)
        return _svg(figure, "gain")


def dose_curve(curves: Sequence[Curve]) -> str:
    """Return mAP against the dose (left) and the difference from real clips only (right), as SVG."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure((WIDTH, 3.7), layout="constrained")
        left, right = figure.subplots(1, 2)
        doses = sorted({dose for curve in curves for dose in curve.doses})
        step = max(doses[-1], 1) * 0.025
        for i, curve in enumerate(curves):
            colour, shift = SERIES[i % len(SERIES)], (i - (len(curves) - 1) / 2) * step
            x = np.array(curve.doses) + shift
            for where, values in zip(x + 0.6 * step, curve.seeds, strict=True):
                left.plot([where] * len(values), values, ".", color=colour, alpha=0.55, markersize=4)
            _intervals(left, x, curve.mean, colour, label=curve.name)
            if curve.synthetic_only is not None:
                left.axhline(curve.synthetic_only, color=colour, linewidth=0.8, linestyle=(0, (1, 2.5)))
            _intervals(right, x[1:], curve.delta, colour)
        right.axhline(0, color=INK, linewidth=0.7)
        left.set_title("mAP, % (small dots: seeds; dotted line: synthetic clips only)")
        right.set_title("difference from real clips only, points of mAP")
        for axes, ticks in ((left, doses), (right, doses[1:])):
            axes.set_xticks(ticks, [f"+{dose:,.0f}" if dose else "real only" for dose in ticks])
            axes.set_xlabel("synthetic clips added")
            axes.grid(axis="y")
            axes.margins(x=0.08)
        right.set_xlim(left=doses[1] - step * 6 if len(doses) > 1 else None)
        figure.legend(loc="outside upper left", ncols=len(curves), handletextpad=0.4)
        return _svg(figure, "dose")


def mix_rows(panels: Sequence[tuple[str, Sequence[Mix]]]) -> str:
    """Return mAP (left) and the difference from real clips only (right), a row for each mix, as SVG.

    Args:
        panels: name of a classifier and its mixes; the name is shown if there are several.
    """
    rows: list[tuple[str, Mix | None]] = []
    for title, mixes in panels:
        rows += [(title, None)] if len(panels) > 1 else []
        rows += [(mix.name, mix) for mix in mixes]
    with matplotlib.rc_context(_STYLE):
        figure = Figure((WIDTH, 0.95 + 0.3 * len(rows)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        right.axvline(0, color=INK, linewidth=0.7)
        for y, (_, mix) in enumerate(rows):
            if mix is None:
                continue
            for axes, values in ((left, mix.mean), (right, mix.delta)):
                if values is not None:
                    _row(axes, y, values, mix.colour)
            left.text(1, y, f"{mix.mean[0]:.1f}", transform=left.get_yaxis_transform(), **_BESIDE)
            if mix.delta is not None:
                text = f"{mix.delta[0]:+.1f}".replace("-", "−")
                right.text(1, y, text, transform=right.get_yaxis_transform(), **_BESIDE)
        _rows(left, [name for name, _ in rows])
        for label, (_, mix) in zip(left.get_yticklabels(), rows, strict=True):
            label.set_color(MUTED if mix is None else INK)
        right.spines["left"].set_visible(False)
        right.tick_params(axis="y", length=0)
        left.set_title("mAP, %")
        right.set_title("difference from real clips only, points of mAP")
        for axes in (left, right):
            axes.grid(axis="x")
            _leave_right(axes)
        return _svg(figure, "mixes")


def gain_rows(panels: Sequence[tuple[str, Sequence[Mark]]]) -> str:
    """Return one dot plot of differences per panel (title, marks), one below the other, as SVG."""
    with matplotlib.rc_context(_STYLE):
        sizes = [len(marks) + 1.5 for _, marks in panels]
        figure = Figure((WIDTH, 0.5 + 0.3 * sum(sizes)), layout="constrained")
        shown = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=sizes)[:, 0]
        for axes, (title, marks) in zip(shown, panels, strict=True):
            axes.axvline(0, color=INK, linewidth=0.7)
            for y, mark in enumerate(marks):
                _row(axes, y, np.array([mark.value, mark.low, mark.high]), mark.colour)
                text = f"{mark.value:+.1f}".replace("-", "−")
                axes.text(1, y, text, transform=axes.get_yaxis_transform(), **_BESIDE)
            _rows(axes, [mark.name for mark in marks])
            axes.set_title(title)
            axes.grid(axis="x")
        _leave_right(shown[-1])
        shown[-1].set_xlabel("difference from real clips only, points of mAP")
        return _svg(figure, "gain")


def bars(
    labels: Sequence[str], before: Sequence[float], after: Sequence[float], names: tuple[str, str]
) -> str:
    """Return two horizontal bars per class (percent), `before` in the colour of real clips, as SVG."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure((WIDTH, 0.9 + 0.3 * len(labels)), layout="constrained")
        axes = figure.subplots()
        y = _rows(axes, labels)
        axes.barh(y - 0.19, before, 0.34, color=REAL, label=names[0])
        axes.barh(y + 0.19, after, 0.34, color=SERIES[0], label=names[1])
        for at, first, second in zip(y, before, after, strict=True):
            text = f"{second - first:+.1f}".replace("-", "−")
            axes.text(max(first, second) + 1, at, text, va="center", color=MUTED, fontsize=8)
        axes.set_xlim(0, 108)
        axes.grid(axis="x")
        axes.set_xlabel("average precision, %, mean over seeds")
        figure.legend(loc="outside upper left", ncols=2, handlelength=1)
        return _svg(figure, "classes")


def baselines(panels: Sequence[tuple[str, Sequence[Mark]]]) -> str:
    """Return one dot plot per panel (title, marks) on a logarithmic axis, smallest value on top, as SVG."""
    with matplotlib.rc_context(_STYLE):
        rows = max(len(marks) for _, marks in panels)
        figure = Figure((WIDTH, 0.9 + 0.26 * rows), layout="constrained")
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, marks) in zip(all_axes, panels, strict=True):
            ordered = sorted(marks, key=lambda mark: mark.value)
            axes.set_xscale("log")
            for y, mark in enumerate(ordered):
                axes.hlines(y, mark.low, mark.high, color=mark.colour, linewidth=1.4)
                axes.plot(mark.value, y, "o", color=mark.colour, markersize=5)
            _rows(axes, [mark.name for mark in ordered], rows)
            axes.set_title(title)
            low, high = axes.get_xlim()
            ticks = [t for e in range(-3, 7) for t in (10.0**e, 2 * 10.0**e, 5 * 10.0**e) if low <= t <= high]
            axes.xaxis.set_major_locator(FixedLocator(ticks))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.tick_params(axis="x", which="minor", length=0)
            axes.grid(axis="both")
        return _svg(figure, "baselines")


def shares(labels: Sequence[str], sets: Sequence[tuple[str, Sequence[float], str]]) -> str:
    """Return one dot per class and set of clips as SVG; `sets` are (name, shares 0..1 [C], colour)."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure((WIDTH, 0.9 + 0.24 * len(labels)), layout="constrained")
        axes = figure.subplots()
        y = _rows(axes, labels)
        values = 100 * np.array([share for _, share, _ in sets], dtype=float)
        axes.hlines(y, np.nanmin(values, axis=0), np.nanmax(values, axis=0), color=RULE, linewidth=2.5)
        for (name, _, colour), row in zip(sets, values, strict=True):
            axes.plot(row, y, "o", color=colour, markersize=5.5, label=name, clip_on=False)
        axes.set_xlim(0, 100)
        axes.grid(axis="x")
        axes.set_xlabel("clips whose requested class is predicted first, %")
        figure.legend(loc="outside upper left", ncols=len(sets), handletextpad=0.2)
        return _svg(figure, "shares")


def distribution(
    real: np.ndarray, synthetic: np.ndarray, threshold: float, names: tuple[str, str], label: str
) -> str:
    """Return histograms of two sets of scores, in percent of clips, with a threshold, as SVG."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure((WIDTH, 2.6), layout="constrained")
        axes = figure.subplots()
        both = np.concatenate([real, synthetic, [threshold]])
        edges = np.linspace(min(0.0, both.min()), both.max() * 1.02, 60)
        for values, name, colour in zip((real, synthetic), names, (REAL, SERIES[0]), strict=True):
            share = 100 * np.histogram(values, edges)[0] / len(values)
            axes.stairs(share, edges, color=colour, fill=True, alpha=0.35)
            axes.stairs(share, edges, color=colour, linewidth=1.2, label=name)
        axes.axvline(threshold, color=INK, linewidth=1)
        axes.text(threshold, axes.get_ylim()[1], f"  {threshold:.2f}", va="top", color=INK)
        axes.set_xlabel(label)
        axes.set_ylabel("clips, %")
        figure.legend(loc="outside upper left", ncols=2)
        return _svg(figure, "distribution")


def histograms(panels: Sequence[tuple[str, np.ndarray]], label: str) -> str:
    """Return one histogram per panel (title, values [N]) in percent of clips, below each other, as SVG."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure((WIDTH, 0.6 + 1.4 * len(panels)), layout="constrained")
        all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        whole = np.concatenate([values for _, values in panels])
        edges = np.linspace(min(0.0, whole.min()), max(1.0, whole.max()), 81)
        for axes, (title, values) in zip(all_axes, panels, strict=True):
            axes.stairs(100 * np.histogram(values, edges)[0] / len(values), edges, color=SERIES[0], fill=True)
            axes.axvline(float(np.median(values)), color=INK, linewidth=1)
            axes.set_title(title)
            axes.set_ylabel("clips, %")
        all_axes[-1].set_xlabel(label)
        return _svg(figure, "histograms")


def alone(drawing: str) -> str:
    """Return a drawing of this module as a standalone SVG file, light or dark by the reader's setting."""
    light, dark = (";".join(f"--{key}:{value}" for key, value in each.items()) for each in (_LIGHT, _DARK))
    style = (
        f"<style>svg{{{light};background:var(--paper);font-family:sans-serif}}"
        f"@media (prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
    )
    head, rest = drawing.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg">{style}{rest}\n'


def _rows(axes: Axes, labels: Sequence[str], rows: int | None = None) -> np.ndarray:
    """Label one row per name, the first on top, and return the positions [n]; leave space for `rows`."""
    y = np.arange(len(labels))
    axes.set_yticks(y, labels, color=INK)
    axes.set_ylim((rows or len(labels)) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    return y


def _row(axes: Axes, y: float, values: np.ndarray, colour: str) -> None:
    axes.hlines(y, values[1], values[2], color=colour, linewidth=1.6)
    axes.plot(values[0], y, "o", color=colour, markersize=5.5)


def _leave_right(axes: Axes) -> None:
    """Leave space at the right for a number in each row."""
    low, high = axes.get_xlim()
    axes.set_xlim(low, high + 0.14 * (high - low))


def _intervals(axes: Axes, x: np.ndarray, values: np.ndarray, colour: str, label: str | None = None) -> None:
    axes.vlines(x, values[:, 1], values[:, 2], color=colour, linewidth=1.4)
    axes.plot(x, values[:, 0], "o-", color=colour, linewidth=1.2, markersize=5, label=label)


def _svg(figure: Figure, name: str) -> str:
    buffer = io.StringIO()
    # Fonts that lack a character of a label are no concern of the user.
    with matplotlib.rc_context(TEXT | {"svg.hashsalt": name}), warnings.catch_warnings(action="ignore"):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    head = r'<svg viewBox="\1" xmlns:xlink="http://www.w3.org/1999/xlink">'
    text = re.sub(r"<svg [^>]*?viewBox=\"([^\"]*)\"[^>]*>", head, text)
    # Text stays text, in the font of the page.
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    for colour, variable in _CSS.items():
        text = text.replace(colour, f"var(--{variable})")
    return text
