"""Do the default features `tiny` rank sets of clips as mn04 does? ESC-10, changed in known ways.

AJBENCH_WEIGHTS=DIR python benchmarks/tiny_against_mn04.py [ESC10] [--work DIR] [--out CSV] [--figure SVG]

ESC10 is a folder in ESC-50's layout (default: ../shared/data/esc10); DIR has mn04's weights. The 160
recordings of folds 1 and 2, changed, are compared with the 160 of folds 3 and 4: FAD and KAD with `tiny`, FD
and KAD with mn04. The last row has Spearman's rank correlation of each metric with mn04's FD over all sets.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soxr
import xxhash
from ladder_esc10 import folders
from matplotlib import rc_context
from matplotlib.figure import Figure
from recorded import record
from scipy.signal import butter, sosfiltfilt
from scipy.stats import spearmanr

from ajbench import codec
from ajbench.data.clip_set import Change, ClipSet, Samples, open_set
from ajbench.evaluation import baselines, protocols
from ajbench.evaluation.compare import choose, measure
from ajbench.evaluation.set_pair import SetPair
from ajbench.features.extractor import LazyExtractor

METRICS = {"tiny": ("fad", "kad"), "mn04": ("fd", "kad")}
COLUMNS = [f"{features}_{metric}" for features, some in METRICS.items() for metric in some]
COLOURS = {
    "real": "#1a7f37",
    "noise": "#0969da",
    "low-pass": "#8250df",
    "speed": "#bf8700",
    "fewer classes": "#cf222e",
    "other": "#57606a",
}
SEED = 0


def white_noise(snr_db: int) -> Change:
    """Add white noise at this signal-to-noise ratio."""

    def make(name: str, samples: Samples, rate: int) -> Samples:
        rng = np.random.default_rng([SEED, xxhash.xxh3_64_intdigest(name.encode())])
        level = np.sqrt(np.mean(np.square(samples, dtype=np.float64))) * 10 ** (-snr_db / 20)
        return (samples + level * rng.standard_normal(samples.shape)).astype(np.float32)

    return Change(f"white noise {snr_db} dB {SEED}", make)


def low_pass(hz: int) -> Change:
    """Remove what is above `hz` (Butterworth, order 8, forwards and backwards)."""

    def make(name: str, samples: Samples, rate: int) -> Samples:
        filtered = sosfiltfilt(butter(8, hz, fs=rate, output="sos"), samples, axis=0)
        return filtered.astype(np.float32)

    return Change(f"low-pass {hz} Hz", make)


def faster(times: float) -> Change:
    """Play `times` as fast: shorter, and higher by that factor."""

    def make(name: str, samples: Samples, rate: int) -> Samples:
        return soxr.resample(samples, rate * times, rate, quality="HQ")

    return Change(f"speed {times}", make)


def sets(clips: ClipSet) -> Iterator[tuple[str, str, ClipSet]]:
    """Yield kind, name and clips of each set that is compared with the reference."""
    yield "real", "real", clips
    yield "real", "codec round trip", clips.changed(baselines.round_trip(codec.load("tiny")))
    for snr in (40, 30, 20, 10, 0):
        yield "noise", f"white noise, {snr} dB", clips.changed(white_noise(snr))
    for hz in (6000, 3000, 1500, 750):
        yield "low-pass", f"low-pass {hz} Hz", clips.changed(low_pass(hz))
    for times in (1.15, 1.4, 2.0):
        yield "speed", f"{times:g} × speed", clips.changed(faster(times))
    named = np.array([name.rpartition("-")[0] for name in clips.names])
    classes = np.unique(named)
    for kept in (8, 5, 2):
        some = np.flatnonzero(np.isin(named, classes[:kept]))
        yield "fewer classes", f"{kept} of 10 classes", clips.take(some)
    yield "other", "pink noise", clips.changed(baselines.pink_noise(SEED))
    yield "other", "silence", clips.changed(baselines.silence())


def draw(rows: list[list], correlations: dict[str, float], out: Path) -> None:
    """Draw tiny's FAD against mn04's FD, one point per set, on logarithmic axes."""
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.subplots()
    for kind, colour in COLOURS.items():
        some = [row for row in rows if row[0] == kind]
        axes.scatter([row[5] for row in some], [row[3] for row in some], color=colour, label=kind, s=28)
        for row in some:
            axes.annotate(row[1], (row[5], row[3]), (4, 3), textcoords="offset points", fontsize=7)
    axes.set(xscale="log", yscale="log", xlabel="FD, mn04", ylabel="FAD, tiny", xlim=(3, 45))
    axes.set_xticks((3, 5, 10, 20, 40), ("3", "5", "10", "20", "40"))
    axes.xaxis.minorticks_off()
    axes.set_title(f"ESC-10: rank correlation {correlations['tiny_fad']:.2f}", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    with rc_context({"svg.hashsalt": "ajbench"}):
        figure.savefig(out, metadata={"Date": None})


def main() -> None:
    """Evaluate every set with both extractors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("esc10", type=Path, nargs="?", default=Path("../shared/data/esc10"))
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        folders(options.esc10, home)
        clips, reference = open_set(home / "gen"), open_set(home / "ref")
        cache = (options.work or home) / "features"
        for kind, label, changed in sets(clips):
            values: list[float] = []
            for features, metrics in METRICS.items():
                how = LazyExtractor(features), protocols.find("ajbench"), cache
                pair = SetPair(changed, reference, *how, pairs={}, resamples=0)
                found = measure(pair, choose(pair, metrics))
                values += [next(r["value"] for r in found.rows if r["metric"] == m) for m in metrics]
            rows.append([kind, label, len(changed), *values])
    table = np.array([row[3:] for row in rows])
    truth = COLUMNS.index("mn04_fd")
    correlations = {
        column: float(spearmanr(table[:, i], table[:, truth]).statistic) for i, column in enumerate(COLUMNS)
    }
    if options.figure:
        draw(rows, correlations, options.figure)
    rows.append(["", "rank correlation with mn04_fd", len(table), *correlations.values()])
    shown = [[*row[:3], *(f"{value:.4g}" for value in row[3:])] for row in rows]
    record(["kind", "set", "n", *COLUMNS], shown, 3 + len(COLUMNS), options.out)


if __name__ == "__main__":
    main()
