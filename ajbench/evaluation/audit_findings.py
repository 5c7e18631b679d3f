"""What the leak audit reports: pairs of clips, calibrated thresholds and a verdict in sentences."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ajbench.data.corpora.youtube import video_id
from ajbench.evaluation.audit_similarity import UsableClips
from ajbench.evaluation.set_pair import SkippedClip, Which

KINDS = ("exact", "waveform", "parent", "id", "recording", "near", "embedding")  # the surest first
WEAK = frozenset(("near", "embedding"))  # independent clips have these, too
SHARE = 0.01  # of independent clips to be flagged by them, over all views
COMPARED = 1000  # real clips of one split that are compared with the other, and calibrate the threshold
ALPHA = 0.05  # more weak flags than chance explains: p below this
SETS: dict[str, tuple[Which, Which]] = {
    "leak": ("synth", "eval"),
    "memorised": ("synth", "train"),
    "split": ("train", "eval"),
}


@dataclass(frozen=True)
class Finding:
    """A pair of clips that are more alike than independent clips are.

    Scores are None if the match was not among the clip's best matches.
    """

    relation: Literal["leak", "memorised", "split"]
    clip: str  # synthetic, or the train clip of a split
    match: str  # the real clip that it repeats
    kinds: tuple[str, ...]  # some of KINDS, the surest first
    own_parent: bool  # whether the match is the guide of the clip
    standout: float | None = None  # by spectral detail
    threshold: float | None = None
    likeness: float | None = None  # correlation of the fingerprints
    waveform: float | None = None  # correlation of the waveforms
    residual_db: float | None = None  # level of their difference
    embedding: float | None = None  # standout by embedding
    embedding_threshold: float | None = None

    def row(self) -> dict[str, Any]:
        """Return the pair as a row of the table."""
        of, other = SETS[self.relation]
        key = {"relation": self.relation, "set": of, "clip": self.clip, "match_set": other}
        return key | {"match": self.match} | vars(self) | {"kinds": "+".join(self.kinds)}


COLUMNS = tuple(Finding("leak", "", "", (), False).row())


@dataclass(frozen=True)
class Calibration:
    """How close clips come to their nearest clip of a split, and the threshold that follows."""

    view: str  # `near` (spectral detail) or `embedding`
    set: Which  # the split
    real: NDArray[np.float64]  # standouts [n] of independent real clips, from the other split
    synthetic: NDArray[np.float64]  # standouts [Q] of the synthetic clips
    threshold: float  # standout above which a clip is flagged
    rank: int  # of the threshold among `real`, 1 for the largest

    @property
    def share(self) -> float:
        """Share of independent clips that are expected above the threshold, rank / (n + 1)."""
        return self.rank / (len(self.real) + 1)

    def p(self, flagged: int, clips: int) -> float:
        """Return P(X ≥ flagged) for X ~ BetaBinomial(clips, rank, n + 1 − rank).

        It allows for the threshold being an estimate: independent clips exceed it with a probability that is
        itself Beta(rank, n + 1 − rank).
        """
        from scipy.stats import betabinom  # a slow import

        return float(betabinom.sf(flagged - 1, clips, self.rank, len(self.real) + 1 - self.rank))

    def row(self) -> dict[str, Any]:
        """Return the calibration as a row of the table; `real` are the real clips."""
        median, high, top = np.quantile(self.real, (0.5, 0.9, 0.99))
        return {
            "view": self.view,
            "set": self.set,
            "real_clips": len(self.real),
            "real_median": float(median),
            "real_90": float(high),
            "real_99": float(top),
            "real_max": float(self.real.max()),
            "threshold": self.threshold,
            "synthetic_median": float(np.median(self.synthetic)),
            "synthetic_max": float(self.synthetic.max()),
            "above": int((self.synthetic > self.threshold).sum()),
        }


@dataclass(frozen=True)
class Tally:
    """How many clips of one relation are flagged."""

    sure: int  # by exact, waveform, parent, id or recording
    weak: int  # by near or embedding only
    clips: int  # that could be flagged: the synthetic clips, or the train clips that were compared
    chance: float | None = None  # weak flags expected of independent clips, at most
    p: float | None = None  # probability of so many; both None for the real splits, which are the calibration

    @property
    def holds(self) -> bool:
        """Whether clips are repeated beyond chance."""
        return self.sure > 0 or (self.p is not None and self.p < ALPHA)

    def sentence(self, which: str, other: str) -> str:
        """Return the verdict on the weak flags."""
        found = _share(self.weak, self.clips, which, "are close to", other)
        found += " by spectral detail or embedding only"
        if self.p is None:
            return f"{found} (the closest {SHARE:.0%} are always listed)"
        verdict = "more than chance explains" if self.p < ALPHA else "which chance may explain"
        return f"{found}, {verdict} (up to {self.chance:.1f} expected, p = {self.p:.2g})"


SINGULAR = {"repeat": "repeats", "resemble": "resembles", "are close to": "is close to"}


def _share(n: int, total: int, which: str, verb: str, other: str) -> str:
    """Return, for example, `1 of 24 synthetic clips repeats an eval clip`."""
    one = f"{SINGULAR[verb]} {'an' if other == 'eval' else 'a'} {other} clip"
    return f"{n} of {total} {which} clip{'s' * (total != 1)} {one if n == 1 else f'{verb} {other} clips'}"


@dataclass(frozen=True)
class Audit:
    """The result of an audit."""

    findings: list[Finding]  # leaks first, the surest first
    calibrations: list[Calibration]  # per split and view
    clips: Mapping[Which, int]  # usable clips per set
    skipped: list[SkippedClip]  # unusable clips
    guided: int  # synthetic clips whose guide is a train clip
    origins: Mapping[str, str]  # of each synthetic clip, its guide's recording; its own name without a guide

    def of(self, relation: str) -> list[Finding]:
        """Return the findings of one relation."""
        return [one for one in self.findings if one.relation == relation]

    def tally(self, relation: str) -> Tally:
        """Return how many clips of one relation are flagged.

        The test counts clips without a sure finding, because the calibration has none either. Clips made
        from one recording are not independent, so every recording counts once: by the share of its clips that
        are flagged, their sum rounded down. p is the lowest of all views times their number (Bonferroni).
        """
        found = self.of(relation)
        sure = {one.clip for one in found if not WEAK.issuperset(one.kinds)}
        weak = {one.clip for one in found} - sure
        views = [one for one in self.calibrations if one.set == SETS[relation][1]]
        if relation == "split":
            return Tally(len(sure), len(weak), min(COMPARED, self.clips["train"]))
        sizes = Counter(origin for clip, origin in self.origins.items() if clip not in sure)
        p = 1.0
        for view in views:
            flagged = {one.clip for one in found if view.view in one.kinds} - sure
            weight = sum(1 / sizes[self.origins[clip]] for clip in flagged)
            p = min(p, len(views) * view.p(int(weight + 1e-9), len(sizes)))
        clips = self.clips["synth"]
        chance = sum(view.share for view in views) * (clips - len(sure))
        return Tally(len(sure), len(weak), clips, chance, p)

    def sentences(self) -> list[str]:
        """Return the verdict: one sentence on leaks, then what else was found, without full stops."""
        counts = self.counts()
        leaks, memorised, split = (self.tally(relation) for relation in SETS)
        clips, by_kind = self.clips["synth"], counts["leaked_by_kind"]
        kinds = ", ".join(f"{kind} {number}" for kind, number in by_kind.items() if kind not in WEAK)
        lines = [_share(leaks.sure, clips, "synthetic", "repeat", "eval")]
        lines[0] += f" (by kind: {kinds})" if kinds else ""
        lines += [leaks.sentence("synthetic", "eval")] if leaks.weak else []
        alike, own = counts["like_a_train_clip"], counts["like_their_parent"]
        lines.append(
            _share(alike, clips, "synthetic", "resemble", "train")
            + (f" ({own} their own guide)" if alike else "")
            + f"; {self.guided} had a train clip as guide"
        )
        lines += [memorised.sentence("synthetic", "train")] if memorised.weak else []
        lines += [_share(split.sure, self.clips["train"], "train", "repeat", "eval")] if split.sure else []
        lines += [split.sentence("train", "eval")] if split.weak else []
        if pairs := self.of("split"):
            lines[-1] += f"; for example, {pairs[0].clip} and {pairs[0].match}"
            lines[-1] += ": the real splits themselves leak" if split.holds else ""
        return lines

    def counts(self) -> dict[str, Any]:
        """Return the number of clips per set and per finding."""
        leaks, memorised = self.of("leak"), self.of("memorised")
        tally = self.tally("leak")
        kinds = dict.fromkeys(kind for one in leaks for kind in one.kinds)
        usable: dict[str, Any] = {str(which): number for which, number in self.clips.items()}
        return usable | {
            "left_out": len(self.skipped),
            "leaked": len({one.clip for one in leaks}),
            "leaked_by_kind": {kind: len({one.clip for one in leaks if kind in one.kinds}) for kind in kinds},
            "leaked_surely": tally.sure,
            "near_alone": tally.weak,
            "near_by_chance": tally.chance,
            "near_alone_p": tally.p,
            "guided_by_train": self.guided,
            "like_a_train_clip": len({one.clip for one in memorised}),
            "like_their_parent": len({one.clip for one in memorised if one.own_parent}),
            "train_like_eval": len({one.clip for one in self.of("split")}),
        }


class Pairs:
    """Pairs of clips and their findings, gathered from all views.

    Names, recordings, guides and sample hashes are compared at once, everything else is added.

    Args:
        sets: the usable clips of all three sets.

    Attributes:
        origins: of each synthetic clip, its guide's recording, or its guide if that is unknown, or itself.
    """

    def __init__(self, sets: Mapping[Which, UsableClips]) -> None:
        self.names = {which: one.names for which, one in sets.items()}
        self.parents = [sets["synth"].clips.parents[n] for n in sets["synth"].numbers]
        self.pairs: dict[tuple[Which, int, Which, int], dict[str, Any]] = {}
        self.recordings = {which: _known_recordings(one) for which, one in sets.items()}
        self.hashes = {which: one.hashes for which, one in sets.items()}
        # An id of a store names a clip. Files of two folders may share numbers, or names to pair them.
        stores = {which for which, one in sets.items() if one.clips.is_store}
        for of, other in SETS.values():
            if {of, other} <= stores:
                self._add_equal(of, other, "id", self.names)
            self._add_equal(of, other, "recording", self.recordings)
            self._add_equal(of, other, "exact", self.hashes)
        names, held_out = (_first_rows(values["eval"]) for values in (self.names, self.recordings))
        # In folders, a name that both splits have does not tell which clip the guide is.
        ambiguous = set() if {"train", "eval"} <= stores else names.keys() & set(self.names["train"])
        recordings = self._recordings_of_guides()
        for row, (parent, recording) in enumerate(zip(self.parents, recordings, strict=True)):
            if parent in names and parent not in ambiguous:
                self.add("synth", row, "eval", names[parent], ("parent",))
            elif recording in held_out:
                self.add("synth", row, "eval", held_out[recording], ("parent",))
        self.origins = {
            clip: recording or parent or clip
            for clip, parent, recording in zip(self.names["synth"], self.parents, recordings, strict=True)
        }

    def add(
        self, of: Which, row: int, other: Which, match: int, kinds: Iterable[str], **values: float
    ) -> None:
        """Note the kinds and values of the pair of clip `row` of one set and clip `match` of another."""
        entry = self.pairs.setdefault((of, row, other, match), {"kinds": []})
        entry["kinds"] += [kind for kind in kinds if kind not in entry["kinds"]]
        entry |= values

    def independent(self, of: Which, other: Which) -> NDArray[np.bool_]:
        """Return which clips of a set have no sure copy, and no clip of their recording, in the other set."""
        free = np.ones(len(self.names[of]), bool)
        for values in (self.recordings, self.hashes):
            theirs = set(values[other]) - {None}
            free &= [value not in theirs for value in values[of]]
        for (a, row, b, match), entry in self.pairs.items():
            if {a, b} == {of, other} and not WEAK.issuperset(entry["kinds"]):
                free[row if a == of else match] = False
        return free

    def example(self, of: Which, other: Which) -> str:
        """Return `, such as NAME and NAME`: a clip of one set with a sure copy in the other; or nothing."""
        for (a, row, b, match), entry in self.pairs.items():
            if {a, b} == {of, other} and not WEAK.issuperset(entry["kinds"]):
                return f", such as {self.names[a][row]} and {self.names[b][match]}"
        return ""

    def listed(self) -> list[Finding]:
        """Return the findings: leaks first, the surest kinds first."""
        relations: dict[tuple[Which, Which], Any] = {sets: relation for relation, sets in SETS.items()}
        found = []
        for (of, row, other, match), entry in self.pairs.items():
            if entry["kinds"]:
                clip, name = self.names[of][row], self.names[other][match]
                own = of == "synth" and self.parents[row] == name
                kinds = tuple(sorted(entry["kinds"], key=KINDS.index))
                found.append(
                    Finding(relations[of, other], clip, name, **entry | {"kinds": kinds}, own_parent=own)
                )

        def rank(one: Finding) -> tuple[int, int, float]:
            return list(SETS).index(one.relation), KINDS.index(one.kinds[0]), -(one.standout or 0.0)

        return sorted(found, key=rank)

    def _recordings_of_guides(self) -> list[str | None]:
        """Return the recording of each synthetic clip's guide, if it is one of the real splits'."""
        names = self.names["train"] + self.names["eval"]
        recordings = self.recordings["train"] + self.recordings["eval"]
        known, every = dict(zip(names, recordings, strict=True)), set(recordings)
        # The guide may be another clip of a video, from a corpus that names its clips in its own way.
        videos = [f"youtube:{video_id(parent)}" if parent else None for parent in self.parents]
        return [
            (parent and known.get(parent)) or (video if video in every else None)
            for parent, video in zip(self.parents, videos, strict=True)
        ]

    def _add_equal(
        self, of: Which, other: Which, kind: str, values: Mapping[Which, Sequence[str | None]]
    ) -> None:
        places = _first_rows(values[other])
        for row, value in enumerate(values[of]):
            if value in places:
                self.add(of, row, other, places[value], (kind,))


def _known_recordings(clips: UsableClips) -> list[str | None]:
    every = clips.clips.recordings
    return [
        None if every[n] == name else every[n] for n, name in zip(clips.numbers, clips.names, strict=True)
    ]


def _first_rows(values: Sequence[str | None]) -> dict[str | None, int]:
    """Return the first row of each value that is known."""
    return {value: row for row, value in reversed([*enumerate(values)]) if value is not None}
