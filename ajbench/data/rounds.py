"""The order in which real clips are augmented or repeated: round after round, every clip once in each."""

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ajbench.core.files import seed_for


def rounds(targets: sparse.csr_array, n: int, seed: int) -> NDArray[np.int64]:
    """Return the clips of the first `n` places of endless rounds over N clips, int64 [n].

    Place k is in round k // N. Each round is a random permutation, every section of which has the class
    proportions of the whole. Fewer places are the beginning of more, so doses are nested.

    Args:
        targets: nonzero if clip i has class c, [N, C], sorted and without duplicates.
        n: number of places.
        seed: of the permutations.
    """
    clips, width = targets.shape
    rarest = rarest_labels(targets)
    sizes = np.bincount(rarest, minlength=width)
    order = [
        _interleaved(rarest, sizes, np.random.default_rng(seed_for(seed, "plan", j)))
        for j in range(-(-n // clips))
    ]
    return np.concatenate([np.empty(0, np.int64), *order])[:n]


def rarest_labels(targets: sparse.csr_array) -> NDArray[np.int64]:
    """Return the rarest label of each clip, int64 [N]: the first of equally rare ones; 0 without labels."""
    width = targets.shape[1]
    rarest = np.zeros(targets.shape[0], np.int64)
    labelled = np.flatnonzero(np.diff(targets.indptr))
    if len(labelled):
        ids = targets.indices.astype(np.int64)
        rank = np.bincount(ids, minlength=width)[ids] * width + ids
        rarest[labelled] = np.minimum.reduceat(rank, targets.indptr[labelled]) % width
    return rarest


def _interleaved(
    classes: NDArray[np.int64], counts: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return a permutation, random within classes, every section of which has the class proportions."""
    shuffled = rng.permutation(len(classes))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    rank = np.arange(len(classes)) - np.repeat(np.cumsum(counts) - counts, counts)
    when = (rank + rng.random(len(counts))[classes[by_class]]) / counts[classes[by_class]]
    return by_class[np.argsort(when, kind="stable")]
