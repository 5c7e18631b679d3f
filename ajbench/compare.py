"""Generated clips against real ones, as a published tool compares them: FD, IS and KL with intervals."""

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ajbench import console
from ajbench.clipsets import ClipSet
from ajbench.embeddings import Embeddings, embed
from ajbench.errors import MissingError, UsageError
from ajbench.metrics.distribution import (
    frechet_distance,
    frechet_draws,
    inception_draws,
    inception_score,
    kl_of_pairs,
)
from ajbench.metrics.features import Late
from ajbench.protocols import Protocol
from ajbench.registry import suggest

METRICS = ("fd", "is", "kl", "kl_sigmoid")
PAIRED = ("kl", "kl_sigmoid")
LEVEL = 0.95
SPLITS = 10
SHOWN = 3
Which = Literal["gen", "ref", "synth", "train", "eval"]
Pairs = Mapping[str, str]  # name of a generated clip → of the real one


@dataclass(frozen=True)
class Trouble:
    """A clip that cannot be measured, or that has no counterpart: of which set, its name, and why."""

    set: Which
    clip: str
    reason: str


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        rows: a mapping a metric: value, interval, n of both sets, and all that defines it.
        troubles: clips that were left out.
        notes: to be read beside the rows.
    """

    rows: list[dict[str, Any]]
    troubles: list[Trouble]
    notes: list[str]


def pairs_of(gen: ClipSet, ref: ClipSet, table: Path | None = None) -> Pairs:
    """Return which real clip each generated clip answers to; nothing where the sets share no name.

    By `table`, a CSV with columns `gen` and `ref` of names; else by the generated clips' parents, where there
    are such in `ref`; else by equal names.

    Raises:
        UsageError: the table lacks a column, or names a clip that is in neither set.
        MissingError: there is no such table.
    """
    known = set(ref.names)
    if table is not None:
        try:
            lines = pd.read_csv(table, dtype=str)
        except FileNotFoundError:
            raise MissingError(f"--pairs {table}: no such file") from None
        if not {"gen", "ref"} <= set(lines.columns):
            raise UsageError(f"--pairs {table}: columns {', '.join(lines.columns)}; gen and ref are needed")
        found = dict(zip(lines["gen"], lines["ref"], strict=True))
        own = set(gen.names)
        for name, names in (("gen", own), ("ref", known)):
            if odd := next((value for value in lines[name] if value not in names), None):
                raise UsageError(f"--pairs {table}: no clip {odd!r} in the set {name}; names have no suffix")
        return found
    parents = {
        name: parent
        for name, parent in zip(gen.names, gen.parents, strict=True)
        if parent is not None and parent in known
    }
    return parents or {name: name for name in gen.names if name in known}


def compare(
    gen: ClipSet,
    ref: ClipSet,
    extractor: Late,
    protocol: Protocol,
    cache: Path,
    *,
    metrics: Sequence[str] | None = None,
    pairs: Pairs | None = None,
    allow_partial: bool = False,
    resamples: int = 200,
    seed: int = 0,
    what: str = "eval-gen",
) -> Comparison:
    """Measure generated clips against real ones.

    Intervals are of 95 %: resamples of the clips of both sets (of generated clips with one parent together),
    centred on the value, since repeated clips alone raise FD and lower IS. KL is over the pairs.

    Args:
        gen: the generated clips.
        ref: the real clips.
        extractor: the network.
        protocol: how files are heard, and which KL is meant.
        cache: where features are kept.
        metrics: of METRICS; None is all that the sets allow.
        pairs: as of `pairs_of`; None finds them.
        allow_partial: measure what is left where clips are unusable or without a counterpart.
        resamples: bootstrap draws; 0 gives no intervals.
        seed: of the draws.
        what: progress is shown of.

    Raises:
        UsageError: an unknown metric, or KL of sets that share no name.
        MissingError: clips are unusable or unpaired and `allow_partial` is not set, or too few are left.
    """
    for name in metrics or ():
        if name not in METRICS:
            raise UsageError(
                f"--metrics {name}: unknown{suggest(name, METRICS)}; allowed: {', '.join(METRICS)}"
            )
    pairs = pairs_of(gen, ref) if pairs is None else pairs
    if not pairs and (paired := [name for name in metrics or () if name in PAIRED]):
        raise UsageError(
            f"--metrics {','.join(paired)}: {gen.path} and {ref.path} share no name (such as "
            f"{gen.names[0]!r} and {ref.names[0]!r}); name them alike, give --pairs FILE.csv, or leave out KL"
        )
    wanted = [name for name in metrics or METRICS if pairs or name not in PAIRED]
    troubles = _unpaired(gen, ref, pairs)
    sets: dict[Which, tuple[ClipSet, Embeddings]] = {}
    with console.progress(len(gen) + len(ref), f"{what} {extractor.name}", "clips") as advance:
        both: tuple[tuple[Which, ClipSet], ...] = (("gen", gen), ("ref", ref))
        for which, clips in both:
            sets[which] = clips, embed(clips, extractor, protocol, cache, advance)
    for which, (clips, seen) in sets.items():
        troubles += [Trouble(which, clips.names[one.number], one.reason) for one in seen.left_out]
    for one in troubles:
        console.say(f"cannot be measured: {one.set} {one.clip}: {one.reason}")
    if troubles and not allow_partial:
        raise MissingError(
            f"{len(troubles)} of {len(gen) + len(ref)} clips cannot be measured: {told(troubles)}; mend "
            "them, or go on without them by --allow-partial"
        )
    (_, ours), (_, theirs) = sets.values()
    fewest = min(len(ours.numbers), len(theirs.numbers))
    if fewest < 2:
        raise MissingError(f"{fewest} usable clips in one of the sets; at least 2 are needed in each")
    about = {
        "set": str(gen.path),
        "reference": str(ref.path),
        "protocol": protocol.name,
        "features": extractor.name,
        "weights": extractor.weights_hash,
    }
    rng = np.random.default_rng(seed)
    groups = _groups([gen.parents[n] or gen.names[n] for n in ours.numbers])
    notes, rows = [], []
    dimension = ours.features.shape[1]
    if "fd" in wanted and fewest < dimension:
        notes.append(
            f"FD of {fewest} clips in {dimension} dimensions: covariances are singular, and the value "
            "depends on the number of clips; compare only with values of the same n"
        )
    if not pairs and metrics is None:
        notes.append("no KL: the two sets share no name, so no clip has a counterpart")
    for which, (clips, _) in sets.items():
        if len(rates := clips.rates()) > 1:
            shown = ", ".join(f"{count} at {rate} Hz" for rate, count in rates.most_common(SHOWN))
            notes.append(f"{which}: {len(rates)} sample rates ({shown}); each file is converted from its own")
    for metric in wanted:
        n, m = len(ours.numbers), len(theirs.numbers)
        if metric == "fd":
            value, draws = _fd(ours.features, theirs.features, groups, resamples, rng)
        elif metric == "is":
            value, draws, m = *_is(ours.logits, groups, resamples, rng, notes), 0
        else:
            value, draws, n = _kl(metric, ours, theirs, gen, ref, pairs, protocol, resamples, rng)
            m = n
        low, high = _ends(value, draws)
        rows.append(
            {"metric": metric, "value": value, "ci_low": low, "ci_high": high, "n": n, "n_reference": m}
            | about
        )
    return Comparison(rows, troubles, notes)


def kind_of(reason: str) -> str:
    """Return a reason without its particulars: "sample rate 7 Hz (1000 to …)" → "sample rate … Hz"."""
    return re.sub(r"[\d.,]+", "…", reason.partition(" (")[0])


def told(troubles: Sequence[Trouble]) -> str:
    """Return a line of what is wrong with how many clips, and an example of each, most frequent first."""
    kinds = Counter((one.set, kind_of(one.reason)) for one in troubles)
    example = {(one.set, kind_of(one.reason)): one for one in reversed(troubles)}
    parts = [f"{count} {key[0]} {key[1]} ({example[key].clip})" for key, count in kinds.most_common(SHOWN)]
    return "; ".join(parts) + ("; …" if len(kinds) > SHOWN else "")


def listed(gen: ClipSet, ref: ClipSet, troubles: Sequence[Trouble]) -> dict[str, dict[str, int]]:
    """Return, by set: its clips, files that are no sound files, and what was left out for which reason."""
    found = {
        "gen": {"clips": len(gen), "other files": gen.others},
        "ref": {"clips": len(ref), "other files": ref.others},
    }
    for one in troubles:
        reason = kind_of(one.reason)
        found[one.set][reason] = found[one.set].get(reason, 0) + 1
    return found


def _unpaired(gen: ClipSet, ref: ClipSet, pairs: Pairs) -> list[Trouble]:
    """Clips without a counterpart, where the sets are paired at all."""
    if not pairs:
        return []
    answered = set(pairs.values())
    extra = [
        Trouble("gen", name, "extra (no real clip of its name)") for name in gen.names if name not in pairs
    ]
    if any(parent is not None for parent in gen.parents):  # only some real clips are anyone's parent
        return extra
    return extra + [
        Trouble("ref", name, "missing (no generated clip)") for name in ref.names if name not in answered
    ]


def _groups(keys: Sequence[str]) -> list[NDArray[np.int64]]:
    """Return the places of equal keys together."""
    places: dict[str, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    return [np.array(group) for group in places.values()]


def _counts(
    groups: Sequence[NDArray[np.int64]], resamples: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return how often each clip occurs in each resample of groups, [R, n]."""
    n = sum(map(len, groups))
    member = np.zeros(n, np.int64)
    for number, group in enumerate(groups):
        member[group] = number
    drawn = rng.integers(0, len(groups), (resamples, len(groups)))
    each = np.stack([np.bincount(row, minlength=len(groups)) for row in drawn]) if resamples else drawn
    return each[:, member]


