"""Scores of a trained classifier on clips of a store."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ajbench.classifiers import Classifier
from ajbench.core import console
from ajbench.core.errors import UsageError
from ajbench.data.store import ClipStore


def predict(
    classifier: Classifier, store: ClipStore, indices: ArrayLike, batch: int = 32
) -> NDArray[np.float32]:
    """Return the logits float32 [n, C] of clips `indices` [n], in that order, `batch` clips at a time.

    Raises:
        UsageError: the store has other labels or another clip length than the classifier.
    """
    if tuple(store.meta.labels) != classifier.labels:
        raise UsageError(
            f"{store.path}: labels differ from the classifier's; use the store it was trained on"
        )
    if store.meta.clip_samples != classifier.config["clip_samples"]:
        raise UsageError(
            f"{store.path}: clips of {store.meta.clip_samples} samples, the classifier was trained on "
            f"{classifier.config['clip_samples']}"
        )
    wanted = np.asarray(indices, dtype=np.int64)
    out = np.empty((len(wanted), len(classifier.labels)), dtype=np.float32)
    with console.progress(len(wanted), "predict") as advance:
        for start in range(0, len(wanted), batch):
            here = slice(start, start + batch)
            out[here] = classifier.predict(store.audio(wanted[here])).numpy()
            advance(len(out[here]))
    return out
