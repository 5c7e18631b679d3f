"""Generated clips against real ones, as a published tool compares them: values, intervals, definitions."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ajbench.core import console
from ajbench.core.errors import MissingError, UsageError
from ajbench.data.annotations import Asked, Captions, asked_of, captions_of, table_of
from ajbench.data.clip_set import ClipSet
from ajbench.evaluation import fd_curve, per_clip
from ajbench.evaluation.feature_cache import Embeddings, embed
from ajbench.evaluation.generation_metrics import METRICS, PAIRED, check, choose, lacking_of_network
from ajbench.evaluation.protocols import Protocol
from ajbench.evaluation.set_pair import Material
from ajbench.features.extractor import LazyExtractor
from ajbench.metrics import bootstrap

__all__ = ["METRICS", "PAIRED", "Comparison", "Pairs", "Trouble", "compare", "listed", "pairs_of", "told"]

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
        rows: a mapping a metric, or a metric and class (`of`): value, interval, n of both sets, and all that
            defines it.
        troubles: clips that were left out.
        notes: to be read beside the rows.
        clips: scores of single clips, as `clipwise.lines`.
        curve: FD against the number of clips, as `fd_curve.lines`.
    """

    rows: list[dict[str, Any]]
    troubles: list[Trouble]
    notes: list[str]
    clips: list[dict[str, Any]] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)


def pairs_of(gen: ClipSet, ref: ClipSet, table: Path | None = None) -> Pairs:
    """Return which real clip each generated clip answers to; nothing where the sets share no name.

    By `table`, a CSV with columns `gen` and `ref` of names; else by the generated clips' parents, where there
    are such in `ref`; else by equal names.

    Raises:
        UsageError: the table is no CSV, lacks a column, has no line, names a clip that is in neither set, or
            a generated clip on two lines.
        MissingError: there is no such table.
    """
    known = set(ref.names)
    if table is not None:
        lines = table_of("--pairs", table, ("gen", "ref"))
        if lines.empty:
            raise UsageError(f"--pairs {table}: there is no line below gen and ref")
        found = dict(zip(lines["gen"], lines["ref"], strict=True))
        own = set(gen.names)
        for name, names in (("gen", own), ("ref", known)):
            odd = next((value for value in lines[name] if value not in names), None)
            if odd is not None:
                raise UsageError(f"--pairs {table}: no clip {odd!r} in the set {name}; names have no suffix")
        if len(found) < len(lines):
            twice = lines["gen"][lines["gen"].duplicated()].iloc[0]
            raise UsageError(f"--pairs {table}: the generated clip {twice!r} is on two lines; keep one")
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
    extractor: LazyExtractor,
    protocol: Protocol,
    cache: Path,
    *,
    metrics: Sequence[str] | None = None,
    pairs: Pairs | None = None,
    allow_partial: bool = False,
    resamples: int = 200,
    seed: int = 0,
    what: str = "eval-gen",
    asked: Asked | None = None,
    captions: Captions | None = None,
    clips: bool = False,
    curve: bool = False,
) -> Comparison:
    """Measure generated clips against real ones.

    Intervals are of 95 %: resamples of the clips of both sets (of generated clips with one parent together),
    centred on the value, since repeated clips alone raise FD and lower IS, and clipped to what the metric can
    be. KL and LSD are over the pairs.
    What a metric's interval leaves out, its definition says.

    Args:
        gen: the generated clips.
        ref: the real clips.
        extractor: the network.
        protocol: how files are heard, and which KL is meant.
        cache: where features are kept.
        metrics: of METRICS; None is the usual ones, `all` every one that sets and network allow.
        pairs: as of `pairs_of`; None finds them.
        allow_partial: measure what is left where clips are unusable or without a counterpart.
        resamples: bootstrap draws; 0 gives no intervals.
        seed: of the draws.
        what: progress is shown of.
        asked: labels that generated clips were asked to have; None are those of a store.
        captions: what they were made of; None are those of a store.
        clips: also score single clips.
        curve: also measure FD against the number of clips.

    Raises:
        UsageError: an unknown metric, or one that these sets or this network do not allow.
        MissingError: clips are unusable or unpaired and `allow_partial` is not set, or too few are left.
    """
    check(metrics or ())
    pairs = pairs_of(gen, ref) if pairs is None else pairs
    asked = asked or asked_of(gen)
    captions = captions or captions_of(gen)
    wanted, notes = choose(metrics, _lacking_of_sets(gen, ref, pairs, asked, captions))
    troubles = _unpaired(gen, ref, pairs)
    sets: dict[Which, tuple[ClipSet, Embeddings]] = {}
    with console.progress(len(gen) + len(ref), f"{what} {extractor.name}", "clips") as advance:
        both: tuple[tuple[Which, ClipSet], ...] = (("gen", gen), ("ref", ref))
        for which, some in both:
            sets[which] = some, embed(some, extractor, protocol, cache, advance)
    for which, (some, seen) in sets.items():
        troubles += [Trouble(which, some.names[one.number], one.reason) for one in seen.left_out]
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
    found = Material(
        gen, ref, ours, theirs, extractor, protocol, pairs, asked, captions, resamples, seed, notes
    )
    wanted, more = choose(metrics, lacking_of_network(found, wanted, metrics is None), wanted)
    notes += [*more, *_warnings(found, wanted)]
    scores = {metric: METRICS[metric].take(found, metric) for metric in wanted}
    about = {
        "set": str(gen.path),
        "reference": str(ref.path),
        "protocol": protocol.name,
        "features": extractor.name,
        "weights": extractor.weights_hash,
    }
    rows = []
    for metric, parts in scores.items():
        for part in parts:
            low, high = bootstrap.ends(part.value, part.draws, limits=METRICS[metric].limits)
            row = {"metric": metric, "of": part.of, "value": part.value, "ci_low": low, "ci_high": high}
            rows.append(row | {"n": part.n, "n_reference": part.m} | about | {"definition": part.definition})
    return Comparison(
        rows,
        troubles,
        notes,
        per_clip.lines(found, scores) if clips else [],
        fd_curve.lines(found) if curve else [],
    )


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