def _fd(
    x: np.ndarray, y: np.ndarray, groups: list[NDArray[np.int64]], resamples: int, rng: np.random.Generator
) -> tuple[float, NDArray[np.float64]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # noted once, beside the rows
        value = frechet_distance(x, y)
    alone = [np.array([place]) for place in range(len(y))]
    return value, frechet_draws(x, y, _counts(groups, resamples, rng), _counts(alone, resamples, rng))


def _is(
    logits: np.ndarray,
    groups: list[NDArray[np.int64]],
    resamples: int,
    rng: np.random.Generator,
    notes: list[str],
) -> tuple[float, NDArray[np.float64]]:
    splits = min(SPLITS, len(logits))
    if splits < SPLITS:
        notes.append(f"inception score over {splits} splits instead of {SPLITS}: there are {splits} clips")
    value = inception_score(logits, splits)[0]
    draws = (np.repeat(np.arange(len(logits)), counts) for counts in _counts(groups, resamples, rng))
    return value, inception_draws(logits, draws, splits)


def _kl(
    metric: str,
    ours: Embeddings,
    theirs: Embeddings,
    gen: ClipSet,
    ref: ClipSet,
    pairs: Pairs,
    protocol: Protocol,
    resamples: int,
    rng: np.random.Generator,
) -> tuple[float, NDArray[np.float64], int]:
    place = {ref.names[number]: row for row, number in enumerate(theirs.numbers)}
    both = [
        (row, place[pairs[gen.names[number]]])
        for row, number in enumerate(ours.numbers)
        if pairs.get(gen.names[number]) in place
    ]
    if not both:
        raise MissingError(f"{metric}: no pair of clips is left that can be measured")
    mine, other = np.array(both).T
    link: Literal["softmax", "sigmoid"] = "softmax" if metric == "kl" else "sigmoid"
    each = kl_of_pairs(ours.logits[mine], theirs.logits[other], link, protocol.direction, protocol.eps)
    groups = _groups([pairs[gen.names[ours.numbers[row]]] for row in mine])
    counts = _counts(groups, resamples, rng)
    return float(each.mean()), counts @ each / counts.sum(axis=1).clip(1), len(each)


def _ends(value: float, draws: NDArray[np.float64]) -> tuple[float, float]:
    if not len(draws):
        return float("nan"), float("nan")
    low, high = np.quantile(draws - draws.mean(), ((1 - LEVEL) / 2, (1 + LEVEL) / 2)) + value
    return float(low), float(high)
