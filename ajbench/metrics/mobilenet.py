"""EfficientAT's `mn04`: a MobileNetV3 of width 0.4 that tags AudioSet's 527 classes (mAP 43.2).

Schmid et al., "Efficient large-scale audio tagging via transformer-to-CNN knowledge distillation", 2023
(MIT).
"""

import pickle
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.compliance.kaldi import get_mel_banks
from torchaudio.transforms import Resample

from ajbench import registry, weights
from ajbench.audio import SAMPLE_RATE
from ajbench.corpora.audioset import label_set
from ajbench.device import device_of
from ajbench.errors import IntegrityError, MissingError
from ajbench.metrics.ranking import Array

WEIGHTS = registry.FEATURE_FILES["mn04"]
RATE = 32_000  # of the network: the extractor takes 16 kHz, as all sound inside, and doubles it itself
N_FFT, WINDOW, HOP, N_MELS = 1024, 800, 320, 128
F_MAX = 15_000.0


class Row(NamedTuple):
    """One inverted residual: `kernel` and `stride` are of its depthwise convolution."""

    kernel: int
    expanded: int
    out: int
    squeeze: bool
    swish: bool
    stride: int


# MobileNetV3-Large (Howard et al., Table 1) with channels × 0.4, rounded to multiples of 8.
ROWS = (
    Row(3, 8, 8, False, False, 1),
    Row(3, 24, 16, False, False, 2),
    Row(3, 32, 16, False, False, 1),
    Row(5, 32, 16, True, False, 2),
    Row(5, 48, 16, True, False, 1),
    Row(5, 48, 16, True, False, 1),
    Row(3, 96, 32, False, True, 2),
    Row(3, 80, 32, False, True, 1),
    Row(3, 72, 32, False, True, 1),
    Row(3, 72, 32, False, True, 1),
    Row(3, 192, 48, True, True, 1),
    Row(3, 272, 48, True, True, 1),
    Row(5, 272, 64, True, True, 2),
    Row(5, 384, 64, True, True, 1),
    Row(5, 384, 64, True, True, 1),
)
STEM, LAST, HIDDEN, CLASSES = 8, 384, 512, 527


def _conv(
    c_in: int, c_out: int, kernel: int, act: type[nn.Module], stride: int = 1, groups: int = 1
) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out, eps=1e-3), act())


class SqueezeExcite(nn.Module):
    """Channel gates from the mean over frequency and time: [B, C, F, T] → same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = (channels // 4 + 4) // 8 * 8
        self.fc1, self.fc2 = nn.Linear(channels, squeezed), nn.Linear(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Scale every channel by its gate."""
        gates = torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean(dim=(2, 3))))))
        return x * gates[:, :, None, None]


class InvertedResidual(nn.Module):
    """Expand, filter by depth, gate, project; added to the input where shapes allow."""

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
    """The network behind its log-mel front end."""

    window: Tensor
    mel: Tensor

    def __init__(self) -> None:
        super().__init__()
        inputs = (STEM, *(row.out for row in ROWS[:-1]))
        blocks = [InvertedResidual(c_in, row) for c_in, row in zip(inputs, ROWS, strict=True)]
        self.features = nn.Sequential(
            _conv(1, STEM, 3, nn.Hardswish, stride=2), *blocks, _conv(ROWS[-1].out, LAST, 1, nn.Hardswish)
        )
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(LAST, HIDDEN),
            nn.Hardswish(),
            nn.Dropout(0.2),
            nn.Linear(HIDDEN, CLASSES),
        )
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
        """Map wav [B, n] at 32 kHz to the mean of the last feature map [B, 384] and logits [B, 527]."""
        maps = self.features(self.spectrogram(wav)[:, None])
        return maps.mean(dim=(2, 3)), self.classifier(maps)


class MN04:
    """The `mn04` extractor: 16 kHz clips → 384-d embeddings and 527 AudioSet logits, float32 NumPy.

    Args:
        path: the state dict `mn04_as_mAP_432.pt`; by default that file in the folder named by
            AJBENCH_WEIGHTS.
        device: where it computes; None is that of this process.

    Raises:
        MissingError: no such file.
        IntegrityError: the file is not a state dict of mn04.
    """

    name = "mn04"
    sample_rate = SAMPLE_RATE
    least, most = 4_000, None  # a quarter of a second: what ajbench takes for sound at all

    def __init__(self, path: Path | str | None = None, device: torch.device | None = None) -> None:
        classes = label_set()
        self.labels, self.mids = classes.names, classes.mids
        self.device = device or device_of()
        self.model = MobileNet()
        self.model.load_state_dict(_weights(path, self.model))
        self.model.eval().to(self.device)
        # librosa's kaiser_best. torchaudio's default lets images above 8 kHz through, which the tagger hears.
        self.resample = Resample(
            SAMPLE_RATE,
            RATE,
            resampling_method="sinc_interp_kaiser",
            lowpass_filter_width=64,
            rolloff=0.9475937167399596,
            beta=14.769656459379492,
        ).to(self.device)

    @torch.inference_mode()
    def __call__(self, wav: Array) -> tuple[np.ndarray, np.ndarray]:
        """Return (features [B, 384], logits [B, 527]) of wav [B, n] at 16 kHz in one pass."""
        x = torch.as_tensor(wav, dtype=torch.float32, device=self.device)
        features, logits = self.model(self.resample(x))
        return features.cpu().numpy(), logits.cpu().numpy()

    def features(self, wav: Array) -> np.ndarray:
        """Return the embeddings [B, 384] of wav [B, n] at 16 kHz."""
        return self(wav)[0]

    def logits(self, wav: Array) -> np.ndarray:
        """Return the logits [B, 527], before the sigmoid, of wav [B, n] at 16 kHz."""
        return self(wav)[1]


def _weights(path: Path | str | None, model: nn.Module) -> dict[str, Tensor]:
    """State dict of `path`, renamed to this file's modules and checked against `model`."""
    home = weights.folder()
    if path is None and home is None:
        raise MissingError(
            f"features mn04 need {WEIGHTS}: set {weights.VARIABLE} to its folder, or use features=reference"
        )
    file = Path(path) if path is not None else Path(home or "") / WEIGHTS
    if not file.is_file():
        raise MissingError(
            f"features mn04: {file} is missing; put EfficientAT's {WEIGHTS} (release v0.0.1) there, "
            "or use features=reference"
        )
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        renamed = {name.replace("conc_se_layers.0.", ""): value for name, value in state.items()}
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError) as error:
        raise IntegrityError(f"features mn04: {file} is not a state dict; get {WEIGHTS} again") from error
    expected = {name: value.shape for name, value in model.state_dict().items()}
    if {name: getattr(value, "shape", None) for name, value in renamed.items()} != expected:
        raise IntegrityError(f"features mn04: {file} holds other tensors than mn04's; get {WEIGHTS} again")
    return renamed
