"""What the leak audit finds: pairs of clips, and the yardsticks that make them findings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ajbench.evaluation.audit_similarity import Heard
from ajbench.evaluation.compare import Trouble, Which

# From the surest to the weakest.
KINDS = ("exact", "waveform", "parent", "id", "near", "embedding")
WEAK = frozenset(("near", "embedding"))  # which chance brings, too
SHARE = 0.01  # of honest clips that may be flagged by these, over all views
LIKELY = 0.05  # chance that brings so many weak flags counts as their explanation


@dataclass(frozen=True)
class Finding:
    """A pair of clips that are more alike than chance makes them.

    Attributes:
        relation: `leak`: synthetic and eval; `memorised`: synthetic and train; `split`: train and eval.
        kinds: of id, parent, exact, waveform, near, embedding.
        standout: how far the sounds' prominence stands out, and `threshold` of that; None where it was not
            among the clip's best matches.
    """

    relation: Literal["leak", "memorised", "split"]
    clip: str
    match: str
    kinds: tuple[str, ...]
    own_parent: bool
    standout: float | None = None
    threshold: float | None = None
    likeness: float | None = None
    waveform: float | None = None
    residual_db: float | None = None
    embedding: float | None = None
    embedding_threshold: float | None = None

    def row(self) -> dict[str, Any]:
        """Return a line of the table."""
        sets = {"leak": ("synth", "eval"), "memorised": ("synth", "train"), "split": ("train", "eval")}
        of, other = sets[self.relation]
        values = {name: value for name, value in vars(self).items() if name not in ("clip", "match")}
        about = {"relation": self.relation, "set": of, "clip": self.clip, "match_set": other}
        about |= {"match": self.match}
        return about | values | {"kinds": "+".join(self.kinds)}


@dataclass(frozen=True)
class Yardstick:
    """How near honest clips come to those of a set, and synthetic ones.

    Attributes:
        view: `near` (log-mel detail) or `embedding`. set: whose clips are come near to.
        honest: standouts of the nearest [n]. synthetic: likewise [Q]. threshold: of a finding.
    """

    view: str
    set: Which
    honest: NDArray[np.float64]
    synthetic: NDArray[np.float64]
    threshold: float

    def row(self) -> dict[str, Any]:
        """Return a line of the table."""
        low, high, top = np.quantile(self.honest, (0.5, 0.9, 0.99))
        return {
            "view": self.view,
            "set": self.set,
            "honest_clips": len(self.honest),
            "honest_median": float(low),
            "honest_90": float(high),
            "honest_99": float(top),
            "honest_max": float(self.honest.max()),
            "threshold": self.threshold,
            "synthetic_median": float(np.median(self.synthetic)),
            "synthetic_max": float(self.synthetic.max()),
            "above": int((self.synthetic > self.threshold).sum()),
        }


@dataclass(frozen=True)
class Tally:
    """How many clips of one relation were flagged.

    Attributes:
        sure: by exact, waveform, parent or id. weak: by near or embedding alone.
        clips: that could be weak: all synthetic ones, or the yardstick's train clips.
    """

    sure: int
    weak: int
    clips: int

    @property
    def chance(self) -> float:
        """Weak flags that honest clips would have, at most."""
        return SHARE * self.clips

    @property
    def p(self) -> float:
        """Probability of as many weak flags, or more, among as many honest clips drawn independently."""
        return float(stats.binom.sf(self.weak - 1, self.clips, SHARE))

    @property
    def holds(self) -> bool:
        """Whether clips are repeated beyond what chance explains."""
        return self.sure > 0 or self.p < LIKELY

    def told(self, which: str, other: str) -> str:
        """Return the sentence on clips of one set that are near to those of another."""
        beyond = f"more than that explains (p = {self.p:.1g})"
        verdict = beyond if self.p < LIKELY else "which may explain them"
        return (
            f"{self.weak} of {self.clips} {which} clips are near {other} clips by detail or embedding alone; "
            f"chance brings up to {self.chance:.1f}, {verdict}"
        )


@dataclass(frozen=True)
class Audit:
    """What was found, worst first; which clips were heard, and which could not be."""

    findings: list[Finding]
    yardsticks: list[Yardstick]
    clips: Mapping[Which, int]
    troubles: list[Trouble]
    guided: int  # synthetic clips whose parent is a train clip

    def of(self, relation: str) -> list[Finding]:
        """Return the findings of one relation."""
        return [one for one in self.findings if one.relation == relation]

    def tally(self, relation: str) -> Tally:
        """Return how many clips have which findings of one relation."""
        found = self.of(relation)
        sure = {one.clip for one in found if not WEAK.issuperset(one.kinds)}
        compared = len(self.yardsticks[0].honest) if relation == "split" else self.clips["synth"]
        return Tally(len(sure), len({one.clip for one in found} - sure), compared)

    def told(self) -> list[str]:
        """Return what was found, in sentences."""
        counts = self.counts()
        leaks, memorised, split = (self.tally(relation) for relation in ("leak", "memorised", "split"))
        kinds = ", ".join(
            f"{number} {kind}" for kind, number in counts["leaked_by_kind"].items() if kind not in WEAK
        )
        lines = [
            f"{leaks.sure} of {leaks.clips} synthetic clips repeat eval clips"
            + (f" ({kinds})" if kinds else "")
        ]
        lines += [leaks.told("synthetic", "eval")] if leaks.weak else []
        lines.append(
            f"{counts['like_a_train_clip']} are like train clips, {counts['like_their_parent']} of them like "
            f"their own parent; {counts['guided_by_train']} were guided by one"
        )
        lines += [memorised.told("synthetic", "train")] if memorised.weak else []
        train = self.clips["train"]
        lines += [f"{split.sure} of {train} train clips repeat eval clips"] if split.sure else []
        lines += [split.told("train", "eval")] if split.weak else []
        if pairs := self.of("split"):
            lines[-1] += f", such as {pairs[0].clip} of {pairs[0].match}"
            lines[-1] += "; the split itself leaks" if split.holds else ""
        return lines

    def counts(self) -> dict[str, Any]:
        """Return numbers of clips: heard, leaked (by kind), like train clips (their own parent), doubled."""
        leaks, memorised = self.of("leak"), self.of("memorised")
        tally = self.tally("leak")
        kinds = dict.fromkeys(kind for one in leaks for kind in one.kinds)
        heard: dict[str, Any] = {str(which): number for which, number in self.clips.items()}
        return heard | {
            "left_out": len(self.troubles),
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
    """Pairs and what is said of them, gathered from several views."""

    def __init__(self, heard: Mapping[Which, Heard]) -> None:
        self.heard = heard
        self.names = {which: one.names for which, one in heard.items()}
        self.parents = [heard["synth"].clips.parents[n] for n in heard["synth"].numbers]
        self.pairs: dict[tuple[Which, int, Which, int], dict[str, Any]] = {}
        self.unclear: set[str] = set()
        # Files of two folders may be numbered alike, or named to be paired; ids of stores name a recording.
        stores = {which for which, one in heard.items() if one.clips.label_set() is not None}
        pairs: tuple[tuple[Which, Which], ...] = (("synth", "eval"), ("synth", "train"), ("train", "eval"))
        for of, other in pairs:
            if {of, other} <= stores:
                self._same(of, other, "id", self.names)
            self._same(of, other, "exact", {which: one.hashes for which, one in heard.items()})
        place = {name: row for row, name in enumerate(self.names["eval"])}
        if not {"train", "eval"} <= stores:  # whose name both have may be the parent in either
            self.unclear = place.keys() & set(self.names["train"])
        for row, parent in enumerate(self.parents):
            if parent in place and parent not in self.unclear:
                self.add("synth", row, "eval", place[parent], "parent")

    def add(self, of: Which, row: int, other: Which, match: int, kind: str | None, **about: float) -> None:
        """Note a kind (None: only numbers) of the pair of clip `row` of one set and `match` of another."""
        entry = self.pairs.setdefault((of, row, other, match), {"kinds": []})
        entry["kinds"] += [kind] if kind and kind not in entry["kinds"] else []
        entry |= about

    def honest(self, of: Which, other: Which) -> NDArray[np.bool_]:
        """Say which clips of a set are no known copies of another's."""
        known = np.ones(len(self.names[of]), bool)
        for a, row, b, match in self.pairs:
            if {a, b} == {of, other}:
                known[row if a == of else match] = False
        return known

    def listed(self) -> list[Finding]:
        """Return what is a finding: leaks first, the surest kinds first."""
        relations: dict[tuple[str, str], Any] = {
            ("synth", "eval"): "leak",
            ("synth", "train"): "memorised",
            ("train", "eval"): "split",
        }
        found = []
        for (of, row, other, match), about in self.pairs.items():
            if not about["kinds"]:
                continue
            name = self.names[other][match]
            mine = of == "synth" and self.parents[row] == name
            values = {key: value for key, value in about.items() if key != "kinds"}
            kinds = tuple(sorted(about["kinds"], key=KINDS.index))
            found.append(Finding(relations[of, other], self.names[of][row], name, kinds, mine, **values))
        order = list(relations.values())
        return sorted(
            found,
            key=lambda one: (order.index(one.relation), KINDS.index(one.kinds[0]), -(one.standout or 0.0)),
        )

    def _same(self, of: Which, other: Which, kind: str, values: Mapping[Which, Sequence[str]]) -> None:
        places: dict[str, int] = {}
        for row, value in enumerate(values[other]):
            places.setdefault(value, row)
        for row, value in enumerate(values[of]):
            if value in places:
                self.add(of, row, other, places[value], kind)
