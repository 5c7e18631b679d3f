"""The metrics of `eval-gen`: what each one needs, and its value, resamples and definition on two sets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from ajbench.core.errors import UsageError
from ajbench.core.registry import suggest
from ajbench.data.annotations import Asked
from ajbench.evaluation.set_pair import Material
from ajbench.features.class_mapping import class_logits, namesakes_of
from ajbench.metrics import (
    bootstrap,
    fd_infinity,
    kernel_distance,
    label_agreement,
    precision_recall,
    spectral_distance,
)
from ajbench.metrics.distribution import inception_draws, inception_score, kl_of_pairs

ALL = "all"
SPLITS, SPLIT_SEED = 10, 2020
TOP = {"agreement": 1, "agreement5": 5}
NOTED = ("pairs", "labels")  # told even where nothing was asked for

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Score:
    """A value of one metric.

    Attributes:
        value: of all clips.
        draws: of resamples, float64 [R].
        n: generated clips (or pairs) it is of.
        m: real ones; 0 where they take no part.
        definition: what exactly it is.
        of: the class that it is of; empty is all.
        each: places of generated clips among those heard, and the value of each, where it is a mean of them.
    """

    value: float
    draws: Floats
    n: int
    m: int
    definition: str
    of: str = ""
    each: tuple[Places, Floats] | None = None


@dataclass(frozen=True)
class Metric:
    """How a metric is taken.

    Attributes:
        take: material and the metric's name → a value, or one and those by class.
        needs: what it cannot be taken without: `pairs`, `asked` (labels), `captions` of the sets; `classes`,
            `vectors` (one a clip), `frames`, `text` and `labels` (those asked for) of the network; clips
            enough for `subsets` or `neighbours`; `six labels`.
        meaning: what it is, for people.
        better: `lower` or `higher`.
        usual: whether it is taken where nothing is asked.
        limits: what its value can be; intervals end there.
    """

    take: Callable[[Material, str], list[Score]]
    needs: tuple[str, ...]
    meaning: str
    better: str
    usual: bool = False
    limits: tuple[float, float] = (-inf, inf)


def check(metrics: Sequence[str]) -> None:
    """Refuse names that are no metric's.

    Raises:
        UsageError: there is such a one; the message lists the allowed.
    """
    for name in metrics:
        if name not in METRICS and name != ALL:
            raise UsageError(
                f"--metrics {name}: unknown{suggest(name, METRICS)}; allowed: {', '.join(METRICS)}, {ALL}"
            )


def choose(
    metrics: Sequence[str] | None, lacking: Mapping[str, str], among: Sequence[str] | None = None
) -> tuple[list[str], list[str]]:
    """Return the metrics to take, and notes on those that cannot be.

    Args:
        metrics: as asked for; None is the usual ones, `all` every one that can be taken.
        lacking: need → why it is not met.
        among: what is left of an earlier choice.

    Raises:
        UsageError: a metric that was asked for by its name cannot be taken.
    """
    every, usual = metrics is not None and ALL in metrics, metrics is None
    if among is None:
        named = [name for name, metric in METRICS.items() if every or metric.usual]
        among = named if every or metrics is None else list(dict.fromkeys(metrics))
    taken, without = [], dict[str, list[str]]()
    for name in among:
        missing = next((need for need in METRICS[name].needs if need in lacking), None)
        if missing is None:
            taken.append(name)
        elif metrics is not None and name in metrics:
            raise UsageError(f"--metrics {name}: {lacking[missing]}")
        elif every or (usual and missing in NOTED):
            without.setdefault(lacking[missing], []).append(name)
    return taken, [f"no {', '.join(names)}: {reason}" for reason, names in without.items()]


def _fd(m: Material, metric: str) -> list[Score]:
    """FD of one vector a clip, or of all frames of all clips."""
    d = m.ours.features.shape[1]
    what = f"{d}-d frames pooled over clips" if m.frames else f"{d}-d features, one vector a clip"
    ours, theirs = m.counts(metric)
    definition = f"Gaussian FD of {what}, covariances over n-1"
    return [Score(m.distance(), m.distances(ours, theirs), m.n, m.m, definition)]


def _fd_inf(m: Material, metric: str) -> list[Score]:
    found = m.line
    sizes, draws = found.sizes, found.values.shape[1]
    definition = (
        f"intercept of least squares over 1/n of {'FAD' if m.frames else 'FD'} at {len(sizes)} sizes from "
        f"{sizes[0]} to {sizes[-1]}, {draws} subsets of each (one of all {sizes[-1]}), all real clips; "
        "interval over subsets alone"
    )
    return [Score(found.limit, found.limits(m.resamples, m.rng(metric)), m.n, m.m, definition)]


def _kad(m: Material, metric: str) -> list[Score]:
    x, y = m.vectors
    sigma = kernel_distance.median_distance(y)
    ours, theirs = (
        np.vstack([np.ones(len(v), np.int64), c]) for v, c in zip((x, y), m.counts(metric), strict=True)
    )
    value, *draws = kernel_distance.kernel_draws(x, y, ours, theirs, sigma).tolist()
    definition = (
        f"100 · unbiased MMD², Gaussian kernel, bandwidth {sigma:.4g} (median distance of real clips)"
    )
    return [Score(value, np.array(draws), m.n, m.m, definition + m.pooled)]


def _is(m: Material, metric: str) -> list[Score]:
    logits = m.ours.logits
    splits = min(SPLITS, len(logits))
    if splits < SPLITS:
        m.notes.append(f"inception score over {splits} splits instead of {SPLITS}: there are {splits} clips")
    value = inception_score(logits, splits, SPLIT_SEED)[0]
    rows = (np.repeat(np.arange(len(logits)), counts) for counts in m.counts(metric)[0])
    draws = inception_draws(logits, rows, splits, SPLIT_SEED)
    definition = f"exp of mean KL to the mean, softmax, mean of {splits} splits, seed {SPLIT_SEED}"
    return [Score(value, draws, m.n, 0, definition)]


def _kl(m: Material, metric: str) -> list[Score]:
    link, direction = "sigmoid" if "sigmoid" in metric else "softmax", m.protocol.direction
    if metric.endswith("reverse"):
        direction = "gen||ref" if direction == "ref||gen" else "ref||gen"
    mine, other = m.both
    logits = m.ours.logits[mine], m.theirs.logits[other]
    each = kl_of_pairs(*logits, link, direction, m.protocol.eps)  # type: ignore[arg-type]
    definition = f"KL({direction.replace('||', '‖')}), {link}, eps {m.protocol.eps:.0e}".replace("e-0", "e-")
    return [_mean_of_pairs(m, metric, each, definition.replace("0e+00", "0") + ", mean over pairs")]


def _lsd(m: Material, metric: str) -> list[Score]:
    each = np.array(
        [spectral_distance.log_spectral_distance(*waves) for waves in m.waves(spectral_distance.RATE)]
    )
    definition = (
        f"log10 of power ratio at {spectral_distance.RATE} Hz, as ssr_eval, peaks at 1; mean over pairs"
    )
    return [_mean_of_pairs(m, metric, each, definition)]


def _neighbours(m: Material, metric: str) -> list[Score]:
    each: Floats = getattr(m.neighbours, metric)
    generated = metric in ("precision", "density")
    drawn = m.counts(metric)[0 if generated else 1]
    definition = f"{NEIGHBOURS[metric]}, k = {precision_recall.K}, balls held fixed in resamples" + m.pooled
    places = (np.arange(m.n), each) if generated else None
    return [Score(float(each.mean()), bootstrap.means(each, drawn), m.n, m.m, definition, each=places)]


def _clap_score(m: Material, metric: str) -> list[Score]:
    each = m.caption_cosines()
    draws = bootstrap.means(each, m.counts(metric)[0])
    definition = f"mean cosine of audio and caption in {m.extractor.name}; of several captions their mean"
    return [Score(float(each.mean()), draws, m.n, 0, definition, each=(np.arange(m.n), each))]


def _agreement(m: Material, metric: str) -> list[Score]:
    assert m.asked
    top, names = TOP[metric], m.asked.names
    found = namesakes_of(names, m.asked.mids, m.extractor.labels, m.extractor.mids)
    assert not found.unknown  # is among what `lacking` tells
    ranks = label_agreement.requested_ranks(
        class_logits(m.ours.logits, found.columns), m.asked.targets(m.names)
    )
    first = (
        "an asked class is ranked first" if top == 1 else f"an asked class is ranked among the first {top}"
    )
    definition = (
        f"share of clips in which {first} of the {len(names)} classes of the label set, found {found.how}"
    )
    best = np.nanmin(ranks, axis=1)
    scores = []
    for name, values in (("", best), *zip(names, ranks.T, strict=True)):
        rows = np.flatnonzero(~np.isnan(values))
        if len(rows):
            hits = (values[rows] <= top).astype(float)
            groups = bootstrap.groups_of([m.keys[row] for row in rows])
            drawn = bootstrap.counts(groups, m.resamples, m.rng(metric, name))
            each = (rows, values[rows]) if not name else None
            draws = bootstrap.means(hits, drawn)
            scores.append(Score(float(hits.mean()), draws, len(rows), 0, definition, name, each))
    return scores


def _mean_of_pairs(m: Material, metric: str, each: Floats, definition: str) -> Score:
    drawn = bootstrap.counts(m.pair_groups, m.resamples, m.rng(metric))
    places = m.both[0]
    return Score(
        float(each.mean()),
        bootstrap.means(each, drawn),
        len(each),
        len(each),
        definition,
        each=(places, each),
    )


def lacking_of_kind(
    name: str, *, frames: bool, classes: bool, texts: bool, usual: bool = False
) -> dict[str, str]:
    """Return what a network of this kind does not have, and what to do: need → reason.

    Args:
        name: of the network.
        frames: whether it hears frames.
        classes: whether it knows classes.
        texts: whether it reads text.
        usual: whether nothing was asked for by name, so that no value is given twice.
    """
    found = {}
    if frames:
        found["vectors"] = f"{name} hears frames, and not one vector a clip; ask for fad"
    elif classes or usual:
        found["frames"] = f"{name} has one vector a clip; ask for fd"
    if not classes:
        found["classes"] = f"{name} knows no classes; take features that do, such as mn04"
    if not texts:
        found["text"] = f"{name} has no text side; take features clap"
    return found


def lacking_of_network(m: Material, wanted: Sequence[str], usual: bool) -> dict[str, str]:
    """Return what wanted metrics need and network or clips do not have, and why: need → reason.

    Args:
        m: the material.
        wanted: metrics; the network itself is loaded only where one of them needs its labels.
        usual: whether nothing was asked for by name.
    """
    network = m.extractor
    found = lacking_of_kind(
        network.name, frames=network.frames, classes=m.classes, texts=network.texts, usual=usual
    )
    if m.n < fd_infinity.MIN_CLIPS:
        found["subsets"] = f"there are {m.n} clips, at least {fd_infinity.MIN_CLIPS} are needed"
    if min(m.n, m.m) <= precision_recall.K:
        found["neighbours"] = (
            f"{precision_recall.K} neighbours need more than {precision_recall.K} clips in each set"
        )
    if m.asked and m.classes and any("labels" in METRICS[metric].needs for metric in wanted):
        found |= _lacking_of_labels(m, m.asked)
    return found


def _lacking_of_labels(m: Material, asked: Asked) -> dict[str, str]:
    theirs, their_mids = m.extractor.labels, m.extractor.mids
    count, found = len(asked.names), namesakes_of(asked.names, asked.mids, theirs, their_mids)
    if found.unknown:
        return {"labels": f"{m.extractor.name} does not know {found.lacking}"}
    few = f"there are {count} classes, so that the first five are (nearly) all"
    return {"six labels": few} if count <= TOP["agreement5"] else {}


NEIGHBOURS = {
    "precision": "share of generated clips in a ball of a real one (Kynkäänniemi 2019)",
    "recall": "share of real clips in a ball of a generated one (Kynkäänniemi 2019)",
    "density": "mean number of balls of real clips around a generated one, over k (Naeem 2020)",
    "coverage": "share of real clips with a generated one in their ball (Naeem 2020)",
}
_SHARE, _POSITIVE = (0, 1), (0, inf)
_ONCE, _PAIRED = ("vectors",), ("pairs", "classes")
METRICS: Mapping[str, Metric] = {
    "fd": Metric(_fd, _ONCE, "Fréchet distance of features to real clips", "lower", True, _POSITIVE),
    "fad": Metric(
        _fd, ("frames",), "Fréchet distance of frames, pooled over clips", "lower", True, _POSITIVE
    ),
    "is": Metric(_is, ("classes",), "inception score of logits, 10 splits", "higher", True, (1, inf)),
    "kl": Metric(
        _kl, _PAIRED, "KL of the softmax of pairs' logits, the protocol's way", "lower", True, _POSITIVE
    ),
    "kl_sigmoid": Metric(_kl, _PAIRED, "the same of the sigmoid, summed over classes", "lower", True),
    "kl_reverse": Metric(_kl, _PAIRED, "kl the other way round", "lower", limits=_POSITIVE),
    "kl_sigmoid_reverse": Metric(_kl, _PAIRED, "kl_sigmoid the other way round", "lower"),
    "agreement": Metric(
        _agreement,
        ("classes", "asked", "labels"),
        "share of clips whose asked class is ranked first, and by class",
        "higher",
        True,
        _SHARE,
    ),
    "agreement5": Metric(
        _agreement,
        ("classes", "asked", "labels", "six labels"),
        "share of clips whose asked class is among the first five, and by class",
        "higher",
        limits=_SHARE,
    ),
    "fd_inf": Metric(_fd_inf, ("subsets",), "FD∞: FD at 1/n = 0 by a line through subsets", "lower"),
    "kad": Metric(_kad, (), "kernel audio distance: 100 · unbiased MMD², does not depend on n", "lower"),
    **{
        name: Metric(
            _neighbours, ("neighbours",), meaning, "higher", limits=_POSITIVE if name == "density" else _SHARE
        )
        for name, meaning in NEIGHBOURS.items()
    },
    "clap_score": Metric(
        _clap_score, ("captions", "text"), "mean cosine of audio and caption", "higher", limits=(-1, 1)
    ),
    "lsd": Metric(_lsd, ("pairs",), "log-spectral distance of pairs", "lower", limits=_POSITIVE),
}
PAIRED = tuple(name for name, metric in METRICS.items() if "pairs" in metric.needs)
