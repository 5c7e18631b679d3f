"""The network of the codec `tiny`: log-mel encoder, EnCodec's residual quantiser, decoder with noise.

Shapes: waves [B, n] float32 at 16 kHz, n a multiple of 320 ⇒ latents [B, 128, T], T = n / 320 ⇒ codes
[B, 8, T]. ConvNeXt blocks at the frame rate between a log-mel front end and an inverse STFT, as in Vocos
(Siuzdak 2023). Rain, surf and fire are noise, which a regression loss cannot make natural, so the decoder
adds three spectra. Tones: long windows, with amplitudes and with phases relative to a carrier per bin, so
that a constant output is a steady sinusoid and the network need not count frames. Noise: short windows, gains
on Gaussian noise. Clicks: the same in windows of 8 ms. The energy score (`codec/train.py`) rewards them.

Latents lie in a subspace of `rank` dimensions, as the quantiser's bits would otherwise go to differences
between noisy mel bands that nobody hears (`codec/subspace.py`). The first version (rank None) has all
dimensions and no clicks.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ajbench.data.audio import HOP, SAMPLE_RATE

DIM = 128
N_CODEBOOKS = 8
BINS = 1024
LONG_WINDOW, LONG_MELS = 1280, 128
SHORT_WINDOW, SHORT_HOP, SHORT_MELS = 256, 80, 32
TONE_WINDOW, TONE_HOP = 1280, 320
NOISE_WINDOW, NOISE_HOP = 640, 160
TONE_BINS, NOISE_BINS = TONE_WINDOW // 2 + 1, NOISE_WINDOW // 2 + 1
NOISE_FRAMES = HOP // NOISE_HOP  # noise frames per codec frame
CLICK_WINDOW, CLICK_HOP = 128, 64
CLICK_BINS, CLICK_FRAMES = CLICK_WINDOW // 2 + 1, HOP // CLICK_HOP
NOISE_PER_CLICK = NOISE_WINDOW // CLICK_WINDOW  # noise bins per click bin
SEED = 20_240_101
# Highest log amplitude of a bin, well above full scale: bounds exp on latents unlike those in training.
LOUDEST = 6.0


class Block(nn.Module):
    """ConvNeXt block on [B, T, C]: depthwise convolution over time, then a pointwise bottleneck."""

    def __init__(self, dim: int, hidden: int, depth: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.widen = nn.Linear(dim, hidden)
        self.narrow = nn.Linear(hidden, dim)
        self.scale = nn.Parameter(torch.full((dim,), 1.0 / depth))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, T, C] to [B, T, C]."""
        y = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        return x + self.scale * self.narrow(functional.gelu(self.widen(self.norm(y)), approximate="tanh"))


def _stack(dim: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(Block(dim, 3 * dim, blocks) for _ in range(blocks)))


