"""How the tools that publish FD, IS and KL hear a file before they measure it, each as it really does.

Two tools give two numbers for the same folders mostly because of what is fixed here: which channel, whether
the mean is subtracted, how the rate is converted, what is padded or cut, and which way round KL is. A row
names its protocol; values of different ones are not comparable.
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

# Of the two sides of a reduced ratio of rates, whose product is the size of the filter: 441 · 160 from 44,100
# to 16,000 Hz.
MOST_RATIO = 10_000_000

Wave = NDArray[np.float32]


@dataclass(frozen=True)
class Protocol:
    """What is done to a file, in this order, and what KL is then.

    Attributes:
        name: of the tool.
        channel: which is taken: the first, or the mean of all.
        centred: whether the mean over time is subtracted, at the file's own rate.
        resampler: `sinc` is torchaudio's default, `soxr` its HQ.
        peak_db: dB to which the peak is brought; None leaves the level.
        longest_s: seconds after which a clip is cut; None keeps all of it.
        least: samples to which shorter clips are padded with zeros.
        window_s: seconds of a window, of which the next begins halfway; features and logits are means over
            windows. None is the whole clip.
        direction: of KL.
        eps: what KL adds to the probabilities that it divides by.
    """

    name: str
    channel: Literal["first", "mean"]
    centred: bool
    resampler: Literal["sinc", "soxr"]
    peak_db: float | None = None
    longest_s: float | None = None
    least: int = 0
    window_s: float | None = None
    direction: Literal["ref||gen", "gen||ref"] = "ref||gen"
    eps: float = 1e-6

    def wave(self, samples: Wave, source: int, rate: int) -> Wave:
        """Return the clip [n] at `rate` Hz of a file's samples [N, channels] at `source` Hz.

        Raises:
            AudioError: torchaudio's filter from this rate to that would take gigabytes.
        """
        mono = samples[:, 0] if self.channel == "first" else samples.mean(axis=1, dtype=np.float32)
        if self.centred:
            mono = mono - mono.mean(dtype=np.float64).astype(np.float32)
        if source != rate:
            if self.resampler == "soxr":
                mono = soxr.resample(mono, source, rate, quality="HQ")
            elif source * rate / math.gcd(source, rate) ** 2 > MOST_RATIO:
                raise audio.AudioError(f"sample rate {source} Hz (too odd for {self.resampler} to {rate} Hz)")
            else:
                # Features that are kept are read without either.
                import torch
                from torchaudio.functional import resample

                mono = resample(torch.from_numpy(np.ascontiguousarray(mono)), source, rate).numpy()
        if self.peak_db is not None:
            mono = mono * np.float32(10 ** (self.peak_db / 20) / max(float(np.abs(mono).max()), 1e-12))
        if self.longest_s is not None:
            mono = mono[: int(rate * self.longest_s)]
        return audio.fit(mono.astype(np.float32, copy=False), max(len(mono), self.least))

    def windows(self, wave: Wave, rate: int) -> NDArray[np.float32]:
        """Return what a network hears of a clip, one after another: [k, m], the clip itself where k is 1."""
        if self.window_s is None:
            return wave[None]
        size, step = int(self.window_s * rate), int(self.window_s * rate / 2)
        starts = range(0, max(step, len(wave) - step), step)
        # A clip of less than 15 % of a window is heard as it is: padded it would be mostly silence.
        short = len(wave) <= int(0.15 * size)
        return wave[None] if short else np.stack([audio.fit(wave[i : i + size], size) for i in starts])


PROTOCOLS: Mapping[str, Protocol] = {
    one.name: one
    for one in (
        # As the rest of ajbench hears clips.
        Protocol("ajbench", "mean", centred=False, resampler="soxr"),
        # haoheliu/audioldm_eval at 8dc07ee.
        Protocol("audioldm_eval", "first", centred=True, resampler="sinc", least=32_000),
        # hkchengrex/av-benchmark at 050a5cd, with its default of 8 s.
        Protocol("av-benchmark", "mean", centred=True, resampler="sinc", longest_s=8.0, eps=0.0),
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
    """Return the protocol of a name.

    Raises:
        UsageError: there is none; the message lists those that are there.
    """
    if name not in PROTOCOLS:
        raise UsageError(
            f"--protocol {name}: unknown{suggest(name, PROTOCOLS)}; allowed: {', '.join(PROTOCOLS)}"
        )
    return PROTOCOLS[name]
