"""Two sets of clips as a network hears them, and what metrics share: pairs, groups, distances."""

import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ajbench.core.errors import MissingError
from ajbench.core.files import seed_for
from ajbench.data.annotations import Asked, Captions
from ajbench.data.clip_reader import ahead
from ajbench.data.clip_set import ClipSet
from ajbench.evaluation.feature_cache import AHEAD, READERS, Embeddings
from ajbench.evaluation.protocols import Protocol, Wave
from ajbench.features.extractor import LazyExtractor
from ajbench.metrics import bootstrap, fd_infinity, pairwise, precision_recall
from ajbench.metrics.distribution import frechet_distance, frechet_draws, pooled_draws

HELD = 8_000_000  # counts of rows in resamples at once: 64 MB

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass
class Material:
    """All that a metric may ask of two sets.

    Attributes:
        gen: the generated clips.
        ref: the real clips.
        ours: the generated clips as the network hears them.
        theirs: the real clips, likewise.
        extractor: the network.
        protocol: how files were heard.
        pairs: name of a generated clip → of the real one that it answers to.
        asked: labels that generated clips were asked to have.
        captions: texts that they were made of.
        resamples: for intervals.
        seed: of them and of subsets.
        notes: what a metric wants to be read beside it.
    """

    gen: ClipSet
    ref: ClipSet
    ours: Embeddings
    theirs: Embeddings
    extractor: LazyExtractor
    protocol: Protocol
    pairs: Mapping[str, str]
    asked: Asked | None = None
    captions: Captions | None = None
    resamples: int = 200
    seed: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def n(self) -> int:
        """Generated clips that are heard."""
        return len(self.ours.numbers)

    @property
    def m(self) -> int:
        """Real clips that are heard."""
        return len(self.theirs.numbers)

    @property
    def frames(self) -> bool:
        """Whether the network gives several vectors a clip."""
        return self.extractor.frames

    @property
    def classes(self) -> bool:
        """Whether the network knows classes."""
        return self.ours.logits.shape[1] > 0

    @property
    def pooled(self) -> str:
        """What a definition says where frames were averaged."""
        return "; a clip is the mean of its frames" if self.frames else ""

    @functools.cached_property
    def names(self) -> list[str]:
        """Names of the generated clips that are heard."""
        return [self.gen.names[number] for number in self.ours.numbers]

    @functools.cached_property
    def keys(self) -> list[str]:
        """What generated clips are resampled by: their parent, or they themselves."""
        return [self.gen.parents[n] or self.gen.names[n] for n in self.ours.numbers]

    @functools.cached_property
    def vectors(self) -> tuple[Floats, Floats]:
        """One vector a clip of both sets, the mean over frames where there are several."""
        return self.ours.vectors(), self.theirs.vectors()

    @functools.cached_property
    def both(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places of the pairs among the generated and the real clips that are heard.

        Raises:
            MissingError: there is none.
        """
        place = {self.ref.names[number]: row for row, number in enumerate(self.theirs.numbers)}
        found = [
            (row, place[self.pairs[name]])
            for row, name in enumerate(self.names)
            if self.pairs.get(name) in place
        ]
        if not found:
            raise MissingError("no pair of clips is left that can be measured")
        mine, other = np.array(found).T
        return mine, other

    @functools.cached_property
    def pair_groups(self) -> list[NDArray[np.int64]]:
        """Pairs that share a real clip, together."""
        return bootstrap.groups_of(self.both[1].tolist())

    @functools.cached_property
    def neighbours(self) -> precision_recall.Neighbours:
        """How the clips of both sets lie to each other."""
        return precision_recall.neighbours(*self.vectors)

    @functools.cached_property
    def nearest(self) -> tuple[NDArray[np.int64], Floats]:
        """The nearest real clip of each generated one, and how far it is."""
        return pairwise.nearest(*self.vectors)

    def rng(self, *purpose: str) -> np.random.Generator:
        """Return the generator of a purpose, whatever else is measured."""
        return np.random.default_rng(seed_for(self.seed, *purpose))

    def counts(self, purpose: str) -> tuple[Counts, Counts]:
        """Return how often generated [R, n] and real [R, m] clips are drawn in each resample."""
        rng = self.rng(purpose)
        groups = bootstrap.groups_of(self.keys)
        alone = [np.array([place]) for place in range(self.m)]
        return bootstrap.counts(groups, self.resamples, rng), bootstrap.counts(alone, self.resamples, rng)

    def distance(self) -> float:
        """Return FD of the rows of both sets."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # noted once, beside the rows
            return frechet_distance(self.ours.features, self.theirs.features)

    def distances(self, ours: Counts, theirs: Counts | None = None) -> Floats:
        """Return FD of resamples of clips [R, n] and [R, m] with all their rows; None is all real clips."""
        theirs = np.ones((len(ours), self.m), np.int64) if theirs is None else theirs
        mine, other = self.ours, self.theirs
        if self.frames:
            return pooled_draws(mine.features, mine.clips, other.features, other.clips, ours, theirs)
        return frechet_draws(mine.features, other.features, ours, theirs)

    @functools.cached_property
    def line(self) -> fd_infinity.Line:
        """FD at several numbers of generated clips, and where it tends."""
        return fd_infinity.line(self.distances, self.n, seed=self.seed)

    def curve(self, sizes: Sequence[int], draws: int) -> fd_infinity.Line:
        """Return FD of subsets of these sizes."""
        return fd_infinity.line(self.distances, self.n, sizes, draws, self.seed)

    def waves(self, rate: int) -> Iterator[tuple[Wave, Wave]]:
        """Yield generated and real wave of each pair at a rate in Hz, as the protocol hears them."""
        mine, other = self.both
        numbers = zip(self.ours.numbers[mine].tolist(), self.theirs.numbers[other].tolist(), strict=True)

        def hear(pair: tuple[int, int]) -> tuple[Wave, Wave]:
            sounds = (self.gen.samples(pair[0]), self.ref.samples(pair[1]))
            first, second = (self.protocol.wave(*sound, rate) for sound in sounds)
            return first, second

        with ThreadPoolExecutor(READERS) as pool:
            yield from ahead(pool, hear, numbers, AHEAD)

    def caption_cosines(self) -> Floats:
        """Return the mean cosine of each clip to its captions, [n]."""
        assert self.captions
        texts = [self.captions[name] for name in self.names]
        flat = [text for own in texts for text in own]
        spoken = _unit(self.extractor.text(flat))
        clips = np.repeat(np.arange(self.n), [len(own) for own in texts])
        cosines = np.einsum("td,td->t", spoken, _unit(self.vectors[0])[clips])
        return np.bincount(clips, cosines) / np.bincount(clips)


def _unit(rows: NDArray[np.floating]) -> Floats:
    wide = rows.astype(np.float64)
    return np.asarray(wide / np.linalg.norm(wide, axis=1, keepdims=True).clip(1e-12))
