"""The encoder of the codec `tiny`, in its first version, as an extractor: no download, no classes."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from ajbench.codec import pieces, tiny
from ajbench.data.audio import HOP
from ajbench.features.extractor import Extractor


class Tiny(Extractor):
    """Frames of the codec's encoder before its quantiser: 128-d, 50 per second, no classes.

    The first version remains, so that distances are comparable across versions of the codec. They are not
    comparable with published ones.
    """

    def __init__(self, name: str, path: Path | str | None = None, device: torch.device | None = None) -> None:
        super().__init__(name, path, device)
        self.network = tiny.load(self.weights).to(self.device).network

    def compute(self, wav: Tensor) -> tuple[Tensor, None]:
        """Return the frames [B, n / 320 rounded up, 128] of wav [B, n]; zeros complete the last frame."""
        whole = functional.pad(wav, (0, -wav.shape[1] % HOP))
        return torch.cat([self.network.embed(piece) for piece in pieces(whole)]).transpose(1, 2), None
