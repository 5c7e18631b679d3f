"""VGGish (Hershey et al. 2017), over whose frames most published FAD is taken.

As frechet-audio-distance and audioldm_eval use it: the 128 values of the last linear layer, without the ReLU
behind it, without PCA and quantisation, for every 0.96 s of a clip. Both run torch.hub's code of a
third party, which needs the network; this file loads the same published checkpoint without.
"""

import math
from pathlib import Path

import numpy as np
import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from ajbench.core import weights
from ajbench.core.device import Array, device_of
from ajbench.core.errors import IntegrityError, UsageError
from ajbench.data.audio import SAMPLE_RATE
from ajbench.features import weights as places

WINDOW, HOP, FFT = 400, 160, 512  # 25 ms, 10 ms
MELS, LOW, HIGH = 64, 125.0, 7_500.0
OFFSET = 0.01
FRAMES = 96  # of 10 ms, in an example
LAYERS: tuple[int | None, ...] = (
    64,
    None,
    128,
    None,
    256,
    256,
    None,
    512,
    512,
    None,
)  # None: halves both axes
HIDDEN, DIM = 4_096, 128
BLOCK = 64  # examples at once


class VGG(nn.Module):
    """Log-mel examples [k, 1, 96, 64] → embeddings [k, 128]; modules have the checkpoint's names."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for width in LAYERS:
            if width is None:
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = width
        self.features = nn.Sequential(*layers)
        flat = inputs * (FRAMES // 16) * (MELS // 16)
        self.embeddings = nn.Sequential(
            nn.Linear(flat, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(HIDDEN, DIM),
        )

    def forward(self, examples: Tensor) -> Tensor:
        """Map examples to embeddings."""
        maps = self.features(examples)
        # Its weights are TensorFlow's, where channels come last.
        found: Tensor = self.embeddings(maps.permute(0, 2, 3, 1).flatten(1))
        return found


class Vggish:
    """VGGish by its published checkpoint: 128-d frames, one for every 0.96 s, no classes.

    What is left of a clip behind its last whole 0.96 s (plus 15 ms) is not heard, as in the published code.

    Args:
        path: torchvggish's `vggish-10086976.pth`; None is the folder named by AJBENCH_WEIGHTS,
            or torch's cache.
        device: where it computes; None is that of this process.

    Raises:
        MissingError: no such file.
        IntegrityError: it is not a checkpoint of VGGish, or not the published one.
    """

    name = "vggish"
    sample_rate = SAMPLE_RATE
    labels: tuple[str, ...] = ()
    mids = None
    min_samples, max_samples = WINDOW + HOP * (FRAMES - 1), None  # one example
    frames = True

    def __init__(self, path: Path | str | None = None, device: torch.device | None = None) -> None:
        self.device = device or device_of()
        file = places.checked(self.name, path)
        with init_empty_weights():  # 72 M values that the file gives
            model = VGG()
        try:
            model.load_state_dict(weights.unpickled(file), assign=True)
        except (RuntimeError, AttributeError, TypeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise IntegrityError(
                f"features vggish: {file} is not a state dict of VGGish ({reason})"
            ) from None
        self.model = model.float().eval().requires_grad_(False).to(self.device)
        self.mel = _bank().to(self.device)
        self.window = torch.hann_window(WINDOW, device=self.device)

    def __call__(self, wav: Array) -> tuple[np.ndarray, np.ndarray]:
        """Return (features [B, k, 128], logits [B, 0]) of wav [B, n] at 16 kHz."""
        return self.features(wav), self.logits(wav)

    @torch.inference_mode()
    def features(self, wav: Array) -> np.ndarray:
        """Return the frames [B, k, 128] of wav [B, n].

        Raises:
            UsageError: n is below `min_samples`, 0.975 s.
        """
        x = torch.as_tensor(wav, dtype=torch.float32, device=self.device)
        if x.shape[1] < self.min_samples:
            raise UsageError(
                f"features vggish: clips of {x.shape[1] / SAMPLE_RATE:.2f} s, at least "
                f"{self.min_samples / SAMPLE_RATE:.3f} s are needed; use mn04"
            )
        examples = self.examples(x)
        parts = [self.model(part[:, None]) for part in examples.flatten(0, 1).split(BLOCK)]
        found: np.ndarray = torch.cat(parts).unflatten(0, examples.shape[:2]).cpu().numpy()
        return found

    def logits(self, wav: Array) -> np.ndarray:
        """Return nothing, [B, 0]: it knows no classes."""
        return np.zeros((len(wav), 0), np.float32)

    def examples(self, wav: Tensor) -> Tensor:
        """Return ln(mel of the magnitude + 0.01) in examples [B, k, 96, 64] of wav [B, n] at 16 kHz."""
        frames = wav.unfold(1, WINDOW, HOP) * self.window
        log_mel = torch.log(torch.fft.rfft(frames, FFT).abs() @ self.mel + OFFSET)
        k = log_mel.shape[1] // FRAMES
        return log_mel[:, : k * FRAMES].unflatten(1, (k, FRAMES))


def _bank() -> Tensor:
    """Return the mel bands [257, 64]: triangles on the mel axis, where torchaudio's are on that of Hz."""
    edges = torch.linspace(_mel(LOW), _mel(HIGH), MELS + 2, dtype=torch.float64)
    bins = torch.tensor([_mel(n * SAMPLE_RATE / FFT) for n in range(FFT // 2 + 1)], dtype=torch.float64)
    rising = (bins[:, None] - edges[:-1]) / edges.diff()
    bank = torch.minimum(rising[:, :-1], 1 - rising[:, 1:]).clamp_min(0)
    return bank.float()


def _mel(hertz: float) -> float:
    return 1127.0 * math.log1p(hertz / 700.0)