class TinyCodec(nn.Module):
    """Encoder, quantiser and decoder; every method is a pure function of its input."""

    quantizer: Any  # the encodec package has no types
    basis: Tensor
    long_bank: Tensor
    long_window: Tensor
    short_bank: Tensor
    short_window: Tensor
    tone_window: Tensor
    tone_phase: Tensor
    noise_window: Tensor
    click_window: Tensor

    def __init__(
        self,
        encoder_dim: int = 256,
        encoder_blocks: int = 3,
        decoder_dim: int = 320,
        decoder_blocks: int = 6,
        rank: int | None = 48,
    ) -> None:
        super().__init__()
        from encodec.quantization import ResidualVectorQuantizer
        from torchaudio.functional import melscale_fbanks

        self.config: dict[str, Any] = {
            "encoder_dim": encoder_dim,
            "encoder_blocks": encoder_blocks,
            "decoder_dim": decoder_dim,
            "decoder_blocks": decoder_blocks,
            "rank": rank,
        }
        size = rank or DIM
        with torch.device("cpu"):  # computed, also where the rest takes no memory
            for name, window, mels in (
                ("long", LONG_WINDOW, LONG_MELS),
                ("short", SHORT_WINDOW, SHORT_MELS),
            ):
                bank = melscale_fbanks(
                    window // 2 + 1, 0.0, SAMPLE_RATE / 2, mels, SAMPLE_RATE, norm=None, mel_scale="slaney"
                )
                self.register_buffer(f"{name}_bank", bank, persistent=False)
                self.register_buffer(f"{name}_window", torch.hann_window(window), persistent=False)
            self.register_buffer("tone_window", torch.hann_window(TONE_WINDOW), persistent=False)
            self.register_buffer("noise_window", torch.hann_window(NOISE_WINDOW), persistent=False)
            self.register_buffer("click_window", torch.hann_window(CLICK_WINDOW), persistent=False)
            # random initial phases; otherwise a steady spectrum would be one click per window
            start = torch.rand(TONE_BINS, generator=torch.Generator().manual_seed(SEED)) * 2 * torch.pi
            self.register_buffer("tone_phase", start, persistent=False)

        features = LONG_MELS + SHORT_MELS * (HOP // SHORT_HOP)
        self.encoder_in = nn.Conv1d(features, encoder_dim, 5, padding=2)
        self.encoder = _stack(encoder_dim, encoder_blocks)
        self.encoder_out = nn.Sequential(nn.LayerNorm(encoder_dim), nn.Linear(encoder_dim, size))
        self.encoder_skip = nn.Linear(LONG_MELS, size)
        # Signs of equal weight: every one of the 128 channels varies, and none is favoured.
        basis = torch.eye(DIM) if rank is None else _hadamard(DIM)[:rank] / rank**0.5
        self.register_buffer("basis", basis, persistent=False)
        # Training initialises and revives codes itself (codec/train.py): the k-means of the package needs
        # gigabytes, and its replacements of unused codes are overwritten by the moving average.
        untouched = {"kmeans_init": False, "threshold_ema_dead_code": 0}
        self.quantizer = ResidualVectorQuantizer(DIM, N_CODEBOOKS, BINS, decay=0.99, **untouched)
        self.decoder_in = nn.Conv1d(size, decoder_dim, 7, padding=3)
        self.decoder = _stack(decoder_dim, decoder_blocks)
        self.decoder_norm = nn.LayerNorm(decoder_dim)
        # per frame: log amplitude and phase as a 2-vector of every tone bin, log gain of every noise and
        # every click bin, frame after frame
        self.parts = [3 * TONE_BINS, NOISE_FRAMES * NOISE_BINS, CLICK_FRAMES * CLICK_BINS]
        if rank is None:
            self.parts.pop()
        self.head = nn.Linear(decoder_dim, sum(self.parts))
        self.decoder_skip = nn.Linear(size, TONE_BINS + NOISE_BINS, bias=False)
        if rank is None and not self.head.weight.is_meta:
            self._start_as_vocoder()

    @torch.no_grad()
    def _start_as_vocoder(self) -> None:
        # Untrained, the codec is a noise vocoder of 128 mel bands: harmonics pass the bottleneck from the
        # first step on. Otherwise they take thousands of steps to appear.
        scale, centre = 0.3, -5.0
        self.encoder_skip.weight.copy_(scale * torch.eye(DIM))
        self.encoder_skip.bias.fill_(-scale * centre)
        for layer in (self.encoder_out[1], self.head):
            layer.get_parameter("weight").mul_(0.1)
        width = self.long_bank.sum(0).log()  # a band sums this many bins
        peaks = self.long_bank.argmax(0).float() * SAMPLE_RATE / LONG_WINDOW
        # a signal of deviation 1 has a mean magnitude of 19.4 in the long window and needs these amplitudes
        for first, bins, amplitude in ((0, TONE_BINS, 1 / 0.037), (TONE_BINS, NOISE_BINS, 1 / 0.046)):
            hertz = torch.arange(bins) * SAMPLE_RATE / 2 / (bins - 1)
            above = torch.searchsorted(peaks, hertz).clamp(1, LONG_MELS - 1)
            low, high = peaks[above - 1], peaks[above]
            share = ((hertz - low) / (high - low).clamp(min=1e-3)).clamp(0, 1)
            spread = torch.zeros(bins, LONG_MELS)
            spread.scatter_(1, (above - 1)[:, None], (1 - share)[:, None])
            spread.scatter_add_(1, above[:, None], share[:, None])
            self.decoder_skip.weight[first : first + bins] = spread / scale
            level = centre - spread @ width + math.log(amplitude / 19.4 / 2**0.5)
            if first:
                self.head.bias[3 * TONE_BINS :] = level.repeat(NOISE_FRAMES)
            else:
                self.head.bias[:TONE_BINS] = level

    def spectra(self, wav: Tensor) -> Tensor:
        """Waves [B, n] → log-mel features float32 [B, C, T]: one long and four short windows per frame."""
        long = _log_mel(wav, self.long_window, HOP, self.long_bank)
        short = _log_mel(wav, self.short_window, SHORT_HOP, self.short_bank)
        batch, mels, frames = short.shape
        short = short.reshape(batch, mels, frames * SHORT_HOP // HOP, HOP // SHORT_HOP).transpose(2, 3)
        return torch.cat((long, short.reshape(batch, mels * (HOP // SHORT_HOP), -1)), dim=1)

    def embed(self, wav: Tensor) -> Tensor:
        """Waves [B, n] → latents [B, 128, T] before quantisation."""
        spectra = self.spectra(wav)
        deep = self.encoder_out(self.encoder(self.encoder_in(spectra).transpose(1, 2)))
        return self.spread(deep + self.encoder_skip(spectra[:, :LONG_MELS].transpose(1, 2)))

    def spread(self, coordinates: Tensor) -> Tensor:
        """Coordinates in the subspace [B, T, rank] → latents [B, 128, T], float32."""
        return (coordinates @ self.basis).float().transpose(1, 2)

    def coordinates(self, latents: Tensor) -> Tensor:
        """Latents [B, 128, T] → coordinates in the subspace [B, T, rank]; what lies outside it is dropped."""
        return latents.transpose(1, 2) @ (self.basis.T / self.basis[0].square().sum())

    def spectrum(self, latents: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Latents [B, 128, T] → complex tones [B, T, 641]; gains [B, 2T, 321] and, of clicks, [B, 5T, 65]."""
        small = self.coordinates(latents)
        x = self.decoder_norm(self.decoder(self.decoder_in(small.transpose(1, 2)).transpose(1, 2)))
        tones, noise, *clicks = self.head(x).float().split(self.parts, dim=2)
        tone_level, noise_level = self.decoder_skip(small).float().split((TONE_BINS, NOISE_BINS), dim=2)
        amplitude, real, imaginary = tones.split(TONE_BINS, dim=2)
        amplitude = (amplitude + tone_level).clamp(max=LOUDEST).exp()
        amplitude = amplitude * (real.square() + imaginary.square() + 1e-8).rsqrt()
        carried = torch.complex(amplitude * real, amplitude * imaginary) * self._carrier(x.shape[1])
        gains = [noise.unflatten(2, (NOISE_FRAMES, -1)) + noise_level[:, :, None]]
        for one in clicks:
            gains.append(one.unflatten(2, (CLICK_FRAMES, -1)) + noise_level[:, :, None, ::NOISE_PER_CLICK])
        return carried, [one.flatten(1, 2).clamp(max=LOUDEST).exp() for one in gains]

    def _carrier(self, frames: int) -> Tensor:
        # bin k rotates by 2π·k·hop/window per frame, here k quarter turns: exact in integers
        turns = torch.outer(torch.arange(frames), torch.arange(TONE_BINS))
        quarters = turns * (4 * TONE_HOP // TONE_WINDOW) % 4
        phase = quarters.to(self.tone_phase.device) * (torch.pi / 2) + self.tone_phase
        return torch.polar(torch.ones_like(phase), phase)

    def tonal(self, tones: Tensor) -> Tensor:
        """Tones [B, T, 641] → waves [B, 320 · T]."""
        return overlap_add(tones, self.tone_window, TONE_HOP)

    def noisy(self, gains: Sequence[Tensor], draws: Sequence[Tensor]) -> Tensor:
        """Gains · noise of their shapes (complex, unit variance per part), summed → waves [B, 320 · T]."""
        windows = ((self.noise_window, NOISE_HOP), (self.click_window, CLICK_HOP))
        parts = zip(gains, draws, windows, strict=False)
        return torch.stack([overlap_add(gain * draw, *window) for gain, draw, window in parts]).sum(0)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B, 128, T] → waves [B, 320 · T]; the noise is a fixed function of position."""
        tones, gains = self.spectrum(latents)
        # drawn frame by frame in memory order, so that a longer clip starts with the noise of a shorter one
        draws = [
            torch.randn(*gain.shape[1:], 2, generator=torch.Generator().manual_seed(SEED + number))
            for number, gain in enumerate(gains)
        ]
        return self.tonal(tones) + self.noisy(
            gains, [torch.view_as_complex(draw).to(latents.device) for draw in draws]
        )


def _hadamard(size: int) -> Tensor:
    """Return Sylvester's matrix: entries ±1, orthogonal rows; `size` a power of two."""
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    return matrix


def _log_mel(wav: Tensor, window: Tensor, hop: int, bank: Tensor) -> Tensor:
    size = window.shape[0]
    edge = (size - hop) // 2
    padded = functional.pad(wav, (edge, size - hop - edge))
    power = torch.stft(padded, size, hop, window=window, center=False, return_complex=True).abs()
    return torch.log(torch.matmul(bank.T, power) + 1e-4)


def overlap_add(spectrum: Tensor, window: Tensor, hop: int) -> Tensor:
    """Inverse STFT: [B, F, bins] → [B, hop · F], normalised by the sum of squared windows; hop divides it."""
    frames, size = spectrum.shape[1], window.shape[0]
    edge = (size - hop) // 2

    def fold(segments: Tensor) -> Tensor:
        pieces = segments.unflatten(2, (-1, hop)).unbind(2)
        last = len(pieces) - 1
        shifted = [functional.pad(piece, (0, 0, k, last - k)) for k, piece in enumerate(pieces)]
        return torch.stack(shifted).sum(0).flatten(1)[:, edge : edge + frames * hop]

    segments = torch.fft.irfft(spectrum, n=size, dim=2) * window
    return fold(segments) / fold(window.square().expand(1, frames, -1))
