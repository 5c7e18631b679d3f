"""Clips of more than two minutes, read minute by minute, so that memory stays bounded."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ajbench.data import audio
from ajbench.data.clip_set import ClipSet
from ajbench.evaluation.protocols import Protocol

PIECE_S = 60
Wave = NDArray[np.float32]


def is_long(clips: ClipSet, number: int) -> bool:
    """Return whether a clip has more than two pieces."""
    return clips.seconds_of(number) > 2 * PIECE_S


@dataclass(frozen=True)
class Pieces:
    """A clip as mono waves [n] of a minute, the last one longer; read anew by each iteration.

    At the ends of pieces, resampled waves differ a little from those of the whole clip. Mean and level are
    those of the file: a protocol would change them piece by piece.

    Attributes:
        clips: the set.
        number: of the clip in it.
        protocol: gives channel, resampler and the longest duration.
        rate: in Hz.
    """

    clips: ClipSet
    number: int
    protocol: Protocol
    rate: int

    def __iter__(self) -> Iterator[Wave]:
        most = self.protocol.max_s
        left = None if most is None else int(self.rate * most)
        plain = replace(self.protocol, centred=False, peak_db=None, max_s=None, min_samples=0)
        for samples, source in self.clips.pieces(self.number, PIECE_S):
            wave = plain.wave(samples, source, self.rate)[:left]
            yield wave
            if left is not None and (left := left - len(wave)) <= 0:
                return


def beginning(clips: ClipSet, number: int, protocol: Protocol, rate: int) -> Wave:
    """Return `protocol.wave` of a clip that is cut after less than a minute, [n] at `rate` Hz."""
    pieces = clips.pieces(number, PIECE_S)
    samples, source = next(pieces)
    if protocol.centred:  # the mean is that of the whole clip
        sums = [_sum(samples, protocol), *(_sum(piece, protocol) for piece, _ in pieces)]
        total, n = (sum(values) for values in zip(*sums, strict=True))
        samples = samples - np.float32(total / n)
    return replace(protocol, centred=False).wave(samples, source, rate)


def levelled(clips: ClipSet, number: int, protocol: Protocol, rate: int) -> Iterator[Wave]:
    """Yield waves [n] of a minute, with the mean and the peak that a protocol gives the whole clip.

    Windows start anew in every minute.
    """
    pieces, mean, gain = Pieces(clips, number, replace(protocol, max_s=None), rate), 0.0, 1.0
    if protocol.centred:
        sums = [_sum(samples, protocol) for samples, _ in clips.pieces(number, PIECE_S)]
        total, n = (sum(values) for values in zip(*sums, strict=True))
        mean = total / n
    if protocol.peak_db is not None:
        peak = max(float(np.abs(wave - np.float32(mean)).max()) for wave in pieces)
        gain = 10 ** (protocol.peak_db / 20) / max(peak, 1e-12)
    for wave in pieces:
        yield (wave - np.float32(mean)) * np.float32(gain)


def _sum(samples: Wave, protocol: Protocol) -> tuple[float, int]:
    mono = samples[:, 0] if protocol.channel == "first" else samples.mean(axis=1)
    return float(mono.sum(dtype=np.float64)), len(mono)


def loudest(pieces: Iterable[Wave]) -> Wave:
    """Return the piece with the most energy in each second, [n]."""
    return max(pieces, key=lambda wave: float(np.square(wave).mean()))


def check(pieces: Iterable[Wave]) -> None:
    """Check that at least one piece has usable sound, and that none has infinite values.

    Raises:
        AudioError: a piece is not finite, or none is usable.
    """
    reasons = [audio.defect(wave) for wave in pieces]
    bad = next((reason for reason in reasons if reason and reason.startswith("not finite")), None)
    if bad or all(reasons):
        raise audio.AudioError(bad or reasons[0] or "empty (no samples)")


def waveform_match(excerpt: Wave, pieces: Iterable[Wave]) -> tuple[float, float]:
    """Return (correlation, residual) of a wave with the part of a long clip that is most like it.

    As `audio_fingerprint.waveform_match` with two pieces of the clip at a time.

    Args:
        excerpt: [n] at 16 kHz, at most two minutes.
        pieces: of the long clip.
    """
    from ajbench.metrics import audio_fingerprint  # needs torch, which a set with cached features does not

    before, found = np.zeros(0, np.float32), [(0.0, 0.0)]
    for wave in pieces:
        found.append(audio_fingerprint.waveform_match(excerpt, np.concatenate([before, wave])))
        before = wave
    return max(found)
