"""Neural codecs: wav [B, n] ⇒ codes [B, 8, T] ⇒ latents [B, 128, T] and back, in EnCodec's geometry."""

from typing import Protocol, Self

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

    def to(self, device: torch.device) -> Self:
        """Move it to where it shall compute, and where latents and waves come out; return itself."""
        ...

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


def load(name_or_path: str, device: torch.device | None = None) -> Codec:
    """Load a codec by name (`ajbench ls models`) or a tiny codec from a safetensors file.

    Codes differ in a few places between kinds of devices, so a store is best made on one.

    Args:
        name_or_path: of the codec, or of the file.
        device: where it computes; None is the CPU.

    Raises:
        UsageError: unknown name.
        MissingError: its weights are not on this machine; another codec is never taken instead.
    """
    from ajbench.core.registry import resolve

    if name_or_path.endswith(".safetensors"):
        from ajbench.codec import tiny

        codec: Codec = tiny.load(name_or_path)
    else:
        codec = resolve("codec", name_or_path)()
    return codec if device is None else codec.to(device)
