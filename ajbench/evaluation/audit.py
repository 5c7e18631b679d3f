"""The leak audit: synthetic clips that repeat real ones, by name or by sound, more often than by chance."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ajbench.core import console
from ajbench.core.errors import MissingError, UsageError
from ajbench.data.clip_set import ClipSet, open_set
from ajbench.evaluation.audit_findings import COLUMNS, COMPARED, SHARE, Audit, Calibration, Pairs
from ajbench.evaluation.audit_similarity import (
    UsableClips,
    cosines,
    embed_all,
    loudest_part,
    scores,
    usable_clips,
    waveform_match,
    waves_of,
)
from ajbench.evaluation.compare import summary
from ajbench.evaluation.set_pair import SkippedClip, Which
from ajbench.features.extractor import LazyExtractor
from ajbench.metrics.standout import Scores, spread_of_others, tail, threshold
from ajbench.metrics.standout import spread as spread_of
from ajbench.metrics.standout import standout as standouts

FEWEST = 20  # calibration clips whose waveform is compared, which show what independent clips share
MIN_REAL = 10  # real clips of each split: fewer do not calibrate a threshold
LISTED = 3  # matches per clip
SAME_DETAIL = 0.98  # likeness; 1.00 of a copy at another gain
RARE = 1e-4  # of independent clips that may share their waveform
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
    cut to the length of the synthetic clips, and the first clip of each recording is taken.

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
    if extractor is not None and all(len(one.numbers) for one in sets.values()):
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
    return Audit(found.listed(), calibrations, clips, skipped, guided, found.origins)


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
    chosen = np.unique(np.linspace(0, count - 1, min(COMPARED, count)).astype(int)).tolist()
    length = int(np.median([len(one) for one in made.fingerprints]))
    independent = found.independent(other, target)[chosen] & _distinct(
        [real.clips.recordings[real.numbers[k]] for k in chosen]
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
    comparison = _Comparison(sets, target, found)
    for view, score in views.items():

        def calibrated(left: NDArray[np.float64]) -> tuple[float, int]:
            if len(left) < MIN_REAL:
                raise MissingError(
                    f"--{other} {real.clips.path}: the leak test cannot be made: {len(left)} clips without a "
                    f"copy in {references.clips.path} are left to calibrate the threshold (at least "
                    f"{MIN_REAL}); remove the copies{found.example(other, target)}"
                )
            return threshold(left, SHARE / len(views))

        like, prominence = score(real, chosen, True)
        spread = spread_of(prominence.T)
        standout = standouts(prominence, spread_of_others(prominence.T))
        nearest = standout.max(axis=1)
        limit, rank = calibrated(nearest[independent])
        while view == "near":
            left = int(independent.sum())
            candidate = float(np.quantile(nearest[independent], min(0.9, max(0.0, 1 - FEWEST / left))))
            matches = comparison.waveforms(other, chosen, like, standout, candidate, limit)
            # Copies of more than a tenth of the clips raise the limit; `bulk` is that of the lower half.
            bulk = min(limit, tail(nearest[independent], RARE, (0.1, 0.5)))
            # If independent clips share their waveform, such as mains hum, it takes more to tell a copy.
            usual = [
                -one.residual_db
                for one in matches
                # Clips that are the same but for their level are copies, even if most of the clips are.
                if one.best and independent[one.row] and one.standout <= bulk and one.residual_db > EXACT_DB
            ]
            wave_limit = WAVEFORM
            if len(usual) >= MIN_REAL:
                # Of residuals: correlations end at 1, where an extrapolation would leave no copy to be told.
                residual_db = max(0.0, tail(np.array(usual), RARE))
                wave_limit = max(WAVEFORM, float(np.sqrt(1 - 10 ** (-residual_db / 10))))
            copies = np.zeros(len(chosen), bool)
            copies[[one.row for one in matches if one.waveform >= wave_limit]] = True
            comparison.note(other, chosen, matches, limit, wave_limit)
            if not (copies & independent).any():
                break
            independent &= ~copies  # further copies may now be among the tenth that is compared
            limit, rank = calibrated(nearest[independent])
        best = []
        block = max(1, BLOCK_SCORES // len(references.numbers))
        for start in range(0, len(made.numbers), block):
            rows = list(range(start, min(start + block, len(made.numbers))))
            like, prominence = score(made, rows, False)
            standout = standouts(prominence, spread)
            best.append(standout.max(axis=1))
            if view == "near":
                matches = comparison.waveforms("synth", rows, like, standout, candidate, limit)
                comparison.note("synth", rows, matches, limit, wave_limit)
                advance(len(rows))
            else:
                for k, match in zip(*np.nonzero(standout > limit), strict=True):
                    values = {"embedding": float(standout[k, match]), "embedding_threshold": limit}
                    found.add("synth", rows[k], target, int(match), ("embedding",), **values)
        yield Calibration(view, target, nearest[independent], np.concatenate(best), limit, rank)


def _distinct(recordings: Sequence[str]) -> NDArray[np.bool_]:
    """Return which clips are the first of their recording; all, if fewer than `MIN_REAL` are.

    Clips of one recording are alike, and together they calibrate little more than one does.
    """
    _, first = np.unique(recordings, return_index=True)
    return np.isin(np.arange(len(recordings)), first) | (len(first) < MIN_REAL)


@dataclass(frozen=True)
class _Match:
    """A pair of similar clips whose waveforms were compared."""

    row: int  # position of the clip among those compared
    match: int  # the clip of the target split
    best: bool  # whether it is the best match
    standout: float
    likeness: float
    waveform: float  # correlation
    residual_db: float


@dataclass(frozen=True)
class _Comparison:
    """Compares the waveforms of similar clips and notes what was found."""

    sets: Mapping[Which, UsableClips]
    target: Which  # the split that clips are compared with
    found: Pairs
    compared: dict[tuple[Which, int, int], tuple[float, float]] = field(default_factory=dict)

    def waveforms(
        self,
        of: Which,
        rows: Sequence[int],
        like: Scores,
        standout: NDArray[np.float64],
        candidate: float,
        limit: float,
    ) -> list[_Match]:
        """Compare the waveforms of the clips `rows` of a set with those of their best matches.

        Args:
            of: the set.
            rows: its clips.
            like: likeness to the target clips, [len(rows), R].
            standout: likewise.
            candidate: standout from which the best match is compared; one of the same detail always is.
            limit: standout from which the next best matches are compared.
        """
        some, references = self.sets[of], self.sets[self.target]
        matches = []
        kept = min(LISTED, standout.shape[1])
        top = np.argpartition(-standout, kept - 1, axis=1)[:, :kept]
        for k, row in enumerate(rows):
            ranked = sorted(top[k].tolist(), key=lambda match: -standout[k, match])
            picked = [m for m in ranked if standout[k, m] > (candidate if m == ranked[0] else limit)]
            # Where all clips are alike, even a copy at another gain does not stand out.
            if like[k, closest := int(like[k].argmax())] >= SAME_DETAIL and closest not in picked:
                picked.append(closest)
            new = [match for match in picked if (of, row, match) not in self.compared]
            mine = waves_of(some.clips, some.numbers[row]) if new else []
            for match in new:
                other = waves_of(references.clips, references.numbers[match])
                self.compared[of, row, match] = waveform_match(mine, other)
            for match in picked:
                values = float(standout[k, match]), float(like[k, match])
                matches.append(_Match(k, match, match == ranked[0], *values, *self.compared[of, row, match]))
        return matches

    def note(
        self, of: Which, rows: Sequence[int], matches: Sequence[_Match], limit: float, wave_limit: float
    ) -> None:
        """Add the matches of the clips `rows` of a set to the findings.

        Args:
            of: the set.
            rows: its clips.
            matches: from `waveforms`.
            limit: standout above which a pair is `near`.
            wave_limit: correlation from which it is `waveform`.
        """
        for one in matches:
            kinds = ["near"] if one.standout > limit else []
            kinds += ["waveform"] if one.waveform >= wave_limit else []
            kinds += ["exact"] if one.residual_db <= EXACT_DB and kinds else []
            # Pairs of the two real splits are listed once, as train clips that repeat eval clips.
            if (of, self.target) == ("eval", "train"):
                kinds = []
            row = rows[one.row]
            if kinds or (of, row, self.target, one.match) in self.found.pairs:
                values = {"standout": one.standout, "threshold": limit, "likeness": one.likeness}
                values |= {"waveform": one.waveform, "residual_db": one.residual_db}
                self.found.add(of, row, self.target, one.match, kinds, **values)
