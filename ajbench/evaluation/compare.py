"""Generated clips compared with real ones: values, intervals and definitions."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ajbench.core import console, registry
from ajbench.core.errors import MissingError, UsageError
from ajbench.data.clip_set import ClipSet, open_set
from ajbench.evaluation import fd_curve, per_clip, protocols
from ajbench.evaluation.comparison_table import ComparisonTable
from ajbench.evaluation.generation_metrics import METRICS, Score
from ajbench.evaluation.set_pair import RESAMPLES, SetPair, SkippedClip
from ajbench.features.extractor import LazyExtractor
from ajbench.metrics.intervals import clipped

ALL = "all"
DEFAULT = "tiny"  # features: no download
# What the frames of the default features are used for, unless metrics are named.
OF_TINY = ("fad", "fd_inf", "kad", "precision", "recall", "density", "coverage", "lsd")
MORE = (
    "knows no classes, and its values do not compare with published ones. With weights, panns16k gives FD, "
    "IS and KL as most papers have them, mn04 FD, IS, KL and label agreement: set AJBENCH_WEIGHTS to a "
    "folder, run `ajbench doctor --download panns16k,mn04`, then add --features panns16k,mn04"
)
SHOWN = 3
LISTED = 8  # clips that cannot be measured
UNEQUAL = 4  # longest clip to shortest, from which lengths are told


@dataclass(frozen=True)
class Comparison:
    """What was measured.

    Attributes:
        rows: a mapping per metric, or per metric and class (`of`): value, interval, n of both sets, and
            everything that defines it.
        skipped: clips that were left out.
        notes: remarks on the rows.
        clips: scores of single clips, as `per_clip.lines`.
        curve: FD against the number of clips, as `fd_curve.lines`.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[SkippedClip] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    clips: list[dict[str, Any]] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Choice:
    """Metrics to compute.

    Attributes:
        metrics: their names.
        required: those that must not be left out.
        notes: which others are left out, and why.
    """

    metrics: Sequence[str]
    required: Sequence[str]
    notes: Sequence[str]


def check(metrics: Sequence[str]) -> None:
    """Refuse unknown names.

    Raises:
        UsageError: a name is unknown; the message lists those allowed.
    """
    for name in metrics:
        if name not in METRICS and name != ALL:
            similar, allowed = registry.suggest(name, METRICS), ", ".join([*METRICS, ALL])
            raise UsageError(f"--metrics {name}: unknown{similar}; allowed: {allowed}")


def choose(pair: SetPair, metrics: Sequence[str] | None = None, required: bool = True) -> Choice:
    """Return the metrics that two sets and an extractor allow; no clip is read.

    Args:
        pair: the sets and the extractor.
        metrics: names; None: the usual ones; `all`: every possible one.
        required: whether named metrics must be possible; else a note says why one is not, unless all
            guides have all requested classes.

    Raises:
        UsageError: a name is unknown, or a required metric is not possible.
    """
    check(metrics or ())
    every = metrics is not None and ALL in metrics
    named = () if metrics is None else tuple(dict.fromkeys(name for name in metrics if name != ALL))
    small = pair.extractor.name == DEFAULT
    usual = OF_TINY if small else [name for name, metric in METRICS.items() if metric.usual]
    among = METRICS if every else usual
    lacking = _lacking(pair, usual=metrics is None)
    if pair.by_chance and not any("pairs" in METRICS[name].needs for name in named):
        lacking["pairs"] = (
            f"only {len(pair.pairs or ())} of {len(pair.gen)} clips of {pair.gen.path} have the name of one "
            f"of {pair.ref.path}; name all of them so, or give --pairs FILE.csv"
        )
    possible, without = [], dict[str, list[str]]()
    for name in among if every or metrics is None else named:
        reason = next((lacking[need] for need in METRICS[name].needs if need in lacking), None)
        if reason is None:
            possible.append(name)
        elif required and name in named:
            raise UsageError(f"--metrics {name}: {reason}")
        elif reason != lacking.get("guides") and (metrics is not None or reason == lacking.get("pairs")):
            without.setdefault(reason, []).append(name)
    more = [MORE] if small and metrics is None else []
    return Choice(possible, named if required else (), [*_notes(without), *more])


