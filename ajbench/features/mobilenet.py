"""EfficientAT's `mn04` and `mn10`: MobileNetV3 of width 0.4 and 1.0 as taggers of AudioSet's 527 classes.

Schmid et al., "Efficient large-scale audio tagging via transformer-to-CNN knowledge distillation", 2023
(MIT); their mAP is 43.2 and 47.1.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.compliance.kaldi import get_mel_banks
from torchaudio.transforms import Resample

from ajbench.core import weights
from ajbench.data.audio import SAMPLE_RATE
from ajbench.features.extractor import AudioSetTagger

WIDTHS = {"mn04": 0.4, "mn10": 1.0}
RATE = 32_000  # of the network; the extractor takes 16 kHz and resamples
N_FFT, WINDOW, HOP, N_MELS = 1024, 800, 320, 128
F_MAX = 15_000.0


class Row(NamedTuple):
    """One inverted residual block; `kernel` and `stride` are those of its depthwise convolution."""

    kernel: int
    expanded: int
    out: int
    squeeze: bool
    swish: bool
    stride: int


# MobileNetV3-Large (Howard et al., Table 1).
ROWS = (
    Row(3, 16, 16, False, False, 1),
    Row(3, 64, 24, False, False, 2),
    Row(3, 72, 24, False, False, 1),
    Row(5, 72, 40, True, False, 2),
    Row(5, 120, 40, True, False, 1),
    Row(5, 120, 40, True, False, 1),
    Row(3, 240, 80, False, True, 2),
    Row(3, 200, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 480, 112, True, True, 1),
    Row(3, 672, 112, True, True, 1),
    Row(5, 672, 160, True, True, 2),
    Row(5, 960, 160, True, True, 1),
    Row(5, 960, 160, True, True, 1),
)
STEM, HIDDEN, CLASSES = 16, 1280, 527
LAST = 6  # width of the last layer, in widths of the last row


def channels(n: float) -> int:
    """Return the nearest multiple of 8 that is at least 8 and 9/10 of `n`."""
    nearest = max(8, int(n + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * n else nearest


def _conv(
    c_in: int, c_out: int, kernel: int, act: type[nn.Module], stride: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out, eps=1e-3), act())


class SqueezeExcite(nn.Module):
    """Channel gates from the mean over frequency and time: [B, C, F, T] → same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        squeezed = channels(width // 4)
        self.fc1, self.fc2 = nn.Linear(width, squeezed), nn.Linear(squeezed, width)

    def forward(self, x: Tensor) -> Tensor:
        """Scale every channel by its gate."""
        gates = torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean(dim=(2, 3))))))
        return x * gates[:, :, None, None]


class InvertedResidual(nn.Module):
    """Expand, convolve each channel, gate, project; added to the input if the shapes are equal."""

    def __init__(self, c_in: int, row: Row) -> None:
        super().__init__()
        act = nn.Hardswish if row.swish else nn.ReLU
        layers: list[nn.Module] = [] if row.expanded == c_in else [_conv(c_in, row.expanded, 1, act)]
        layers.append(_conv(row.expanded, row.expanded, row.kernel, act, row.stride, groups=row.expanded))
        if row.squeeze:
            layers.append(SqueezeExcite(row.expanded))
        layers.append(_conv(row.expanded, row.out, 1, nn.Identity))
        self.block = nn.Sequential(*layers)
        self.residual = row.stride == 1 and row.out == c_in

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, C, F, T] to [B, C', F', T']."""
        y = self.block(x)
        return x + y if self.residual else y


class MobileNet(nn.Module):
    """The network with its log-mel front end.

    Args:
        width: factor of all numbers of channels.
    """

    window: Tensor
    mel: Tensor

    def __init__(self, width: float) -> None:
        super().__init__()
        rows = [
            row._replace(expanded=channels(row.expanded * width), out=channels(row.out * width))
            for row in ROWS
        ]
        stem, hidden = channels(STEM * width), channels(HIDDEN * width)
        inputs = (stem, *(row.out for row in rows[:-1]))
        last = LAST * rows[-1].out
        blocks = [InvertedResidual(c_in, row) for c_in, row in zip(inputs, rows, strict=True)]
        self.features = nn.Sequential(
            _conv(1, stem, 3, nn.Hardswish, stride=2), *blocks, _conv(rows[-1].out, last, 1, nn.Hardswish)
        )
        head = nn.Linear(last, hidden), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(hidden, CLASSES)
        self.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *head)
        banks, _ = get_mel_banks(N_MELS, N_FFT, RATE, 0.0, F_MAX, 100.0, -500.0, 1.0)
        self.register_buffer("mel", F.pad(banks, (0, 1)), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW, periodic=False), persistent=False)

    def spectrogram(self, wav: Tensor) -> Tensor:
        """Return the pre-emphasised log-mel of wav [B, n], (ln(power + 1e-5) + 4.5) / 5: [B, 128, T]."""
        emphasised = wav[:, 1:] - 0.97 * wav[:, :-1]
        spectrum = torch.stft(emphasised, N_FFT, HOP, WINDOW, self.window, center=True, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        return (torch.log(self.mel @ power + 1e-5) + 4.5) / 5.0

    def forward(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        """Map wav [B, n] at 32 kHz to the mean of the last maps [B, 384 or 960] and logits [B, 527]."""
        maps = self.features(self.spectrogram(wav)[:, None])
        return maps.mean(dim=(2, 3)), self.classifier(maps)


class MobileNetTagger(AudioSetTagger):
    """The extractors `mn04` and `mn10`: embeddings (384-d and 960-d) and 527 AudioSet logits at 16 kHz.

    Its weights are EfficientAT's state dict.
    """

    def __init__(self, name: str, path: Path | str | None = None, device: torch.device | None = None) -> None:
        super().__init__(name, path, device)
        self.model = MobileNet(WIDTHS[name])
        with self.reading():
            state = weights.unpickled(self.weights)
            # EfficientAT's squeeze-and-excitation has one more level.
            state = {key.replace("conc_se_layers.0.", ""): value for key, value in state.items()}
            self.model.load_state_dict(state)
        self.model.eval().to(self.device)
        # librosa's kaiser_best: torchaudio's default leaves images above 8 kHz, which change the predictions.
        self.resample = Resample(
            SAMPLE_RATE,
            RATE,
            resampling_method="sinc_interp_kaiser",
            lowpass_filter_width=64,
            rolloff=0.9475937167399596,
            beta=14.769656459379492,
        ).to(self.device)

    def compute(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embeddings [B, d] and the logits [B, 527], before the sigmoid."""
        found: tuple[Tensor, Tensor] = self.model(self.resample(wav))
        return found
