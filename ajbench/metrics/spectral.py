"""Log-spectral distance between a generated clip and the real one that it answers to."""

import numpy as np
from numpy.typing import NDArray
from scipy.signal import get_window

from ajbench.errors import UsageError

EPS = 1e-12
RATE = 16_000  # Hz, at which eval-gen takes it


def log_spectral_distance(gen: NDArray[np.floating], ref: NDArray[np.floating], rate: int = RATE) -> float:
    """Return the mean over frames of the root of the mean over frequencies of log₁₀(|R|² / |G|²)².

    As audioldm_eval takes it, by ssr_eval: clips cut to the shorter, without their mean, at peak 1; periodic
    Hann windows of ⌊2048 · rate / 44,100⌋ samples (743 at 16 kHz) every 10 ms, centred, zeros outside;
    ε = 1e-12 beside |G| and beside the ratio. Its 1,120 samples cut from the front of every generated clip,
    for a vocoder's delay, are not cut here. Digital silence in one clip alone counts as 12 and more.

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
    g, r = (_magnitudes(np.asarray(wave[:n], np.float64), rate) for wave in (gen, ref))
    logs = np.log10(r**2 / (g + EPS) ** 2 + EPS)
    return float(np.sqrt(np.mean(logs**2, axis=1)).mean())


def _magnitudes(wave: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """Magnitudes [frames, frequencies] of a wave [n]."""
    wave = wave - wave.mean()
    wave = wave / max(float(np.abs(wave).max()), EPS)
    size, hop = int(2048 / (44_100 / rate)), rate // 100
    padded = np.pad(wave, size // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    return np.abs(np.fft.rfft(frames * get_window("hann", size), axis=1))
