"""The clips that a classifier is trained on: labels in memory, audio decoded when needed."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from ajbench.data.store import ClipStore

CACHE_BYTES = 512 << 20  # decoded audio kept in memory, 16-bit: 3,300 clips of 5 s


class TrainingClips:
    """Real train clips followed by synthetic clips.

    Args:
        real: store of real clips.
        chosen: indices of the train clips that are used [N].
        synthetic: store of synthetic clips, if any are used.
        decoded: a store with the audio of the train split, in its order; None: it is read from `real`.
        used: indices of the synthetic clips that are used [S]; None: all.

    Attributes:
        targets: multi-hot, sparse float32 [N + S, C].
    """

    def __init__(
        self,
        real: ClipStore,
        chosen: NDArray[np.int64],
        synthetic: ClipStore | None,
        decoded: ClipStore | None = None,
        used: NDArray[np.int64] | None = None,
    ) -> None:
        self.real, self.synthetic = decoded or real, synthetic
        self.places = np.searchsorted(real.split_indices("train"), chosen) if decoded else chosen
        self.used = np.arange(len(synthetic) if synthetic else 0) if used is None else used
        made = [synthetic.sparse_targets()[self.used]] if synthetic else []
        parts = [real.sparse_targets()[chosen], *made]
        self.targets: sparse.csr_array = sparse.vstack(parts, format="csr")
        self.samples = real.meta.clip_samples
        clips = self.targets.shape[0]
        kept = clips if 2 * clips * self.samples <= CACHE_BYTES else 0
        self.cache = np.empty((kept, self.samples), dtype=np.int16)
        self.filled = np.zeros(kept, dtype=bool)

    def take(self, clips: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return waves float32 [k, n] and targets float32 [k, C] of clips, by index [k]."""
        targets = torch.from_numpy(self.targets[clips].toarray())
        if not len(self.cache):
            return torch.from_numpy(self._decode(clips)), targets
        new = np.unique(clips[~self.filled[clips]])
        if len(new):
            # Exact for the FLAC of a store, which has 16 bits.
            self.cache[new] = np.rint(self._decode(new) * 32768).clip(-32768, 32767).astype(np.int16)
            self.filled[new] = True
        return torch.from_numpy(self.cache[clips].astype(np.float32) / np.float32(32768)), targets

    def _decode(self, clips: NDArray[np.int64]) -> NDArray[np.float32]:
        out = np.empty((len(clips), self.samples), dtype=np.float32)
        is_real = clips < len(self.places)
        if is_real.any():
            out[is_real] = self.real.audio(self.places[clips[is_real]])
        if self.synthetic is not None and not is_real.all():
            out[~is_real] = self.synthetic.audio(self.used[clips[~is_real] - len(self.places)])
        return out
