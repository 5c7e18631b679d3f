"""Similarity of two sounds beyond chance, to find copies of a recording.

The fingerprint is the detail of a log-mel spectrogram: each band without its slow course, each frame without
its level. The detail of two recordings is nearly uncorrelated, even of steady rain, while that of a copy
survives noise, gain, shifts and codecs.
"""

import functools
import math
from collections.abc import Iterable
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft
from torch.nn import functional

from ajbench.core.errors import UsageError
from ajbench.data import audio
from ajbench.metrics.standout import Scores

BANDS, WINDOW, HOP = 64, 1024, audio.HOP
MIN_DURATION_S = 0.25  # of a clip: a shorter one has too little detail to tell a copy from chance
FLOOR_DB = -10.0  # white noise assumed under every clip, so that real noise at 10 dB SNR changes little
SMOOTHING = 23  # frames (0.46 s) of the Hann window that gives a band's slow course
AROUND = SMOOTHING // 2 + 4  # frames on either side that a frame's detail depends on, with its window
MAX_DETAIL = 0.3  # decades (6 dB): clipped, so that single onsets do not dominate
LAG_BIN = 5  # frames: lags within neighbouring bins of the best lag do not count as another lag

_BLOCK = 8_000_000  # complex values of one block of cross-spectra: 64 MB


def fingerprints(wav: torch.Tensor) -> NDArray[np.float32]:
    """Return the spectral detail of clips, float32 [B, 1 + n // 320, 64], whatever their gain.

    Args:
        wav: float32 [B, n] at 16 kHz, at least `MIN_DURATION_S`.
    """
    level = wav.square().mean(dim=1, keepdim=True).sqrt().clamp_min(1e-8)
    return _detail(wav / level)


