"""Baselines: sounds of known quality, measured like generated clips, show what a good and a bad value is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import soxr
import xxhash
from numpy.typing import NDArray

from ajbench.core.errors import MissingError
from ajbench.data import audio
from ajbench.data.clip_set import Change, ClipSet, Samples
from ajbench.data.corpora import mini_signals
from ajbench.evaluation.compare import Comparison, choose, measure, row_of
from ajbench.evaluation.generation_metrics import (
    MIN_HALF,
    OF_SPLIT,
    PAIRED,
    class_distance,
    class_halves,
    draw,
)
from ajbench.evaluation.set_pair import Pairs, SetPair
from ajbench.metrics.intervals import numbered

if TYPE_CHECKING:
    from ajbench.codec import Codec

# From best to worst, as known beforehand.
HALVES, CODEC = "real, two halves", "codec round trip"
SHUFFLED, PINK, SILENCE = "shuffled labels", "pink noise", "silence"
GOOD, BAD = (HALVES, CODEC), (SHUFFLED, PINK, SILENCE)
BASELINES = GOOD + BAD
# Metrics with baselines, and whether a higher value is better.
HIGHER_IS_BETTER = {"fd": False, "fad": False, "kad": False, "is": True, "kl": False, "kl_sigmoid": False}
DRAWN = ("fd", "fad")
# Only copies of real clips are better. KL of sigmoids can be negative: equal clips are not its minimum.
BEST = {"fd": HALVES, "fad": HALVES, "kl": CODEC}
MIN_REAL = 4  # real clips: two halves of two
LOWEST_HZ = 20.0  # below it the spectrum is flat: else half of the power would be inaudible
FRAME = 2 * audio.HOP  # every codec takes a multiple of this many samples

Line = dict[str, Any]


def add_baselines(found: Comparison, pair: SetPair, codec: "Codec") -> Comparison:
    """Return a comparison together with baselines, measured by the same metrics.

    FD and IS depend on the number of clips, and FD is too low where a clip is compared with itself. So the
    real clips are split at random in two halves, and equally many clips of each kind are compared with the
    second half: the first half (`real, two halves`), its clips after a codec round trip, as pink noise and as
    silence, and the generated set in a row of its own. For paired metrics each of these sounds is compared
    with the clip it was made from, and `shuffled labels` pairs every generated clip with another's real clip.

    Args:
        found: the comparison of the two sets.
        pair: the two sets.
        codec: codec of the round trip.

    Returns:
        Rows with two more keys: `row`, the name of the set or baseline, and `note`, if a value is not in its
        known order. Rows are grouped by metric, from best to worst; metrics without baselines come last.

    Raises:
        MissingError: fewer than four usable real clips.
    """
    wanted = [m for m in dict.fromkeys(line["metric"] for line in found.rows) if m in HIGHER_IS_BETTER]
    alone, paired = ([m for m in wanted if (m in PAIRED) is which] for which in (False, True))
    ours, theirs = (s.take(e.numbers) for s, e in zip((pair.gen, pair.ref), pair.embeddings, strict=True))
    rng = np.random.default_rng(pair.seed)
    some, first, second = _of_one_n(ours, theirs, rng)
    n, name = len(some), pair.gen.path.resolve().name
    if few := "is" in alone and n < OF_SPLIT:
        alone, wanted = ([m for m in names if m != "is"] for names in (alone, wanted))
    name = f"{name} (generated)" if name in BASELINES else name
    fewer = f"{name}, {n} {'clip' if n == 1 else 'clips'}"
    whole = [{"row": name, "note": ""} | line for line in found.rows]
    rows: list[Line] = [line for line in whole if line["metric"] in wanted]
    rest = [line for line in whole if line["metric"] not in wanted]
    notes = list(found.notes)
    if few:
        notes.append(f"no baselines of is: it needs {OF_SPLIT} clips, half of the reference are {n}")

    def add(row: str, clips: ClipSet, against: ClipSet, metrics: Sequence[str], pairs: Pairs) -> None:
        if metrics:
            got = _measure(pair, row, clips, against, metrics, pairs)
            rows.extend({"row": row, "note": ""} | line for line in got.rows)
            notes.extend(f"{row}: {note}" for note in got.notes if row == fewer)

    add(HALVES, first, second, alone, {})
    add(fewer, some, second, alone, {})
    itself = {one: one for one in first.names}
    changes = {CODEC: round_trip(codec), PINK: pink_noise(pair.seed), SILENCE: silence()}
    for row, change in changes.items():
        add(row, first.changed(change), second, alone, {})
        add(row, first.changed(change), first, paired, itself)
    usable = set(ours.names), set(theirs.names)
    assert pair.pairs is not None
    known = {one: real for one, real in pair.pairs.items() if one in usable[0] and real in usable[1]}
    if paired and len(set(known.values())) > 1:
        other = deranged(known, rng)
        add(SHUFFLED, *_of_pairs(ours, theirs, other), paired, other)
    elif paired:
        notes.append(f"no {SHUFFLED}: all pairs share one real clip")
    if alone:
        notes.append(
            f"baselines: {' and '.join(alone)} of {n} clips per row, compared with {len(second)} other real "
            f"clips (half of the reference); compare them with the row {fewer!r}"
        )
    position = {row: i for i, row in enumerate((name, HALVES, CODEC, fewer, SHUFFLED, PINK, SILENCE))}
    rows.sort(key=lambda line: (wanted.index(line["metric"]), position[line["row"]]))
    for metric in wanted:
        _annotate({line["row"]: line for line in rows if line["metric"] == metric}, metric, name, fewer)
    notes += [f"{line['row']}: {line['note']}" for line in rows if line["note"]]
    return replace(found, rows=rows + rest, notes=notes)


def of_splits(train: SetPair, held_out: ClipSet, codec: "Codec", n: int) -> list[Line]:
    """Return rows of baselines for the sets of a recipe, where train clips need not be halved.

    FD to the held-out clips, of n train clips: as they are, decoded from their codes, decoded from shuffled
    codes (each codebook permuted over clips and frames) and as pink noise; and between two halves of the
    held-out clips. FD by class of the other half of a class, and of another class. Label agreement of the
    held-out clips: what the extractor itself achieves.

    Args:
        train: train clips as both sets, with the labels of the store as requests.
        held_out: the clips of the evaluated split.
        codec: codec of the store.
        n: number of clips per baseline, at most that of train clips.

    Returns:
        Rows as of `measure`, with the additional key `row`.
    """
    seed, clips = train.seed, train.gen
    rng = np.random.default_rng(seed)
    chosen = clips.take(draw(np.arange(len(clips)), n, seed))
    names, codes = chosen.names, chosen.codes()
    first, second = (held_out.take(half) for half in _halves(held_out, rng))
    measured = [
        ("real, train split", chosen, held_out, "fd"),
        ("real through the codec", chosen.changed(decoded(codec, names, codes)), held_out, "fd"),
        ("shuffled codes", chosen.changed(decoded(codec, names, shuffled(codes, seed))), held_out, "fd"),
        (PINK, chosen.changed(pink_noise(seed)), held_out, "fd"),
        (HALVES, first, second, "fd"),
        ("real, eval split", held_out, clips, "label_agreement"),
    ]
    rows: list[Line] = []
    for row, some, against, metric in measured:
        if min(len(some), len(against)) > 1:
            got = _measure(train, row, some, against, [metric], {}, required=False)
            rows += [{"row": row} | line for line in got.rows]
    return rows + _of_classes(train)


def _halves(clips: ClipSet, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Return two random halves of the clips: of whole recordings, unless all clips are of one."""
    member = numbered(clips.recordings)
    drawn = rng.permutation(len(set(clips.recordings)))[member]
    order = np.lexsort((rng.permutation(len(member)), drawn))
    ends = np.flatnonzero(np.diff(drawn[order])) + 1
    middle = len(order) // 2
    if len(ends):
        middle = ends[np.abs(ends - middle).argmin()]
    return np.split(order, [middle])


