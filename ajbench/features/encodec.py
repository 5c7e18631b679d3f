"""EnCodec's encoder as an extractor: the `encodec` mode of frechet-audio-distance."""

import warnings
from pathlib import Path

import torch
from encodec import EncodecModel
from torch import Tensor

from ajbench.codec.encodec import fill
from ajbench.features.extractor import Extractor


class Encodec(Extractor):
    """EnCodec's 24 kHz encoder before its quantiser: 128-d frames, 75 per second, no classes.

    Its weights are those of the codec: the package's checkpoint, or a folder saved by transformers.
    """

    sample_rate = 24_000
    min_samples = 6_000

    def __init__(self, name: str, path: Path | str | None = None, device: torch.device | None = None) -> None:
        super().__init__(name, path, device)
        with warnings.catch_warnings():  # the package uses torch's old weight norm, which warns
            warnings.simplefilter("ignore", FutureWarning)
            model = EncodecModel.encodec_model_24khz(pretrained=False)
        fill(model, self.weights)
        self.encoder = model.encoder.eval().requires_grad_(False).to(self.device)

    def compute(self, wav: Tensor) -> tuple[Tensor, None]:
        """Return the frames [B, n / 320 rounded up, 128] of wav [B, n] at 24 kHz."""
        # One clip at a time on a CPU, like the codec: faster, and independent of the batch.
        pieces = wav.split(1) if self.device.type == "cpu" else (wav,)
        return torch.cat([self.encoder(piece[:, None]) for piece in pieces]).transpose(1, 2), None
