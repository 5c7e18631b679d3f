"""Scores of single clips, and the clips with the worst ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ajbench.evaluation.generation_metrics import METRICS, TOP, Score
from ajbench.evaluation.set_pair import SetPair

Line = dict[str, Any]
RANK, DISTANCE, NEAREST = "rank", "distance", "nearest"


def lines(m: SetPair, scores: Mapping[str, Sequence[Score]]) -> list[Line]:
    """Return a mapping per generated clip: its values of metrics that are means over clips, and neighbours.

    `rank` is the best rank of a requested class; `distance` is the distance to the nearest real clip,
    `nearest`, in the extractor's features.

    Args:
        m: the two sets.
        scores: of each metric, first the one over all clips.
    """
    found: list[Line] = [
        {"features": m.extractor.name, "gen": name, "ref": (m.pairs or {}).get(name, "")} for name in m.names
    ]
    for metric, (first, *_) in scores.items():
        column = RANK if metric in TOP else metric
        if first.each is not None:
            places, values = first.each
            for place, value in zip(places.tolist(), values.tolist(), strict=True):
                found[place][column] = value
    columns = dict.fromkeys(name for line in found for name in line)
    nearest = m.nearest
    real = [m.ref.names[m.theirs.numbers[place]] for place in nearest[0]]
    return [
        {**dict.fromkeys(columns), **line, DISTANCE: float(distance), NEAREST: name}
        for line, distance, name in zip(found, nearest[1], real, strict=True)
    ]


def worst(found: Sequence[Line], count: int) -> dict[str, list[Line]]:
    """Return score → the clips with its worst values, worst first, each as {gen, ref, value}.

    Scores with few distinct values (precision, density) are left out.
    """
    falling = {DISTANCE, RANK} | {name for name, metric in METRICS.items() if metric.better == "lower"}
    shown = {}
    for name in dict.fromkeys(name for line in found for name in line):
        if name in falling or name == "clap_score":
            scored = [line for line in found if line[name] is not None]
            order = np.argsort([line[name] for line in scored], kind="stable")
            places = order[::-1][:count] if name in falling else order[:count]
            other = NEAREST if name == DISTANCE else "ref"
            chosen = [scored[n] for n in places]
            shown[name] = [{"gen": one["gen"], "ref": one[other], "value": one[name]} for one in chosen]
    return shown


def describe(by_score: Mapping[str, Sequence[Line]]) -> list[str]:
    """Return the result of `worst` as a line of text per score."""
    return [
        f"worst by {score}: " + ", ".join(f"{one['gen']} ({one['value']:.4g})" for one in some)
        for score, some in by_score.items()
    ]