def _of_classes(train: SetPair) -> list[Line]:
    """Return rows of FD by class: of each class's other half, and of the next class; none without labels."""
    if train.requests is None:
        return []
    vectors, targets = train.vectors[1], train.requests.targets(train.names)
    halves = class_halves(targets, train.real_groups)
    same, another = [], []
    for c, following in zip(halves, [*list(halves)[1:], *list(halves)[:1]], strict=True):
        reference, rest = halves[c]
        same.append((vectors[rest], vectors[reference]))
        strangers = np.concatenate(halves[following])
        strangers = strangers[~targets[strangers, c]][: len(rest)]
        if len(strangers) >= MIN_HALF:
            another.append((vectors[strangers], vectors[reference]))
    return [
        {"row": row} | row_of(train, "fd_class", class_distance(pairs, train))
        for row, pairs in (("real, same class", same), ("real, another class", another))
        if pairs
    ]


def _measure(
    pair: SetPair,
    row: str,
    clips: ClipSet,
    against: ClipSet,
    metrics: Sequence[str],
    pairs: Pairs,
    required: bool = True,
) -> Comparison:
    task = pair.task and row
    other = replace(pair, gen=clips, ref=against, pairs=pairs, requests=None, task=task, notes=[])
    return measure(other, choose(other, metrics, required))


