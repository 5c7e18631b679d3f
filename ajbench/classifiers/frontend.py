"""From waves to normalised log-mel features [B, T, F], and the augmentations on either side of that step."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchaudio.compliance.kaldi import get_mel_banks
from torchaudio.functional import melscale_fbanks

from ajbench.audio import SAMPLE_RATE


class Fbank(nn.Module):
    """AST's front end: Kaldi filter banks, 128 mel, 25 ms Hanning windows every 10 ms.

    Equals `torchaudio.compliance.kaldi.fbank(htk_compat=True, window_type="hanning", dither=0,
    use_energy=False)` of the wave minus its mean, then zeros up to a multiple of 64 frames (512 for 5 s and
    1,024 for 10 s, the published lengths), then (x + 4.2677393) / (2 · 4.5689974).
    """

    mean, std = -4.2677393, 4.5689974
    zero = -mean / (2 * std)  # a raw 0 after normalisation, which pads and masks
    bands = 128
    window, hop, fft = 400, 160, 512
    frame_multiple = 64

    def __init__(self) -> None:
        super().__init__()
        bank, _ = get_mel_banks(self.bands, self.fft, SAMPLE_RATE, 20.0, 0.0, 100.0, -500.0, 1.0)
        # Kaldi's banks lack the Nyquist bin; its weight is 0.
        self.register_buffer("bank", functional.pad(bank, (0, 1)).T.contiguous(), persistent=False)
        hann = torch.hann_window(self.window, periodic=False)
        self.register_buffer("hann", hann, persistent=False)
        self.bank: Tensor
        self.hann: Tensor

    def frames(self, samples: int) -> int:
        """Return the number of frames T of a wave, after padding."""
        natural = 1 + (samples - self.window) // self.hop
        return -(-natural // self.frame_multiple) * self.frame_multiple

    def log_mel(self, wav: Tensor) -> Tensor:
        """Waves [B, n] → Kaldi log-mel energies [B, 1 + (n − 400) // 160, 128], not padded or scaled."""
        wav = wav - wav.mean(dim=1, keepdim=True)
        frames = wav.unfold(1, self.window, self.hop)
        frames = frames - frames.mean(dim=2, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
        spectrum = torch.fft.rfft((frames - 0.97 * before) * self.hann, n=self.fft)
        power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
        return (power @ self.bank).clamp_min(torch.finfo(torch.float32).eps).log()

    def forward(self, wav: Tensor) -> Tensor:
        """Waves float32 [B, n] → features [B, T, 128]."""
        with torch.autocast(wav.device.type, enabled=False):
            mel = self.log_mel(wav)
            mel = functional.pad(mel, (0, 0, 0, self.frames(wav.shape[1]) - mel.shape[1]))
            return (mel - self.mean) / (2 * self.std)


class TalMel(nn.Module):
    """TALtrans' front end: 64 Slaney mel bands of a 1,024-sample window every 400 samples (25 ms).

    Equals torchaudio's MelSpectrogram(n_fft=4096, win_length=1024, hop_length=400, n_mels=64, power=2,
    norm="slaney", mel_scale="slaney") in 20 · log10 (the repository's setting, though the power is 2), then
    (x + 29.686901) / (2 · 40.898224).

    Args:
        n_fft: a smaller one than the original 4,096 costs less and keeps the level (the bank is scaled by
            4096 / n_fft) but interpolates the lowest bands more coarsely.
    """

    mean, std = -29.686901, 40.898224
    zero = -mean / (2 * std)
    bands = 64
    window, hop = 1024, 400

    def __init__(self, n_fft: int = 4096) -> None:
        super().__init__()
        self.n_fft = n_fft
        bank = melscale_fbanks(
            n_fft // 2 + 1, 0.0, SAMPLE_RATE / 2, self.bands, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
        )
        self.register_buffer("bank", bank * (4096 / n_fft), persistent=False)
        self.register_buffer("hann", torch.hann_window(self.window), persistent=False)
        self.bank: Tensor
        self.hann: Tensor

    def frames(self, samples: int) -> int:
        """Return the number of frames T of a wave."""
        return 1 + samples // self.hop

    def forward(self, wav: Tensor) -> Tensor:
        """Waves float32 [B, n] → features [B, 1 + n // 400, 64]."""
        with torch.autocast(wav.device.type, enabled=False):
            half = self.window // 2
            padded = functional.pad(wav[:, None], (half, half), mode="reflect")[:, 0]
            # Only the magnitude is used, so the window need not sit in the middle of the longer transform.
            frames = padded.unfold(1, self.window, self.hop)[:, : self.frames(wav.shape[1])]
            spectrum = torch.fft.rfft(frames * self.hann, n=self.n_fft)
            power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
            decibel = 20 * (power @ self.bank).clamp_min(1e-10).log10()
            return (decibel - self.mean) / (2 * self.std)


def spec_augment(
    features: Tensor, generator: torch.Generator, *, time: int, freq: int, fill: float = 0.0
) -> Tensor:
    """Mask one stretch of frames and one of bands in every clip of features [B, T, F].

    Widths are uniform below `time` frames and `freq` bands, positions uniform where the stretch
    fits. Masked values become `fill`; the published recipes mask with 0 before normalisation.
    """
    clips, frames, bands = features.shape
    draws = torch.rand(4, clips, 1, generator=generator)
    across = _stretch(frames, time, draws[0], draws[1]).unsqueeze(2)
    down = _stretch(bands, freq, draws[2], draws[3]).unsqueeze(1)
    return features.masked_fill((across | down).to(features.device), fill)


def _stretch(size: int, widest: int, width: Tensor, start: Tensor) -> Tensor:
    """Boolean [B, size], true on one stretch a row, from uniform draws [B, 1]."""
    width = (width * min(widest, size)).long()
    first = (start * (size - width + 1)).long()
    position = torch.arange(size)
    return (position >= first) & (position < first + width)


def mixup_draws(clips: int, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw which of `clips` clips get a partner, and the weight λ ~ Beta(10, 10) that each keeps (as AST).

    Returns:
        Their positions, int64 [k] (about share · clips of them), and λ, float32 [k].
    """
    mixed = torch.nonzero(torch.rand(clips, generator=generator) < share)[:, 0]
    # Beta(10, 10) is the distribution of the median of 19 uniform numbers.
    keep = torch.rand(clips, 19, generator=generator).median(dim=1).values[mixed]
    return mixed, keep


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
