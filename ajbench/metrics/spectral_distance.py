"""Log-spectral distance between a generated clip and its paired real clip."""

import numpy as np
from numpy.typing import NDArray

from ajbench.core.errors import UsageError

EPS = 1e-12
RATE = 16_000  # Hz, used by eval-gen


def log_spectral_distance(gen: NDArray[np.floating], ref: NDArray[np.floating], rate: int = RATE) -> float:
    """Return the mean over frames of the root of the mean over frequencies of log₁₀(|R|² / |G|²)².

    As in audioldm_eval, through ssr_eval: clips less their mean, scaled to peak 1, cut to the shorter one;
    centred periodic Hann windows of ⌊2048 · rate / 44,100⌋ samples (743 at 16 kHz) every 10 ms, zeros
    outside; ε = 1e-12 added to |G| and to the ratio. The tool also cuts 1,120 samples, a vocoder's delay,
    from the front of every generated clip; that is not done here. Waves and magnitudes are float32 and the
    transform is float64, as in librosa.

    A clip of zeros has no bin above 0. Zeros within a clip become a constant when the mean is subtracted,
    and most of their bins are rounding errors of about 1e-17, far below ε. A padded clip is therefore far
    even from itself (about 4 if half of it is padding), and farther from a clip without padding.

    Args:
        gen: wave [n].
        ref: wave [m].
        rate: Hz of both.

    Raises:
        UsageError: the shorter clip has less than 10 ms.
    """
    n = min(len(gen), len(ref))
    if n < rate // 100:
        raise UsageError(f"log-spectral distance of {n} samples: at least {rate // 100} are needed")
    g, r = (_magnitudes(_levelled(wave)[:n], rate) for wave in (gen, ref))
    logs = np.log10(r**2 / (g + EPS) ** 2 + EPS)
    return float(np.sqrt(np.mean(logs**2, axis=1)).mean())


def _levelled(wave: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the wave less its mean, scaled to peak 1."""
    centred = wave.astype(np.float32) - wave.astype(np.float32).mean()
    return np.asarray(centred / max(np.abs(centred).max(), np.float32(EPS)))


def _magnitudes(wave: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Return magnitudes [frames, frequencies] of a wave [n]."""
    size, hop = int(2048 / (44_100 / rate)), rate // 100
    padded = np.pad(wave, size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    # The float64 window makes the transform float64; in float32 the rounding of a constant would be 1e-8.
    from scipy.signal import get_window  # a slow import

    return np.abs(np.fft.rfft(frames * get_window("hann", size), axis=1).astype(np.complex64))
