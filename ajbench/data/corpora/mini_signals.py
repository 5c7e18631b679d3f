"""Building blocks of the synthesisers: damped modes, shaped noise, oscillators, control curves, onsets.

Signals are float32 [n] at 16 kHz, times in seconds, frequencies in Hz. All randomness comes from the
generator that is passed in.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray
from scipy import fft

from ajbench.data.audio import SAMPLE_RATE, Wave

RATE = SAMPLE_RATE
Response = Callable[[Wave], Wave]  # frequencies in Hz → gain
TOP_HZ = 7_600.0  # higher partials are dropped, as they would alias
Knots = Sequence[float] | NDArray[np.floating]
TABLE = 8_192  # samples per period of a wavetable; a power of two, so that a mask wraps the phase


def log_uniform(rng: Generator, low: float, high: float) -> float:
    """Draw a value whose logarithm is uniform: for pitches and rates."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def modes(freq_hz: ArrayLike, t60_s: ArrayLike, amplitude: ArrayLike, n: int) -> Wave:
    """Sum damped sines sin(2πft)·10^(−3t/t60) → [n], the impulse response of a struck body.

    The exponential factors over blocks, so M partials cost one [blocks, M] × [M, 256] product.
    """
    freq, t60, amp = np.broadcast_arrays(*(np.asarray(x, float) for x in (freq_hz, t60_s, amplitude)))
    z = np.atleast_1d(2j * np.pi * freq - 3 * np.log(10) / t60) / RATE
    starts = np.exp(z * 256 * np.arange(-(-n // 256))[:, None]) * np.where(freq < TOP_HZ, -1j * amp, 0)
    inside = np.exp(z[:, None] * np.arange(256))
    return (starts.astype(np.complex64) @ inside.astype(np.complex64)).real.reshape(-1)[:n]


def noise(rng: Generator, n: int, gain: Response) -> Wave:
    """Draw Gaussian noise [n] with unit RMS and the amplitude spectrum `gain(frequency in Hz)`."""
    size = fft.next_fast_len(n, real=True)
    freq = np.linspace(0, RATE / 2, size // 2 + 1, dtype=np.float32)
    spectrum = rng.standard_normal(2 * len(freq), dtype=np.float32).view(np.complex64) * gain(freq)
    spectrum[0] = 0
    wav = fft.irfft(spectrum, size)[:n]
    return wav / np.float32(np.sqrt(np.mean(wav**2)) + 1e-12)


def filtered(wav: Wave, gain: Response) -> Wave:
    """Filter a signal [n] with zero phase and the amplitude response `gain(frequency in Hz)`."""
    size = fft.next_fast_len(len(wav) + 400, real=True)
    spectrum = fft.rfft(wav, size)
    freq = np.linspace(0, RATE / 2, len(spectrum), dtype=np.float32)
    return fft.irfft(spectrum * gain(freq), size)[: len(wav)]


def resonances(centres: ArrayLike, widths: ArrayLike, gains: ArrayLike, floor: float) -> Response:
    """Return an amplitude response with one peak per formant (centre and half width in Hz) above a floor."""
    rows = np.stack(np.broadcast_arrays(centres, widths, gains), axis=1).astype(np.float32)

    def gain(freq: Wave) -> Wave:
        peaks = (height / (1 + ((freq - centre) / width) ** 2) for centre, width, height in rows)
        return sum(peaks, np.full_like(freq, floor))

    return gain


def band(low_hz: float, high_hz: float, low_order: float = 2, high_order: float = 2) -> Response:
    """Return a band-pass response that falls with the given powers of frequency outside low_hz … high_hz."""

    def gain(freq: Wave) -> Wave:
        safe = np.maximum(freq, np.float32(1))
        inverse = 1 + (low_hz / safe) ** np.float32(low_order) + (safe / high_hz) ** np.float32(high_order)
        return (1 / inverse).astype(np.float32, copy=False)

    return gain


def harmonics(amplitudes: ArrayLike, top_hz: float) -> Wave:
    """Return one period of a tone with these (complex) harmonics, without those that alias at `top_hz`."""
    amp = np.atleast_1d(amplitudes)[: max(1, int(TOP_HZ / top_hz))]
    spectrum = np.zeros(TABLE // 2 + 1, np.complex64)
    spectrum[1 : len(amp) + 1] = -0.5j * TABLE * amp
    return fft.irfft(spectrum, TABLE)


def oscillator(freq_hz: NDArray[np.floating], table: Wave) -> Wave:
    """Play a wavetable at a varying pitch [n]."""
    phase = np.cumsum(freq_hz, dtype=np.float64) * (TABLE / RATE)
    return table[phase.astype(np.int32) & (TABLE - 1)]


def curve(times_s: Knots, values: Knots, n: int) -> Wave:
    """Return a piecewise linear control signal [n] through (time, value) knots."""
    return np.interp(np.arange(n) / RATE, times_s, values).astype(np.float32)


def drift(rng: Generator, n: int, rate_hz: float, depth: float) -> Wave:
    """Draw a slow random factor [n] around 1, with `rate_hz` knots per second."""
    knots = np.arange(0, n / RATE + 2 / rate_hz, 1 / rate_hz)
    return curve(knots, np.exp(depth * rng.standard_normal(len(knots))), n)


def onsets(rng: Generator, n: int, period_s: float, jitter: float = 0.0) -> NDArray[np.float64]:
    """Draw the times of a repeated event: a random start in the first 30 %, then every `period_s`."""
    first = rng.uniform(0, min(period_s, 0.3 * n / RATE))
    times = first + period_s * np.arange(1 + int((n / RATE - first) / period_s))
    return np.abs(times + jitter * period_s * rng.standard_normal(len(times)))


def strike(n: int, kernel: Wave, times_s: Knots | float, gains: Knots | float = 1.0) -> Wave:
    """Add up copies of `kernel` that start at the given times → [n]."""
    out = np.zeros(n, np.float32)
    starts = (np.atleast_1d(times_s) * RATE).astype(int)
    levels = np.broadcast_to(np.asarray(gains, np.float32), starts.shape)
    for start, level in zip(starts, levels, strict=True):
        tail = out[start : start + len(kernel)]
        tail += level * kernel[: len(tail)]
    return out


def poisson(rng: Generator, n: int, rate_hz: float) -> NDArray[np.float64]:
    """Draw the times of independent events, `rate_hz` per second, at least one."""
    return rng.uniform(0, n / RATE, 1 + rng.poisson(rate_hz * n / RATE))


def hump(length: int, attack: float = 0.2) -> Wave:
    """Return an envelope [length] that rises over the share `attack` and falls over the rest."""
    t = np.linspace(0, 1, length, dtype=np.float32)
    return np.sin(np.pi / 2 * np.minimum(t / attack, (1 - t) / (1 - attack))) ** np.float32(1.5)
