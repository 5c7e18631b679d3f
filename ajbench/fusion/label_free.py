"""Entailment of visual captions and classes, weighted by the audio model's predictions or by labels."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ajbench.captions import comparison
from ajbench.captions.entailment import entailment
from ajbench.captions.score_file import ScoredClips
from ajbench.core.errors import MissingError
from ajbench.data.store import ClipStore

Floats = NDArray[np.float64]


def visual_captions(store: ClipStore, folder: Path | None = None) -> list[str | None]:
    """Return the visual captions of all clips: of the corpus, or of a captions table in `folder`.

    Raises:
        MissingError: no clip has one.
    """
    if folder is None:
        found: list[str | None] = store.column("visual_caption")
    else:
        from ajbench.captions.caption_table import texts

        by_clip = texts(folder, "visual")
        found = [by_clip.get(clip_id) for clip_id in store.clip_ids]
    if not any(found):
        raise MissingError(
            f"{folder or store.path}: no visual captions; make them with `ajbench caption` and set "
            "fusion.captions, or use fusion.scorer=none"
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
    weights: NDArray[np.floating],
    *,
    scorer: str,
    labels: str,
    top_k: int,
    captions: Path | None = None,
) -> ScoredClips:
    """Score clips: s = Σ_c w_c e(visual caption, text of class c), w the normalised top-k weights.

    Args:
        store: of the clips.
        indices: of the clips to score [n].
        weights: of classes [n, C]: predicted probabilities, or the true labels as 0 and 1.
        scorer: of `captions.entailment`.
        labels: what the weights are, for the file: predicted or true.
        top_k: classes that count; of true labels, all do.
        captions: folder of a captions table; None: visual captions of the corpus.

    Raises:
        MissingError: no clip has a visual caption.
        UsageError: no train clip has a score.
    """
    every = visual_captions(store, captions)
    texts = [every[i] for i in indices]
    k = max(1, int((weights > 0).sum(axis=1).max())) if labels == "true" else min(top_k, weights.shape[1])
    classes, shares = comparison.top_classes(weights, k)
    shares = np.where(np.array([bool(text) for text in texts])[:, None], shares, 0.0)
    names = comparison.class_texts(store.meta.labels)
    places = np.argwhere(shares > 0)
    pairs = [(texts[n] or "", names[classes[n, j]]) for n, j in places.tolist()]
    of_pairs = np.full(shares.shape, np.nan)
    of_pairs[places[:, 0], places[:, 1]] = entailment(pairs, scorer)
    raw = comparison.weighted(shares, of_pairs)
    splits = store.column("split")
    scale = comparison.scaling(raw[[splits[i] == "train" for i in indices]])
    return ScoredClips([store.clip_ids[i] for i in indices], scorer, labels, raw, scale(raw), scale)


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
