"""EnCodec's encoder as features: what frechet-audio-distance calls FAD over `encodec`."""

import warnings
from pathlib import Path

import numpy as np
import torch
from encodec import EncodecModel

from ajbench.codec import encodec_weights
from ajbench.core.device import Array, device_of


class Encodec:
    """EnCodec's 24 kHz encoder before its quantiser: 128-d frames, 75 a second, no classes.

    Args:
        path: its checkpoint or a folder as transformers saves it; None is the usual place, that of the codec.
        device: where it computes; None is that of this process.

    Raises:
        MissingError: the weights are not there.
        IntegrityError: they are damaged, another network's, or not the published ones.
    """

    name = "encodec"
    sample_rate = 24_000
    labels: tuple[str, ...] = ()
    mids = None
    min_samples, max_samples = 6_000, None  # a quarter of a second
    frames = True

    def __init__(self, path: Path | str | None = None, device: torch.device | None = None) -> None:
        self.device = device or device_of()
        with warnings.catch_warnings():  # the package builds on torch's older weight norm, which warns
            warnings.simplefilter("ignore", FutureWarning)
            model = EncodecModel.encodec_model_24khz(pretrained=False)
        encodec_weights.fill(model, Path(path) if path is not None else None)
        self.encoder = model.encoder.eval().requires_grad_(False).to(self.device)

    def __call__(self, wav: Array) -> tuple[np.ndarray, np.ndarray]:
        """Return (features [B, n / 320 rounded up, 128], logits [B, 0]) of wav [B, n] at 24 kHz."""
        return self.features(wav), self.logits(wav)

    @torch.inference_mode()
    def features(self, wav: Array) -> np.ndarray:
        """Return the frames [B, k, 128] of wav [B, n]."""
        x = torch.as_tensor(wav, dtype=torch.float32, device=self.device)
        # One clip at a time on a CPU, as the codec does, and for its reasons.
        pieces = x.split(1) if self.device.type == "cpu" else (x,)
        found: np.ndarray = torch.cat([self.encoder(piece[:, None]) for piece in pieces]).cpu().numpy()
        return np.ascontiguousarray(found.transpose(0, 2, 1))

    def logits(self, wav: Array) -> np.ndarray:
        """Return nothing, [B, 0]: it knows no classes."""
        return np.zeros((len(wav), 0), np.float32)
