"""Sounds of known quality, made of each real clip on its own."""

from typing import TYPE_CHECKING

import numpy as np
import soxr
import xxhash
from numpy.typing import NDArray

from ajbench.data import audio
from ajbench.data.clip_set import Change
from ajbench.data.corpora import mini_signals

if TYPE_CHECKING:
    from ajbench.codec import Codec

LOWEST_HZ = 20.0  # below it the spectrum is flat: half of the level would be where nobody hears
FRAME = 2 * audio.HOP  # samples that every codec takes a multiple of


def pink_noise(seed: int) -> Change:
    """Make noise of each clip's length, rate and root mean square, its power falling by 3 dB an octave."""

    def make(name: str, samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
        rng = np.random.default_rng([seed, xxhash.xxh3_64_intdigest(name.encode())])
        scale = rate / mini_signals.RATE  # as if the clip were at 16 kHz

        def gain(hz: NDArray[np.float32]) -> NDArray[np.float32]:
            return (1 / np.sqrt(np.maximum(hz * scale, LOWEST_HZ))).astype(np.float32)

        level = np.sqrt(np.mean(np.square(samples, dtype=np.float64)))
        return mini_signals.noise(rng, len(samples), gain)[:, None] * np.float32(level)

    return Change(f"pink noise {seed}", make)


def silence() -> Change:
    """Make zeros of each clip's length and rate."""
    return Change("silence", lambda name, samples, rate: np.zeros_like(samples))


def round_trip(codec: "Codec") -> Change:
    """Make each clip, its channels averaged and at 16 kHz, anew from its codes."""

    def make(name: str, samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
        wave = samples.mean(axis=1, dtype=np.float32)
        if rate != audio.SAMPLE_RATE:
            wave = soxr.resample(wave, rate, audio.SAMPLE_RATE, quality="HQ")
        padded = audio.fit(wave, -(-len(wave) // FRAME) * FRAME)
        return codec.decode(codec.encode(padded[None])).cpu().numpy()[0, : len(wave), None]

    return Change(f"codec {codec.name} {codec.weights_hash}", make, audio.SAMPLE_RATE)
