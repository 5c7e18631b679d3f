"""The leak audit: synthetic clips that repeat real ones, by name or by sound, more often than by chance."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ajbench.core import console
from ajbench.core.errors import MissingError, UsageError
from ajbench.data.clip_set import ClipSet, open_set
from ajbench.evaluation.audit_findings import COLUMNS, SHARE, Audit, Calibration, Pairs
from ajbench.evaluation.audit_similarity import (
    UsableClips,
    cosines,
    embed_all,
    loudest_part,
    scores,
    usable_clips,
    wave_of,
)
from ajbench.evaluation.compare import summary
from ajbench.evaluation.set_pair import SkippedClip, Which
from ajbench.features.extractor import LazyExtractor
from ajbench.metrics import audio_fingerprint
from ajbench.metrics.audio_fingerprint import Scores

MIN_REAL = 10  # real clips of each split: fewer do not calibrate a threshold
CALIBRATION = 1000  # clips of the other split that calibrate a threshold
LISTED = 3  # matches per clip
WAVEFORM = 0.9  # correlation; white noise at 10 dB SNR leaves 0.953
EXACT_DB = -40.0  # residual; a change of level and 16-bit rounding leave less
BLOCK_SCORES = 8_000_000  # scores of one block of synthetic clips: 32 MB


def audit(
    synth: Path | str,
    train: Path | str,
    eval: Path | str,
    *,
    train_split: str | None = None,
    eval_split: str | None = None,
    features: str | None = None,
    cache: Path | str = "work/features",
    allow_partial: bool = False,
) -> pd.DataFrame:
    """Return the pairs of clips that are more alike than independent clips are, one per row.

    Args:
        synth: synthetic clips: a clip store or a folder of sound files, as `train` and `eval` are.
        train: real clips that the generator may know.
        eval: real clips that it must not know.
        train_split: of the store `train`, only this split.
        eval_split: of the store `eval`, only this split.
        features: also compare the embeddings of this extractor.
        cache: folder for embeddings and, during the audit, fingerprints.
        allow_partial: skip clips that cannot be read.

    Raises:
        UsageError: two sets are the same, or the extractor is unknown.
        MissingError: clips cannot be read, a set has too few, or the extractor's weights are missing.
    """
    real = (open_set(Path(train), train_split, "train_split"), open_set(Path(eval), eval_split, "eval_split"))
    extractor, made = LazyExtractor(features) if features else None, open_set(Path(synth))
    found = audit_sets(made, *real, extractor=extractor, cache=Path(cache), allow_partial=allow_partial)
    return pd.DataFrame([one.row() for one in found.findings], columns=list(COLUMNS))


def audit_sets(
    synth: ClipSet,
    train: ClipSet,
    eval_: ClipSet,
    *,
    extractor: LazyExtractor | None = None,
    cache: Path | None = None,
    allow_partial: bool = False,
) -> Audit:
    """Find synthetic clips that repeat eval clips (leaks) or train clips (memorisation).

    A synthetic clip is flagged if it is closer to a real clip than real clips of the other split are: train
    clips calibrate the threshold for leaks, eval clips the one for memorisation. For the calibration they are
    cut to the length of the synthetic clips.

    Args:
        synth: the synthetic clips.
        train: real clips that the generator may know.
        eval_: real clips that it must not know.
        extractor: gives embeddings as a second view; None compares fingerprints only.
        cache: folder for embeddings and, during the audit, fingerprints.
        allow_partial: skip clips that cannot be read.

    Raises:
        UsageError: two of the sets are the same.
        MissingError: clips cannot be read, or a set has too few.
    """
    given: dict[Which, ClipSet] = {"synth": synth, "train": train, "eval": eval_}
    _refuse_same(given)
    skipped: list[SkippedClip] = []
    total = sum(map(len, given.values()))
    with console.progress(total, "read", "clips") as advance:
        sets = {which: usable_clips(which, clips, skipped, advance, cache) for which, clips in given.items()}
    if extractor is not None:
        assert cache is not None
        embed_all(sets, extractor, cache, skipped)
    for one in skipped:
        console.say(f"unusable: {one.set} {one.clip}: {one.reason}")
    if skipped and not allow_partial:
        raise MissingError(
            f"{len(skipped)} of {total} clips are unusable: {summary(skipped)}; repair them, or skip "
            "them with --allow-partial"
        )
    for which, some in sets.items():
        needed = 1 if which == "synth" else MIN_REAL
        if len(some.numbers) < needed:
            raise MissingError(
                f"--{which} {some.clips.path}: too few usable clips ({len(some.numbers)}; at least {needed})"
            )
    found = Pairs(sets)
    calibrations: list[Calibration] = []
    splits: tuple[tuple[Which, Which], ...] = (("eval", "train"), ("train", "eval"))
    with console.progress(2 * len(sets["synth"].numbers), "compare", "clips") as advance:
        for target, other in splits:
            calibrations += _compare(sets, target, other, found, advance)
    known = set(sets["train"].names)
    guided = sum(synth.parents[n] in known for n in sets["synth"].numbers)
    clips: dict[Which, int] = {which: len(one.numbers) for which, one in sets.items()}
    return Audit(found.listed(), calibrations, clips, skipped, guided)


def _refuse_same(given: Mapping[Which, ClipSet]) -> None:
    for (a, first), (b, second) in pairwise([*given.items(), next(iter(given.items()))]):
        if first.path.resolve() == second.path.resolve() and list(first.names) == list(second.names):
            raise UsageError(
                f"--{a} and --{b}: both are the {len(first)} clips of {first.path}; name different folders, "
                "or different splits of a store (--train-split train --eval-split eval)"
            )


def _compare(
    sets: Mapping[Which, UsableClips],
    target: Which,
    other: Which,
    found: Pairs,
    advance: Callable[[int], None],
) -> Iterator[Calibration]:
    """Compare synthetic clips with real clips of the split `target`, calibrated on the other split.

    Findings go into `found`. Yields the calibration of each view: spectral detail, embedding.
    """
    references, real, made = sets[target], sets[other], sets["synth"]
    count = len(real.numbers)
    chosen = np.unique(np.linspace(0, count - 1, min(CALIBRATION, count)).astype(int)).tolist()
    length = int(np.median([len(one) for one in made.fingerprints]))
    independent = found.independent(other, target)[chosen]
    if independent.sum() < MIN_REAL:
        raise MissingError(
            f"--{other} {real.clips.path}: too few clips without a copy in {references.clips.path} "
            f"({independent.sum()}; at least {MIN_REAL}) to calibrate the threshold"
        )
    views: dict[str, Callable[[UsableClips, Sequence[int], bool], tuple[Scores, Scores]]]
    views = {
        "near": lambda some, rows, cut: scores(
            [loudest_part(some.fingerprints[k], length) if cut else some.fingerprints[k] for k in rows],
            references.fingerprints,
        )
    }
    if made.vectors is not None:
        views["embedding"] = lambda some, rows, _: cosines(some, rows, references)
    for view, score in views.items():
        like, prominence = score(real, chosen, True)
        spread = audio_fingerprint.spread(prominence.T)
        standout = audio_fingerprint.standout(prominence, spread)
        nearest = standout.max(axis=1)[independent]
        limit = audio_fingerprint.threshold(nearest, SHARE / len(views))
        waveforms = _Waveforms(sets, target, found, limit, candidate=float(np.quantile(nearest, 0.9)))
        wave_limit = WAVEFORM
        if view == "near":
            matched = waveforms.check(other, chosen, like, standout, 2.0)
            # If independent clips share their waveform, such as mains hum, it takes more to tell a copy.
            usual = [value for value, k in matched if independent[k] and standout[k].max() <= limit]
            if len(usual) >= MIN_REAL:
                wave_limit = max(WAVEFORM, audio_fingerprint.threshold(np.array(usual)))
        best = []
        block = max(1, BLOCK_SCORES // len(references.numbers))
        for start in range(0, len(made.numbers), block):
            rows = list(range(start, min(start + block, len(made.numbers))))
            like, prominence = score(made, rows, False)
            standout = audio_fingerprint.standout(prominence, spread)
            best.append(standout.max(axis=1))
            if view == "near":
                waveforms.check("synth", rows, like, standout, wave_limit)
                advance(len(rows))
            else:
                for k, match in zip(*np.nonzero(standout > limit), strict=True):
                    values = {"embedding": float(standout[k, match]), "embedding_threshold": limit}
                    found.add("synth", rows[k], target, int(match), ("embedding",), **values)
        yield Calibration(view, target, nearest, np.concatenate(best), limit)


@dataclass(frozen=True)
class _Waveforms:
    """Compares the waveforms of similar clips and notes what was found."""

    sets: Mapping[Which, UsableClips]
    target: Which  # the split that clips are compared with
    found: Pairs
    limit: float  # standout from which a pair is `near`
    candidate: float  # standout from which the waveform of the best match is compared

    def check(
        self, of: Which, rows: Sequence[int], like: Scores, standout: NDArray[np.float64], wave_limit: float
    ) -> list[tuple[float, int]]:
        """Compare the clips `rows` of a set with their best matches, and note what was found.

        Args:
            of: the set.
            rows: its clips.
            like: likeness to the target clips, [len(rows), R].
            standout: likewise.
            wave_limit: correlation from which a pair is of the kind `waveform`.

        Returns:
            (correlation with the best match, position in rows) of each candidate.
        """
        some, references = self.sets[of], self.sets[self.target]
        correlations = []
        kept = min(LISTED, standout.shape[1])
        top = np.argpartition(-standout, kept - 1, axis=1)[:, :kept]
        for k, row in enumerate(rows):
            ranked = sorted(top[k].tolist(), key=lambda match: -standout[k, match])
            best = ranked[0]
            picked = [m for m in ranked if standout[k, m] > (self.candidate if m == best else self.limit)]
            wave = wave_of(some.clips, some.numbers[row]) if picked else np.zeros(0, np.float32)
            for match in picked:
                other = wave_of(references.clips, references.numbers[match])
                correlation, residual = audio_fingerprint.waveform_match(wave, other)
                if match == best:
                    correlations.append((correlation, k))
                score = float(standout[k, match])
                kinds = ["near"] if score > self.limit else []
                kinds += ["waveform"] if correlation >= wave_limit else []
                kinds += ["exact"] if residual <= EXACT_DB and kinds else []
                values = {"standout": score, "threshold": self.limit, "likeness": float(like[k, match])}
                values |= {"waveform": correlation, "residual_db": residual}
                # Pairs of the two real splits are listed once, as train clips that repeat eval clips.
                if (of, self.target) == ("eval", "train"):
                    kinds = []
                if kinds or (of, row, self.target, match) in self.found.pairs:
                    self.found.add(of, row, self.target, match, kinds, **values)
        return correlations
