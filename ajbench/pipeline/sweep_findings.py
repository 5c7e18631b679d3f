"""What a sweep by gain finds: gains, how well FD and label agreement predict them, and the best setting."""

from collections.abc import Sequence
from math import isnan
from typing import Any

from ajbench.core.console import counted
from ajbench.evaluation.classification import FAMILY_ERROR, MIN_CLIPS, MIN_SEEDS, enough
from ajbench.metrics import bootstrap
from ajbench.metrics.correlation import spearman
from ajbench.metrics.intervals import Interval
from ajbench.pipeline.sweep import Line
from ajbench.reporting.formats import signed

FEWEST = 4  # settings of a rank correlation: the order of three says nothing
PREDICTORS = {"fd": ("a lower FD", -1), "label_agreement": ("a higher label agreement", 1)}
GAIN = ("gain", "gain_low", "gain_high")
REAL = ""  # in place of a setting: real clips only
Runs = dict[str, list[bootstrap.Resampled]]  # of a setting or `REAL`: a training for each fold and seed


def with_gains(found: Sequence[Line], runs: Runs) -> list[Line]:
    """Return lines with `map` and with the gain over real clips only and its 95 % interval, in points.

    A gain is the mean of paired differences, one for each fold and seed (`bootstrap.gain_interval`).
    """
    lines = []
    for line in found:
        mine = runs[line["set"]]
        gain = bootstrap.gain_interval(mine, runs[REAL])
        points = {name: _points(value) for name, value in zip(GAIN, gain, strict=True)}
        lines.append(line | {"map": _points(bootstrap.over_seeds(mine).value)} | points)
    return lines


def correlation(lines: Sequence[Line], metric: str) -> dict[str, Any]:
    """Return the rank correlation of a metric with the gain over settings.

    The sign is such that 1 means: the better the metric, the higher the gain; FD is better if it is lower.

    Returns:
        metric, settings (their number), rho, p and smallest_p (`correlation.spearman`), None if there
        are too few settings or values, and a sentence.
    """
    what, sign = PREDICTORS[metric]
    pairs = [(sign * line[metric], line["gain"]) for line in lines if line[metric] is not None]
    n, begin = len(pairs), f"{what} and a higher gain"
    about: dict[str, Any] = {"metric": metric, "settings": n, "rho": None, "p": None, "smallest_p": None}
    if n < FEWEST:
        return about | {
            "sentence": f"{begin}: no rank correlation of {counted(n, 'setting')}; it takes at least {FEWEST}"
        }
    found = spearman([value for value, _ in pairs], [gain for _, gain in pairs])
    if isnan(found.rho):
        return about | {"sentence": f"{begin}: no rank correlation, as all settings have the same value"}
    about |= {name: round(getattr(found, name), 4) for name in ("rho", "p", "smallest_p")}
    rho = f"{found.rho:+.2f}".replace("-", "−")
    return about | {
        "sentence": f"{begin}: rank correlation {rho} over {n} settings (+1: the same order), p = "
        f"{found.p:.2g} by permutation (never below {found.smallest_p:.2g} with so many)"
    }


def verdict(runs: Runs, clips: int) -> str:
    """Return which setting gains most, and whether its lead over the next one is clear.

    The interval of the gain holds for all settings together, that of the lead for all pairs of settings
    (Bonferroni), since the best of them are picked.

    Args:
        runs: of every setting and of real clips only.
        clips: in the val parts of all folds.
    """
    real, names = runs[REAL], [name for name in runs if name != REAL]
    gains = {name: bootstrap.over_seeds(bootstrap.difference(runs[name], real)).value for name in names}
    best, second = sorted(names, key=lambda name: -gains[name])[:2]
    begin = f"{best} is best: {signed(100 * gains[best])} points of mAP against real clips only"
    folds = len({run.fold for run in real})
    if not enough(len(real) // folds, folds) or clips < MIN_CLIPS:
        return (
            f"{begin}; whether its lead over {second} is clear takes at least {MIN_SEEDS} seeds (in each of "
            f"several folds: 2) and {MIN_CLIPS} val clips"
        )
    pairs = len(names) * (len(names) - 1) / 2
    of_all = bootstrap.family([runs[name] for name in names], real, 1 - FAMILY_ERROR / len(names))
    lead = bootstrap.family([runs[best]], runs[second], 1 - FAMILY_ERROR / pairs)[0]
    if isnan(of_all[names.index(best)].low + lead.low):
        return f"{begin}; whether its lead over {second} is clear, these clips do not show"
    return (
        f"{begin} {_range(of_all[names.index(best)])}; its lead over {second}, {signed(100 * lead.value)} "
        f"{_range(lead)}, is {'' if lead.low > 0 else 'not '}clear (intervals corrected for "
        f"{counted(len(names), 'setting')} and their pairs)"
    )


def _points(share: float) -> float | None:
    return None if isnan(share) else round(100 * share, 3)


def _range(interval: Interval) -> str:
    return f"[{signed(100 * interval.low)}, {signed(100 * interval.high)}]"
