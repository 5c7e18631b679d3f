"""Fidelity of synthetic clips: how strongly a classifier predicts the requested classes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ajbench import features
from ajbench.core.errors import UsageError
from ajbench.data import audio
from ajbench.data.shards import StoreMeta
from ajbench.features.class_mapping import class_logits, map_classes


class Judge:
    """A tagger or classifier that scores clips against their requested labels.

    The score of a clip, its fidelity, is the softmax probability over the corpus' classes that falls on the
    requested labels: 1 if nothing else is predicted, above 1/2 only if a requested label ranks first (or
    several of them rank before all others). Which of several requested labels is predicted does not matter.

    Args:
        name: of an extractor with logits, one of `registry.FEATURES`.
        weights: folder or file of the judge's weights; None: the default location.
        meta: of the real store, for its classes.
        device: to compute on; None is that of this process.

    Raises:
        UsageError: the judge lacks one of the classes.
        MissingError: its weights are missing.
    """

    def __init__(
        self, name: str, weights: Path | None, meta: StoreMeta, device: torch.device | None = None
    ) -> None:
        self.extractor = features.load(name, weights, device)
        found = map_classes(meta.labels, meta.mids, self.extractor.labels, self.extractor.mids)
        if found.unknown:
            raise UsageError(
                f"synth.judge={name}: lacks {found.lacking}; use reference, or the folder of a classifier "
                "trained on these classes"
            )
        self.columns = found.columns

    def __call__(self, waves: NDArray[np.float32], requested: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Return the fidelity float64 [B] of waveforms float32 [B, n] at 16 kHz.

        Args:
            waves: of the clips.
            requested: label ids of each clip; without any, the fidelity is NaN.
        """
        resampled = audio.at_rate(waves, self.extractor.sample_rate)
        logits = class_logits(np.asarray(self.extractor.logits(resampled), np.float64), self.columns)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        return np.array([shares[i, list(ids)].sum() if ids else np.nan for i, ids in enumerate(requested)])
