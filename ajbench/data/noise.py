"""White noise added to the sound of a clip, at a given signal-to-noise ratio: `data.snr_db`."""

from typing import NamedTuple

import numpy as np

from ajbench.core.files import seed_for
from ajbench.core.recipe import Data
from ajbench.data.audio import FULL_SCALE, Wave


class Noise(NamedTuple):
    """The noise of a corpus: that of a clip is drawn by the seed and the clip's id.

    Attributes:
        snr_db: power of the clip's sound over that of the noise, in dB.
        seed: of the noise.
    """

    snr_db: float
    seed: int

    def added(self, wav: Wave, sounding: int, clip_id: str) -> Wave:
        """Return a clip with noise over all of its length, made quieter if it would exceed full scale.

        Args:
            wav: float32 [n].
            sounding: samples before the silence with which a short clip is padded; the power of the sound is
                the mean over these.
            clip_id: of the clip.
        """
        rng = np.random.default_rng(seed_for(self.seed, "noise", clip_id))
        power = float(np.mean(np.square(wav[:sounding], dtype=np.float64)))
        level = np.sqrt(power / 10 ** (self.snr_db / 10))
        noisy = wav + level * rng.standard_normal(len(wav))
        return (noisy * min(1.0, FULL_SCALE / np.abs(noisy).max())).astype(np.float32)


def of(data: Data) -> Noise | None:
    """Return the noise of a recipe's clips; None without `data.snr_db`."""
    return None if data.snr_db is None else Noise(data.snr_db, data.corpus_seed)
