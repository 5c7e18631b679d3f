"""VGGish (Hershey et al. 2017), whose frames are the basis of most published FAD.

As in frechet-audio-distance and audioldm_eval: the 128 outputs of the last linear layer, before the ReLU,
without PCA and quantisation, for every 0.96 s of a clip. Both run third-party code from torch.hub, which
needs a connection; this module loads the same checkpoint without one.
"""

import math
from pathlib import Path

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from ajbench.core import weights
from ajbench.data.audio import SAMPLE_RATE
from ajbench.features.extractor import Extractor

WINDOW, HOP, FFT = 400, 160, 512  # 25 ms, 10 ms
MELS, LOW, HIGH = 64, 125.0, 7_500.0
OFFSET = 0.01
FRAMES = 96  # of 10 ms, in one example
LAYERS = (64, 0, 128, 0, 256, 256, 0, 512, 512, 0)  # channels of a convolution; 0: pooling by 2 × 2
HIDDEN, DIM = 4_096, 128
BLOCK = 64  # examples per batch


class VGG(nn.Module):
    """Log-mel examples [k, 1, 96, 64] → embeddings [k, 128]; modules are named as in the checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for width in LAYERS:
            if width == 0:
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
        # The weights come from TensorFlow, where channels are last.
        found: Tensor = self.embeddings(maps.permute(0, 2, 3, 1).flatten(1))
        return found


class Vggish(Extractor):
    """VGGish: 128-d frames, one per 0.96 s, no classes. Its weights are torchvggish's state dict.

    The end of a clip after its last whole 0.96 s (plus 15 ms) is ignored, as in the published code.
    """

    min_samples = WINDOW + HOP * (FRAMES - 1)  # one example

    def __init__(self, name: str, path: Path | str | None = None, device: torch.device | None = None) -> None:
        super().__init__(name, path, device)
        with init_empty_weights():  # the file brings all 72 M values
            model = VGG()
        with self.reading():
            model.load_state_dict(weights.unpickled(self.weights), assign=True)
        self.model = model.float().eval().requires_grad_(False).to(self.device)
        self.mel = _bank().to(self.device)
        self.window = torch.hann_window(WINDOW, device=self.device)

    def compute(self, wav: Tensor) -> tuple[Tensor, None]:
        """Return the frames [B, k, 128] of wav [B, n] at 16 kHz.

        Raises:
            UsageError: the clips are shorter than 0.975 s.
        """
        self.refuse_short(wav)
        examples = self.examples(wav)
        parts = [self.model(part[:, None]) for part in examples.flatten(0, 1).split(BLOCK)]
        return torch.cat(parts).unflatten(0, examples.shape[:2]), None

    def examples(self, wav: Tensor) -> Tensor:
        """Return ln(mel of the magnitude + 0.01) in examples [B, k, 96, 64] of wav [B, n] at 16 kHz."""
        frames = wav.unfold(1, WINDOW, HOP) * self.window
        log_mel = torch.log(torch.fft.rfft(frames, FFT).abs() @ self.mel + OFFSET)
        k = log_mel.shape[1] // FRAMES
        return log_mel[:, : k * FRAMES].unflatten(1, (k, FRAMES))


def _bank() -> Tensor:
    """Return the mel bands [257, 64]: triangles over mel, where torchaudio's are triangles over Hz."""
    edges = torch.linspace(_mel(LOW), _mel(HIGH), MELS + 2, dtype=torch.float64)
    bins = torch.tensor([_mel(n * SAMPLE_RATE / FFT) for n in range(FFT // 2 + 1)], dtype=torch.float64)
    rising = (bins[:, None] - edges[:-1]) / edges.diff()
    return torch.minimum(rising[:, :-1], 1 - rising[:, 1:]).clamp_min(0).float()


def _mel(hertz: float) -> float:
    return 1127.0 * math.log1p(hertz / 700.0)
