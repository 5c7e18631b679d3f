"""Entailment of visual captions and classes, weighted by the audio model's predictions or by labels."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ajbench.captions import aggregation
from ajbench.captions.aggregation import Scaling
from ajbench.captions.entailment import Scorer, load
from ajbench.captions.score_file import ScoredClips
from ajbench.core.errors import IntegrityError, MissingError
from ajbench.data.store import ClipStore

Floats = NDArray[np.float64]
CHUNK = 4096  # clips whose weights are in memory at a time


def visual_captions(store: ClipStore, folder: Path | None = None) -> list[str | None]:
    """Return the visual captions of all clips: of the corpus, or of a captions table in `folder`.

    Raises:
        MissingError: no clip has one.
        IntegrityError: the table is of other clips.
    """
    if folder is None:
        found: list[str | None] = store.column("visual_caption")
    else:
        from ajbench.captions.caption_table import texts

        by_clip = texts(folder, "visual")
        found = [by_clip.get(clip_id) for clip_id in store.clip_ids]
        if not any(found):
            raise IntegrityError(
                f"{folder}: captions of other clips: none of its {len(by_clip)} is in {store.path}; "
                "make them with `ajbench caption --include-eval` for this store"
            )
    if not any(found):
        raise MissingError(
            f"{folder or store.path}: no visual captions; make them with `ajbench caption` and "
            "name their folder (fusion.captions, --captions), or use fusion.scorer=none"
        )
    return found


def probabilities(logits: NDArray[np.floating], loss: str) -> Floats:
    """Return probabilities [N, C] of logits of a classifier trained with `loss`: bce sigmoid, ce softmax."""
    values = np.asarray(logits, np.float64)
    if loss == "ce":
        shifted = np.exp(values - values.max(axis=1, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
    return 1 / (1 + np.exp(-values))


def score(
    store: ClipStore,
    indices: NDArray[np.int64],
    weights: Callable[[slice], NDArray[np.floating]],
    *,
    scorer: str,
    labels: str,
    top_k: int,
    captions: Path | None = None,
) -> ScoredClips:
    """Score clips by `raw_scores`, scaled by the quantiles of the train clips.

    Args:
        store: of the clips.
        indices: of the clips to score [n].
        weights: of classes [n, C], of the clips in a slice: predicted probabilities, or the true labels as 0
            and 1.
        scorer: of `captions.entailment`.
        labels: predicted, noisy-or or true.
        top_k: predicted classes that count.
        captions: folder of a captions table; None: visual captions of the corpus.

    Raises:
        MissingError: no clip has a visual caption.
        UsageError: no train clip has a score.
    """
    every = visual_captions(store, captions)
    own, loaded = [every[i] for i in indices], load(scorer)
    chunks = [slice(start, start + CHUNK) for start in range(0, len(own), CHUNK)]
    names: Sequence[str] = store.meta.labels
    how: dict[str, Any] = {"labels": labels, "top_k": top_k}
    raw = joined([raw_scores(own[chunk], weights(chunk), names, loaded, **how) for chunk in chunks])
    return scored(store, indices, raw, scorer, labels)


def joined(parts: Sequence[Floats]) -> Floats:
    """Return the raw scores of all clips [k, n] from those of parts of them.

    A part without any pair of texts has a single row of NaN, whatever the number of repeats.
    """
    repeats = max(map(len, parts))
    whole = [part if len(part) == repeats else np.repeat(part, repeats, axis=0) for part in parts]
    return np.concatenate(whole, axis=1)


def raw_scores(
    captions: Sequence[str | None],
    weights: NDArray[np.floating],
    names: Sequence[str],
    scorer: Scorer,
    *,
    labels: str,
    top_k: int,
    texts: Sequence[str | None] = (),
) -> Floats:
    """Return raw scores [k, n] of clips in k repeats; NaN for a clip without a caption or any class.

    With `predicted` s = Σ_c w_c e(v, c), e(v, c) the score of the visual caption and "The sound of [c]", over
    the `top_k` most probable classes with normalised weights; with `noisy-or` s = 1 − Π_c (1 − p_c e(v, c))
    over the same classes; with `true` the mean of e(v, c) over the clip's own labels.

    Args:
        captions: visual captions [n].
        weights: of classes [n, C]: predicted probabilities, or the true labels as 0 and 1.
        names: of the classes [C].
        scorer: scores pairs of texts.
        labels: predicted, noisy-or or true.
        top_k: predicted classes that count.
        texts: [n], or empty: a clip that has one is compared with it alone, and not with classes.
    """
    k = max(1, int((weights > 0).sum(axis=1).max())) if labels == "true" else min(top_k, weights.shape[1])
    classes, shares = aggregation.top_classes(weights, k)
    if labels == "noisy-or":
        shares = np.take_along_axis(np.asarray(weights, np.float64), classes, axis=1)
    own = {n: text for n, text in enumerate(texts) if text}
    shares[list(own)] = np.eye(1, k)
    shares = np.where(np.array([bool(caption) for caption in captions])[:, None], shares, 0.0)
    sounds, places = aggregation.class_texts(names), np.argwhere(shares > 0)
    pairs = [(captions[n] or "", own.get(n) or sounds[classes[n, j]]) for n, j in places.tolist()]
    of_pairs = scorer(pairs) if pairs else np.empty((1, 0))
    combined = aggregation.noisy_or if labels == "noisy-or" else aggregation.weighted
    out = np.empty((len(of_pairs), len(captions)))
    for row, values in zip(out, of_pairs, strict=True):
        scores = np.full(shares.shape, np.nan)
        scores[places[:, 0], places[:, 1]] = values
        row[:] = combined(shares, scores)
    return out


def scored(
    store: ClipStore,
    indices: NDArray[np.int64],
    raw: Floats,
    scorer: str,
    labels: str,
    scale: Scaling | None = None,
) -> ScoredClips:
    """Return the mean over repeats of raw scores [k, n] of clips, scaled by the quantiles of train clips.

    Args:
        store: of the clips.
        indices: of the clips [n].
        raw: [k, n]; NaN where unknown.
        scorer: name for the file.
        labels: comparison for the file.
        scale: None: by the quantiles.

    Raises:
        UsageError: no train clip has a score.
    """
    mean, spread = aggregation.over_repeats(raw)
    splits = store.column("split")
    scale = scale or aggregation.scaling(mean[[splits[i] == "train" for i in indices]])
    ids = [store.clip_ids[i] for i in indices]
    return ScoredClips(ids, scorer, labels, mean, scale(mean), scale, spread if len(raw) > 1 else None)


def parts_of(store: ClipStore, train: NDArray[np.int64], parts: int, seed: int) -> NDArray[np.int64]:
    """Return the part 0 … parts − 1 of each train clip [n]; the clips of a recording are in one part.

    Recordings are dealt out in a random order, most clips first, each to the part with the fewest clips.

    Raises:
        MissingError: fewer recordings than parts.
    """
    recordings: dict[str, list[int]] = {}
    for place, index in enumerate(train.tolist()):
        recordings.setdefault(store.recordings[index], []).append(place)
    if len(recordings) < parts:
        raise MissingError(
            f"{store.path}: {len(recordings)} recordings in the train split, {parts} needed; lower "
            "fusion.cross_fit"
        )
    names = sorted(recordings)
    order = np.random.default_rng(seed).permutation(len(names))
    sizes, found = np.zeros(parts, np.int64), np.empty(len(train), np.int64)
    for n in sorted(order.tolist(), key=lambda n: -len(recordings[names[n]])):
        part = int(sizes.argmin())
        found[recordings[names[n]]] = part
        sizes[part] += len(recordings[names[n]])
    return found
