"""Neural codecs: wav [B, n] ⇒ codes [B, 8, T] ⇒ latents [B, 128, T] and back, in EnCodec's geometry."""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray


class Codec(Protocol):
    """What every codec offers; waves are mono at 16 kHz, latents are post-quantisation."""

    name: str
    weights_hash: str
    sample_rate: int
    hop: int
    n_codebooks: int
    dim: int

    def encode(self, wav: torch.Tensor | NDArray[np.float32]) -> NDArray[np.uint16]:
        """Waves [B, n] → codes uint16 [B, 8, T]."""
        ...

    def latents(self, codes: torch.Tensor | NDArray[np.integer]) -> torch.Tensor:
        """Codes [B, 8, T] → latents float32 [B, 128, T]."""
        ...

    def decode_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents [B, 128, T] → waves float32 [B, n]."""
        ...

    def decode(self, codes: torch.Tensor | NDArray[np.integer]) -> torch.Tensor:
        """Codes [B, 8, T] → waves float32 [B, n]."""
        ...

    def quantize(self, latents: torch.Tensor) -> NDArray[np.uint16]:
        """Latents [B, 128, T] → codes uint16 [B, 8, T]."""
        ...


def load(name_or_path: str) -> Codec:
    """Load a codec by name (`ajbench ls models`) or a tiny codec from a safetensors file.

    Raises:
        UsageError: unknown name.
        MissingError: its weights are not on this machine; another codec is never taken instead.
    """
    from ajbench.registry import resolve

    if name_or_path.endswith(".safetensors"):
        from ajbench.codec import tiny

        return tiny.load(name_or_path)
    codec: Codec = resolve("codec", name_or_path)()
    return codec
