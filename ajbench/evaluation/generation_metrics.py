"""The metrics of `eval-gen`: what each needs, and its value, interval and definition for a pair of sets."""

import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from ajbench.core.console import counted
from ajbench.core.errors import UsageError
from ajbench.evaluation.set_pair import Floats, SetPair
from ajbench.features.class_mapping import class_logits, map_classes
from ajbench.metrics import bootstrap, kernel_distance, label_agreement, precision_recall, spectral_distance
from ajbench.metrics.distribution import frechet_distance, inception_score, inception_subsets, kl_of_pairs
from ajbench.metrics.intervals import Interval, none, numbered

SPLITS, SPLIT_SEED = 10, 2020
OF_SPLIT = 10  # clips, at least: of one clip, the inception score is 1
TOP = {"label_agreement": 1, "label_agreement5": 5}
MIN_HALF = 4  # real clips in half a class; a Gaussian fitted to fewer says nothing

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Score:
    """A value of one metric.

    Attributes:
        interval: the value over all clips and its bounds; `row_of` ends them at the metric's limits.
        n: number of generated clips (or pairs) used.
        m: number of real clips used.
        definition: what exactly the value is.
        of: the class that it is of; empty: all.
        each: if the value is a mean over clips, their positions among the usable generated ones, and theirs.
    """

    interval: Interval
    n: int
    m: int
    definition: str
    of: str = ""
    each: tuple[Rows, Floats] | None = None


@dataclass(frozen=True)
class Metric:
    """How a metric is computed.

    Attributes:
        compute: sets and name of the metric → its value, followed by those of single classes if there are
            any; raises UsageError if these clips do not allow it.
        needs: what must be known before clips are read: of the sets `pairs`, `requests`, `real labels`,
            `captions`, `guides` (of which one lacks a requested class); of the extractor `classes`,
            `vectors` (one per clip), `frames`, `text`.
        meaning: one line for people.
        better: `lower` or `higher`.
        usual: whether it is computed by default.
        limits: lowest and highest possible value; intervals end there.
    """

    compute: Callable[[SetPair, str], list[Score]]
    needs: tuple[str, ...]
    meaning: str
    better: str
    usual: bool = False
    limits: tuple[float, float] = (-inf, inf)


def _fd(m: SetPair, metric: str) -> list[Score]:
    """FD of one vector per clip, or of all frames of all clips."""
    d = m.ours.dimension
    what = f"{d}-d frames pooled over clips" if m.extractor.frames else f"{d}-d features, one vector per clip"
    definition = f"Gaussian FD of {what}, covariances over n-1; interval: spread at this n, jackknife"
    return [Score(m.jackknife(m.distance(), m.distances, m.groups, m.real_groups), m.n, m.m, definition)]


def _fd_inf(m: SetPair, metric: str) -> list[Score]:
    found = m.line
    sizes, draws = found.sizes, found.values.shape[1]
    definition = (
        f"intercept of least squares over 1/n of {'FAD' if m.extractor.frames else 'FD'} at {len(sizes)} "
        f"sizes from {sizes[0]} to {sizes[-1]}, {draws} subsets of each (1 of all {sizes[-1]}), all real "
        "clips; no interval"
    )
    return [Score(none(found.limit), m.n, m.m, definition)]


def _fd_class(m: SetPair, metric: str) -> list[Score]:
    assert m.requests
    vectors, classes = m.vectors, m.requests.classes
    place, labels = {name: c for c, name in enumerate(classes)}, m.ref.labels()  # once: millions of lists
    targets = np.zeros((len(m.theirs.numbers), len(classes)), bool)
    for row, number in enumerate(m.theirs.numbers):
        targets[row, [place[label] for label in labels[number] if label in place]] = True
    requested = m.requests.targets(m.names)
    pairs = []
    for c, (reference, rest) in class_halves(targets, m.real_groups).items():
        candidates = np.flatnonzero(requested[:, c])
        if len(candidates) >= len(rest):
            pairs.append((vectors[0][draw(candidates, len(rest), m.seed)], vectors[1][reference]))
    if not pairs:
        raise UsageError(f"each of the {len(classes)} classes has too few clips")
    if len(pairs) < len(classes):
        m.notes.append(f"fd_class over {len(pairs)} of {len(classes)} classes; the others have too few clips")
    return [class_distance(pairs, m)]


