"""FD against the number of generated clips: a table, and a picture of it."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ajbench.errors import UsageError
from ajbench.material import Material
from ajbench.metrics import extrapolate, resample

DRAWS = 10
PICTURES = (".svg", ".png")

Line = dict[str, Any]


def lines(m: Material) -> list[Line]:
    """Return a mapping a number of clips: FD's mean and the range of 95 % of ten subsets; the last is FD∞.

    Sizes double from 50 to all clips. `fit` is the line of FD∞ at this size: where FD leaves it, FD∞ is not
    to be trusted. Of all clips there is one subset, and no range.
    """
    line, curve = m.line, m.curve(extrapolate.doubling_sizes(m.n), DRAWS)
    name, found = m.extractor.name, list[Line]()
    for size, values in zip(curve.sizes.tolist(), curve.values, strict=True):
        tail = (1 - resample.LEVEL) / 2
        low, high = np.quantile(values, (tail, 1 - tail)).tolist() if size < m.n else (None, None)
        mean, fit = float(values.mean()), line.limit + line.slope / size
        found.append(
            {"features": name, "n": size, "draws": DRAWS if size < m.n else 1}
            | {"fd": mean, "low": low, "high": high, "fit": fit}
        )
    low, high = resample.ends(line.limit, line.limits(m.resamples, m.rng("fd_inf")))
    last = {"features": name, "n": "inf", "draws": line.values.shape[1]}
    return [*found, last | {"fd": line.limit, "low": low, "high": high, "fit": line.limit}]


def check(path: Path) -> None:
    """Refuse a file whose kind is not known.

    Raises:
        UsageError: its suffix is another.
    """
    if path.suffix not in (".csv", *PICTURES):
        raise UsageError(f"--curve {path}: a .csv, .svg or .png can be written")


def picture(found: Sequence[Line], kind: str) -> bytes:
    """Return the curves as `svg` or `png`: FD over 1/n and the line of FD∞, a panel a network."""
    import matplotlib
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(line["features"] for line in found))
    figure = Figure((4.2 * len(names), 3.4), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        *own, limit = (line for line in found if line["features"] == name)
        x = [1 / line["n"] for line in own]
        ranged = [(at, line) for at, line in zip(x, own, strict=True) if line["low"] is not None]
        axes.vlines(
            [at for at, _ in ranged], [one["low"] for _, one in ranged], [one["high"] for _, one in ranged]
        )
        axes.plot(x, [line["fd"] for line in own], "o", label="FD, subsets of n clips")
        axes.plot([0, *x], [limit["fd"], *(line["fit"] for line in own)], "--", color="0.5", linewidth=1)
        axes.plot(0, limit["fd"], "D", color="0.3", clip_on=False, label=f"FD∞ = {limit['fd']:.4g}")
        axes.set_xticks([0, *x], ["∞", *(str(line["n"]) for line in own)], fontsize=7)
        axes.set_xlabel("generated clips n (axis: 1/n)")
        axes.set_title(f"FD, {name}", fontsize=10)
        axes.legend(frameon=False, fontsize=8)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fd"}):
        about = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(buffer, format=kind, dpi=150, metadata=about)
    return buffer.getvalue()
