"""Generated and real clips through one extractor, and what metrics share: pairs, intervals, distances."""

import functools
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ajbench.core import console
from ajbench.core.device import readers
from ajbench.core.errors import MissingError
from ajbench.core.files import composed, seed_for
from ajbench.data.clip_set import Captions, ClipSet, Requests, ahead
from ajbench.evaluation.feature_cache import AHEAD, Embeddings, embed
from ajbench.evaluation.long_clips import Pieces, is_long
from ajbench.evaluation.protocols import Protocol, Wave
from ajbench.features.extractor import LazyExtractor
from ajbench.metrics import bootstrap, fd_infinity, intervals, pairwise, precision_recall
from ajbench.metrics.distribution import frechet_distance, frechet_draws
from ajbench.metrics.frame_distance import pooled_distance, pooled_draws
from ajbench.metrics.intervals import Interval

RESAMPLES = 5000  # of KAD: 125 of them lie in each tail of 2.5 %
MOST_GROUPS = 1000  # that are resampled; of more, random blocks of them

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]
Pairs = Mapping[str, str]  # name of a generated clip → name of its real clip
Which = Literal["gen", "ref", "synth", "train", "eval"]


@dataclass(frozen=True)
class SkippedClip:
    """A clip that cannot be evaluated or has no counterpart: its set, its name, and the reason."""

    set: Which
    clip: str
    reason: str