def class_halves(targets: NDArray[np.bool_], recordings: Sequence[Hashable]) -> dict[int, tuple[Rows, Rows]]:
    """Return two disjoint halves of equal size of each class's clips, for classes with enough of them.

    Clips of a recording are in one half: they are more alike than clips of two recordings, and would make
    the distance of the halves too small. Of the larger half the last clips are left out.

    Args:
        targets: classes of each clip, [n, C].
        recordings: the recording of each clip, [n].
    """
    member = numbered(recordings)
    halves = {}
    for c, of_class in enumerate(targets.T):
        mine = np.flatnonzero(of_class)
        second = _in_second_half(member[mine])
        size = min(int(second.sum()), len(mine) - int(second.sum()))
        if size >= MIN_HALF:
            halves[c] = mine[~second][:size], mine[second][:size]
    return halves


def _in_second_half(groups: Rows) -> NDArray[np.bool_]:
    """Return which clips are in the second half, [n]: groups go to the smaller one, large ones first."""
    _, first, group, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    half, filled = np.zeros(len(sizes), bool), [0, 0]
    for one in np.lexsort((first, -sizes)):
        half[one] = filled[1] < filled[0]
        filled[int(half[one])] += sizes[one]
    return half[group]


def class_distance(pairs: Sequence[tuple[Floats, Floats]], m: SetPair) -> Score:
    """Return the mean over classes of the FD of (generated, real) features, its interval over classes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # fewer clips than dimensions in every class
        each = np.array([frechet_distance(x, y) for x, y in pairs])
    definition = (
        f"mean over {len(each)} classes of the FD to half of the class's real clips, of as many generated "
        "ones; interval over classes"
    )
    n, real = (sum(len(pair[side]) for pair in pairs) for side in (0, 1))
    return Score(m.mean(each, range(len(each))), n, real, definition)


def draw(indices: Rows, n: int, seed: int) -> Rows:
    """Return up to n of the indices, drawn without replacement, in order."""
    return np.sort(np.random.default_rng(seed).permutation(indices)[:n])


def _kad(m: SetPair, metric: str) -> list[Score]:
    x, y = m.vectors
    sigma = kernel_distance.median_distance(y)
    value = kernel_distance.kernel_distance(x, y, sigma)
    draws = kernel_distance.kernel_draws(x, y, *m.drawn(metric), sigma) if m.resamples else np.zeros(0)
    definition = (
        f"100 · unbiased MMD², Gaussian kernel, bandwidth {sigma:.4g} (median distance of real clips)"
    )
    low, high = bootstrap.ends(value, draws)
    return [Score(Interval(value, low, high), m.n, m.m, definition + m.pooled)]


def _is(m: SetPair, metric: str) -> list[Score]:
    logits = m.ours.logits
    splits = min(SPLITS, len(logits) // OF_SPLIT)
    if not splits:
        raise UsageError(f"inception score of {counted(len(logits), 'clip')}: needs at least {OF_SPLIT}")
    if splits < SPLITS:
        clips = counted(len(logits), "clip")
        m.notes.append(f"inception score over {counted(splits, 'split')} instead of {SPLITS}: only {clips}")
    value = inception_score(logits, splits, SPLIT_SEED)[0]
    found = m.jackknife(value, lambda kept: inception_subsets(logits, kept, splits, SPLIT_SEED), m.groups)
    definition = f"exp of mean KL to the mean, softmax, mean of {splits} splits, seed {SPLIT_SEED}"
    return [Score(found, m.n, 0, definition)]


def _kl(m: SetPair, metric: str) -> list[Score]:
    link, direction = "sigmoid" if "sigmoid" in metric else "softmax", m.protocol.direction
    if metric.endswith("reverse"):
        direction = "gen||ref" if direction == "ref||gen" else "ref||gen"
    mine, other = m.both
    logits = m.ours.logits[mine], m.theirs.logits[other]
    each = kl_of_pairs(*logits, link, direction, m.protocol.eps)  # type: ignore[arg-type]
    definition = f"KL({direction.replace('||', '‖')}), {link}, eps {m.protocol.eps:.0e}".replace("e-0", "e-")
    return [_mean_of_pairs(m, each, definition.replace("0e+00", "0") + ", mean over pairs")]


def _lsd(m: SetPair, metric: str) -> list[Score]:
    rate = spectral_distance.RATE
    each = np.array([spectral_distance.distance_of_pieces(*waves) for waves in m.waves(rate)])
    definition = f"log10 of power ratio at {rate} Hz, as ssr_eval, peaks at 1; mean over pairs"
    return [_mean_of_pairs(m, each, definition)]


def _mean_of_pairs(m: SetPair, each: Floats, definition: str) -> Score:
    mine, other = m.both
    interval = m.mean(each, [m.real_groups[row] for row in other])
    return Score(interval, len(each), len(each), definition, each=(mine, each))


def _neighbours(m: SetPair, metric: str) -> list[Score]:
    each: Floats = getattr(m.neighbours, metric)
    places = (np.arange(m.n), each) if metric in ("precision", "density") else None
    definition = f"{NEIGHBOURS[metric]}, k = {precision_recall.K}" + m.pooled
    return [Score(none(float(each.mean())), m.n, m.m, definition, each=places)]


def _clap_score(m: SetPair, metric: str) -> list[Score]:
    each = m.caption_cosines()
    definition = f"mean cosine of audio and caption in {m.extractor.name}; of several captions their mean"
    return [Score(m.mean(each, m.groups), m.n, 0, definition, each=(np.arange(m.n), each))]


def _agreement(m: SetPair, metric: str) -> list[Score]:
    assert m.requests
    top, names = TOP[metric], m.requests.classes
    if len(names) <= top > 1:
        raise UsageError(f"with {len(names)} classes, all of them are among the first {top}")
    ranks, how = _ranks(m)
    place = "first" if top == 1 else f"among the first {top}"
    definition = f"share of clips in which a requested class is ranked {place} of the {len(names)} classes"
    definition += f" of the label set, {how}"
    scores = []
    for name, values in (("", np.nanmin(ranks, axis=1)), *zip(names, ranks.T, strict=True)):
        rows = np.flatnonzero(~np.isnan(values))
        if len(rows):
            found = m.share(values[rows] <= top, [m.groups[row] for row in rows])
            each = (rows, values[rows]) if not name else None
            scores.append(Score(found, len(rows), 0, definition, name, each))
    return scores


def _ranks(m: SetPair) -> tuple[Floats, str]:
    """Return the ranks of requested classes [n, C], and how the classes were found in the extractor's."""
    assert m.requests
    names = m.requests.classes
    found = map_classes(names, m.requests.mids, m.extractor.labels, m.extractor.mids)
    if found.unknown:
        raise UsageError(f"{m.extractor.name} does not know {found.lacking}")
    logits = class_logits(m.ours.logits, found.columns)
    return label_agreement.requested_ranks(logits, m.requests.targets(m.names)), f"found {found.how}"


