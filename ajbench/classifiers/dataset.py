"""The clips that a classifier is trained on: labels in memory, audio decoded when needed."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from ajbench.data.store import ClipStore
from ajbench.data.wave_chain import augment

CACHE_BYTES = 512 << 20  # decoded audio kept in memory, 16-bit: 3,300 clips of 5 s


class TrainingClips:
    """Real train clips followed by added clips.

    Args:
        real: store of real clips.
        chosen: indices of the train clips that are used [N].
        added: stores of other clips, each with the indices of those that are used; S in all.
        decoded: a store with the audio of the train split, in its order; None: it is read from `real`.

    Attributes:
        targets: multi-hot, sparse float32 [N + S, C].
    """

    def __init__(
        self,
        real: ClipStore,
        chosen: NDArray[np.int64],
        added: Sequence[tuple[ClipStore, NDArray[np.int64]]] = (),
        decoded: ClipStore | None = None,
    ) -> None:
        places = np.searchsorted(real.split_indices("train"), chosen) if decoded else chosen
        self.parts = [(decoded or real, places), *added]
        self.starts = np.cumsum([0, *(len(used) for _, used in self.parts)])
        parts = [real.sparse_targets()[chosen], *(store.sparse_targets()[used] for store, used in added)]
        self.targets: sparse.csr_array = sparse.vstack(parts, format="csr")
        self.samples = real.meta.clip_samples
        clips = len(self)
        kept = clips if 2 * clips * self.samples <= CACHE_BYTES else 0
        self.cache = np.empty((kept, self.samples), dtype=np.int16)
        self.filled = np.zeros(kept, dtype=bool)

    def take(self, clips: NDArray[np.int64], seeds: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
        """Return waves float32 [k, n] and targets float32 [k, C] of clips, by index [k].

        With `seeds`, one for each clip, the waves are augmented (`ajbench.data.wave_chain`), with any clip of
        the mix as background.
        """
        waves = self._waves(clips)
        for wave, seed in zip(waves, seeds, strict=bool(seeds)):
            wave[:] = augment(wave, seed, len(self), lambda k: self._waves(np.array([k]))[0])
        return torch.from_numpy(waves), torch.from_numpy(self.targets[clips].toarray())

    def __len__(self) -> int:
        return int(self.starts[-1])

    def _waves(self, clips: NDArray[np.int64]) -> NDArray[np.float32]:
        if not len(self.cache):
            return self._decode(clips)
        new = np.unique(clips[~self.filled[clips]])
        if len(new):
            # Exact for the FLAC of a store, which has 16 bits.
            self.cache[new] = np.rint(self._decode(new) * 32768).clip(-32768, 32767).astype(np.int16)
            self.filled[new] = True
        return np.asarray(self.cache[clips].astype(np.float32) / np.float32(32768))

    def _decode(self, clips: NDArray[np.int64]) -> NDArray[np.float32]:
        out = np.empty((len(clips), self.samples), dtype=np.float32)
        part = np.searchsorted(self.starts, clips, side="right") - 1
        for k in np.unique(part):
            store, used = self.parts[k]
            out[part == k] = store.audio(used[clips[part == k] - self.starts[k]])
        return out
