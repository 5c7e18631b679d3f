"""Does synthetic audio repeat real clips? How alike two sounds are, and how far beyond what chance brings.

A copy is told from a sound of the same kind by its detail: what is left of a log-mel spectrogram once each
band's slow course and each frame's level are taken away is all but unrelated between two recordings, even of
steady rain, and outlives noise, level, shift and codecs.
"""

import functools
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft
from torch.nn import functional

from ajbench.core.errors import UsageError
from ajbench.data import audio

BANDS, WINDOW, HOP = 64, 1024, audio.HOP
FLOOR_DB = (
    -10.0
)  # of the white noise that is supposed under every clip: noise at 10 dB SNR then changes little
SLOW = 23  # frames (0.46 s) of the Hann window over which a band's slow course is taken
MOST = 0.3  # decades (6 dB) at which detail is clipped, so that single onsets do not decide
NEAR = 5  # frames: no lag closer than this to the best one counts as another

# Complex values in one block of cross-spectra: 64 MB.
_BLOCK = 8_000_000

Scores = NDArray[np.float32]


def fingerprints(wav: torch.Tensor) -> NDArray[np.float32]:
    """Return the detail of log-mel spectrograms, float32 [B, 1 + n // 320, 64]; gain does not count.

    Args:
        wav: [B, n], float32 at 16 kHz, at least 0.25 s.
    """
    level = wav.square().mean(dim=1, keepdim=True).sqrt().clamp_min(1e-8)
    power = 10.0 ** _log_mel(wav / level)
    # Of white noise with variance 1 every bin holds the sum of the squared window.
    noise = 10.0 ** (_impulse() + FLOOR_DB / 10) * 0.375 * WINDOW
    mel = (power + noise[:, None].to(power)).log10()
    window = torch.hann_window(SLOW + 2, periodic=False, dtype=mel.dtype, device=mel.device)[1:-1]
    padded = functional.pad(mel, (SLOW // 2, SLOW // 2), mode="replicate")
    slow = functional.conv1d(padded.flatten(0, 1)[:, None], (window / window.sum())[None, None])
    detail = mel - slow.reshape(mel.shape)
    detail = (detail - detail.mean(dim=1, keepdim=True)).clamp(-MOST, MOST)
    found: NDArray[np.float32] = detail.transpose(1, 2).contiguous().cpu().numpy().astype(np.float32)
    return found


@torch.inference_mode()
def likeness(
    pieces: NDArray[np.float32], wholes: NDArray[np.float32], device: torch.device | None = None
) -> tuple[Scores, Scores]:
    """Slide pieces over wholes and return (likeness, prominence), both float32 [A, B].

    Likeness is the correlation of two fingerprints at the best lag, 1 for a copy; up to half a piece may lie
    beyond either end. Prominence is likeness less 0.6 times the best correlation at another lag: two clocks
    that tick alike are alike at many lags, a copy is at one.

    Args:
        pieces: `fingerprints` [A, L, 64]; shorter ones are padded with zeros at the end.
        wholes: `fingerprints` [B, T, 64], likewise, T at least L.
        device: where it computes; None is the CPU.

    Raises:
        UsageError: a whole is shorter than a piece, or the bands differ.
    """
    length, extent = pieces.shape[1], wholes.shape[1]
    if length > extent or pieces.shape[2:] != wholes.shape[2:]:
        raise UsageError(f"likeness: pieces {pieces.shape} do not fit into wholes {wholes.shape}")
    lags = -(-(extent + 1) // NEAR) * NEAR  # from half a piece before to half a piece after the end
    n = fft.next_fast_len(lags + length - 1, real=True)
    mine, theirs = (torch.as_tensor(some, dtype=torch.float32, device=device) for some in (pieces, wholes))
    before = length // 2
    spectra = torch.fft.rfft(mine, n, dim=1).conj().permute(1, 0, 2).resolve_conj().contiguous()
    others = torch.fft.rfft(functional.pad(theirs, (0, 0, before, 0)), n, dim=1).permute(1, 2, 0).contiguous()
    after = max(0, lags + length - 1 - before - extent)
    energy = functional.pad(theirs.square().sum(dim=2), (before + 1, after)).cumsum(dim=1)
    under = (energy[:, length : length + lags] - energy[:, :lags]).clamp_min(0).sqrt().T  # [lags, B]
    norm = mine.square().sum(dim=(1, 2)).sqrt().clamp_min(1e-6)[:, None]
    best = torch.empty(len(mine), len(theirs))
    prominence = torch.empty_like(best)
    side = max(1, int((_BLOCK / n) ** 0.5))
    for a, b in product(range(0, len(mine), side), range(0, len(theirs), side)):
        rows, columns = slice(a, a + side), slice(b, b + side)
        block = torch.fft.irfft(torch.bmm(spectra[:, rows], others[:, :, columns]), n, dim=0)[:lags]
        # Where there is next to nothing under a piece, chance would make much of it.
        block /= torch.maximum(under[:, None, columns], norm[rows] / 2)
        bins = block.reshape(lags // NEAR, NEAR, *block.shape[1:]).amax(dim=1)
        top, at = bins.max(dim=0)
        for step in (-1, 0, 1):
            bins.scatter_(0, (at + step).clamp(0, len(bins) - 1)[None], 0.0)
        best[rows, columns] = (top / norm[rows]).cpu()
        prominence[rows, columns] = ((top - 0.6 * bins.amax(dim=0).clamp_min(0)) / norm[rows]).cpu()
    return best.numpy(), prominence.numpy()


@dataclass(frozen=True)
class Spread:
    """What a clip's scores with others are usually like: their median and upper decile, each [n]."""

    middle: NDArray[np.float64]
    high: NDArray[np.float64]


def spread(scores: Scores) -> Spread:
    """Return the spread of each row of scores [n, m], of which the best is left aside: it is in question."""
    others = np.sort(scores, axis=1)[:, : max(1, scores.shape[1] - 1)]
    middle, high = np.quantile(others, (0.5, 0.9), axis=1)
    return Spread(middle, high)


def standout(scores: Scores, columns: Spread, least: float = 0.01) -> NDArray[np.float64]:
    """Return how far scores [Q, R] stand out of those usual for both clips, float64 [Q, R].

    (s − median) / (upper decile − median + least), mean of that among the query's scores and among the
    reference's: 1 is what one of ten brings. Dogs are alike and rains are not; this makes both comparable.

    Args:
        scores: of queries with references.
        columns: of the references, by clips that are known to be others.
        least: what is added to the spread.
    """
    rows = spread(scores)
    by_query = (scores - rows.middle[:, None]) / (rows.high - rows.middle + least)[:, None]
    by_reference = (scores - columns.middle) / (columns.high - columns.middle + least)
    found: NDArray[np.float64] = (by_query + by_reference) / 2
    return found


def threshold(yardstick: NDArray[np.float64], share: float = 0.01) -> float:
    """Return the score that at most `share` of honest clips exceed.

    The conformal quantile of the yardstick, ⌈(1 − share)(n + 1)⌉-th of n: a clip drawn like those of the
    yardstick exceeds it with probability `share` at most. Held between the 1 − share/10 and 1 − share/100
    quantiles of the Gumbel law (nearest neighbours are maxima) through its median and upper decile: not
    lower, so that chance makes no low threshold, and not higher, so that copies within the yardstick, up to
    a tenth of it, make no high one. Of fewer than 1/share − 1 clips, which have no such quantile, the higher.

    Args:
        yardstick: scores [n] of clips that are no copies with their nearest references.
        share: of false alarms.
    """
    middle, high = np.quantile(yardstick, (0.5, 0.9))
    scale = (high - middle) / (_gumbel(0.9) - _gumbel(0.5))
    low, most = (middle + scale * (_gumbel(p) - _gumbel(0.5)) for p in (1 - share / 10, 1 - share / 100))
    place = int(np.ceil((1 - share) * (len(yardstick) + 1)))
    if place > len(yardstick):
        return float(most)
    return float(np.clip(np.sort(yardstick)[place - 1], low, most))


def waveform_match(first: NDArray[np.float32], second: NDArray[np.float32]) -> tuple[float, float]:
    """Return (correlation, residual) of two waves at their best lag and gain.

    The correlation, of either sign, is over where they overlap: at least half of the shorter one. The
    residual is what one, scaled to fit, leaves of the other there, in dB: 10·lg(1 − correlation²), no lower
    than −100.

    Args:
        first: [n] at 16 kHz.
        second: [m], likewise.
    """
    short, long = sorted((first.astype(np.float64), second.astype(np.float64)), key=len)
    n, m = len(short), len(long)
    edge = n // 2
    size = fft.next_fast_len(m + 2 * n, real=True)
    products = fft.irfft(fft.rfft(np.pad(long, (n, 0)), size) * fft.rfft(short, size).conj(), size)
    lags = np.arange(edge, n + m - n + n - edge)  # of the start of `short` in padded `long`
    total_short = np.concatenate([[0.0], np.square(short).cumsum()])
    total_long = np.concatenate([[0.0], np.square(long).cumsum()])
    starts = lags - n
    mine = total_short[np.minimum(n, m - starts)] - total_short[np.maximum(0, -starts)]
    other = total_long[np.minimum(m, starts + n)] - total_long[np.maximum(0, starts)]
    # Where a half holds next to nothing, chance would make much of it.
    enough = (mine > 0.25 * total_short[-1]) & (other > 0.25 * total_long[-1] * n / m)
    values = np.abs(products[lags]) / np.sqrt((mine * other).clip(1e-12))
    correlation = float(values[enough].max(initial=0.0).clip(0.0, 1.0))
    return correlation, float(10 * np.log10(max(1 - correlation**2, 1e-10)))


def _gumbel(probability: float) -> float:
    return float(-np.log(-np.log(probability)))


def _log_mel(wav: torch.Tensor) -> torch.Tensor:
    return audio.log_mel(wav, WINDOW, WINDOW, HOP, BANDS, 50.0, 8000.0, floor=1e-7, power=2.0)


@functools.cache
def _impulse() -> torch.Tensor:
    """Log-mel [64] of a flat spectrum of power 1: a frame with an impulse in its middle."""
    wav = torch.zeros(1, 8 * HOP)
    wav[0, 4 * HOP] = 1.0
    return _log_mel(wav)[0, :, 4]