def pink_noise(seed: int) -> Change:
    """Replace each clip by noise of its length, rate and RMS, with 3 dB less power per octave."""

    def make(name: str, samples: Samples, rate: int) -> Samples:
        rng = np.random.default_rng([seed, xxhash.xxh3_64_intdigest(name.encode())])
        scale = rate / mini_signals.RATE  # as if the clip were at 16 kHz

        def gain(hz: NDArray[np.float32]) -> NDArray[np.float32]:
            return (1 / np.sqrt(np.maximum(hz * scale, LOWEST_HZ))).astype(np.float32)

        level = np.sqrt(np.mean(np.square(samples, dtype=np.float64)))
        return mini_signals.noise(rng, len(samples), gain)[:, None] * np.float32(level)

    return Change(f"pink noise {seed}", make)


def silence() -> Change:
    """Replace each clip by zeros of its length and rate."""
    return Change("silence", lambda name, samples, rate: np.zeros_like(samples))


def round_trip(codec: "Codec") -> Change:
    """Encode and decode each clip, its channels averaged and at 16 kHz."""

    def make(name: str, samples: Samples, rate: int) -> Samples:
        wave = samples.mean(axis=1, dtype=np.float32)
        if rate != audio.SAMPLE_RATE:
            wave = soxr.resample(wave, rate, audio.SAMPLE_RATE, quality="HQ")
        padded = audio.fit(wave, -(-len(wave) // FRAME) * FRAME)
        return codec.decode(codec.encode(padded[None])).cpu().numpy()[0, : len(wave), None]

    return Change(f"codec {codec.name} {codec.weights_hash}", make, audio.SAMPLE_RATE)


def decoded(codec: "Codec", names: Sequence[str], codes: NDArray[np.uint16]) -> Change:
    """Replace the clips of these names by what the codec decodes from codes [n, 8, T], cut to length."""
    of_name = dict(zip(names, codes, strict=True))
    digest = xxhash.xxh3_64_hexdigest(np.ascontiguousarray(codes).data)

    def make(name: str, samples: Samples, rate: int) -> Samples:
        return codec.decode(of_name[name][None]).cpu().numpy()[0, : len(samples), None]

    return Change(f"decoded {codec.name} {codec.weights_hash} {digest}", make, audio.SAMPLE_RATE)


def shuffled(codes: NDArray[np.uint16], seed: int) -> NDArray[np.uint16]:
    """Return codes [n, 8, T] with each codebook permuted over all clips and frames."""
    n, books, frames = codes.shape
    flat = codes.transpose(1, 0, 2).reshape(books, n * frames)
    permuted = np.random.default_rng(seed).permuted(flat, axis=1).reshape(books, n, frames)
    return np.ascontiguousarray(permuted.transpose(1, 0, 2))


def deranged(pairs: Pairs, rng: np.random.Generator) -> dict[str, str]:
    """Give every generated clip another's real clip; clips that share a real clip still share one.

    The real clips, in random order, each take the place of the one before, so that none keeps its own.
    """
    real = list(dict.fromkeys(pairs.values()))
    order = [real[i] for i in rng.permutation(len(real))]
    following = dict(zip(order, [*order[1:], order[0]], strict=True))
    return {one: following[own] for one, own in pairs.items()}


def _of_one_n(ours: ClipSet, theirs: ClipSet, rng: np.random.Generator) -> tuple[ClipSet, ClipSet, ClipSet]:
    """Return equally many generated clips and real clips of the first half, and the whole second half."""
    if len(theirs) < MIN_REAL:
        count = len(theirs)
        raise MissingError(
            f"--ladder: {count} usable real clips; it needs at least {MIN_REAL}, to halve them"
        )
    some, rest = _halves(theirs, rng)
    n = min(len(ours), len(some))
    first, second = (theirs.take(np.sort(half)) for half in (some[:n], rest))
    return ours.take(np.sort(rng.permutation(len(ours))[:n])), first, second


def _of_pairs(gen: ClipSet, ref: ClipSet, pairs: Pairs) -> tuple[ClipSet, ClipSet]:
    """Return the clips of both sets that belong to a pair."""
    mine = [n for n, name in enumerate(gen.names) if name in pairs]
    used = {pairs[gen.names[n]] for n in mine}
    others = [n for n, name in enumerate(ref.names) if name in used]
    return gen.take(np.array(mine)), ref.take(np.array(others))


def _annotate(lines: Mapping[str, Line], metric: str, name: str, fewer: str) -> None:
    """Note in the lines of one metric what is wrong with the set, or with its order among the baselines."""
    _note_order(lines, name if metric in PAIRED else fewer, metric)
    if metric in BEST and BEST[metric] in lines:
        _note_copies(lines[name], lines[BEST[metric]], metric)


def _note_order(lines: Mapping[str, Line], name: str, metric: str) -> None:
    """Note in the lines of one metric which ones are not in their known order."""
    notes: dict[str, list[str]] = {row: [] for row in lines}
    for bad in (row for row in BAD if row in lines):
        if not _clearly_better(lines[name], lines[bad], metric):
            notes[name].append(f"{metric} is not clearly better than that of {bad}")
        beaten = [good for good in GOOD if good in lines and not _better(lines[good], lines[bad], metric)]
        no_worse = f"{metric} is no worse than that of"
        if beaten:
            notes[bad].append(f"{no_worse} {' and '.join(beaten)}: it says little here")
        elif bad != SHUFFLED and SHUFFLED in lines and not _better(lines[SHUFFLED], lines[bad], metric):
            notes[bad].append(f"{no_worse} {SHUFFLED}: it prefers this to a wrong clip")
    for row, parts in notes.items():
        lines[row]["note"] = "; ".join(parts)


def _note_copies(whole: Line, best: Line, metric: str) -> None:
    """Note if the whole set is closer to the real clips than real clips are to each other."""
    shrink = 1.0
    if metric not in PAIRED:
        # FD of two samples of one source falls with the sum of 1/n over both sides, or slower where clips
        # are fewer than dimensions. The bar is then too low, which accuses no set wrongly.
        shrink, other = (1 / line["n"] + 1 / line["n_reference"] for line in (whole, best))
        shrink /= other
    bar = best | {key: best[key] * shrink for key in ("value", "ci_low", "ci_high")}
    if not math.isnan(whole["ci_low"]) and _clearly_better(whole, bar, metric):
        note = f"{metric} is better than that of {BEST[metric]}" + (" at the same n" if shrink != 1 else "")
        note += ", which is suspicious: look for copies of real clips among the generated ones"
        whole["note"] = "; ".join(filter(None, (whole["note"], note)))


def _better(a: Line, b: Line, metric: str) -> bool:
    return bool(a["value"] > b["value"] if HIGHER_IS_BETTER[metric] else a["value"] < b["value"])


def _clearly_better(a: Line, b: Line, metric: str) -> bool:
    """Whether a's interval lies wholly beyond b's; without intervals, its value."""
    if math.isnan(a["ci_low"]) or math.isnan(b["ci_low"]):
        return _better(a, b, metric)
    return bool(a["ci_low"] > b["ci_high"] if HIGHER_IS_BETTER[metric] else a["ci_high"] < b["ci_low"])
