"""The real clips that a classifier is trained on, found in a store or counted in a manifest."""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ajbench.core.recipe import Mix
from ajbench.data.manifest import Manifest
from ajbench.data.mixing import real_clips
from ajbench.data.store import ClipStore


def chosen(mix: Mix, store: ClipStore, real: str | None = None) -> NDArray[np.int64]:
    """Return the indices in a store of the train clips that a mix draws from, in order.

    Args:
        mix: its `real` and `draw` are used.
        store: of real clips.
        real: replaces `mix.real`.

    Raises:
        UsageError: there are no such clips (`mixing.real_clips`).
    """
    real, train = real or mix.real, store.split_indices("train")
    if real == "all":
        return train
    subsets = store.column("subset")
    targets = store.sparse_targets()[train]
    return train[real_clips(real, mix.draw, targets, store.meta.labels, [subsets[i] for i in train])]


def places(real: str, draw: int, manifest: Manifest) -> NDArray[np.int64]:
    """Return the rows of the train clips of a corpus that `mix.real` and `mix.draw` choose, in order.

    Raises:
        UsageError: there are no such clips (`mixing.real_clips`).
    """
    train = [place for place, row in enumerate(manifest.rows) if row.split == "train"]
    names = manifest.label_set.names
    drawn = "=" in real  # only then are labels needed, which take seconds for millions of clips
    targets = manifest.sparse_targets(train) if drawn else sparse.csr_array((len(train), len(names)))
    subsets = [manifest.rows[place].subset for place in train]
    return np.array(train, np.int64)[real_clips(real, draw, targets, names, subsets)]
