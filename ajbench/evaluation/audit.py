"""The leak audit: which synthetic clips repeat real ones, by name or by sound, beyond what chance brings."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ajbench.core import console
from ajbench.core.errors import MissingError, UsageError
from ajbench.data.clip_set import ClipSet
from ajbench.evaluation.audit_findings import SHARE, Audit, Pairs, Yardstick
from ajbench.evaluation.audit_similarity import Heard, cosines, cut, embed_all, hear, scores, wave_of
from ajbench.evaluation.compare import Trouble, Which, told
from ajbench.features.extractor import LazyExtractor
from ajbench.metrics import audio_fingerprint as metrics

LEAST = 10  # real clips of each set: fewer say nothing of chance
PEERS = 1000  # clips of a yardstick
SHOWN = 3  # matches of one clip that are listed
WAVEFORM = 0.9  # correlation: noise at 10 dB leaves 0.953
EXACT_DB = -40.0  # of a residual: a level change and 16 bits leave less
HELD = 8_000_000  # scores of one block of synthetic clips: 32 MB


def audit(
    synth: ClipSet,
    train: ClipSet,
    eval_: ClipSet,
    *,
    extractor: LazyExtractor | None = None,
    cache: Path | None = None,
    allow_partial: bool = False,
) -> Audit:
    """Look for synthetic clips that repeat evaluation clips (leaks) or train clips (memorised).

    A clip is flagged where it is nearer to a clip than honest ones are: train clips to eval clips, for
    leaks; eval clips to train clips, for what is memorised. They are heard at the synthetic clips' length.

    Args:
        synth: the synthetic clips. train: what their generator may know. eval_: what it may not.
        extractor: whose embeddings are a second view; None: sound alone.
        cache: where embeddings are kept, and fingerprints as long as they are needed.
        allow_partial: go on without clips that cannot be heard.

    Raises:
        UsageError: two of the sets are the same clips.
        MissingError: clips cannot be heard, or a set has too few.
    """
    given: dict[Which, ClipSet] = {"synth": synth, "train": train, "eval": eval_}
    _refuse_twins(given)
    troubles: list[Trouble] = []
    with console.progress(sum(map(len, given.values())), "hear", "clips") as advance:
        heard = {which: hear(which, clips, troubles, advance, cache) for which, clips in given.items()}
    if extractor is not None:
        assert cache is not None
        embed_all(heard, extractor, cache, troubles)
    for one in troubles:
        console.say(f"cannot be heard: {one.set} {one.clip}: {one.reason}")
    total = sum(map(len, given.values()))
    if troubles and not allow_partial:
        raise MissingError(
            f"{len(troubles)} of {total} clips cannot be heard: {told(troubles)}; mend them, or go on "
            "without them by --allow-partial"
        )
    for which, some in heard.items():
        least = 1 if which == "synth" else LEAST
        if len(some.numbers) < least:
            raise MissingError(
                f"{some.clips.path}: {len(some.numbers)} usable clips for --{which}; at least {least} needed"
                + (", to tell copies from chance" if least > 1 else "")
            )
    found = Pairs(heard)
    yardsticks: list[Yardstick] = []
    others: tuple[tuple[Which, Which], ...] = (("eval", "train"), ("train", "eval"))
    with console.progress(2 * len(heard["synth"].numbers), "compare", "clips") as advance:
        for target, peers in others:
            yardsticks += _against(heard, target, peers, found, advance)
    known = set(heard["train"].names)
    guided = sum(synth.parents[n] in known for n in heard["synth"].numbers)
    clips: dict[Which, int] = {which: len(one.numbers) for which, one in heard.items()}
    return Audit(found.listed(), yardsticks, clips, troubles, guided)


def _refuse_twins(given: Mapping[Which, ClipSet]) -> None:
    for (a, first), (b, second) in pairwise([*given.items(), next(iter(given.items()))]):
        if first.path.resolve() == second.path.resolve() and list(first.names) == list(second.names):
            raise UsageError(
                f"--{a} and --{b} are the same {len(first)} clips of {first.path}; name different folders, "
                "or of one store different splits (--train-split train --eval-split eval)"
            )


def _against(
    heard: Mapping[Which, Heard],
    target: Which,
    peers: Which,
    found: Pairs,
    advance: Callable[[int], None],
) -> Iterator[Yardstick]:
    """Compare synthetic clips with those of a set, by the yardstick of its peers, in each view."""
    mine, others, made = heard[target], heard[peers], heard["synth"]
    chosen = np.unique(np.linspace(0, len(others.numbers) - 1, min(PEERS, len(others.numbers))).astype(int))
    length = int(np.median([len(detail) for detail in made.details]))
    honest = found.honest(peers, target)[chosen]
    if honest.sum() < LEAST:
        raise MissingError(
            f"{others.clips.path}: {honest.sum()} {peers} clips are not in {mine.clips.path}, too; at least "
            f"{LEAST} are needed, to tell copies from chance"
        )
    views: dict[str, Callable[[Heard, Sequence[int], bool], tuple[metrics.Scores, metrics.Scores]]]
    views = {
        "near": lambda one, rows, short: scores(
            [cut(one.details[row], length) if short else one.details[row] for row in rows], mine.details
        )
    }
    if made.vectors is not None:
        views["embedding"] = lambda one, rows, _: cosines(one, rows, mine)
    for view, compare in views.items():
        like, prominent = compare(others, chosen.tolist(), True)
        columns = metrics.spread(prominent.T)
        standing = metrics.standout(prominent, columns)
        yard = standing.max(axis=1)[honest]
        limit = metrics.threshold(yard, SHARE / len(views))
        candidate = float(np.quantile(yard, 0.9))
        wave_limit = WAVEFORM
        if view == "near":
            waves = _note(found, heard, peers, target, chosen.tolist(), like, standing, limit, candidate, 2.0)
            # Where honest clips are one wave, such as hum, waves say nothing.
            plain = [value for value, row in waves if honest[row] and standing[row].max() <= limit]
            wave_limit = (
                max(WAVEFORM, metrics.threshold(np.array(plain))) if len(plain) >= LEAST else WAVEFORM
            )
        best = []
        block = max(1, HELD // len(mine.numbers))
        for start in range(0, len(made.numbers), block):
            rows = list(range(start, min(start + block, len(made.numbers))))
            like, prominent = compare(made, rows, False)
            standing = metrics.standout(prominent, columns)
            best.append(standing.max(axis=1))
            if view == "near":
                _note(found, heard, "synth", target, rows, like, standing, limit, candidate, wave_limit)
                advance(len(rows))
            else:
                for row, match in zip(*np.nonzero(standing > limit), strict=True):
                    about = {"embedding": float(standing[row, match]), "embedding_threshold": limit}
                    found.add("synth", rows[row], target, int(match), "embedding", **about)
        yield Yardstick(view, target, yard, np.concatenate(best), limit)


def _note(
    found: Pairs,
    heard: Mapping[Which, Heard],
    of: Which,
    target: Which,
    rows: Sequence[int],
    like: metrics.Scores,
    standing: NDArray[np.float64],
    limit: float,
    candidate: float,
    wave_limit: float,
) -> list[tuple[float, int]]:
    """Hear again the best match of each clip if it is a candidate, and all that are flagged; note findings.

    Returns:
        (correlation of waves, place in rows) of each best match.
    """
    waves = []
    kept = min(SHOWN, standing.shape[1])
    top = np.argpartition(-standing, kept - 1, axis=1)[:, :kept]
    for place, row in enumerate(rows):
        ranked = sorted(top[place].tolist(), key=lambda match: -standing[place, match])
        picked = [m for k, m in enumerate(ranked) if standing[place, m] > (limit if k else candidate)]
        wave = wave_of(heard[of].clips, heard[of].numbers[row]) if picked else None
        for match in picked:
            assert wave is not None
            other = wave_of(heard[target].clips, heard[target].numbers[match])
            correlation, residual = metrics.waveform_match(wave, other)
            if match == ranked[0]:
                waves.append((correlation, place))
            score = float(standing[place, match])
            kinds = ["near"] if score > limit else []
            kinds += ["waveform"] if correlation >= wave_limit else []
            kinds += ["exact"] if residual <= EXACT_DB and kinds else []
            about = {"standout": score, "threshold": limit, "likeness": float(like[place, match])}
            about |= {"waveform": correlation, "residual_db": residual}
            # A split's pairs are told once, as train clips that are like eval clips.
            if kinds and (of, target) != ("eval", "train"):
                for kind in kinds:
                    found.add(of, row, target, match, kind, **about)
            elif (of, row, target, match) in found.pairs:
                found.add(of, row, target, match, None, **about)
    return waves
