"""The val part: real clips that settings are compared on, so that the eval split has no influence on them.

It is the val split of the corpus or, without one, drawn from the train split by recording and class.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ajbench.core.errors import UsageError
from ajbench.core.recipe import Mix
from ajbench.data import real_clips
from ajbench.data.manifest import Manifest
from ajbench.data.rounds import rarest_labels
from ajbench.data.store import ClipStore

SHARE = 0.2  # of the recordings of a class
SPARE = 0.5  # of those that the classifier is not trained on anyway, if that is more
VERSION = 1  # raised when other clips are drawn: trainings are then done again
MOST = 2000  # recordings in all, as every one takes time to score

Indices = NDArray[np.int64]


class ValPart(NamedTuple):
    """The val part of a corpus for one choice of real clips (`mix.real`).

    `real` and `val` are indices of a store, or rows of a manifest, ascending.
    """

    real: Indices  # the real clips without the val part
    val: Indices
    recordings: frozenset[str]  # of the val part if it was drawn from the train split, else empty


def divide(mix: Mix, store: ClipStore, seed: int = 0) -> ValPart:
    """Return the val part of a store, and the real clips of a mix without it.

    Args:
        mix: its baseline (`mix.real`) is used.
        store: of real clips.
        seed: of the draw.

    Raises:
        UsageError: there is no val split and too few recordings to draw from; or as `real_clips.chosen`.
    """
    real = real_clips.chosen(mix.with_real, store)
    val, train = store.split_indices("val"), store.split_indices("train")
    if len(val):
        return ValPart(real, val, frozenset())
    names = [store.recordings[i] for i in train]
    return _drawn(real, train, store.sparse_targets()[train], names, seed)


def planned(mix: Mix, manifest: Manifest, seed: int = 0) -> ValPart:
    """Return the same for a corpus that is not prepared yet; arguments and errors as `divide`."""
    real = real_clips.places(mix.with_real, manifest)
    split: dict[str, list[int]] = {}
    for place, row in enumerate(manifest.rows):
        split.setdefault(row.split, []).append(place)
    if val := split.get("val"):
        return ValPart(real, np.array(val, np.int64), frozenset())
    train = split.get("train", [])
    names = [manifest.rows[place].recording or manifest.rows[place].clip_id for place in train]
    return _drawn(real, np.array(train, np.int64), manifest.sparse_targets(train), names, seed)


def _drawn(
    real: Indices, train: Indices, targets: sparse.csr_array, recordings: Sequence[str], seed: int
) -> ValPart:
    taken = draw(targets, recordings, np.isin(train, real), seed)
    if not taken.any():
        raise UsageError(
            "no val part: the corpus has no val split, and no class of its train split has a recording to "
            "spare; add clips, or give the corpus a val split"
        )
    names = frozenset(recordings[k] for k in np.flatnonzero(taken).tolist())
    return ValPart(np.setdiff1d(real, train[taken]), train[taken], names)


def draw(
    targets: sparse.csr_array, recordings: Sequence[str], used: NDArray[np.bool_], seed: int
) -> NDArray[np.bool_]:
    """Draw the val part of a train split by recording; a recording belongs to its rarest class.

    Of each class it takes `SHARE` of the recordings or, if that is more, `SPARE` of those without a used
    clip; at least one. Those without a used clip come first, and one with a used clip is left. Of more than
    `MOST` recordings it takes a part of each class.

    Args:
        targets: multi-hot, [N, C].
        recordings: of each clip, [N].
        used: whether the classifier would be trained on the clip, [N].
        seed: of the draw.

    Returns:
        Whether each clip is in the val part, [N].
    """
    numbers: dict[str, int] = {}
    owner = np.array([numbers.setdefault(name, len(numbers)) for name in recordings], np.int64)
    clips = np.ones(len(owner)), (owner, np.arange(len(owner)))
    by_recording = sparse.csr_array(clips, (len(numbers), len(owner))) @ sparse.csr_array(targets)
    by_recording.sort_indices()
    trained = np.zeros(len(numbers), bool)
    trained[owner[used]] = True
    rarest = rarest_labels(by_recording)
    free, kept = (np.bincount(rarest[part], minlength=targets.shape[1]) for part in (~trained, trained))
    wanted = np.maximum(np.rint(SHARE * (free + kept)), np.rint(SPARE * free))
    wanted = np.minimum(np.maximum(wanted, 1), free + np.maximum(kept - 1, 0))
    wanted = np.ceil(wanted * min(1.0, MOST / max(1.0, wanted.sum()))).astype(np.int64)
    # By class, those without a used clip first, in random order.
    order = np.lexsort((np.random.default_rng(seed).random(len(rarest)), trained, rarest))
    rank = np.arange(len(rarest)) - np.repeat(np.cumsum(free + kept) - free - kept, free + kept)
    taken = np.zeros(len(numbers), bool)
    taken[order[rank < wanted[rarest[order]]]] = True
    return taken[owner]