def _lacking_of_sets(
    gen: ClipSet, ref: ClipSet, pairs: Pairs, asked: Asked | None, captions: Captions | None
) -> dict[str, str]:
    """What the two sets do not tell, and what to do: need → reason."""
    found = {}
    if not pairs:
        found["pairs"] = (
            f"{gen.path} and {ref.path} share no name (such as {gen.names[0]!r} and {ref.names[0]!r}); name "
            "them alike, or give --pairs FILE.csv"
        )
    if asked is None:
        told = _told("labels", gen, gen.labels())
        found["asked"] = f"{told}; give --labels FILE.csv or --labels parent"
    if captions is None:
        found["captions"] = f"{_told('captions', gen, gen.captions())}; give --captions FILE.csv"
    return found


def _told(what: str, clips: ClipSet, of_each: Sequence[object]) -> str:
    """Say that nothing is told of any clip, or of how many."""
    if without := sum(not one for one in of_each) % len(clips):
        return f"nothing tells the {what} of {without} of {len(clips)} clips of {clips.path}"
    return f"nothing tells the {what} of {clips.path}"


def _warnings(found: Material, wanted: Sequence[str]) -> list[str]:
    """What should be read beside FD, and of sample rates."""
    notes = []
    dimension, fewest = (
        found.ours.features.shape[1],
        min(len(found.ours.features), len(found.theirs.features)),
    )
    if {"fd", "fad", "fd_inf"} & {*wanted} and fewest < dimension:
        rows = "frames" if found.frames else "clips"
        notes.append(
            f"FD of {fewest} {rows} in {dimension} dimensions: covariances are singular, and the value "
            f"depends on the number of {rows}; compare only with values of the same n"
        )
    for which, clips in (("gen", found.gen), ("ref", found.ref)):
        if len(rates := clips.rates()) > 1:
            shown = ", ".join(f"{count} at {rate} Hz" for rate, count in rates.most_common(SHOWN))
            notes.append(f"{which}: {len(rates)} sample rates ({shown}); each file is converted from its own")
    return notes
