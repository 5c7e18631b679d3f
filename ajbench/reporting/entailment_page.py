"""The page of entailment scores: distributions, agreement of scorers, and the paper's own pairs."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ajbench.captions import published_pairs
from ajbench.captions.published_pairs import Check
from ajbench.captions.score_file import ScoredClips
from ajbench.core.console import counted
from ajbench.core.files import atomic_write
from ajbench.metrics.correlation import AT_MOST, Correlation, correlation
from ajbench.metrics.intervals import Interval
from ajbench.reporting import figures
from ajbench.reporting.formats import Block, html, to_csv

Agreements = dict[tuple[int, int], Correlation]
_Cells = list[tuple[str, str]]


def summaries(parts: Sequence[ScoredClips]) -> list[dict[str, Any]]:
    """Return, for each scorer and comparison, counts, range and median of raw scores, and the scaling."""
    lines = []
    for part in parts:
        known = part.raw[np.isfinite(part.raw)]
        line: dict[str, Any] = {"scorer": part.scorer, "comparison": part.comparison}
        line |= {"clips": len(part.raw), "scored": len(known)}
        line |= {"min": known.min(), "median": np.median(known), "max": known.max()}
        line |= {"low": part.scaling.low, "high": part.scaling.high}
        line["spread"] = None if part.spread is None else np.nanmean(part.spread)
        lines.append({name: float(v) if isinstance(v, np.floating) else v for name, v in line.items()})
    return lines


def agreements(parts: Sequence[ScoredClips], recordings: Sequence[str]) -> Agreements:
    """Return the correlations of the raw scores of all pairs of parts, with intervals over recordings."""
    return {
        (i, j): correlation(parts[i].raw, parts[j].raw, recordings)
        for i, j in combinations(range(len(parts)), 2)
    }


def lines_of(
    parts: Sequence[ScoredClips], found: Agreements, checks: Sequence[Check]
) -> list[dict[str, Any]]:
    """Return all correlations as lines of a CSV; `with` is the other scorer, or alpaca's published scores."""
    every = [(_name(parts[i]), _name(parts[j]), one) for (i, j), one in found.items()]
    every += [(check.scorer, "alpaca (published pairs)", check.correlation) for check in checks]
    return [
        {"scores": first, "with": second, "n": one.n, **_numbers("pearson", one.pearson)}
        | _numbers("spearman", one.spearman)
        for first, second, one in every
    ]


FILES = ("entailment.html", "entailment.csv")


def write(
    out: Path,
    source: str,
    parts: Sequence[ScoredClips],
    found: Agreements,
    checks: Sequence[Check],
) -> list[Path]:
    """Write `entailment.html`, one self-contained file, and `entailment.csv` with the correlations.

    Args:
        out: folder of the two files.
        source: of the clips, for the head of the page.
        parts: scores by scorer and comparison.
        found: `agreements` of the parts.
        checks: the published pairs by each scorer.

    Returns:
        Their paths.
    """
    page = {
        "source": source,
        "leaks": any(part.comparison == "true" for part in parts),
        "summary": _summary(parts),
        "figure": figures.histograms([(_name(p), p.raw[np.isfinite(p.raw)]) for p in parts], "raw score"),
        "matrix": _matrix(parts, found) if found else None,
        "published": _published(checks) if checks else None,
    }
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / name for name in FILES]
    atomic_write(paths[0], html("entailment", page))
    atomic_write(paths[1], to_csv(lines_of(parts, found, checks), columns=("scores", "with", "n")))
    return paths


def _summary(parts: Sequence[ScoredClips]) -> Block:
    header = [
        "Scorer",
        "Compared with",
        "Clips",
        "With a score",
        "Min",
        "Median",
        "Max",
        "Becomes 0",
        "Becomes 1",
    ]
    repeated = any(part.spread is not None for part in parts)
    lines: list[_Cells] = []
    for one in summaries(parts):
        numbers = [_number(one[key]) for key in ("min", "median", "max", "low", "high")]
        cells = [one["scorer"], one["comparison"], str(one["clips"]), str(one["scored"]), *numbers]
        lines.append([(text, "") for text in (*cells, *([_number(one["spread"])] if repeated else []))])
    for name, *values in published_pairs.RANGES:
        cells = [f"{name} (published)", "not said", "", "", *map(_number, values), "", ""]
        lines.append([(text, "") for text in (*cells, *([""] if repeated else []))])
    notes = [
        "The scaling to [0, 1] is by the 5 % and 95 % quantiles of the train clips, recorded in the file"
    ]
    if repeated:
        notes.append(
            "Spread: standard deviation over repeats with the examples in other orders, mean over clips"
        )
    return Block("Raw scores", [*header, *(["Spread"] if repeated else [])], lines, notes, 2)


def _matrix(parts: Sequence[ScoredClips], found: Agreements) -> Block:
    names = [_name(part) for part in parts]
    lines: list[_Cells] = []
    for i, name in enumerate(names):
        cells = []
        for j in range(len(names)):
            one = found.get((min(i, j), max(i, j)))
            cells.append(("–", "") if one is None else _cell(one.pearson if i < j else one.spearman))
        lines.append([(name, ""), *cells])
    clips = {one.n for one in found.values()}
    number = counted(min(clips), "clip") if len(clips) == 1 else f"{min(clips)} to {max(clips)} clips"
    notes = [f"Pearson above the diagonal, Spearman below; 95 % intervals over recordings; {number}"]
    if max(clips) > AT_MOST:
        notes.append(f"Intervals are scaled from those of {AT_MOST:,} clips")
    return Block("Correlations", ["Scores", *names], lines, notes, 1)


def _published(checks: Sequence[Check]) -> Block:
    header = ["Table", "Visual caption", "Audio text", "Alpaca", *(check.scorer for check in checks)]
    lines: list[_Cells] = [
        [(text, "") for text in (pair.table, pair.visual, pair.audio, f"{pair.score:.2f}")]
        + [(_number(check.raw[n]), "") for check in checks]
        for n, pair in enumerate(published_pairs.pairs())
    ]
    for kind in ("Pearson", "Spearman"):
        values = [_cell(getattr(check.correlation, kind.lower())) for check in checks]
        lines.append([("", ""), (f"{kind} with Alpaca", ""), ("", ""), ("", ""), *values])
    notes = [
        "Texts and Alpaca's scores as printed in Tables A6 and A7; 95 % intervals over the pairs",
        "A language model scores the pairs of a table with the prompt of the other one, whose examples "
        "are different ones",
    ]
    return Block("Published pairs", header, lines, notes, 3)


def _name(part: ScoredClips) -> str:
    return part.scorer if part.scorer == part.comparison else f"{part.scorer}/{part.comparison}"


def _number(value: float | None) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:.2f}".replace("-", "−")


def _cell(one: Interval) -> tuple[str, str]:
    return _number(one.value), "" if np.isnan(one.low) else f"[{_number(one.low)}, {_number(one.high)}]"


def _numbers(name: str, one: Interval) -> dict[str, float]:
    return {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
