"""What a good and a bad value is on this data: generated clips beside sounds of known quality."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ajbench.core.errors import MissingError
from ajbench.data.clip_set import ClipSet
from ajbench.evaluation import rungs
from ajbench.evaluation.compare import PAIRED, Comparison, Pairs, compare
from ajbench.evaluation.feature_cache import embed
from ajbench.evaluation.protocols import Protocol
from ajbench.features.extractor import LazyExtractor

if TYPE_CHECKING:
    from ajbench.codec import Codec

# From best to worst, as is known beforehand.
HALVES, CODEC = "real, two halves", "codec round trip"
SHUFFLED, PINK, SILENCE = "shuffled labels", "pink noise", "silence"
GOOD, BAD = (HALVES, CODEC), (SHUFFLED, PINK, SILENCE)
RUNGS = GOOD + BAD
# Metrics of which a ladder is made, and whether more is better.
RISING = {"fd": False, "fad": False, "kad": False, "is": True, "kl": False, "kl_sigmoid": False}
DRAWN = ("fd", "fad")
# But by copies of the real clips. KL of sigmoids may be negative, and is not least of equal clips.
UNSURPASSED = {"fd": HALVES, "fad": HALVES, "kl": CODEC}
LEAST = 4  # real clips, for two halves of two

Line = dict[str, Any]


def beside(
    found: Comparison,
    gen: ClipSet,
    ref: ClipSet,
    extractor: LazyExtractor,
    protocol: Protocol,
    cache: Path,
    codec: "Codec",
    *,
    pairs: Pairs,
    resamples: int = 200,
    seed: int = 0,
) -> Comparison:
    """Return a comparison with a ladder of references, measured by the same metrics, beside its rows.

    FD and IS depend on the number of clips, and FD is flattered where a clip is compared with itself. So the
    reference is split at random in two halves, and what is measured against the second is as many clips each
    of: the first half (`real, two halves`), the same through the codec, as pink noise and as silence, and the
    generated set, in a row of its own. Of paired metrics these sounds are each compared with the clip they
    are made of, and `shuffled labels` is every generated clip with the counterpart of another.

    Args:
        found: what `compare` found of the two sets.
        gen: the generated clips.
        ref: the real clips.
        extractor: as for `found`.
        protocol: as for `found`.
        cache: as for `found`; rungs are kept there too.
        codec: of the round trip.
        pairs: which real clip each generated one answers to, as for `found`.
        resamples: bootstrap draws.
        seed: of the halves, the noise, the shuffling and the draws.

    Returns:
        Rows with two more keys: `row`, the set's name or the rung's, and `note`, where a value is not what
        is known beforehand. By metric of RISING, and within it from best to worst; then the other metrics.

    Raises:
        MissingError: fewer than four usable real clips.
    """
    wanted = [metric for metric in dict.fromkeys(line["metric"] for line in found.rows) if metric in RISING]
    alone, paired = ([m for m in wanted if (m in PAIRED) is which] for which in (False, True))
    ours, theirs = (clips.take(embed(clips, extractor, protocol, cache).numbers) for clips in (gen, ref))
    rng = np.random.default_rng(seed)
    some, first, second = _of_one_n(ours, theirs, rng)
    name = gen.path.resolve().name
    name = f"{name} (generated)" if name in RUNGS else name
    n = len(some)
    fewer = f"{name}, {n} clips"
    whole = [{"row": name, "note": ""} | line for line in found.rows]
    rows: list[Line] = [line for line in whole if line["metric"] in wanted]
    rest = [line for line in whole if line["metric"] not in wanted]
    notes = list(found.notes)

    def measure(row: str, clips: ClipSet, against: ClipSet, metrics: Sequence[str], of: Pairs) -> None:
        if metrics:
            about: Any = {"pairs": of, "resamples": resamples, "seed": seed, "what": row}
            got = compare(clips, against, extractor, protocol, cache, metrics=metrics, **about)
            rows.extend({"row": row, "note": ""} | line for line in got.rows)
            notes.extend(f"{row}: {note}" for note in got.notes if row == fewer)

    measure(HALVES, first, second, alone, {})
    measure(fewer, some, second, alone, {})
    itself = {one: one for one in first.names}
    changes = {CODEC: rungs.round_trip(codec), PINK: rungs.pink_noise(seed), SILENCE: rungs.silence()}
    for rung, change in changes.items():
        measure(rung, first.changed(change), second, alone, {})
        measure(rung, first.changed(change), first, paired, itself)
    usable = set(ours.names), set(theirs.names)
    known = {one: real for one, real in pairs.items() if one in usable[0] and real in usable[1]}
    if paired and len(set(known.values())) > 1:
        other = deranged(known, rng)
        measure(SHUFFLED, *_of_pairs(ours, theirs, other), paired, other)
    elif paired:
        notes.append(f"no {SHUFFLED}: all pairs have one real clip")
    if alone:
        notes.append(
            f"ladder: {' and '.join(alone)} of {n} clips in each row, to {len(second)} real ones that "
            f"none is made of (half of the reference); compare them with the row {fewer!r}"
        )
    position = {row: i for i, row in enumerate((name, HALVES, CODEC, fewer, SHUFFLED, PINK, SILENCE))}
    rows.sort(key=lambda line: (wanted.index(line["metric"]), position[line["row"]]))
    for metric in wanted:
        _tell({line["row"]: line for line in rows if line["metric"] == metric}, metric, name, fewer)
    notes += [f"{line['row']}: {line['note']}" for line in rows if line["note"]]
    return replace(found, rows=rows + rest, notes=notes)


def deranged(pairs: Pairs, rng: np.random.Generator) -> Pairs:
    """Give every generated clip another real clip; those of one real clip keep one in common.

    The real clips, in random order, each take the place of the one before: none keeps its own.
    """
    real = list(dict.fromkeys(pairs.values()))
    order = [real[i] for i in rng.permutation(len(real))]
    following = dict(zip(order, [*order[1:], order[0]], strict=True))
    return {one: following[own] for one, own in pairs.items()}


def _of_one_n(ours: ClipSet, theirs: ClipSet, rng: np.random.Generator) -> tuple[ClipSet, ClipSet, ClipSet]:
    """Return as many generated clips as real ones of the first half, those, and the whole second half."""
    if len(theirs) < LEAST:
        raise MissingError(f"--ladder: {len(theirs)} usable real clips; at least {LEAST}, for two halves")
    order, half = rng.permutation(len(theirs)), len(theirs) // 2
    n = min(len(ours), half)
    first, second = (theirs.take(np.sort(some)) for some in (order[:n], order[half:]))
    return ours.take(np.sort(rng.permutation(len(ours))[:n])), first, second


def _of_pairs(gen: ClipSet, ref: ClipSet, pairs: Pairs) -> tuple[ClipSet, ClipSet]:
    """The clips that are in a pair, of either set."""
    mine = [n for n, name in enumerate(gen.names) if name in pairs]
    used = {pairs[gen.names[n]] for n in mine}
    others = [n for n, name in enumerate(ref.names) if name in used]
    return gen.take(np.array(mine)), ref.take(np.array(others))


def _tell(lines: dict[str, Line], metric: str, name: str, fewer: str) -> None:
    """Note in the lines of one metric all that is to be told of the set, whole or as many as the rungs."""
    _judge(lines, name if metric in PAIRED else fewer, metric)
    if metric in UNSURPASSED and UNSURPASSED[metric] in lines:
        _suspect(lines[name], lines[UNSURPASSED[metric]], metric)


def _judge(lines: dict[str, Line], name: str, metric: str) -> None:
    """Note in the lines of one metric what is not as it is known beforehand."""
    mine = lines[name]
    told: dict[str, list[str]] = {row: [] for row in lines}
    for bad in (row for row in BAD if row in lines):
        if not _clearly_better(mine, lines[bad], metric):
            told[name].append(f"{metric} is not clearly better than that of {bad}")
        beaten = [good for good in GOOD if good in lines and not _better(lines[good], lines[bad], metric)]
        if beaten:
            told[bad].append(f"{metric} is no worse than that of {' and '.join(beaten)}: it says little here")
        elif bad != SHUFFLED and SHUFFLED in lines and not _better(lines[SHUFFLED], lines[bad], metric):
            told[bad].append(f"{metric} is no worse than that of {SHUFFLED}: it prefers this to a wrong clip")
    for row, parts in told.items():
        lines[row]["note"] = "; ".join(parts)


def _suspect(whole: Line, best: Line, metric: str) -> None:
    """Note of the whole set if it is closer to the real clips than real clips are to each other."""
    shrink = 1.0
    if metric not in PAIRED:
        # FD of equal sources falls as the sum of 1/n of both sides; with fewer clips than dimensions it falls
        # less, and what this expects of the whole set is then too little to accuse it wrongly.
        shrink, other = (1 / line["n"] + 1 / line["n_reference"] for line in (whole, best))
        shrink /= other
    bar = best | {key: best[key] * shrink for key in ("value", "ci_low", "ci_high")}
    if not math.isnan(whole["ci_low"]) and _clearly_better(whole, bar, metric):
        told = f"{metric} is better than of {UNSURPASSED[metric]}" + (", as n goes" if shrink != 1 else "")
        told += ", which is suspicious: look for copies of real clips among the generated ones"
        whole["note"] = "; ".join(filter(None, (whole["note"], told)))


def _better(a: Line, b: Line, metric: str) -> bool:
    return bool(a["value"] > b["value"] if RISING[metric] else a["value"] < b["value"])


def _clearly_better(a: Line, b: Line, metric: str) -> bool:
    """Whether a's interval lies wholly beyond b's; without intervals, its value."""
    if math.isnan(a["ci_low"]) or math.isnan(b["ci_low"]):
        return _better(a, b, metric)
    return bool(a["ci_low"] > b["ci_high"] if RISING[metric] else a["ci_high"] < b["ci_low"])