def _notes(without: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a note for each reason → metrics that it leaves out."""
    return [f"no {', '.join(names)}: {reason}" for reason, names in without.items()]


def _lacking(pair: SetPair, usual: bool) -> dict[str, str]:
    """Return what the sets or the extractor lack, and what to do about it: need → reason."""
    gen, ref, name = pair.gen, pair.ref, pair.extractor.name
    frames, classes = pair.extractor.frames, pair.extractor.classes
    found = {}
    if not pair.pairs:
        found["pairs"] = (
            f"{gen.path} and {ref.path} have no clip name in common (for example {gen.names[0]!r} and "
            f"{ref.names[0]!r}); rename the files, or give --pairs FILE.csv"
        )
    if pair.requests is None:
        found["requests"] = _incomplete("labels", pair) + "; give --labels FILE.csv or --labels parent"
    elif not {label for own in ref.labels() for label in own} & {*pair.requests.classes}:
        found["real labels"] = f"{ref.path}: the real clips have no labels of the requested classes"
    if not pair.lacking_guides:
        found["guides"] = f"{gen.path}: no guide in {ref.path} lacks a requested class"
    if pair.captions is None:
        found["captions"] = _incomplete("captions", pair) + "; give --captions FILE.csv"
    if frames:
        found["vectors"] = f"{name} gives frames instead of one vector per clip; use fad"
    elif classes or usual:
        found["frames"] = f"{name} gives one vector per clip; use fd"
    if not classes:
        found["classes"] = f"{name} knows no classes; use features that do, such as mn04"
    if not pair.extractor.texts:
        found["text"] = f"{name} has no text encoder; use features clap"
    return found


def _incomplete(what: str, pair: SetPair) -> str:
    of_each: Sequence[object] = getattr(pair.gen, what)()
    absent, total = sum(not one for one in of_each), len(of_each)
    lack = f"no clips have {what}" if absent == total else f"{absent} of {total} clips have no {what}"
    return f"{pair.gen.path}: {lack}"


def compare(
    gen: Path | str,
    ref: Path | str,
    *,
    features: str = DEFAULT,
    metrics: Sequence[str] | None = None,
    protocol: str = "ajbench",
    cache: Path | str = "work/features",
    ref_split: str | None = None,
    allow_partial: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Return the table that `eval-gen --gen GEN --ref REF` prints.

    Args:
        gen: generated clips: a clip store or a folder of sound files.
        ref: real clips, likewise.
        features: an extractor; `NAME=PATH` names its weights.
        metrics: names; None: the usual ones; `all`: every possible one.
        protocol: preprocessing of files and convention of KL.
        cache: folder of cached features.
        ref_split: take only this split of a store of real clips.
        allow_partial: measure the remaining clips if some are unusable or unpaired.
        resamples: bootstrap resamples for KAD's interval; 0: no intervals at all.
        seed: of the resamples.

    Returns:
        Columns metric, of (a class, or empty), value, ci_low, ci_high, n, n_reference, definition and what
        was compared; `attrs["notes"]` holds remarks.

    Raises:
        UsageError: a name is unknown, or a named metric is not possible with these sets and features.
        MissingError: there are no such clips or weights, or clips are unusable or unpaired.
    """
    name, _, path = features.partition("=")
    sets = open_set(Path(gen)), open_set(Path(ref), ref_split, "ref_split")
    extractor = LazyExtractor(name.strip(), path.strip() or None)
    how = {"resamples": resamples, "seed": seed}
    pair = SetPair(*sets, extractor, protocols.find(protocol), Path(cache), **how)  # type: ignore[arg-type]
    found = measure(pair, choose(pair, metrics), allow_partial=allow_partial)
    table = ComparisonTable(found.rows)
    table.attrs["notes"] = found.notes
    return table


def measure(
    pair: SetPair, choice: Choice, *, allow_partial: bool = False, clips: bool = False, curve: bool = False
) -> Comparison:
    """Compute metrics of two sets.

    Intervals are of 95 % and end where the metric does. Generated clips whose guides are of one recording
    count as one group, and so do real clips of one recording. FD∞ and precision, recall, density and coverage
    have no interval. How each one is computed, and how often it covers, is in `docs/statistics.md`.

    Args:
        pair: the sets, the extractor and how they are evaluated.
        choice: the metrics, from `choose`.
        allow_partial: measure the remaining clips if some are unusable or unpaired.
        clips: also return the scores of single clips.
        curve: also measure FD against the number of clips.

    Raises:
        UsageError: these clips do not allow a required metric.
        MissingError: clips are unusable or unpaired without `allow_partial`, or fewer than two are left.
    """
    skipped = pair.skipped(paired=any("pairs" in METRICS[metric].needs for metric in choice.metrics))
    for one in skipped[:LISTED]:
        console.say(f"cannot be measured: {one.set} {one.clip}: {one.reason}")
    if len(skipped) > LISTED:
        more = len(skipped) - LISTED
        console.say(f"cannot be measured: {more} more, which --json lists with --allow-partial")
    if skipped and not allow_partial:
        raise MissingError(
            f"{len(skipped)} of {len(pair.gen) + len(pair.ref)} clips cannot be measured: {summary(skipped)}"
            "; repair them, or leave them out with --allow-partial"
        )
    if min(pair.n, pair.m) < 2:
        raise MissingError(
            f"usable clips: {pair.n} in {pair.gen.path}, {pair.m} in {pair.ref.path}; each needs at least 2"
        )
    scores, without = dict[str, list[Score]](), dict[str, list[str]]()
    for metric in choice.metrics:
        try:
            scores[metric] = METRICS[metric].compute(pair, metric)
        except UsageError as error:
            if metric in choice.required:
                raise UsageError(f"--metrics {metric}: {error}") from None
            without.setdefault(str(error), []).append(metric)
    return Comparison(
        [row_of(pair, metric, score) for metric, parts in scores.items() for score in parts],
        skipped,
        [*choice.notes, *_notes(without), *_warnings(pair, scores), *pair.notes],
        per_clip.lines(pair, scores) if clips else [],
        fd_curve.lines(pair) if curve else [],
    )


def row_of(pair: SetPair, metric: str, score: Score) -> dict[str, Any]:
    """Return a score as a row: value, interval, n of both sets, and everything that defines it."""
    value, low, high = clipped(*score.interval, METRICS[metric].limits)
    return {
        "metric": metric,
        "of": score.of,
        "value": value,
        "ci_low": low,
        "ci_high": high,
        "n": score.n,
        "n_reference": score.m,
        "set": str(pair.gen.path),
        "reference": str(pair.ref.path),
        "protocol": pair.protocol.name,
        "features": pair.extractor.name,
        "weights": pair.extractor.weights_hash,
        "definition": score.definition,
    }


def summary(skipped: Sequence[SkippedClip]) -> str:
    """Return one line: how many clips were skipped for which reason, most frequent first, with an example."""
    kinds = Counter((one.set, _kind(one.reason)) for one in skipped)
    example = {(one.set, _kind(one.reason)): one for one in reversed(skipped)}
    parts = [f"{count} {key[0]} {key[1]} ({example[key].clip})" for key, count in kinds.most_common(SHOWN)]
    return "; ".join(parts) + ("; …" if len(kinds) > SHOWN else "")


def counts(gen: ClipSet, ref: ClipSet, skipped: Sequence[SkippedClip]) -> dict[str, dict[str, int]]:
    """Return for each set its number of clips, of other files, and of clips skipped by reason."""
    sets = {"gen": gen, "ref": ref}
    found = {which: {"clips": len(one), "other files": one.others} for which, one in sets.items()}
    for one in skipped:
        reason = _kind(one.reason)
        found[one.set][reason] = found[one.set].get(reason, 0) + 1
    return found


def _kind(reason: str) -> str:
    """Return a reason without its particulars: "sample rate 7 Hz (1000 to …)" → "sample rate … Hz"."""
    return re.sub(r"[\d.,]+", "…", reason.partition(" (")[0])


def _warnings(pair: SetPair, metrics: Mapping[str, object]) -> list[str]:
    """Return notes on an FD of few clips, and on several sample rates in one set."""
    notes = []
    dimension, fewest = pair.ours.dimension, min(sum(map(len, one.rows)) for one in pair.embeddings)
    if {"fd", "fad", "fd_inf"} & metrics.keys() and fewest < dimension:
        rows = "frames" if pair.extractor.frames else "clips"
        notes.append(
            f"FD of {fewest} {rows} in {dimension} dimensions: covariances are singular, and the value "
            f"depends on the number of {rows}; compare it only with values of the same n"
        )
    for which, clips in (("gen", pair.gen), ("ref", pair.ref)):
        lengths = clips.seconds()
        if lengths and lengths[-1] > UNEQUAL * lengths[0]:
            notes.append(
                f"{which}: clips of {lengths[0]:.3g} to {lengths[-1]:.3g} s; each counts as one clip, "
                "however long it is"
            )
        if len(rates := clips.rates()) > 1:
            shown = ", ".join(f"{count} at {rate} Hz" for rate, count in rates.most_common(SHOWN))
            notes.append(f"{which}: {len(rates)} sample rates ({shown}); each file is converted from its own")
    return notes
