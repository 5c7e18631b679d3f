"""Waves to normalised log-mel features [B, T, F], and the augmentations before and after."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchaudio.compliance import kaldi
from torchaudio.functional import melscale_fbanks

from ajbench.data.audio import SAMPLE_RATE
from ajbench.data.clip_audio import Samples, write_float


class Fbank(nn.Module):
    """AST's front end: Kaldi filter banks, 128 mel, 25 ms Hanning windows every 10 ms.

    Equals `torchaudio.compliance.kaldi.fbank(htk_compat=True, window_type="hanning", dither=0,
    use_energy=False)` of the wave minus its mean, then zeros up to a multiple of 64 frames (512 for 5 s and
    1,024 for 10 s, the published lengths), then (x + 4.2677393) / (2 · 4.5689974).

    Args:
        exact: call torchaudio's function clip by clip, with the same bits. Otherwise the same sums are
            computed in another order, several times faster; rounding differs by at most 1e-2, where a band
            is nearly silent, and by about 1e-6 on average, in log-mel units.
    """

    mean, std = -4.2677393, 4.5689974
    zero = -mean / (2 * std)  # a raw 0 after normalisation, which pads and masks
    bands = 128
    window, hop, fft = 400, 160, 512
    preemphasis = 0.97
    frame_multiple = 64

    def __init__(self, exact: bool = False) -> None:
        super().__init__()
        self.exact = exact
        bank, _ = kaldi.get_mel_banks(self.bands, self.fft, SAMPLE_RATE, 20.0, 0.0, 100.0, -500.0, 1.0)
        # Kaldi's banks lack the Nyquist bin; its weight is 0.
        self.mel = MelBank(functional.pad(bank, (0, 1)).T)
        # The first sample of the window is 0; it and the sample that it multiplies are left out.
        hann = torch.hann_window(self.window, periodic=False)[1:].clone()
        self.register_buffer("hann", hann, persistent=False)
        self.hann: Tensor

    def frames(self, samples: int) -> int:
        """Return the number of frames T of a wave, after padding."""
        return -(-self._natural(samples) // self.frame_multiple) * self.frame_multiple

    def _natural(self, samples: int) -> int:
        return 1 + (samples - self.window) // self.hop

    def reference(self, wav: Tensor) -> Tensor:
        """Waves [B, n] → torchaudio's Kaldi log-mel energies [B, 1 + (n − 400) // 160, 128], bit for bit."""
        options = {"htk_compat": True, "use_energy": False, "window_type": "hanning", "dither": 0.0}
        options |= {"sample_frequency": SAMPLE_RATE, "num_mel_bins": self.bands, "frame_shift": 10.0}
        with torch.autocast(wav.device.type, enabled=False):
            return torch.stack([kaldi.fbank((clip - clip.mean())[None], **options) for clip in wav])

    def log_mel(self, wav: Tensor) -> Tensor:
        """Waves [B, n] → Kaldi log-mel energies [B, 1 + (n − 400) // 160, 128], not padded or scaled."""
        out = wav.new_empty(len(wav), self._natural(wav.shape[1]), self.bands)
        self._write(wav, out)
        return out

    def forward(self, wav: Tensor) -> Tensor:
        """Waves float32 [B, n] → features [B, T, 128]."""
        natural = self._natural(wav.shape[1])
        features = wav.new_empty(len(wav), self.frames(wav.shape[1]), self.bands)
        features[:, natural:] = 0.0
        self._write(wav, features[:, :natural])
        return features.sub_(self.mean).div_(2 * self.std)

    def _write(self, wav: Tensor, out: Tensor) -> None:
        """Write the log-mel energies of waves [B, n] into out [B, t, 128]."""
        if self.exact:
            out.copy_(self.reference(wav))
            return
        step = _clips_at_once(wav)
        # The zeros behind each frame are written once for all clips.
        padded = wav.new_zeros(step, out.shape[1], self.fft)
        with torch.autocast(wav.device.type, enabled=False):
            for clips, rows in zip(wav.split(step), out.split(step), strict=True):
                self._frame(clips, padded[:, :, : len(self.hann)])
                self.mel(torch.fft.rfft(padded), out=rows)
                rows.clamp_min_(torch.finfo(torch.float32).eps).log_()

    def _frame(self, wav: Tensor, out: Tensor) -> None:
        """Cut waves [B, n] into frames less their mean, pre-emphasised and windowed: out [B, t, 399].

        Pre-emphasis comes before the cut, once per sample instead of once per frame. It leaves m − 0.97 m of
        the mean m of a frame, except at the first sample, where the window is 0.
        """
        wav = wav - wav.mean(dim=1, keepdim=True)
        sums = wav.unfold(1, self.window, self.hop).sum(dim=2, keepdim=True)
        emphasised = torch.sub(wav[:, 1:], wav[:, :-1], alpha=self.preemphasis)
        frames = emphasised.unfold(1, out.shape[2], self.hop)[:, : out.shape[1]]
        torch.sub(frames, sums, alpha=(1 - self.preemphasis) / self.window, out=out).mul_(self.hann)


