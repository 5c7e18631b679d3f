"""Does synthetic audio repeat real clips? Nearest neighbours by log-mel, and ids that two sets share."""

from collections.abc import Iterable
from itertools import product

import numpy as np
import torch
from scipy import fft

from ajbench import audio
from ajbench.errors import UsageError

# Complex values in one block of cross-spectra: 64 MB.
_BLOCK = 8_000_000


def fingerprints(wav: torch.Tensor) -> np.ndarray:
    """Return level-normalised log-mels of unit norm as spectra over time, complex64 [B, F, 64].

    Clips are brought to unit RMS and the mean of their log-mel is taken out, so that gain does not count.

    Args:
        wav: [B, n], float32 at 16 kHz; clips that are compared must have the same n.
    """
    level = wav.square().mean(dim=1, keepdim=True).sqrt().clamp_min(1e-8)
    mel = audio.log_mel(
        wav / level, n_fft=1024, win=1024, hop=320, n_mels=64, f_min=0.0, f_max=8000.0, floor=1e-4
    )
    # An even number of frames, so that `nearest` can tell it from the number of frequencies.
    mel = mel[..., : mel.shape[-1] // 2 * 2]
    mel = mel - mel.mean(dim=(1, 2), keepdim=True)
    mel = mel / mel.norm(dim=(1, 2), keepdim=True).clamp_min(1e-8)
    spectra: np.ndarray = torch.fft.rfft(mel, dim=2, norm="ortho").transpose(1, 2).cpu().numpy()
    return spectra


def nearest(query_feats: np.ndarray, ref_feats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the most similar reference of every query, int64 [Q], and its cosine, float32 [Q].

    The cosine of two log-mels is taken at their best circular shift in time: 1 for a shifted, louder or
    quieter copy.

    Args:
        query_feats: `fingerprints` [Q, F, 64].
        ref_feats: `fingerprints` [R, F, 64].

    Raises:
        UsageError: no reference, or clips of another length.
    """
    if not len(ref_feats) or query_feats.shape[1:] != ref_feats.shape[1:]:
        raise UsageError(
            f"nearest: {query_feats.shape} against {ref_feats.shape}; give references of the same clip length"
        )
    n_freq = query_feats.shape[1]
    side = max(1, int((_BLOCK / n_freq) ** 0.5))
    index, cosine = np.zeros(len(query_feats), np.int64), np.full(len(query_feats), -np.inf, np.float32)
    for q, r in product(range(0, len(query_feats), side), range(0, len(ref_feats), side)):
        queries = query_feats[q : q + side].conj().transpose(1, 0, 2)
        references = ref_feats[r : r + side].transpose(1, 2, 0)
        shifts = fft.irfft(queries @ references, n=2 * (n_freq - 1), axis=0, norm="forward")
        similarity = shifts.max(axis=0)
        best = similarity.argmax(axis=1)
        value = similarity[np.arange(len(best)), best]
        better = value > cosine[q : q + side]
        index[q : q + side][better] = best[better] + r
        cosine[q : q + side][better] = value[better]
    return index, cosine


def overlap(ids_a: Iterable[str], ids_b: Iterable[str]) -> list[str]:
    """Return the ids that occur in both, sorted."""
    return sorted(set(ids_a) & set(ids_b))
