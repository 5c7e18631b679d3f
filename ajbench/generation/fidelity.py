"""A judge of synthetic clips: how much of what is heard in one is what was asked for."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ajbench import features
from ajbench.core.errors import UsageError
from ajbench.data import audio
from ajbench.data.shards import StoreMeta
from ajbench.features.class_mapping import class_logits, namesakes_of


class Judge:
    """A tagger or classifier that scores clips for their labels.

    The score of a clip, its fidelity, is the share of the softmax over the corpus' classes that falls on the
    labels asked for: 1 where the judge hears nothing else, above 1/2 only where it ranks one of them first
    (or two of them before all others). Which of several labels it hears does not matter.

    Args:
        name: of the features whose logits are taken, one of `registry.FEATURES`.
        weights: folder or file of the judge's weights; None: their usual place.
        meta: of the real store: its classes.
        device: where it computes; None is that of this process.

    Raises:
        UsageError: the judge does not know one of the classes.
        MissingError: its weights are not there.
    """

    def __init__(
        self, name: str, weights: Path | None, meta: StoreMeta, device: torch.device | None = None
    ) -> None:
        self.extractor = features.load(name, weights, device)
        found = namesakes_of(meta.labels, meta.mids, self.extractor.labels, self.extractor.mids)
        if found.unknown:
            raise UsageError(
                f"synth.judge={name}: does not know {found.lacking}; use reference, or the folder of a "
                "classifier trained on these classes"
            )
        self.columns = found.columns

    def __call__(self, waves: NDArray[np.float32], asked: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Return the fidelity [B] of waves [B, n], float32 at 16 kHz, of which labels `asked` are expected.

        It is NaN where nothing is asked for.
        """
        heard = audio.at_rate(waves, self.extractor.sample_rate)
        logits = class_logits(np.asarray(self.extractor.logits(heard), np.float64), self.columns)
        share = np.exp(logits - logits.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        return np.array([share[i, list(ids)].sum() if ids else np.nan for i, ids in enumerate(asked)])