class TalMel(nn.Module):
    """TALtrans' front end: 64 Slaney mel bands of a 1,024-sample window every 400 samples (25 ms).

    Of the wave minus its mean, equals torchaudio's MelSpectrogram(n_fft=4096, win_length=1024,
    hop_length=400, pad_mode="constant", n_mels=64, power=2, norm="slaney", mel_scale="slaney") in
    20 · log10 (the repository's setting, though the power is 2), cut or padded to `frames`, then
    (x + 29.686901) / (2 · 40.898224).

    Args:
        n_fft: a smaller one than the original 4,096 costs less and keeps the level (the bank is scaled by
            4096 / n_fft), but resolves the lowest bands more coarsely.
    """

    mean, std = -29.686901, 40.898224
    zero = -mean / (2 * std)
    bands = 64
    window, hop = 1024, 400
    frame_multiple = 8

    def __init__(self, n_fft: int = 4096) -> None:
        super().__init__()
        self.n_fft = n_fft
        bank = melscale_fbanks(
            n_fft // 2 + 1, 0.0, SAMPLE_RATE / 2, self.bands, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
        )
        self.mel = MelBank(bank * (4096 / n_fft))
        self.register_buffer("hann", torch.hann_window(self.window), persistent=False)
        self.hann: Tensor

    def frames(self, samples: int) -> int:
        """Return the number of frames T of a wave.

        The repository cuts its 10 s clips from 401 frames to 400. Here the last frames are cut to a multiple
        of 8 (0.2 s): 400 for 10 s and for 10.08 s, 200 for 5.04 s, 1,200 for 30 s. A clip of fewer than 8
        frames is padded to 8 with 0 dB, as the repository pads.
        """
        return max(self._natural(samples) // self.frame_multiple, 1) * self.frame_multiple

    def _natural(self, samples: int) -> int:
        return 1 + samples // self.hop

    def forward(self, wav: Tensor) -> Tensor:
        """Waves float32 [B, n] → features [B, T, 64]."""
        step, half = _clips_at_once(wav), self.window // 2
        features = wav.new_zeros(len(wav), self.frames(wav.shape[1]), self.bands)
        out = features[:, : self._natural(wav.shape[1])]
        padded = wav.new_zeros(step, out.shape[1], self.n_fft)
        with torch.autocast(wav.device.type, enabled=False):
            for clips, rows in zip(wav.split(step), out.split(step), strict=True):
                centred = clips - clips.mean(dim=1, keepdim=True)
                # Only magnitudes are used, so the window need not be centred in the longer transform.
                frames = functional.pad(centred, (half, half)).unfold(1, self.window, self.hop)
                torch.mul(frames[:, : out.shape[1]], self.hann, out=padded[:, :, : self.window])
                self.mel(torch.fft.rfft(padded), out=rows)
            out.clamp_min_(1e-10).log10_().mul_(20)
            return features.sub_(self.mean).div_(2 * self.std)


class MelBank(nn.Module):
    """Weights the power of a spectrum by a mel bank [F, M], skipping most of the zeros.

    A band covers few of the F bins: each group of neighbouring bands is multiplied over its own bins only.
    """

    group = 32  # smaller groups skip more zeros, but products with few columns are slower

    def __init__(self, bank: Tensor) -> None:
        super().__init__()
        # Real and imaginary squares stay interleaved; the product adds them up.
        self.register_buffer("weights", bank.repeat_interleave(2, dim=0), persistent=False)
        self.weights: Tensor
        self.blocks: list[tuple[slice, slice]] = []
        for first in range(0, bank.shape[1], self.group):
            columns = slice(first, first + self.group)
            covered = self.weights[:, columns].any(dim=1).nonzero()
            self.blocks.append((slice(int(covered.min()), int(covered.max()) + 1), columns))

    def forward(self, spectrum: Tensor, out: Tensor) -> None:
        """Write the energies of a spectrum, complex [..., F] (overwritten), into out [..., M]."""
        squares = torch.view_as_real(spectrum).square_().flatten(-2)
        products = [squares[..., bins] @ self.weights[bins, columns] for bins, columns in self.blocks]
        torch.cat(products, dim=-1, out=out)


def _clips_at_once(wav: Tensor) -> int:
    """Return how many of the waves [B, n] to transform at once.

    One on a CPU: its frames are still in the cache when the next step reads them, and the features of a clip
    are the same to the last bit in every batch. All elsewhere.
    """
    return 1 if wav.device.type == "cpu" else max(len(wav), 1)


def spec_augment(features: Tensor, draws: Tensor, *, time: int, freq: int, fill: float = 0.0) -> Tensor:
    """Mask a span of frames and a span of bands in every clip.

    Widths are uniform below `time` frames and `freq` bands, positions uniform where the span fits. The
    published recipes mask with 0 before normalisation.

    Args:
        features: [B, T, F].
        draws: uniform in [0, 1), [B, 4], on the same device: width and position in time, then in frequency.
        time: widest mask plus one, frames.
        freq: widest mask plus one, bands.
        fill: the masked value.
    """
    _, frames, bands = features.shape
    across = _span(frames, time, draws[:, 0:1], draws[:, 1:2]).unsqueeze(2)
    down = _span(bands, freq, draws[:, 2:3], draws[:, 3:4]).unsqueeze(1)
    return features.masked_fill(across | down, fill)


def _span(size: int, widest: int, width: Tensor, start: Tensor) -> Tensor:
    """Return a boolean mask [B, size] with one span per row, from uniform draws [B, 1]."""
    width = (width * min(widest, size)).long()
    first = (start * (size - width + 1)).long()
    position = torch.arange(size, device=width.device)
    return (position >= first) & (position < first + width)


def mixup(wav: Tensor, targets: Tensor, mixed: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Mix waves and labels: AST's waveform mixup.

    Args:
        wav: the batch's waves and, after them, the k partners', [B + k, n].
        targets: in the same order, [B + k, C].
        mixed: positions of the clips to mix [k].
        keep: their λ [k].

    Returns:
        Waves [B, n], each clip centred before it is mixed and the sum after, and targets [B, C].
    """
    clips = len(wav) - len(mixed)
    wav = wav - wav.mean(dim=1, keepdim=True)
    weight = keep[:, None]
    blend = torch.lerp(wav[clips:], wav[mixed], weight)
    out, labels = wav[:clips], targets[:clips].clone()
    out[mixed] = blend - blend.mean(dim=1, keepdim=True)
    labels[mixed] = torch.lerp(targets[clips:], targets[mixed], weight)
    return out, labels


def mixup_rows(
    rows: Sequence[Samples], targets: Tensor, mixed: Tensor, keep: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what `mixup` does of clips that are not waves yet, to the last bit, in a sixth of the time.

    A clip passes through all steps while it is in the processor's cache.

    Args:
        rows: samples [n] of the batch's clips and, after them, of the k partners.
        targets: in the same order, [B + k, C].
        mixed: positions of the clips to mix [k].
        keep: their λ [k].
    """
    clips = len(rows) - len(mixed)
    out = torch.from_numpy(np.empty((clips, len(rows[0])), np.float32))  # numpy asks for large pages
    own, theirs = torch.empty(2, 1, out.shape[1])
    partner = {place: clips + k for k, place in enumerate(mixed.tolist())}
    weights = dict(zip(partner, keep.view(-1, 1, 1), strict=True))
    for place, wave in enumerate(out.split(1)):
        if place not in partner:
            _centre(rows[place], wave)
            continue
        _centre(rows[place], own)
        _centre(rows[partner[place]], theirs)
        torch.lerp(theirs, own, weights[place], out=wave)
        wave.sub_(_mean(wave))
    labels = targets[:clips].clone()
    labels[mixed] = torch.lerp(targets[clips:], targets[mixed], keep[:, None])
    return out, labels


def _centre(samples: Samples, wave: Tensor) -> None:
    """Write samples less their mean into a wave [1, n]."""
    write_float(samples, wave[0].numpy())
    wave.sub_(_mean(wave))


def _mean(wave: Tensor) -> Tensor:
    """Return the mean [1, 1] of a wave [1, n] as of one in a batch: torch adds up a single row otherwise."""
    return wave.expand(2, -1).mean(dim=1, keepdim=True)[:1]
