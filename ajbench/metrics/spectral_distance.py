"""Log-spectral distance between a generated clip and its paired real clip."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ajbench.core.errors import UsageError

EPS = 1e-12
RATE = 16_000  # Hz, used by eval-gen
Points = NDArray[np.floating]
BLOCK = 2_000  # frames that are transformed together: 12 MB


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
    return distance_of_pieces([gen], [ref], rate)


def distance_of_pieces(gen: Iterable[Points], ref: Iterable[Points], rate: int = RATE) -> float:
    """Return the `log_spectral_distance` of two clips in consecutive pieces, whose ends need not agree.

    Args:
        gen: waves [n]; iterated over twice, so that a long clip is never in memory as a whole.
        ref: likewise.
        rate: Hz of both.

    Raises:
        UsageError: the shorter clip has less than 10 ms.
    """
    levels = [_Level.of(pieces) for pieces in (gen, ref)]
    n = min(level.n for level in levels)
    if n < rate // 100:
        raise UsageError(f"log-spectral distance of {n} samples: at least {rate // 100} are needed")
    total, frames = 0.0, 0
    both = (_magnitudes(pieces, level, n, rate) for pieces, level in zip((gen, ref), levels, strict=True))
    for g, r in zip(*both, strict=True):
        logs = np.log10(r**2 / (g + EPS) ** 2 + EPS)
        total += float(np.sqrt(np.mean(logs**2, axis=1)).sum(dtype=np.float64))
        frames += len(g)
    return total / frames


@dataclass(frozen=True)
class _Level:
    """Length, mean and peak without the mean of a clip."""

    n: int
    mean: np.float32
    peak: np.float32

    @classmethod
    def of(cls, pieces: Iterable[Points]) -> "_Level":
        waves = (piece.astype(np.float32) for piece in pieces)
        found = [(len(wave), float(wave.mean()), wave.min(), wave.max()) for wave in waves if len(wave)]
        n = sum(count for count, *_ in found)
        mean = np.float32(sum(count * mean for count, mean, *_ in found) / max(1, n))
        ends = [abs(end - mean) for *_, low, high in found for end in (low, high)]
        return cls(n, mean, max(ends, default=np.float32(0)))


def _magnitudes(pieces: Iterable[Points], level: _Level, n: int, rate: int) -> Iterator[NDArray[np.float32]]:
    """Yield magnitudes [up to 2,000 frames, frequencies] of the first n samples, centred, at peak 1."""
    from scipy.signal import get_window  # a slow import

    size, hop = int(2048 / (44_100 / rate)), rate // 100
    # The float64 window makes the transform float64; in float32 the rounding of a constant would be 1e-8.
    window = get_window("hann", size)
    waiting = np.zeros(size // 2, np.float32)
    for piece in pieces:
        wave = (piece[:n].astype(np.float32) - level.mean) / max(level.peak, np.float32(EPS))
        n -= len(wave)
        waiting = np.concatenate([waiting, wave, np.zeros(0 if n else size // 2, np.float32)])
        while len(waiting) >= size + (0 if n == 0 else (BLOCK - 1) * hop):
            frames = np.lib.stride_tricks.sliding_window_view(waiting, size)[::hop][:BLOCK]
            yield np.abs(np.fft.rfft(frames * window, axis=1).astype(np.complex64))
            waiting = waiting[len(frames) * hop :]
        if n == 0:
            return
