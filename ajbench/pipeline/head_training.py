"""Fit a head to frozen features, which are computed once for all cells, seeds, doses and folds."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ajbench import classifiers
from ajbench.classifiers.selection import select
from ajbench.core import console
from ajbench.core.errors import IntegrityError
from ajbench.core.files import seed_for
from ajbench.core.recipe import Recipe
from ajbench.data.clip_set import open_set
from ajbench.data.leak_rule import write_heard
from ajbench.data.shards import ids_hash
from ajbench.data.store import ClipStore
from ajbench.data.val_part import ValPart
from ajbench.evaluation.feature_cache import embed
from ajbench.evaluation.protocols import find
from ajbench.features.head import ClipFeatures


def fit_head(
    recipe: Recipe,
    real: ClipStore,
    synthetic: ClipStore | None,
    out: Path,
    *,
    seed: int,
    fingerprint: str,
    cache: Path,
    class_ap: NDArray[np.float64] | None = None,
    decoded: ClipStore | None = None,
    augmented: ClipStore | None = None,
    part: ValPart | None = None,
) -> NDArray[np.float32]:
    """Fit a head to the features of `recipe.mix`, save it in `out` and score the evaluation clips.

    There are no steps: each clip counts by its expected share of an epoch of the mix. In α-mixing these are
    (1 − α)/N for a real clip and α/(NM) for an augmentation, the expectation of Eq. 1.

    Args:
        recipe: sections classifier and mix.
        real, synthetic, class_ap, decoded, augmented, part: as for `classifiers.train.train_classifier`.
        out: receives `model.safetensors` and `config.json`.
        seed: of the initial weights of a head with a hidden layer; without one it has no influence.
        fingerprint: written to config.json.
        cache: folder of cached features.

    Returns:
        Logits [n, C] of the eval split, or of the val part if there is one.

    Raises:
        UsageError, IntegrityError: as `train_classifier`.
        MissingError: the weights of the features are missing.
        NumericError: the loss is not finite.
    """
    settings, meta = recipe.classifier, real.meta
    extractor = ClipFeatures(str(settings.features))
    mixed = select(recipe, real, synthetic, decoded, augmented, seed, class_ap, part)
    clips, shares = mixed.clips, mixed.plan.shares()
    used = np.flatnonzero(shares)
    vectors = []
    for (store, indices), first in zip(clips.parts, clips.starts, strict=False):
        mine = used[(used >= first) & (used < first + len(indices))] - first
        vectors.append(_features(store, indices[mine], extractor, cache))
    x = np.concatenate([part for part in vectors if len(part)])
    options = settings.options | {"width": x.shape[1]}
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(seed, "initialisation"))
        module = classifiers.build(settings.name, len(meta.labels), **options)
    weights = shares[used] * mixed.plan.epoch_size
    console.detail(
        f"{settings.name}: {console.counted(len(used), 'clip')}, features {extractor.name} [{x.shape[1]}]"
    )
    module.fit(x, clips.targets[used].toarray(), weights, settings.loss)  # type: ignore[operator]
    out.mkdir(parents=True, exist_ok=True)
    write_heard(out, real)
    classifiers.save(
        module,
        out,
        name=settings.name,
        labels=meta.labels,
        clip_samples=meta.clip_samples,
        options=options,
        extra={"fingerprint": fingerprint, "seed": seed, "train_ids_hash": ids_hash(mixed.ids)},
    )
    held_out = part.val if part else real.split_indices("eval")
    scores: NDArray[np.float32] = module.logits(_features(real, held_out, extractor, cache))  # type: ignore[operator]
    return scores


def _features(
    store: ClipStore, indices: NDArray[np.int64], extractor: ClipFeatures, cache: Path
) -> NDArray[np.float32]:
    """Return the features [n, d] of clips of a store, from the cache where they are in it."""
    if not len(indices):
        return np.zeros((0, 0), np.float32)
    clips = open_set(store.path).take(indices)
    with console.progress(len(clips), f"features {extractor.name}") as advance:
        found = embed(clips, extractor, find("ajbench"), cache, advance)
    if found.left_out:
        number, reason = found.left_out[0].number, found.left_out[0].reason
        raise IntegrityError(
            f"{store.path}: clip {clips.names[number]} has no usable sound ({reason}); make the store again"
        )
    return np.concatenate(found.rows)
