"""Preprocessing of the tools that publish FD, IS and KL, and their convention of KL.

Tools report different values for the same folders mostly because they differ in the channel, whether the mean
is subtracted, the resampler, padding and cutting, and the direction of KL. Every row names its protocol;
values of different protocols are not comparable.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import soxr
from numpy.typing import NDArray

from ajbench.core.errors import UsageError
from ajbench.core.registry import suggest
from ajbench.data import audio

# Limit of the product of both sides of the reduced ratio of rates, which is the size of the sinc filter:
# 441 · 160 from 44,100 to 16,000 Hz.
MAX_RATIO = 10_000_000

Wave = NDArray[np.float32]


@dataclass(frozen=True)
class Protocol:
    """The steps applied to a file, in this order, and the convention of KL.

    Attributes:
        name: name of the tool.
        channel: the first channel, or the mean of all.
        centred: whether the mean over time is subtracted, at the file's own rate.
        resampler: `sinc`: torchaudio with its defaults; `soxr`: soxr HQ.
        peak_db: normalise the peak to this many dB; None: keep the level.
        max_s: cut clips after this many seconds; None: keep all.
        min_samples: pad shorter clips with zeros to this many samples.
        window_s: length in seconds of windows with 50 % overlap, over which features and logits are averaged;
            None: the whole clip.
        direction: direction of KL.
        eps: added to the probabilities that KL divides by.
    """

    name: str
    channel: Literal["first", "mean"]
    centred: bool
    resampler: Literal["sinc", "soxr"]
    peak_db: float | None = None
    max_s: float | None = None
    min_samples: int = 0
    window_s: float | None = None
    direction: Literal["ref||gen", "gen||ref"] = "ref||gen"
    eps: float = 1e-6

    def wave(self, samples: Wave, source: int, rate: int) -> Wave:
        """Return a wave [n] at `rate` Hz from a file's samples [N, channels] at `source` Hz.

        Raises:
            AudioError: torchaudio's filter between these rates would take gigabytes.
        """
        mono = samples[:, 0] if self.channel == "first" else samples.mean(axis=1, dtype=np.float32)
        if self.centred:
            mono = mono - mono.mean(dtype=np.float64).astype(np.float32)
        if source != rate:
            if self.resampler == "soxr":
                mono = soxr.resample(mono, source, rate, quality="HQ")
            elif source * rate / math.gcd(source, rate) ** 2 > MAX_RATIO:
                raise audio.AudioError(f"sample rate {source} Hz (too odd for {self.resampler} to {rate} Hz)")
            else:
                # Cached features are read without either.
                import torch
                from torchaudio.functional import resample

                mono = resample(torch.from_numpy(np.ascontiguousarray(mono)), source, rate).numpy()
        if self.peak_db is not None:
            mono = mono * np.float32(10 ** (self.peak_db / 20) / max(float(np.abs(mono).max()), 1e-12))
        if self.max_s is not None:
            mono = mono[: int(rate * self.max_s)]
        return audio.fit(mono.astype(np.float32, copy=False), max(len(mono), self.min_samples))

    def windows(self, wave: Wave, rate: int) -> NDArray[np.float32]:
        """Return the windows of a clip, [k, m]; a single window is the clip itself."""
        if self.window_s is None:
            return wave[None]
        size, step = int(self.window_s * rate), int(self.window_s * rate / 2)
        starts = range(0, max(step, len(wave) - step), step)
        # A clip shorter than 15 % of a window is not padded: it would be mostly silence.
        short = len(wave) <= int(0.15 * size)
        return wave[None] if short else np.stack([audio.fit(wave[i : i + size], size) for i in starts])


PROTOCOLS: Mapping[str, Protocol] = {
    one.name: one
    for one in (
        # ajbench's own preprocessing.
        Protocol("ajbench", "mean", centred=False, resampler="soxr"),
        # haoheliu/audioldm_eval at 8dc07ee.
        Protocol("audioldm_eval", "first", centred=True, resampler="sinc", min_samples=32_000),
        # hkchengrex/av-benchmark at 050a5cd, with its default of 8 s.
        Protocol("av-benchmark", "mean", centred=True, resampler="sinc", max_s=8.0, eps=0.0),
        # Stability-AI/stable-audio-metrics at fd55536, passt_kld.
        Protocol(
            *("stable-audio-metrics", "mean"),
            centred=False,
            resampler="soxr",
            peak_db=-1.0,
            window_s=10.0,
            direction="gen||ref",
        ),
    )
}


def find(name: str) -> Protocol:
    """Return a protocol by name.

    Raises:
        UsageError: the name is unknown; the message lists those allowed.
    """
    if name not in PROTOCOLS:
        similar, allowed = suggest(name, PROTOCOLS), ", ".join(PROTOCOLS)
        raise UsageError(f"--protocol {name}: unknown{similar}; allowed: {allowed}")
    return PROTOCOLS[name]
