"""Neural codecs: wav [B, n] ⇒ codes [B, 8, T] ⇒ latents [B, 128, T] and back, in EnCodec's geometry."""

from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray


class Codec(Protocol):
    """Interface of the codecs; waves are mono at 16 kHz, latents are post-quantisation."""

    name: str
    weights_hash: str
    sample_rate: int
    hop: int
    n_codebooks: int
    dim: int

    def to(self, device: torch.device) -> Self:
        """Move the codec, and with it latents and decoded waves, to a device; return it."""
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

    A few codes differ between kinds of devices, so a store should be made on one kind.

    Args:
        name_or_path: name of the codec, or path of the file.
        device: None: the CPU.

    Raises:
        UsageError: unknown name.
        MissingError: its weights are not on this machine; no other codec is used instead.
    """
    from ajbench.core.registry import resolve

    if name_or_path.endswith(".safetensors"):
        from ajbench.codec import tiny

        codec: Codec = tiny.load(name_or_path)
    else:
        codec = resolve("codec", name_or_path)()
    return codec if device is None else codec.to(device)