def fingerprint_of_pieces(pieces: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the spectral detail of a clip in consecutive pieces, float32 [1 + n // 320, 64].

    Args:
        pieces: float32 [n] at 16 kHz, together at least `MIN_DURATION_S`; iterated over twice, so that a long
            clip is never in memory as a whole.
    """
    sizes = [(len(wave), float(np.square(wave, dtype=np.float64).sum())) for wave in pieces]
    n, energy = (sum(values) for values in zip(*sizes, strict=True))
    level = max((energy / n) ** 0.5, 1e-8)
    found: list[NDArray[np.float32]] = []
    done = start = read = 0  # frames that are found; first sample that is waiting; samples read
    waiting = np.zeros(0, np.float32)
    for piece in pieces:
        waiting, read = np.concatenate([waiting, piece]), read + len(piece)
        # Frames near the end wait for what comes after them.
        end = 1 + n // HOP if read == n else read // HOP - AROUND
        if end <= done:
            continue
        detail = _detail(torch.from_numpy(waiting)[None] / level)[0]
        found.append(detail[done - start // HOP : end - start // HOP])
        done = end
        kept = max(0, done - AROUND) * HOP
        waiting, start = waiting[kept - start :], kept
    return np.concatenate(found)


def _detail(wav: torch.Tensor) -> NDArray[np.float32]:
    """Return the spectral detail [B, 1 + n // 320, 64] of waves [B, n] of level 1."""
    power = 10.0 ** _log_mel(wav)
    # White noise of variance 1 has the sum of the squared window in every bin.
    noise = 10.0 ** (_impulse() + FLOOR_DB / 10) * 0.375 * WINDOW
    mel = (power + noise[:, None].to(power)).log10()
    window = torch.hann_window(SMOOTHING + 2, periodic=False, dtype=mel.dtype, device=mel.device)[1:-1]
    padded = functional.pad(mel, (SMOOTHING // 2, SMOOTHING // 2), mode="replicate")
    slow = functional.conv1d(padded.flatten(0, 1)[:, None], (window / window.sum())[None, None])
    detail = mel - slow.reshape(mel.shape)
    detail = (detail - detail.mean(dim=1, keepdim=True)).clamp(-MAX_DETAIL, MAX_DETAIL)
    found: NDArray[np.float32] = detail.transpose(1, 2).contiguous().cpu().numpy().astype(np.float32)
    return found


class Sliding:
    """Fingerprints that slide over others. Their spectra are kept for the next others of the same length.

    Each lies in the middle of its L frames, so that all start half their length before the others.

    Args:
        fingerprints: [A, L, 64]; shorter ones are zero-padded at the end.
        device: for the computation; None is the CPU.
    """

    def __init__(self, fingerprints: NDArray[np.float32], device: torch.device | None = None) -> None:
        self.lengths = _lengths(fingerprints)
        if min(self.lengths, default=0) < (longest := fingerprints.shape[1]):
            pairs = zip(fingerprints, self.lengths, strict=True)
            fingerprints = np.stack([np.roll(one, longest // 2 - n // 2, axis=0) for one, n in pairs])
        self.detail = torch.as_tensor(fingerprints, dtype=torch.float32, device=device)
        self._kept: tuple[int, torch.Tensor] = (0, self.detail)

    def spectra(self, n: int) -> torch.Tensor:
        """Return the conjugate spectra of `n` frames, complex64 [n // 2 + 1, A, 64]."""
        if self._kept[0] != n:
            self._kept = n, _spectra(self.detail, n).conj_physical_()
        return self._kept[1]


@torch.inference_mode()
def likeness(
    pieces: NDArray[np.float32] | Sliding, wholes: NDArray[np.float32], device: torch.device | None = None
) -> tuple[Scores, Scores]:
    """Slide pieces over wholes and return (likeness, prominence), both float32 [A, B].

    Likeness is the correlation of two fingerprints at the best lag, 1 for a copy; up to half a piece may lie
    beyond either end. Prominence is likeness − 0.6 × the best correlation at another lag: similar clocks
    match at many lags, a copy at one. Neither depends on the other clips or on the padding.

    Args:
        pieces: `fingerprints` [A, L, 64]; shorter ones are zero-padded at the end.
        wholes: `fingerprints` [B, T, 64] with T ≥ L, zero-padded likewise.
        device: for the computation; None is the CPU.

    Raises:
        UsageError: the wholes are shorter than the pieces, or the bands differ.
    """
    some = pieces if isinstance(pieces, Sliding) else Sliding(pieces, device)
    mine, theirs = some.detail, torch.as_tensor(wholes, dtype=torch.float32, device=some.detail.device)
    length, extent = mine.shape[1], theirs.shape[1]
    if length > extent or mine.shape[2:] != theirs.shape[2:]:
        raise UsageError(f"likeness: pieces {mine.shape} are longer than wholes {theirs.shape}")
    # From half a piece before to half a piece after the end, of the longest whole and of each.
    ends = -(-(np.array(_lengths(wholes)) + 1) // LAG_BIN) * LAG_BIN
    lags = -(-(extent + 1) // LAG_BIN) * LAG_BIN
    before = length // 2
    # What is circular about the correlation only meets the zeros before the wholes.
    n = fft.next_fast_len(max(before + extent, lags + length - 1 - before), real=True)
    spectra = some.spectra(n)
    others = _spectra(functional.pad(theirs, (0, 0, before, 0)), n).transpose(1, 2)
    after = max(0, lags + length - 1 - before - extent)
    energy = functional.pad(theirs.square().sum(dim=2), (before + 1, after)).cumsum(dim=1)

    def under(size: int, columns: slice) -> torch.Tensor:
        """Return the norm of what is under a piece of this size at each lag, ∞ beyond a whole, [lags, B]."""
        part = energy[columns, before - size // 2 :]
        found = (part[:, size : size + lags] - part[:, :lags]).clamp_min(0).sqrt().T
        return found.masked_fill(beyond[:, columns], torch.inf) if some_shorter else found

    some_shorter = bool((ends < lags).any())
    beyond = (torch.arange(lags)[:, None] >= torch.from_numpy(ends)).to(mine.device)
    norm = mine.square().sum(dim=(1, 2)).sqrt().clamp_min(1e-6)[:, None]
    best = torch.empty(len(mine), len(theirs))
    prominence = torch.empty_like(best)
    side = max(1, int((_BLOCK / n) ** 0.5))
    products = spectra.new_empty(len(spectra) * min(side, len(mine)) * min(side, len(theirs)))
    for a, b in product(range(0, len(mine), side), range(0, len(theirs), side)):
        rows, columns = slice(a, a + side), slice(b, b + side)
        shape = len(spectra), spectra[:, rows].shape[1], others[:, :, columns].shape[2]
        block = products[: math.prod(shape)].view(shape)
        torch.bmm(spectra[:, rows], others[:, :, columns], out=block)
        sizes = some.lengths[rows]
        known = {size: under(size, columns) for size in {*sizes}}
        # The sizes of the other pieces in a block are no part of a piece's score.
        norms = (
            torch.stack([known[size] for size in sizes], 1) if len(known) > 1 else known[sizes[0]][:, None]
        )
        bins = _bins(_waves(block, n), norms, norm[rows] / 2)
        top, at = bins.max(dim=0)
        for step in (-1, 0, 1):
            bins.scatter_(0, (at + step).clamp(0, len(bins) - 1)[None], 0.0)
        best[rows, columns] = (top / norm[rows]).cpu()
        prominence[rows, columns] = ((top - 0.6 * bins.amax(dim=0).clamp_min(0)) / norm[rows]).cpu()
    return best.numpy(), prominence.numpy()


def _lengths(fingerprints: NDArray[np.float32]) -> list[int]:
    """Return the lengths of fingerprints [A, L, 64] without the zeros at their ends; L for zeros alone."""
    sounding = np.any(fingerprints != 0, axis=2)
    lengths = sounding.shape[1] - sounding[:, ::-1].argmax(axis=1)
    found: list[int] = np.where(np.any(sounding, axis=1), lengths, sounding.shape[1]).tolist()
    return found


# On a CPU SciPy transforms many columns at a time, where torch gathers each: twice as fast.


def _spectra(detail: torch.Tensor, n: int) -> torch.Tensor:
    """Return the spectra over `n` frames, complex64 [n // 2 + 1, A, 64], of detail [A, T, 64]."""
    if detail.device.type == "cpu":
        found = torch.from_numpy(fft.rfft(detail.numpy(), n, axis=1, workers=torch.get_num_threads()))
    else:
        found = torch.fft.rfft(detail, n, dim=1)
    return found.transpose(0, 1).contiguous()


def _waves(spectra: torch.Tensor, n: int) -> torch.Tensor:
    """Return the inverse, float32 [n, A, B], of spectra complex64 [n // 2 + 1, A, B], which may change."""
    if spectra.device.type == "cpu":
        found = fft.irfft(spectra.numpy(), n, axis=0, workers=torch.get_num_threads(), overwrite_x=True)
        return torch.from_numpy(found)
    return torch.fft.irfft(spectra, n, dim=0)


def _bins(products: torch.Tensor, under: torch.Tensor, least: torch.Tensor) -> torch.Tensor:
    """Return the best correlation in each bin of lags, [bins, A, B], times the norm of the piece.

    Args:
        products: at each lag and beyond, [≥ lags, A, B]; they change.
        under: norm of what is under each piece at each lag, [lags, A, B], or of all alike [lags, 1, B].
        least: at least this, [A, 1]: under a nearly silent stretch the quotient would be meaningless.
    """
    bins = products.new_empty(len(under) // LAG_BIN, *products.shape[1:])
    step = 1 if products.device.type == "cpu" else len(bins)  # a bin stays in the processor's cache
    for first in range(0, len(bins), step):
        lags = slice(first * LAG_BIN, (first + step) * LAG_BIN)
        quotients = products[lags].div_(torch.maximum(under[lags], least))
        torch.amax(quotients.unflatten(0, (-1, LAG_BIN)), 1, out=bins[first : first + step])
    return bins


def waveform_match(first: NDArray[np.float32], second: NDArray[np.float32]) -> tuple[float, float]:
    """Return (correlation, residual) of two waves at their best lag and gain.

    The correlation, regardless of sign and offset, is over the overlap, which is at least half of the shorter
    wave. The residual is the level of their difference at the best gain, 10·lg(1 − correlation²) dB, at least
    −100 dB.

    Args:
        first: [n] at 16 kHz.
        second: [m] at 16 kHz.
    """
    short, long = sorted((first.astype(np.float64), second.astype(np.float64)), key=len)
    n, m = len(short), len(long)
    edge = n // 2
    size = fft.next_fast_len(m + 2 * n, real=True)
    products = fft.irfft(fft.rfft(np.pad(long, (n, 0)), size) * fft.rfft(short, size).conj(), size)
    lags = np.arange(edge, n + m - n + n - edge)  # of the start of `short` in padded `long`
    starts = lags - n
    of_short = np.maximum(0, -starts), np.minimum(n, m - starts)
    of_long = np.maximum(0, starts), np.minimum(m, starts + n)
    overlap = of_short[1] - of_short[0]
    # Recorders add the same offset to all their clips: it is no likeness, and taken out of every overlap.
    means, energies, totals = [], [], []
    for wave, (start, end) in ((short, of_short), (long, of_long)):
        sums = np.concatenate([[0.0], wave.cumsum()])
        squares = np.concatenate([[0.0], np.square(wave - wave.mean()).cumsum()])
        means.append((sums[end] - sums[start]) / overlap)
        energies.append(squares[end] - squares[start] - overlap * (means[-1] - wave.mean()) ** 2)
        totals.append(squares[-1])
    mine, other = energies
    # An overlap with little of the energy of either wave would match by chance.
    enough = (mine > 0.25 * totals[0]) & (other > 0.25 * totals[1] * n / m)
    values = np.abs(products[lags] - overlap * means[0] * means[1]) / np.sqrt((mine * other).clip(1e-12))
    correlation = float(values[enough].max(initial=0.0).clip(0.0, 1.0))
    return correlation, float(10 * np.log10(max(1 - correlation**2, 1e-10)))


def _log_mel(wav: torch.Tensor) -> torch.Tensor:
    return audio.log_mel(wav, WINDOW, WINDOW, HOP, BANDS, 50.0, 8000.0, floor=1e-7, power=2.0)


@functools.cache
def _impulse() -> torch.Tensor:
    """Log-mel [64] of a flat spectrum of power 1: a frame with an impulse at its centre."""
    wav = torch.zeros(1, 8 * HOP)
    wav[0, 4 * HOP] = 1.0
    return _log_mel(wav)[0, :, 4]
