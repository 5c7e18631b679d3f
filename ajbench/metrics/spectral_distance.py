"""Log-spectral distance between a generated clip and the real one that it answers to."""

import numpy as np
from numpy.typing import NDArray

from ajbench.core.errors import UsageError

EPS = 1e-12
RATE = 16_000  # Hz, at which eval-gen takes it


def log_spectral_distance(gen: NDArray[np.floating], ref: NDArray[np.floating], rate: int = RATE) -> float:
    """Return the mean over frames of the root of the mean over frequencies of log₁₀(|R|² / |G|²)².

    As audioldm_eval takes it, by ssr_eval: clips without their mean, at peak 1, then cut to the shorter;
    periodic Hann windows of ⌊2048 · rate / 44,100⌋ samples (743 at 16 kHz) every 10 ms, centred, zeros
    outside; ε = 1e-12 beside |G| and beside the ratio. Its 1,120 samples cut from the front of every
    generated clip, for a vocoder's delay, are not cut here. Waves and magnitudes are float32 and the
    transform is float64, as librosa's.

    A clip of all zeros has no bin above 0. Zeros within a clip are a constant once its mean is taken off, and
    most of their bins what rounding leaves, about 1e-17: a padded clip is far even from itself (in
    practice 4 where half of it is padding), and further from one that is not padded.

    Args:
        gen: wave [n].
        ref: wave [m].
        rate: Hz of both.

    Raises:
        UsageError: less than 10 ms are left.
    """
    n = min(len(gen), len(ref))
    if n < rate // 100:
        raise UsageError(f"log-spectral distance of {n} samples: at least {rate // 100} are needed")
    g, r = (_magnitudes(_levelled(wave)[:n], rate) for wave in (gen, ref))
    logs = np.log10(r**2 / (g + EPS) ** 2 + EPS)
    return float(np.sqrt(np.mean(logs**2, axis=1)).mean())


def _levelled(wave: NDArray[np.floating]) -> NDArray[np.float32]:
    """The wave without its mean, its peak at 1."""
    centred = wave.astype(np.float32) - wave.astype(np.float32).mean()
    return np.asarray(centred / max(np.abs(centred).max(), np.float32(EPS)))


def _magnitudes(wave: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Magnitudes [frames, frequencies] of a wave [n]."""
    size, hop = int(2048 / (44_100 / rate)), rate // 100
    padded = np.pad(wave, size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    # The window is float64, and so the transform: in float32 the rounding of a constant would be 1e-8.
    from scipy.signal import get_window  # takes longer to import than most metrics to compute

    return np.abs(np.fft.rfft(frames * get_window("hann", size), axis=1).astype(np.complex64))