@dataclass
class SetPair:
    """Everything that a metric may use.

    Attributes:
        gen: the generated clips.
        ref: the real clips.
        extractor: the extractor.
        protocol: the preprocessing of files, and the convention of KL.
        cache: folder of cached features.
        pairs: the real clip of each generated clip; None: by parent, else by equal name; empty: unpaired.
        requests: the classes that were requested of generated clips; None: the labels of a store.
        captions: the captions of generated clips; None: those of a store.
        recordings: name of a real clip → its recording, for parents that are not in `ref`; None: unknown.
        resamples: bootstrap resamples for KAD's interval; 0: no intervals at all.
        seed: of resamples and subsets.
        task: label of the progress bar; empty: no bar.
        notes: what a metric has to say about its value.
        by_chance: whether the pairs are of equal names, which fewer than half of the generated clips have.
    """

    gen: ClipSet
    ref: ClipSet
    extractor: LazyExtractor
    protocol: Protocol
    cache: Path
    pairs: Pairs | None = None
    requests: Requests | None = None
    captions: Captions | None = None
    recordings: Mapping[str, str] | None = None
    resamples: int = RESAMPLES
    seed: int = 0
    task: str = "eval-gen"
    notes: list[str] = field(default_factory=list)
    by_chance: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        texts = self.gen.captions()
        if self.pairs is None:
            self.pairs = pairs_of(self.gen, self.ref)
            self.by_chance = not any(self.gen.parents) and 0 < 2 * len(self.pairs) < len(self.gen)
        if self.requests is None:
            self.requests = self.gen.requests()
        if self.captions is None and all(texts):
            self.captions = {name: [text] for name, text in zip(self.gen.names, texts, strict=True) if text}

    @functools.cached_property
    def embeddings(self) -> tuple[Embeddings, Embeddings]:
        """Features and logits of both sets."""
        sets, how = (self.gen, self.ref), (self.extractor, self.protocol, self.cache)
        if not self.task:
            return embed(self.gen, *how), embed(self.ref, *how)
        with console.progress(sum(map(len, sets)), f"{self.task} {self.extractor.name}") as advance:
            return embed(self.gen, *how, advance), embed(self.ref, *how, advance)

    @property
    def ours(self) -> Embeddings:
        """Features and logits of the generated clips."""
        return self.embeddings[0]

    @property
    def theirs(self) -> Embeddings:
        """Features and logits of the real clips."""
        return self.embeddings[1]

    @property
    def n(self) -> int:
        """Number of usable generated clips."""
        return len(self.ours.numbers)

    @property
    def m(self) -> int:
        """Number of usable real clips."""
        return len(self.theirs.numbers)

    @property
    def pooled(self) -> str:
        """Addition to a definition where frames are averaged."""
        return "; a clip is the mean of its frames" if self.extractor.frames else ""

    def skipped(self, paired: bool = True) -> list[SkippedClip]:
        """Return the unusable clips and, if the sets are `paired` at all, those without a counterpart."""
        assert self.pairs is not None
        sets: tuple[tuple[Which, ClipSet], ...] = (("gen", self.gen), ("ref", self.ref))
        found = [
            SkippedClip(which, clips.names[one.number], one.reason)
            for (which, clips), embedded in zip(sets, self.embeddings, strict=True)
            for one in embedded.left_out
        ]
        if self.pairs and paired:
            answered = set(self.pairs.values())
            names = [name for name in self.gen.names if name not in self.pairs]
            found += [SkippedClip("gen", name, "extra (no real clip of its name)") for name in names]
            if not any(self.gen.parents):  # not every real clip is a parent
                names = [name for name in self.ref.names if name not in answered]
                found += [SkippedClip("ref", name, "missing (no generated clip)") for name in names]
        return found

    @functools.cached_property
    def names(self) -> list[str]:
        """Names of the usable generated clips."""
        return [self.gen.names[number] for number in self.ours.numbers]

    @functools.cached_property
    def groups(self) -> list[str]:
        """The recording of each usable generated clip's parent, or its own without a parent."""
        known = dict(zip(self.ref.names, self.ref.recordings, strict=True)) | dict(self.recordings or {})
        both = [(self.gen.parents[n], self.gen.recordings[n]) for n in self.ours.numbers]
        return [own if parent is None else known.get(parent, parent) for parent, own in both]

    @functools.cached_property
    def real_groups(self) -> list[str]:
        """The recording of each usable real clip."""
        return [self.ref.recordings[n] for n in self.theirs.numbers]

    @functools.cached_property
    def vectors(self) -> tuple[Floats, Floats]:
        """One vector per clip of both sets: the mean over frames where there are several."""
        return self.ours.vectors(), self.theirs.vectors()

    @functools.cached_property
    def both(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions of the pairs among the usable generated and the usable real clips.

        Raises:
            MissingError: there is no pair.
        """
        assert self.pairs is not None
        place = {self.ref.names[number]: row for row, number in enumerate(self.theirs.numbers)}
        real = [place.get(self.pairs.get(name, ""), -1) for name in self.names]
        mine = np.array([row for row, other in enumerate(real) if other >= 0], np.int64)
        if not len(mine):
            raise MissingError("no pair of usable clips is left")
        return mine, np.array(real)[mine]

    @functools.cached_property
    def neighbours(self) -> precision_recall.Neighbours:
        """Precision, recall, density and coverage of each clip."""
        return precision_recall.neighbours(*self.vectors)

    @functools.cached_property
    def nearest(self) -> tuple[NDArray[np.int64], Floats]:
        """The real clip nearest to each generated one, and its distance."""
        return pairwise.nearest(*self.vectors)

    def rng(self, *purpose: str) -> np.random.Generator:
        """Return a generator for this purpose, independent of what else is computed."""
        return np.random.default_rng(seed_for(self.seed, *purpose))

    def drawn(self, purpose: str) -> tuple[Counts, Counts, Counts, Counts]:
        """Return resamples of groups.

        Returns:
            The group of each generated [n] and real clip [m], and how often each group of generated [R, G]
            and of real clips [R, H] is drawn. More than 1,000 groups are drawn in random blocks of them.
        """
        rng = self.rng(purpose)
        members = [intervals.numbered(groups) for groups in (self.groups, self.real_groups)]
        for side, member in enumerate(members):
            if (count := int(member.max()) + 1) > MOST_GROUPS:
                members[side] = (rng.permutation(count) % MOST_GROUPS)[member]
        ours, theirs = (
            bootstrap.group_counts(int(member.max()) + 1, self.resamples, rng) for member in members
        )
        return members[0], members[1], ours, theirs

    def jackknife(
        self, value: float, statistic: Callable[..., Floats], *samples: Sequence[Hashable]
    ) -> Interval:
        """Return the interval of a value by `intervals.jackknife`."""
        return intervals.jackknife(value, statistic, samples) if self.resamples else intervals.none(value)

    def mean(self, values: Floats, groups: Sequence[Hashable]) -> Interval:
        """Return the mean of values of clips in these groups, and its interval."""
        found = intervals.mean_interval(values, groups)
        return found if self.resamples else intervals.none(found.value)

    def share(self, hits: NDArray[np.bool_], groups: Sequence[Hashable]) -> Interval:
        """Return the share of hits among clips in these groups, and Wilson's interval."""
        found = intervals.wilson(hits, groups)
        return found if self.resamples else intervals.none(found.value)

    @functools.cached_property
    def guide_targets(self) -> NDArray[np.bool_]:
        """Which of the classes each generated clip's guide has, usable or not, bool [N, C].

        None where the clip has no guide, or the guide is not among the real clips or has no such label.
        """
        assert self.requests
        labels = dict(zip(self.ref.names, self.ref.labels(), strict=True))
        of_guides = {
            name: [label for label in labels.get(guide or "", ()) if label in self.requests.classes]
            for name, guide in zip(self.gen.names, self.gen.guides(), strict=True)
        }
        return replace(self.requests, labels=of_guides).targets(self.gen.names)

    @property
    def lacking_guides(self) -> bool:
        """Whether some guide lacks a class that was requested of its clip."""
        if self.requests is None or not any(self.gen.guides()):
            return False
        has = self.guide_targets
        requested = self.requests.targets(self.gen.names)
        return bool((has.any(axis=1, keepdims=True) & requested & ~has).any())

    def distance(self) -> float:
        """Return the FD of the features of both sets."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # few clips are noted once, with the rows
            if self.extractor.frames:
                return pooled_distance(self.ours.rows, self.theirs.rows)
            return frechet_distance(*self.vectors)

    def distances(self, ours: Counts, theirs: Counts | None = None) -> Floats:
        """Return the FD of resamples [R, n] and [R, m] of clips with all their rows; None: all real clips."""
        theirs = np.ones((len(ours), self.m), np.int64) if theirs is None else theirs
        if self.extractor.frames:
            return pooled_draws(self.ours.rows, self.theirs.rows, ours, theirs)
        return frechet_draws(*self.vectors, ours, theirs)

    @functools.cached_property
    def line(self) -> fd_infinity.Line:
        """FD of several numbers of generated clips, and its limit."""
        return fd_infinity.line(self.distances, self.n, seed=self.seed)

    def curve(self, sizes: Sequence[int], draws: int) -> fd_infinity.Line:
        """Return the FD of subsets of these sizes."""
        return fd_infinity.line(self.distances, self.n, sizes, draws, self.seed)

    def waves(self, rate: int) -> Iterator[tuple[Iterable[Wave], Iterable[Wave]]]:
        """Yield the preprocessed waves of each pair, generated and real, at a rate in Hz.

        A clip is one wave, or the pieces of a long one.
        """
        mine, other = self.both
        numbers = zip(self.ours.numbers[mine].tolist(), self.theirs.numbers[other].tolist(), strict=True)

        def sound(clips: ClipSet, number: int) -> Iterable[Wave]:
            if is_long(clips, number):
                return Pieces(clips, number, self.protocol, rate)
            return [self.protocol.wave(*clips.samples(number), rate)]

        def read(pair: tuple[int, int]) -> tuple[Iterable[Wave], Iterable[Wave]]:
            return sound(self.gen, pair[0]), sound(self.ref, pair[1])

        threads = readers()
        with ThreadPoolExecutor(threads) as pool:
            yield from ahead(pool, read, numbers, AHEAD * threads)

    def caption_cosines(self) -> Floats:
        """Return the mean cosine similarity of each usable generated clip to its captions, [n]."""
        assert self.captions
        texts = [self.captions[name] for name in self.names]
        embedded = _unit(self.extractor.text([text for own in texts for text in own]))
        clips = np.repeat(np.arange(self.n), [len(own) for own in texts])
        cosines = np.einsum("td,td->t", embedded, _unit(self.vectors[0])[clips])
        return np.bincount(clips, cosines) / np.bincount(clips)


def pairs_of(gen: ClipSet, ref: ClipSet) -> Pairs:
    """Return the real clip of each generated one: by parent where these are in `ref`, else by equal name."""
    known = {composed(name): name for name in ref.names}
    both = zip(gen.names, gen.parents, strict=True)
    parents = {
        name: known[parent] for name, one in both if one is not None and (parent := composed(one)) in known
    }
    return parents or {name: known[own] for name in gen.names if (own := composed(name)) in known}


def _unit(rows: NDArray[np.floating]) -> Floats:
    wide = rows.astype(np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True).clip(1e-12))