def _agreement_by_guide(m: SetPair, metric: str) -> list[Score]:
    """The share over pairs of a clip and a requested class that its guide has, or lacks."""
    ranks, how = _ranks(m)
    has = m.guide_targets[m.ours.numbers]
    requested = has.any(axis=1, keepdims=True) & ~np.isnan(ranks)
    rows, columns = np.nonzero(requested & (has if metric == IN_GUIDE else ~has))
    if not len(rows):
        raise UsageError(f"no clip has a requested class that its guide {GUIDED[metric]}")
    definition = (
        f"share of pairs of a clip and a requested class that its guide {GUIDED[metric]}, in which the class "
        f"is ranked above all classes that were not requested; {how}"
    )
    found = m.share(ranks[rows, columns] == 1, [m.groups[row] for row in rows])
    return [Score(found, len(set(rows.tolist())), 0, definition)]


IN_GUIDE, NOT_IN_GUIDE = "agreement_in_guide", "agreement_not_in_guide"
GUIDED = {IN_GUIDE: "has", NOT_IN_GUIDE: "lacks"}
NEIGHBOURS = {
    "precision": "share of generated clips in a ball of a real one (Kynkäänniemi 2019)",
    "recall": "share of real clips in a ball of a generated one (Kynkäänniemi 2019)",
    "density": "mean number of balls of real clips around a generated one, over k (Naeem 2020)",
    "coverage": "share of real clips with a generated one in their ball (Naeem 2020)",
}
_SHARE, _POSITIVE = (0, 1), (0, inf)
_PAIRED, _REQUESTED = ("pairs", "classes"), ("classes", "requests")
_RANKED = "share of clips whose requested class is {}, and by class"
METRICS: dict[str, Metric] = {
    "fd": Metric(_fd, ("vectors",), "Fréchet distance of features to real clips", "lower", True, _POSITIVE),
    "fad": Metric(
        _fd, ("frames",), "Fréchet distance of frames, pooled over clips", "lower", True, _POSITIVE
    ),
    "is": Metric(_is, ("classes",), "inception score of logits, 10 splits", "higher", True, (1, inf)),
    "kl": Metric(
        _kl, _PAIRED, "KL of softmax, by pair, in the protocol's direction", "lower", True, _POSITIVE
    ),
    "kl_sigmoid": Metric(_kl, _PAIRED, "KL of sigmoid, by pair, summed over classes", "lower", True),
    "kl_reverse": Metric(_kl, _PAIRED, "kl in the other direction", "lower", limits=_POSITIVE),
    "kl_sigmoid_reverse": Metric(_kl, _PAIRED, "kl_sigmoid in the other direction", "lower"),
    "label_agreement": Metric(_agreement, _REQUESTED, _RANKED.format("ranked first"), "higher", True, _SHARE),
    "label_agreement5": Metric(
        _agreement, _REQUESTED, _RANKED.format("among the first five"), "higher", limits=_SHARE
    ),
    **{
        name: Metric(
            _agreement_by_guide,
            (*_REQUESTED, "guides"),
            f"share of requested classes that the guide {verb}, ranked first",
            "higher",
            True,
            _SHARE,
        )
        for name, verb in GUIDED.items()
    },
    "fd_class": Metric(
        _fd_class,
        ("requests", "real labels"),
        "mean over classes of the FD to that class's real clips",
        "lower",
        limits=_POSITIVE,
    ),
    "fd_inf": Metric(_fd_inf, (), "FD∞: FD at 1/n = 0, extrapolated from subsets", "lower"),
    "kad": Metric(_kad, (), "kernel audio distance: 100 · unbiased MMD², independent of n", "lower"),
    **{
        name: Metric(_neighbours, (), meaning, "higher", limits=_POSITIVE if name == "density" else _SHARE)
        for name, meaning in NEIGHBOURS.items()
    },
    "clap_score": Metric(
        _clap_score, ("captions", "text"), "mean cosine of audio and caption", "higher", True, limits=(-1, 1)
    ),
    "lsd": Metric(_lsd, ("pairs",), "log-spectral distance of pairs", "lower", limits=_POSITIVE),
}
PAIRED = tuple(name for name, metric in METRICS.items() if "pairs" in metric.needs)
